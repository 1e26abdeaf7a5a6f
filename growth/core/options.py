"""Every hyper-parameter, default and named choice of the project, once; no torch here.

A group of options is a frozen dataclass. `growth.core.cli.add_options` makes flags of its fields,
and `growth.core.cli.options_from` the dataclass of the parsed flags.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from growth.core.errors import InputError

MAX_LENGTH = 2048  # tokens of a conversation, prompt and answer together (paper section 4.1)
MAX_NEW_TOKENS = 1024  # of an answer (paper section 4.2)
LARGEST = 2**31  # what epochs and the other numbers of a study may be, as in run.json
MOST_LINES = 10**8  # of a setting; their places alone are 2 GB of memory
TOKENS_PER_BATCH = 2048  # of prompts, computed at once in inference

AUTO = "auto"  # selected by what the machine has
WEIGHT_PRECISIONS = ("fp32", "bf16", "fp16")
PRECISIONS = (AUTO, *WEIGHT_PRECISIONS)
CHECKPOINTING = (AUTO, "on", "off")
VARLEN, PER_SAMPLE = "varlen", "per_sample"
ATTN_IMPLEMENTATIONS = (VARLEN, PER_SAMPLE)
REPORT_TO = ("none", "tensorboard", "wandb")
BATCHED, CONTINUOUS, VLLM = "batched", "continuous", "vllm"
BACKENDS = (BATCHED, CONTINUOUS, VLLM)
LETTER_TOKENS = ("answer", "bare")
CHAT_TEMPLATES = ("control", "native")
GGUF_TYPES = ("f32", "f16")
NEAR_MEAN, AS_TEXT = "mean", "text"  # what the rows of added control tokens begin as
CONTROL_ROWS = (NEAR_MEAN, AS_TEXT)
CHOSEN, ALL = KEEP_CHECKPOINTS = ("chosen", "all")
FORMATS = ("messages", "alpaca", "sharegpt", "completion")
MESSAGES, ALPACA, SHAREGPT, COMPLETION = FORMATS
DATA_FORMATS = (AUTO, *FORMATS)
REFUSE, FOLD = SYSTEM_MESSAGES = ("refuse", "fold")
NEAR, EXACT, NONE = SPLIT_BY = ("near", "exact", "none")
LOCAL, SNAKEMAKE, SLURM = EXECUTORS = ("local", "snakemake", "slurm")

LINEAR, WARMUP_DECAY = SCHEDULES = ("linear", "warmup_decay")

ALL_LINEAR = "all-linear"
LORA_DROPOUT = 0.05
LEARNING_RATE = 1e-5  # at the first step (paper section 4.1)
LORA_LEARNING_RATE = 1e-4  # full fine-tuning's is too small for matrices that start at zero
LEARNING_RATE_FALL = 10  # times, from the first step to the last (paper section 4.1)
_OF_STUDY = "the study's, {} in the published one"
MICRO_BATCH_TOKENS = {"cuda": 8192, "cpu": 1024}  # by device: more at once is no faster


def option(
    default: Any,
    help: str,  # as argparse calls it
    *,
    unit: str | None = None,
    unset: str | None = None,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    plain_name: bool = False,
    metavar: str | None = None,
    alias: str | None = None,
    bare: str | None = None,
    required: bool = False,
) -> Any:
    """A field of an options dataclass, with what its flag needs.

    Args:
        default: of the field, and of the flag unless `unset` is given.
        help: what the flag does.
        unit: of the value, such as tokens.
        unset: in words, what is used where the flag is not given; its value is None then.
        choices: the values that it may have.
        minimum: of a number, itself allowed; by default a number must be above 0.
        maximum: of a number, itself allowed.
        below: a bound on a number, itself not allowed; of whole numbers by default 2**63.
        plain_name: whether a text becomes the name of a folder.
        metavar: what stands for the value in the help.
        alias: an older name of the flag.
        bare: the value where the flag stands without one.
        required: whether the flag has to be given; the default is never seen then.
    """
    about = {"help": help, "unit": unit, "unset": unset, "choices": choices, "minimum": minimum}
    about |= {
        "maximum": maximum,
        "below": below,
        "plain_name": plain_name,
        "metavar": metavar,
        "alias": alias,
        "bare": bare,
        "required": required,
    }
    return field(default=default, metadata=about)


def _seed(what: str) -> Any:
    return option(0, what, minimum=0, below=2**32)  # what numpy takes


@dataclass(frozen=True)
class SeedOptions:
    """Of data that is drawn."""

    seed: int = _seed("of all that is drawn")


@dataclass(frozen=True)
class PretrainingOptions(SeedOptions):
    """How the pocket model is pretrained."""

    steps: int = option(1800, "optimizer steps")


def _wait_option() -> Any:
    """The field `wait` of a stage that locks what it writes to (`growth.core.locks`)."""
    return option(
        False,
        "where another process is at work in what this writes to: wait until it has ended (by "
        "default: say which one it is, and stop)",
    )


@dataclass(frozen=True)
class OutputOptions:
    """How a stage writes that has no other options."""

    wait: bool = _wait_option()


@dataclass(frozen=True)
class StudyOptions:
    """Which study everything is of: its abilities, rules, pools and settings."""

    study: Path | None = option(
        None,
        "the study file (docs/study.md)",
        unset="the one that the run's record names, else data/doit.toml, the published study",
        metavar="FILE",
    )


@dataclass(frozen=True)
class ModelOptions:
    """How --model_name_or_path may be loaded.

    `origin` is where the model's name was given, such as a flag, for error messages.
    """

    origin: str = "--model_name_or_path"

    base_model: str | None = option(
        None,
        "where the model is a LoRA adapter: its base model",
        unset="the folder that the adapter names",
    )
    trust_remote_code: bool = option(
        False,
        "run Python code that the model's folder brings along; it can do whatever you can",
    )


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters (arXiv 2106.09685): their product counts `alpha / rank`.

    An `alpha` of 0 becomes twice the rank.
    """

    rank: int = option(
        0,
        "train LoRA adapters of this rank, and the control tokens' rows, instead of all weights",
        unset="full fine-tuning",
        metavar="N",
    )
    alpha: float = option(0.0, "adapters count alpha / rank", unset="2 x rank")
    dropout: float = option(
        LORA_DROPOUT, "on the adapters' input", minimum=0, below=1, unset=f"{LORA_DROPOUT}"
    )
    target_modules: str | tuple[str, ...] = option(
        ALL_LINEAR,
        "linear layers to adapt, such as q_proj v_proj; not the embedding or output layer",
        unset="all but the output layer",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        if not self.alpha:
            object.__setattr__(self, "alpha", 2 * self.rank)  # as dataclasses set frozen fields
        if self.target_modules == (ALL_LINEAR,):  # the default, by its name
            object.__setattr__(self, "target_modules", ALL_LINEAR)


@dataclass(frozen=True)
class Hyperparameters:
    """The study's hyper-parameters (paper section 4.1), with nothing left open.

    `total_batch_size` counts samples per optimizer step over all processes: the study's variable of
    control. How many of them are computed at once is bounded by `tokens_per_micro_batch` and
    `batch_size` (samples; None for no bound), and changes no result.
    """

    epochs: int = option(
        15,
        "passes over the data",
        maximum=LARGEST,
        unset="the study's; in the published one 25, 20, 18 for 10, 40, 160 lines, else 15",
    )
    total_batch_size: int = option(
        64,
        "samples per optimizer step, over all processes",
        unit="samples",
        unset=_OF_STUDY.format(64),
    )
    batch_size: int | None = option(
        None,
        "computed at once in a process, at most",
        unit="samples",
        unset="bounded by --tokens_per_micro_batch only",
    )
    tokens_per_micro_batch: int = option(
        MICRO_BATCH_TOKENS["cpu"],
        "computed at once in a process, the bound on memory",
        unit="tokens",
        unset=f"what fits, at most {MICRO_BATCH_TOKENS['cuda']} on a GPU and "
        f"{MICRO_BATCH_TOKENS['cpu']} on a CPU, which gain nothing from more",
    )
    learning_rate: float = option(
        LEARNING_RATE,
        "at the first step",
        unset=f"{LEARNING_RATE:g}, for LoRA {LORA_LEARNING_RATE:g}",
    )
    end_learning_rate: float = option(
        LEARNING_RATE / LEARNING_RATE_FALL,
        "at the last step, reached linearly",
        unset=f"--learning_rate / {LEARNING_RATE_FALL}",
    )
    weight_decay: float = option(0.1, "of AdamW", minimum=0)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    max_length: int = option(
        MAX_LENGTH, "longer lines are truncated", unit="tokens", unset=_OF_STUDY.format(MAX_LENGTH)
    )
    seed: int = _seed("of the data order and of new weights")
    precision: str = option(AUTO, "of matrix products", choices=PRECISIONS)
    gradient_checkpointing: bool = False
    attn_implementation: str = option(
        VARLEN,
        "varlen: one kernel for all samples where the GPU has it; per_sample: SDPA for each",
        choices=ATTN_IMPLEMENTATIONS,
    )
    lora: LoraOptions | None = None
    as_published: bool = option(
        False,
        "train as the published run really did, not as it was meant: AdamW's beta2 0.999, weight "
        "decay on all parameters, its engine's learning rates, 15 epochs for any number of lines",
    )
    decay_all: bool = False  # weight decay on norms and biases too
    schedule: str = LINEAR  # one of SCHEDULES


# What --as_published makes of them (seen in the pinned libraries: transformers 4.30.2, deepspeed
# 0.9.5). The engine's configuration had no betas, and its scheduler falls to 0, which it never
# reaches.
AS_PUBLISHED: Mapping[str, Any] = {
    "adam_beta2": 0.999,
    "decay_all": True,
    "schedule": WARMUP_DECAY,
    "end_learning_rate": 0.0,
}


def published_precision(as_published: bool, precision: str) -> str:
    """The precision of prediction and benchmarks, fp32 as the published run loaded its models.

    Raises:
        InputError: another one is asked for besides.
    """
    if not as_published:
        return precision
    if precision not in (AUTO, "fp32"):
        raise InputError(
            f"--precision {precision}: --as_published computes in fp32, as the published run did; "
            "leave one of the two out"
        )
    return "fp32"


def published_letters(as_published: bool, letter_tokens: str | None) -> str:
    """What letters of the benchmarks are read as: bare pieces, as the published runner has it.

    Raises:
        InputError: another reading is asked for besides.
    """
    answer, bare = LETTER_TOKENS
    if as_published and letter_tokens not in (None, bare):
        raise InputError(
            f"--letter_tokens {letter_tokens}: --as_published reads bare pieces, as the published "
            "run did; leave one of the two out"
        )
    return letter_tokens or (bare if as_published else answer)


@dataclass(frozen=True)
class EngineOptions:
    """How a run is carried out; none of it changes what is learnt."""

    gradient_checkpointing: str = option(
        AUTO,
        "less memory for a third more time; auto: where it doesn't fit otherwise",
        choices=CHECKPOINTING,
        bare="on",
    )
    gradient_accumulation: int | None = option(
        None,
        "micro-batches per step, as in the published command",
        unset="follows from --total_batch_size",
    )
    fsdp_config: Path | None = option(
        None,
        "split the model over the processes, such as train/configs/fsdp2.json",
        unset="each process holds the whole model",
        metavar="FILE",
    )
    deepspeed: Path | None = option(
        None,
        "train with DeepSpeed, such as train/configs/zero3.json (pip install deepspeed)",
        unset="without DeepSpeed",
        metavar="FILE",
    )
    report_to: str = option(
        "none", "where curves go besides metrics.jsonl (pip install it)", choices=REPORT_TO
    )
    save_total_limit: int | None = option(
        None, "keep the newest N checkpoints; selection is among those", unset="all", metavar="N"
    )
    wait: bool = _wait_option()


@dataclass(frozen=True)
class DecodingOptions:
    """How to predict (paper section 4.2)."""

    max_length: int = option(
        MAX_LENGTH,
        "of prompt and answer together",
        unit="tokens",
        unset=_OF_STUDY.format(MAX_LENGTH),
    )
    max_new_tokens: int = option(
        MAX_NEW_TOKENS,
        "of an answer, at most",
        unit="tokens",
        unset=_OF_STUDY.format(MAX_NEW_TOKENS),
    )
    full_responses: bool = option(
        False,
        "let answers end by themselves even where the score reads only a letter; by default those "
        "stop once they can't be a single letter any more",
    )
    backend: str = option(
        BATCHED,
        "what generates answers: our batches; transformers' continuous batching, for GPUs and "
        "long answers; or vLLM, if it is installed",
        choices=BACKENDS,
        alias="engine",
    )
    batch_size: int = option(64, "generated at once, at most", unit="answers")
    tokens_per_batch: int = option(
        TOKENS_PER_BATCH, "of prompts and choices, computed at once", unit="tokens"
    )
    cache_tokens: int | None = option(
        None,
        "of prompts and answers whose keys and values are held at once",
        unit="tokens",
        unset="as many as the device's memory has room for",
    )

    def identity(self) -> dict[str, int | bool | str]:
        """What a prediction depends on; how much is computed at once changes none."""
        named = asdict(self)
        for name in ("batch_size", "tokens_per_batch", "cache_tokens"):
            del named[name]
        named["engine"] = named.pop("backend")  # as records of predictions have always called it
        return named


@dataclass(frozen=True)
class PromptOptions:
    """How a public benchmark is prompted and its letters are read."""

    letter_tokens: str | None = option(
        None,
        "read a letter as the token that an answer begins with, which is what training teaches, or "
        "as the bare piece, which is what the published runner reads",
        choices=LETTER_TOKENS,
        unset="answer, or bare with --as_published",
    )
    chat_template: str = option(
        "control",
        "prompt in the study's control tokens, or in the tokenizer's own chat template",
        choices=CHAT_TEMPLATES,
    )
    max_length: int = option(
        MAX_LENGTH, "of a prompt; longer ones lose shots, as published", unit="tokens"
    )


@dataclass(frozen=True)
class PredictionOptions:
    """What to predict with, on what, where to."""

    model_name_or_path: tuple[str, ...] = option(
        (), "checkpoints, runs, or other models (folder, hub id or .gguf)", required=True
    )
    eval_data_path: Path = option(Path(), "folder of the *.json lines to predict", required=True)
    split: str | None = option(
        None, "such as valid", unset="the name of that folder", plain_name=True
    )
    pred_data_path: Path = option(Path("evaluate/pred-data"), "where predictions are written")
    model_size: str | None = option(
        None,
        "of a model that is not one of our runs, such as 7b",
        unset="the run's",
        plain_name=True,
    )
    tag: str | None = option(
        None,
        "a name for a model that is not one of our runs",
        unset="the run's timestamp",
        plain_name=True,
    )
    limit: int | None = option(
        None, "only the first N lines per file; marks the output's name", unset="all", metavar="N"
    )
    precision: str = option(AUTO, "of the model", choices=PRECISIONS)
    as_published: bool = option(False, "as the published run predicted: in fp32")
    wait: bool = _wait_option()


@dataclass(frozen=True)
class RetentionOptions:
    """Which checkpoints of a run stay once one of them is selected."""

    keep_checkpoints: str = option(
        ALL,
        "chosen: once the selected checkpoint is predicted on test, remove the others, whose "
        "predictions suffice to score them again; never with --limit, which selects no result",
        choices=KEEP_CHECKPOINTS,
    )


@dataclass(frozen=True)
class BenchmarkOptions:
    """Which models a public benchmark is run on, on what data, where to."""

    model_name_or_path: tuple[str, ...] = option(
        (),
        "checkpoints, runs (all checkpoints that selection considers), or other models (folder, "
        "hub id or .gguf)",
        required=True,
    )
    tag: tuple[str, ...] | None = option(
        None,
        "a name for each model's outputs",
        unset="the run's own, or the model's folder's",
        plain_name=True,
    )
    data_dir: Path | None = option(
        None, "as data/download.py makes it", unset="evaluate/<benchmark>/data"
    )
    output_dir: Path | None = option(
        None,
        "of the one model; with several models each has a folder TAG in it",
        unset="evaluate/<benchmark>/outputs/TAG",
    )
    tokens_per_batch: int = option(TOKENS_PER_BATCH, "computed at once", unit="tokens")
    precision: str = option(AUTO, "of the model", choices=PRECISIONS)
    as_published: bool = option(
        False, "as the published run asked: in fp32, letters read as bare pieces"
    )
    limit: int | None = option(
        None,
        "only the first N questions per subject; marks the outputs' names",
        unset="all",
        metavar="N",
    )
    dump_prompts: Path | None = option(
        None,
        "write the exact prompts to this file, a line each, and end; no weights are loaded",
        unset="run the benchmark",
        metavar="FILE",
    )
    wait: bool = _wait_option()


@dataclass(frozen=True)
class SweepOptions:
    """Which runs a sweep makes, of which models, settings and seeds, and what carries them out."""

    model_size: str | None = option(
        None,
        "of --model_name_or_path, such as 7b; it names the runs",
        unset="as in --models",
        plain_name=True,
    )
    model_name_or_path: str | None = option(
        None, "the model: a folder, a hub id or a .gguf", unset="those of --models"
    )
    models: tuple[str, ...] = option(
        (), "several models, such as 7b=FOLDER 13b=FOLDER", unset="one", metavar="SIZE=MODEL"
    )
    data_types: tuple[str, ...] = option(
        (),
        "settings, or patterns such as 'curated-*'; between spaces or commas",
        unset="those of all series of the study",
        metavar="SETTING",
    )
    recipes: tuple[str, ...] = option(
        (),
        "files of a recipe each, or folders of them, run like settings (docs/study.md)",
        unset="none; with them, --data_types has no default",
        metavar="PATH",
    )
    seeds: str | None = option(
        None,
        "of the sampling and of the training order, such as 0,1,2: each is a run of each setting",
        unset="0",
        alias="seed",
    )
    benchmarks: str | None = option(
        None, "to run on each chosen checkpoint: cmmlu, agieval or cmmlu,agieval", unset="none"
    )
    cmmlu_dir: Path = option(Path("evaluate/cmmlu/data"), "CMMLU, as data/download.py makes it")
    agieval_dir: Path = option(Path("evaluate/agieval/data"), "AGIEval, likewise")
    benchmark_limit: int | None = option(
        None,
        "only the first N questions per subject; marks the outputs' names",
        unset="all",
        metavar="N",
    )
    data_dir: Path = option(Path("data"), "holds the study's pools, valid and test lines")
    build_dir: Path = option(
        Path("data/builds"), "settings are built in seed-<seed>-<sum of --data_dir's path>/ there"
    )
    run_name: str | None = option(
        None,
        "name of each run's folder; several seeds add -seed-<seed>, but for seed 0",
        unset="sweep",
        plain_name=True,
    )
    train_flags: str = option(
        "",
        "further flags of train/finetune.py, such as '--epochs 3'",
        unset="none",
        metavar="'FLAGS'",
    )
    predict_flags: str = option(
        "", "further flags of evaluate/run.py", unset="none", metavar="'FLAGS'"
    )
    keep_checkpoints: str = option(
        CHOSEN,
        "of each run, once its choice is made and predicted on test",
        choices=KEEP_CHECKPOINTS,
    )
    executor: str = option(
        LOCAL,
        "local: on this machine; snakemake: the same by Snakemake; slurm: each run is a job of "
        "SLURM, by Snakemake",
        choices=EXECUTORS,
    )
    jobs: int | None = option(
        None, "runs at the same time", unset="one; with --gpus as many as they have room for"
    )
    gpus: str | None = option(
        None,
        "of this machine, such as 0,1,2,3: each run gets --num_processes of them for itself",
        unset="all runs see all GPUs",
    )
    num_processes: int = option(1, "processes of a run, one per GPU")
    profile: Path | None = option(
        None,
        "YAML of Snakemake's options, with the resources of a job of SLURM",
        unset="scripts/slurm.yaml",
        metavar="FILE",
    )
    dry_run: bool = option(False, "print the plan and end")
    wait: bool = _wait_option()


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token of a chat is drawn; greedily without a temperature."""

    temperature: float | None = option(
        None, "sample at this temperature; 1 is the model's own distribution", unset="greedy"
    )
    top_p: float | None = option(
        None,
        "sample among the likeliest tokens that together have this probability",
        unset="1",
        maximum=1,
    )
    top_k: int | None = option(None, "sample among this many likeliest tokens", unset="all")
    max_new_tokens: int = option(MAX_NEW_TOKENS, "of an answer, at most", unit="tokens")
    seed: int = _seed("of the sampling")


@dataclass(frozen=True)
class ResultsOptions:
    """Which results are read; `growth.runs.layout.results_folders` says where."""

    results_path: Path | None = option(
        None, "folder of *-results.json files, at any depth", unset="evaluate/results/test"
    )
    selection_path: Path | None = option(
        None,
        "folder of the choices of select_checkpoint.py",
        unset="valid next to --results_path",
    )


@dataclass(frozen=True)
class ReportInputs:
    """What a report tells of besides results."""

    runs_dir: Path = option(Path("runs"), "folder of the training runs")
    benchmarks_dir: Path = option(
        Path("evaluate"), "folder with <benchmark>/outputs, as evaluate/cmmlu/run.sh makes it"
    )


@dataclass(frozen=True)
class LawOptions(ResultsOptions, SeedOptions):
    """Which growth curves get a law, and what is predicted (docs/laws.md)."""

    points: Path | None = option(
        None,
        "a CSV file instead, with the columns curve, samples, value (a loss, or per cent of n "
        "questions), and n and repeat if there are any",
        unset="the results",
        metavar="FILE",
    )
    sizes: tuple[str, ...] = option(
        (),
        "to predict as well as 4 and 16 times each curve's largest size",
        unit="samples",
        unset="none",
        metavar="N",
    )
    hold_out: int | None = option(
        None,
        "leave out the largest sizes of each curve and print how well they are predicted",
        unit="sizes",
        unset="none, so the laws are written",
    )
    design: bool = option(
        False, "fit the law in amounts to runs on several mixtures: which data helps which ability"
    )
    output_dir: Path = option(Path("evaluate/growth"), "where the tables are written")


@dataclass(frozen=True)
class PoolOptions(SeedOptions):
    """Where the lines of recipes come from."""

    data_dir: Path = option(Path("data"), "folder that the study's pools are in")
    pool: str | None = option(
        None, "of the study, that lines are taken from", unset="that of its first series"
    )
    repeats: int = option(1, "how often a line may be in a recipe", below=LARGEST)


@dataclass(frozen=True)
class DesignOptions(PoolOptions):
    """Which recipes a design has (docs/plan.md)."""

    total: int = option(0, "of each recipe", unit="lines", required=True, maximum=MOST_LINES)
    runs: int = option(20, "recipes", below=1000)
    target: int | None = option(
        None, "of the runs that they stand for", unit="lines", unset="--total", below=LARGEST
    )
    name: str = option("design", "that the recipes' names begin with", plain_name=True)
    output_dir: Path = option(Path("data/design"), "where a file a recipe is written")


@dataclass(frozen=True)
class MixtureOptions(ResultsOptions):
    """Which measurements the law in amounts is fitted to (docs/plan.md)."""

    mixtures: Path | None = option(
        None,
        "a CSV file instead, with the columns run, ability, value (a loss, or per cent of n "
        "questions), n if scores, and one with the lines of each ability",
        unset="the results",
        metavar="FILE",
    )
    model_size: str | None = option(None, "of the runs", unset="the only one there is")
    value: str | None = option(
        None,
        "what is fitted: scores, or losses of the gold answers",
        unset="loss of a design, if there are any, and score of a plan",
        choices=("score", "loss"),
    )


@dataclass(frozen=True)
class PlanOptions(PoolOptions):
    """What a plan may spend, and what for."""

    budget: int = option(0, "lines, or the sum of their costs", required=True, below=LARGEST)
    at_most: tuple[str, ...] = option(
        (),
        "bounds on lines, such as biology=1041",
        unset="what --data_dir holds, --repeats times",
        metavar="NAME=LINES",
    )
    cost: tuple[str, ...] = option(
        (), "of a line, such as math=3", unset="1 each", metavar="NAME=COST"
    )
    objective: str = option(
        "mean",
        "what is to be high: the mean, the worst ability, or weights in a CSV file with the "
        "columns ability and weight",
        metavar="mean|worst|FILE",
    )
    have: str | None = option(
        None, "a setting or a recipe (*.toml) whose lines are there already", unset="none"
    )
    name: str | None = option(None, "of the recipe", unset="plan-<its lines>", plain_name=True)
    output_dir: Path = option(Path("evaluate/plan"), "where plan.toml and plan.csv are written")


@dataclass(frozen=True)
class FigureOptions:
    """As what figures are written."""

    format: str = option(
        "png", "of figures: png, svg or pdf, several between commas", metavar="FORMAT[,FORMAT]"
    )


@dataclass(frozen=True)
class CompareOptions(ResultsOptions, SeedOptions):
    """Where two sides of a comparison are looked up, and where it is written."""

    output_dir: Path | None = option(
        None,
        "where compare.csv, compare.json and the figure are written",
        unset="evaluate/compare/<A>-vs-<B>",
    )
    value: str = option(
        "score",
        "what is compared: the score, or the probability of the gold answer, which has less noise",
        choices=("score", "gold_probability"),
    )


@dataclass(frozen=True)
class ReadingOptions:
    """How files of instruction data are read."""

    format: str = option(
        AUTO, "of the lines; auto: recognised by their fields, a file each", choices=DATA_FORMATS
    )
    columns: tuple[str, ...] = option(
        (),
        "what fields are called, such as instruction=question output=answer",
        unset="as in the format",
        metavar="NAME=COLUMN",
    )
    system: str = option(
        REFUSE,
        "lines with a system message are refused, or it is put in front of the first user turn",
        choices=SYSTEM_MESSAGES,
    )


@dataclass(frozen=True)
class ImportOptions:
    """Which files of instruction data become train, valid and test, and how they are split."""

    input: tuple[str, ...] = option(
        (), "files (.jsonl, .json, .parquet) or folders of them", required=True, metavar="PATH"
    )
    output_dir: Path = option(Path(), "where train/, valid/ and test/ are written", required=True)
    type: str | None = option(
        None, "the ability of all lines", unset="a line's own, else its file's name"
    )
    type_field: str | None = option(
        None, "the field that names a line's ability", unset="`type` of `messages` lines"
    )
    valid: float = option(
        0.05, "a share of each ability's lines, or their number if at least 1", minimum=0
    )
    test: float = option(0.05, "the same for test", minimum=0)
    split_by: str = option(
        NEAR,
        "what stays on one side: lines with near-duplicate questions, with the same question but "
        "for case, width, spaces and punctuation, or only each line itself",
        choices=SPLIT_BY,
    )
    similarity: float = option(
        0.8, "near-duplicates share this part of their runs of 4 characters", below=1
    )
    seed: int = _seed("of the split")
    strict: bool = option(False, "end at the first line that can't be used")
    replace: bool = option(False, "replace an import of other files in --output_dir")
