"""A training run from its first check to its last checkpoint; or only its tokenised examples."""

import itertools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from growth.core.device import Compute, choose_compute, out_of_memory_explained, peak_memory
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import check_writable, write_json_lines
from growth.core.locks import locked_for_launch
from growth.core.options import (
    AS_PUBLISHED,
    LEARNING_RATE,
    LEARNING_RATE_FALL,
    LORA_LEARNING_RATE,
    EngineOptions,
    Hyperparameters,
    LoraOptions,
    ModelOptions,
)
from growth.data.lines import Record
from growth.data.records import line_abilities
from growth.data.settings import check_build
from growth.data.study import Study
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import bounded_length, load_model, load_tokenizer
from growth.model.lora import AdaptedModel, add_lora
from growth.model.source import Source, find_model
from growth.packing.batches import (
    Example,
    cut_answers,
    supervised_counts,
    token_lengths,
    tokenised_files,
)
from growth.runs.checkpoints import (
    DEEPSPEED,
    FSDP,
    PLAIN,
    TRAINER_STATE,
    ResumeNeeds,
    checkpoint_step,
    checkpoints,
    remove_leftovers,
    resumable_checkpoint,
    weight_problems,
)
from growth.runs.layout import METRICS, now, read_run, write_run
from growth.runs.record import (
    RESUMED_OTHERWISE,
    Run,
    check_owned,
    check_same_setting,
    computed_otherwise,
    data_record,
    forget_metrics_after,
    missing_steps,
    new_record,
    setting_name,
)
from growth.runs.retention import check_kept
from growth.training.memory import plan_memory
from growth.training.sampler import StepSampler
from growth.training.trainer import InstructionTrainer

logger = logging.getLogger(__name__)
_MEMORY_REMEDY = (
    "lower --tokens_per_micro_batch or --max_length, give --gradient_checkpointing on, train "
    "adapters (--lora_rank), or split the model over GPUs (--fsdp_config, --deepspeed). Finished "
    "checkpoints are kept: --resume resumes"
)


@dataclass(frozen=True)
class TrainingRun:
    """What is to be trained.

    Attributes:
        model_name_or_path: the foundation model, loaded as `model` says.
        train_dir: of the lines to train on; `valid_dir`: of those to measure the loss on.
        files: the lines of both by file name, under "train" and "valid".
        output_dir: gets run.json, metrics.jsonl and the checkpoints.
        data_type: the setting, for the record; None for the name of `train_dir`.
        model_size: for the record and the curves; None to count.
        resume: whether to resume a run that `output_dir` holds.
        given: hyper-parameters by name; those that are not given are chosen.
        study: whose setting it is; says the epochs, if they are not given.
        lora: None for full fine-tuning.
        engine: how the run is carried out.
    """

    model_name_or_path: str
    model: ModelOptions
    train_dir: Path
    valid_dir: Path
    files: Mapping[str, Mapping[str, Sequence[Record]]]
    output_dir: Path
    data_type: str | None
    model_size: str | None
    resume: bool
    given: Mapping[str, Any]
    study: Study
    lora: LoraOptions | None
    engine: EngineOptions

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Those given, the others at their defaults."""
        return Hyperparameters(**self.given)


def dump_examples(
    model_name_or_path: str,
    model: ModelOptions,
    train_dir: Path,
    files: Mapping[str, Sequence[Record]],
    max_length: int,
    output: Path,
) -> int:
    """Write messages, input_ids and labels of each training line; no weights are needed.

    How many lines lose part or all of their answer is logged, as for training.

    Args:
        model_name_or_path: whose tokenizer it is, loaded as `model` says.
        train_dir: of the lines; `files`: its lines by file name.
        max_length: tokens of an example.
        output: the file to write.

    Returns:
        The number of lines.

    Raises:
        InputError: the tokenizer can't be read.
    """
    _log_to_stderr()
    source = find_model(model_name_or_path, model)
    chat = load_tokenizer(source)
    max_length = bounded_length(source, max_length)
    examples = tokenised_files(files, chat, max_length)
    records = itertools.chain.from_iterable(files.values())
    write_json_lines(output, map(_dumped, records, examples))
    _report_cut(train_dir, files, examples, max_length)
    return len(examples)


def _dumped(record: Record, example: Example) -> dict[str, Any]:
    tokens = {name: example[name].tolist() for name in ("input_ids", "labels")}
    return {"messages": record["messages"]} | tokens


def train(job: TrainingRun) -> None:
    """Check everything, write run.json, train, and record the end in run.json.

    Raises:
        InputError: the model or the folder can't be used, or no step would have anything to learn
            from; `output_dir` is as it was then. Or memory runs out, or loss or gradients become
            infinite; finished checkpoints are kept.
    """
    check_writable(job.output_dir, "--output_dir")
    with (
        out_of_memory_explained(_MEMORY_REMEDY),
        locked_for_launch(job.output_dir, "--output_dir", job.engine.wait, make=True),
    ):
        check_owned(job.output_dir)
        _train_locked(job)


def _train_locked(job: TrainingRun) -> None:
    """`train`, once no other launch works in the folder of the run."""
    asked = job.hyperparameters
    folders = {"train": job.train_dir, "valid": job.valid_dir}
    files = job.files
    _log_to_stderr()
    source = find_model(job.model_name_or_path, job.model)
    chat = load_tokenizer(source)
    _check_labels(job.study, chat)
    max_length = bounded_length(source, asked.max_length)
    examples = {part: tokenised_files(files[part], chat, max_length) for part in files}
    data = {part: data_record(folders[part], files[part], examples[part]) for part in files}
    data["train"]["build"] = _check_build(job, data["train"]["files"])
    for part, folder in folders.items():
        _report_cut(folder, files[part], examples[part], max_length)
    compute = _choose_compute(job)
    set_seed(asked.seed)
    model = _load_for_training(job, source, chat, compute)
    transformers_logging.disable_progress_bar()  # from here on there is our own
    earlier = read_run(job.output_dir)
    hyperparameters = _resolved(job, earlier, model, compute, examples, max_length)
    run = new_record(
        job.output_dir,
        source,
        model.num_parameters(),
        data,
        hyperparameters,
        model_size=job.model_size,
        data_type=job.data_type,
        device=compute.describe(),
        study=job.study,
    )
    _check_steps(examples["train"], hyperparameters)
    last, finished = _open_run(job, earlier, run, compute)
    if finished:
        return
    trainer = InstructionTrainer(
        model,
        chat,
        examples["train"],
        examples["valid"],
        hyperparameters,
        compute,
        job.output_dir,
        line_abilities(files["valid"], job.study),
        **_trainer_options(job),
    )
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        trainer.progress_bar.close()
    if distributed_state().is_main_process:
        peak = peak_memory(compute.device)
        write_run(job.output_dir, run | {"ended": now(), "peak_memory_bytes": peak})
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


def _check_build(job: TrainingRun, files: Mapping[str, Any]) -> Any:
    """What the lines to train on were built as, checked against what the run is recorded as."""
    setting = job.data_type or setting_name(job.train_dir)
    return check_build(job.train_dir, files, job.study, setting, job.hyperparameters.seed)


def _log_to_stderr() -> None:
    transformers_logging.set_verbosity_error()
    level = logging.INFO if distributed_state().is_main_process else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    logging.getLogger("accelerate").setLevel(logging.WARNING)


def _report_cut(
    folder: Path,
    files: Mapping[str, Sequence[Record]],
    examples: Sequence[Example],
    max_length: int,
) -> None:
    """Say how many lines of each file of a folder lose part or all of their answer."""
    start = 0
    for name, records in files.items():
        cut, lost = cut_answers(examples[start : start + len(records)])
        start += len(records)
        if cut or lost:
            logger.warning(
                "%s: of %s lines, %s lose the end of their answer and %s all of it beyond %s "
                "tokens (--max_length, or the model's own bound)",
                *(folder / name, f"{len(records):,}"),
                *(f"{cut:,}", f"{lost:,}", f"{max_length:,}"),
            )


def _check_labels(study: Study, chat: ChatTokenizer) -> None:
    """Refuse a study of one's own whose answers prediction could not read, before it is paid for.

    Raises:
        InputError: the tokenizer can't tell the options of an ability apart.
    """
    for ability in () if study.is_published else study.abilities:
        if not ability.is_choice:
            chat.labels(ability.options)


def _check_steps(examples: Sequence[Example], hyperparameters: Hyperparameters) -> None:
    """Refuse a run with an optimizer step that has nothing to learn from.

    Raises:
        InputError: truncation left none of a step's samples any of their answer.
    """
    lost = {place for place, left in enumerate(supervised_counts(examples)) if not left}
    if not lost:
        return
    h = hyperparameters
    sampler = StepSampler([1] * len(examples), h.total_batch_size, h.seed, 0, 1)
    found = sampler.first_step_within(lost, h.epochs)
    if found is not None:
        raise InputError(
            f"--max_length {h.max_length}: {len(lost):,} of {len(examples):,} lines of --train_dir "
            f"lose all of their answer, and step {found[1]} of epoch {found[0]} would hold no "
            "others, so nothing to learn from; raise --max_length, remove these lines, or raise "
            "--total_batch_size"
        )


def _choose_compute(job: TrainingRun) -> Compute:
    for name, flag in (("FSDP", "--fsdp_config"), ("DEEPSPEED", "--deepspeed")):
        variable = f"ACCELERATE_USE_{name}"  # set by accelerate launch, heeded by the Trainer
        given = job.engine.fsdp_config if name == "FSDP" else job.engine.deepspeed
        if os.environ.get(variable, "").lower() in ("1", "true") and given is None:
            raise InputError(
                f"{variable}={os.environ[variable]}: the launcher asks for an engine that run.json "
                f"would not name; launch without it, and give {flag}"
            )
    compute = choose_compute(job.hyperparameters.precision)
    logger.info(compute.describe())
    if job.engine.deepspeed and compute.device.type == "cpu":
        # accelerate would silently leave it out.
        raise InputError(
            f"--deepspeed {job.engine.deepspeed}: needs GPUs; on CPUs take --fsdp_config"
        )
    return compute


def _load_for_training(
    job: TrainingRun, source: Source, chat: ChatTokenizer, compute: Compute
) -> AdaptedModel:
    """The model with fp32 weights to train; for LoRA frozen in the precision of computing."""
    if job.lora is None:
        return load_model(source, torch.float32, chat)
    model = load_model(source, compute.dtype, chat)
    return add_lora(model, job.lora, chat, job.model_name_or_path)


def _resolved(
    job: TrainingRun,
    earlier: Run | None,
    model: AdaptedModel,
    compute: Compute,
    examples: Mapping[str, Sequence[Example]],
    max_length: int,
) -> Hyperparameters:
    """The hyper-parameters with those not given chosen, partly as in the `earlier` run."""
    asked, engine = job.hyperparameters, job.engine
    world_size = distributed_state().world_size
    total = asked.total_batch_size
    if engine.gradient_accumulation:
        per_process = (asked.batch_size or total) * engine.gradient_accumulation
        if per_process * world_size != total:
            logger.info(
                "--batch_size x --gradient_accumulation x processes is %s samples per step; the "
                "study's %s are taken (--total_batch_size changes that)",
                *(per_process * world_size, total),
            )
    # Another micro-batch would round other sums, and resuming is exact.
    before = earlier["hyperparameters"] if earlier else {}
    tokens = job.given.get("tokens_per_micro_batch") or before.get("tokens_per_micro_batch")
    plan = plan_memory(
        model,
        compute,
        max(max(token_lengths(part)) for part in examples.values()),
        tokens_per_micro_batch=tokens,
        gradient_checkpointing=engine.gradient_checkpointing,
        shards=world_size if engine.fsdp_config or engine.deepspeed else 1,
    )
    logger.info(plan.describe())
    rate = LORA_LEARNING_RATE if job.lora else LEARNING_RATE
    rate = job.given.get("learning_rate", rate)
    chosen = {
        "epochs": default_epochs(job.study, asked.as_published, len(examples["train"])),
        "end_learning_rate": rate / LEARNING_RATE_FALL,
        "batch_size": before.get("batch_size"),
    }
    fixed = {
        "learning_rate": rate,
        "max_length": max_length,
        "precision": compute.precision,
        "tokens_per_micro_batch": plan.tokens_per_micro_batch,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "lora": job.lora,
    }
    published = dict(AS_PUBLISHED) if asked.as_published else {}
    return Hyperparameters(**(chosen | dict(job.given) | fixed | published))


def default_epochs(study: Study, as_published: bool, lines: int) -> int:
    """The study's, of `lines` lines; the rule for few lines never fired in the published run."""
    return study.run.epochs if as_published else study.run.epochs_for(lines)


def _open_run(
    job: TrainingRun, earlier: Run | None, run: Run, compute: Compute
) -> tuple[str | None, bool]:
    """Begin the run, or resume `earlier`: its last complete checkpoint, and whether it is done.

    Every process reads the folder before the main process writes to it.
    """
    needs = _resume_needs(job, compute)
    last = checkpoints(job.output_dir)[-1:] if earlier else []
    PartialState(cpu=compute.device.type == "cpu").wait_for_everyone()
    if earlier:
        check_same_setting(earlier, run, job.output_dir, job.resume)
        run |= {"started": earlier["started"], "resumed": now()}
        if RESUMED_OTHERWISE in earlier:
            run[RESUMED_OTHERWISE] = earlier[RESUMED_OTHERWISE]
    logger.info(
        "%s samples per step, %s steps per epoch, %s epochs; %s of %s tokens supervised",
        *(run["hyperparameters"]["total_batch_size"], run["steps_per_epoch"]),
        run["hyperparameters"]["epochs"],
        *(f"{run['train'][name]:,}" for name in ("supervised_tokens", "tokens")),
    )
    if earlier and _is_finished(job.output_dir, earlier, run, last, needs.adapter):
        logger.info("%s is finished: all its %s steps", job.output_dir, run["steps"])
        if distributed_state().is_main_process:
            remove_leftovers(job.output_dir, run["steps"])
            if earlier.get("ended") is None:  # killed in between
                write_run(job.output_dir, earlier | {"ended": now()})
        return None, True
    checkpoint, step = None, 0
    if earlier:
        checkpoint, passed_over = resumable_checkpoint(job.output_dir, needs)
        step = checkpoint_step(checkpoint) if checkpoint else 0
        for problem in passed_over:
            logger.warning("--resume: passed over: %s", problem)
        if checkpoint:
            logger.info("resumes from %s", checkpoint)
        else:
            logger.info("no checkpoint is complete yet: the run begins anew")
        _report_otherwise(job, earlier, run, step)
    # Nobody writes before all have read.
    PartialState().wait_for_everyone()
    if distributed_state().is_main_process:
        write_run(job.output_dir, run)
        remove_leftovers(job.output_dir, step)
        forget_metrics_after(job.output_dir, step)
    return (str(checkpoint) if checkpoint else None), False


def _is_finished(
    run_dir: Path, earlier: Run, run: Run, last: Sequence[Path], adapter: bool
) -> bool:
    """Whether the checkpoint of the run's last step is there, or was removed on purpose.

    Raises:
        InputError: the newest checkpoint is of no step of the run, or one that was kept is lost.
    """
    step = checkpoint_step(last[0]) if last else 0
    if step > run["steps"]:
        raise InputError(
            f"{last[0]}: by its {TRAINER_STATE} it is of step {step}, and the run has "
            f"{run['steps']}; remove it, or put the file back"
        )
    if step == run["steps"] and not weight_problems(last[0], adapter):
        return True
    return check_kept(run_dir, earlier)


def _report_otherwise(job: TrainingRun, earlier: Run, run: Run, step: int) -> None:
    """Say, and record in `run`, what makes a run resumed at `step` another than an unbroken one."""
    if not step:
        return
    if changes := computed_otherwise(earlier, run):
        known, listed = run.get(RESUMED_OTHERWISE, []), changes.items()
        run[RESUMED_OTHERWISE] = [*known, {"time": now(), "step": step, "changes": changes}]
        logger.warning(
            "--resume: computed otherwise than before step %s, so that sums are rounded otherwise "
            "and the weights are not bit for bit those of an unbroken run (run.json records it): "
            "%s",
            *(step, "; ".join(f"{name} {old!r}, now {new!r}" for name, (old, new) in listed)),
        )
    if lost := missing_steps(job.output_dir, step):
        logger.warning(
            "--resume: %s lacks %s of the %s steps before the checkpoint, whose losses are not "
            "computed again; put the file back to have them",
            *(job.output_dir / METRICS, f"{lost:,}", f"{step:,}"),
        )


def _resume_needs(job: TrainingRun, compute: Compute) -> ResumeNeeds:
    engine = DEEPSPEED if job.engine.deepspeed else FSDP if job.engine.fsdp_config else PLAIN
    scaled = compute.precision == "fp16" and compute.device.type == "cuda" and engine != DEEPSPEED
    return ResumeNeeds(distributed_state().world_size, engine, job.lora is not None, scaled)


def _trainer_options(job: TrainingRun) -> dict[str, Any]:
    """The Trainer's arguments that are no hyper-parameters."""
    engine = job.engine
    options: dict[str, Any] = {
        "save_total_limit": engine.save_total_limit,
        "report_to": engine.report_to,
    }
    if engine.fsdp_config is not None:
        options |= {"fsdp": True, "fsdp_config": str(engine.fsdp_config)}
    if engine.deepspeed is not None:
        options["deepspeed"] = str(engine.deepspeed)
    if engine.report_to == "tensorboard":
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(job.output_dir / "tensorboard"))
    return options
