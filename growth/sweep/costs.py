"""What the runs of a sweep will cost: samples, tokens, steps, disk, and time where a rate is known.

Lines are taken from the pools as data/build.py takes them, and tokenised as for training; of the
model only the config and the tokenizer are read.

    a run's disk at its peak = all its checkpoints + the optimizer's state twice: the new one is
                               written before the old one goes
    at its end                all of them and one state, or the selected checkpoint alone
    of the sweep at its peak  what all runs leave + what the largest runs at the same time need more
"""

import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from peft import PeftModel, get_peft_model_state_dict
from tqdm import tqdm

from growth.core.device import choose_compute
from growth.core.errors import InputError
from growth.core.files import Object
from growth.core.options import (
    ALL,
    CHOSEN,
    EngineOptions,
    Hyperparameters,
    LoraOptions,
    ModelOptions,
)
from growth.data.lines import Lines, Record
from growth.data.settings import Pools, take_lines
from growth.data.study import Recipe, Study
from growth.export.checkpoint_files import TokenizerFiles
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import bounded_length, load_tokenizer, shapes_of
from growth.model.lora import AdaptedModel, add_lora
from growth.model.source import Source, find_model
from growth.packing.batches import tokenised
from growth.runs.checkpoints import DEEPSPEED, FSDP, PLAIN
from growth.sweep.rates import CHEAP, PROBE_STEPS, Rate, device_of, earlier_rate, probe_rate
from growth.training.run import default_epochs

COUNTED = 20_000  # lines of a setting up to which all are tokenised
_WEIGHT = 4  # bytes; full fine-tuning saves fp32
# Bytes per trained parameter that only resuming needs: AdamW's moments; FSDP writes the weights a
# second time; DeepSpeed a 16-bit and an fp32 copy.
_STATE = {PLAIN: 8, FSDP: 12, DEEPSPEED: 14}
_STATE_TENSOR, _WEIGHT_TENSOR = 850, 110  # bytes of a tensor besides its numbers, measured
# Bytes, measured on runs of the pocket model. Of a step: its line in metrics.jsonl, and what each
# later checkpoint's trainer_state.json has of it.
_METRICS_LINE, _STATE_ENTRY = 335, 380
_EVALUATION = 200  # likewise, of an epoch's evaluation in both
_RANDOM_STATE = 14_400  # of a process
_SMALL_FILES = 9_500  # of a checkpoint: model card, config, schedule, digests
_RUN_RECORD = 12_000


@dataclass(frozen=True)
class PlannedRun:
    """A run to be trained.

    Attributes:
        place: what to call it, such as 7b/curated-10/sweep.
        model_name_or_path: the foundation model.
        recipe: of its lines; `seed` draws them.
    """

    place: str
    model_name_or_path: str
    recipe: Recipe
    seed: int


@dataclass(frozen=True)
class Conditions:
    """What all runs have in common.

    Attributes:
        study: whose pools, below `data_dir`, lines are taken from.
        given: hyper-parameters by name, of those that flags have set.
        model: how models are loaded; `lora`: None for full fine-tuning; `engine`: of training.
        keep_checkpoints: one of `growth.core.options.KEEP_CHECKPOINTS`.
        jobs: runs at the same time; `num_processes` of each.
        runs_dir: holds earlier runs, and the disk that the new ones go to.
        probe: whether a model of which nothing is known is tried out, if it has at most
            `growth.sweep.rates.CHEAP` parameters.
        elsewhere: whether runs go to other machines, whose devices are not this one's.
    """

    study: Study
    data_dir: Path
    given: Mapping[str, Any]
    model: ModelOptions = ModelOptions()
    lora: LoraOptions | None = None
    engine: EngineOptions = EngineOptions()
    keep_checkpoints: str = ALL
    jobs: int = 1
    num_processes: int = 1
    runs_dir: Path = Path("runs")
    probe: bool = False
    elsewhere: bool = False


@dataclass(frozen=True)
class RunCost:
    """What a run will cost.

    Attributes:
        place: as `PlannedRun` has it.
        samples: lines of the setting; `tokens` of them, truncated ones as far as they are trained
            on; `tokens_exact`: whether all were counted, not a sample of `COUNTED` lines.
        epochs, steps: of the run; `tokens_trained`: over all epochs.
        peak_bytes: of its folder, at most; `end_bytes`: once it is trained and evaluated.
        seconds: of training; None where no rate is known.
    """

    place: str
    samples: int
    tokens: int
    tokens_exact: bool
    epochs: int
    steps: int
    tokens_trained: int
    peak_bytes: int
    end_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class PlanCost:
    """What a sweep will cost.

    Attributes:
        runs: each by itself.
        rates: by model, None where it is not known.
        failed: by place, why a run's lines can't be taken.
        peak_bytes: of all folders of runs, at most; `end_bytes` in the end; `free_bytes` there now.
        seconds: of training in all, one run after the other; `wall_seconds` with `jobs` at a time;
            None where a rate is not known.
        jobs: runs at the same time.
    """

    runs: list[RunCost]
    rates: dict[str, Rate | None]
    failed: dict[str, str]
    peak_bytes: int
    end_bytes: int
    free_bytes: int
    seconds: float | None
    wall_seconds: float | None
    jobs: int

    def record(self) -> Object:
        """As a JSON object, with the fields of the classes."""
        return dataclasses.asdict(self)


def plan_costs(runs: Sequence[PlannedRun], conditions: Conditions) -> PlanCost:
    """Count what runs will cost; shows a progress bar if it takes long.

    Raises:
        InputError: a model's config or tokenizer can't be read.
    """
    models: dict[str, _Model] = {}
    pools: Pools = {}
    costs: list[tuple[_Model, RunCost]] = []
    failed: dict[str, str] = {}
    for run in tqdm(runs, desc="plan", unit="run", delay=5):
        name = run.model_name_or_path
        if name not in models:
            models[name] = _Model(find_model(name, conditions.model), conditions)
        try:
            lines = take_lines(conditions.study, run.recipe, conditions.data_dir, run.seed, pools)
        except InputError as error:
            failed[run.place] = str(error)
        else:
            costs.append((models[name], models[name].cost(run.place, list(lines.values()))))
    rates = {name: model.rate() for name, model in models.items()}
    return _summed([model.timed(cost) for model, cost in costs], rates, failed, conditions)


def _summed(
    costs: list[RunCost],
    rates: dict[str, Rate | None],
    failed: dict[str, str],
    conditions: Conditions,
) -> PlanCost:
    jobs = conditions.jobs
    more = heapq.nlargest(jobs, (cost.peak_bytes - cost.end_bytes for cost in costs))
    end = sum(cost.end_bytes for cost in costs)
    times = [cost.seconds for cost in costs if cost.seconds is not None]
    total = sum(times) if len(times) == len(costs) else None
    wall = None if total is None else max([total / jobs, *times])
    existing = next(p for p in (conditions.runs_dir.resolve() / "_").parents if p.exists())
    free = shutil.disk_usage(existing).free
    return PlanCost(costs, rates, failed, end + sum(more), end, free, total, wall, jobs)


class _Model:
    """A model that runs begin with: what one of its checkpoints takes, how long lines are."""

    def __init__(self, source: Source, conditions: Conditions) -> None:
        self._source, self._conditions = source, conditions
        self._given = conditions.study.run.hyperparameters() | dict(conditions.given)
        self._chat = load_tokenizer(source)
        asked = Hyperparameters(**self._given).max_length
        self._max_length = bounded_length(source, asked)
        self._compute = choose_compute(self._given.get("precision", Hyperparameters.precision))
        base = shapes_of(source, self._chat)
        shapes: AdaptedModel = base
        if conditions.lora is not None:  # frozen weights are of the precision of computing
            base.to(self._compute.dtype)  # type: ignore[arg-type] # its decorator hides the type
            shapes = add_lora(base, conditions.lora, self._chat, source.name)
        self._parameters = shapes.num_parameters()
        trained = [p.numel() for p in shapes.parameters() if p.requires_grad]
        engine = conditions.engine
        kind = DEEPSPEED if engine.deepspeed else FSDP if engine.fsdp_config else PLAIN
        self._state_bytes = _STATE[kind] * sum(trained) + _STATE_TENSOR * len(trained)
        self._checkpoint_bytes = (
            _weight_bytes(shapes)
            + _tokenizer_bytes(self._chat)
            + _RANDOM_STATE * conditions.num_processes
            + _SMALL_FILES
        )
        self._lengths: dict[bytes, int] = {}  # of lines by a digest; settings share them
        self._most: list[Record] = []  # lines of the largest setting, for a probe

    def cost(self, place: str, files: Sequence[Lines]) -> RunCost:
        """Of a run on the lines of these files, but for its time."""
        samples = sum(map(len, files))
        stride = math.ceil(samples / COUNTED)
        tokens = 0.0
        for lines in files:
            some = lines.take(range(0, len(lines), stride))
            tokens += sum(map(self._length, some)) / max(1, len(some)) * len(lines)
        h = Hyperparameters(**self._given)
        epochs = default_epochs(self._conditions.study, h.as_published, samples)
        epochs = self._given.get("epochs", epochs)
        steps = math.ceil(samples / h.total_batch_size)
        peak, end = self._disk(steps, epochs)
        if samples > len(self._most):
            count = PROBE_STEPS * h.total_batch_size
            self._most = list(itertools.islice(itertools.chain(*files), count))
        return RunCost(
            place,
            samples=samples,
            tokens=round(tokens),
            tokens_exact=stride == 1,
            epochs=epochs,
            steps=steps * epochs,
            tokens_trained=round(tokens) * epochs,
            peak_bytes=peak,
            end_bytes=end,
            seconds=None,
        )

    def timed(self, cost: RunCost) -> RunCost:
        """A run's cost with its time, where the rate is known."""
        rate = self.rate()
        if rate is None:
            return cost
        seconds = rate.seconds(cost.tokens_trained, cost.epochs)
        return dataclasses.replace(cost, seconds=round(seconds, 1))

    @functools.cached_property
    def _rate(self) -> Rate | None:
        c = self._conditions
        device = None if c.elsewhere else device_of(self._compute.describe())
        known = earlier_rate(c.runs_dir, c.study, self._parameters, device)
        if known or not (c.probe and self._most) or c.elsewhere or self._parameters > CHEAP:
            return known
        h = dataclasses.replace(Hyperparameters(**self._given), lora=c.lora)
        examples = [
            tokenised(record["messages"], self._chat, self._max_length) for record in self._most
        ]
        return probe_rate(self._source, self._chat, examples, h, self._compute)

    def rate(self) -> Rate | None:
        """How fast it is tuned; to be asked once all runs' lines are known."""
        return self._rate

    def _length(self, record: Record) -> int:
        """The tokens of a line that are trained on."""
        text = json.dumps(record["messages"], ensure_ascii=False)
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._lengths:
            ids, _ = self._chat.encode_conversation(record["messages"])
            self._lengths[key] = min(len(ids), self._max_length)
        return self._lengths[key]

    def _disk(self, steps: int, epochs: int) -> tuple[int, int]:
        """Bytes of a run's folder at its peak and at its end, of so many steps per epoch."""
        state = self._state_bytes
        logged = steps * _STATE_ENTRY + _EVALUATION  # of an epoch, in each later checkpoint
        files = epochs * (steps * _METRICS_LINE + _EVALUATION) + _RUN_RECORD

        def of_newest(count: int) -> int:
            first = max(1, epochs - count + 1)
            return sum(self._checkpoint_bytes + n * logged for n in range(first, epochs + 1))

        kept = min(self._conditions.engine.save_total_limit or epochs, epochs)
        # A new checkpoint is whole before an old one, or its state, goes.
        peak = files + of_newest(min(kept + 1, epochs)) + state * min(2, epochs)
        chosen = self._conditions.keep_checkpoints == CHOSEN
        return peak, files + (of_newest(1) if chosen else of_newest(kept) + state)


def _weight_bytes(model: AdaptedModel) -> int:
    """What a checkpoint holds of a model in fp32, or of its adapters, as peft saves them.

    Where the vocabulary was grown that is the whole embedding and output layers, too.
    """
    if isinstance(model, PeftModel):
        saved = get_peft_model_state_dict(model).values()
        return sum(w.numel() * w.element_size() + _WEIGHT_TENSOR for w in saved)
    # of weights that two layers share, one
    return sum(_WEIGHT * p.numel() + _WEIGHT_TENSOR for p in model.parameters())


def _tokenizer_bytes(chat: ChatTokenizer) -> int:
    """What each checkpoint holds of the tokenizer, found by writing it once."""
    with tempfile.TemporaryDirectory() as folder:
        TokenizerFiles(chat.tokenizer).write(Path(folder))
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def cost_lines(cost: PlanCost) -> Iterator[str]:
    """The plan's costs for people: a table of the runs, the sums, where the rates are from."""
    rows = [
        {
            "run": run.place,
            "samples": f"{run.samples:,}",
            "tokens": f"{'' if run.tokens_exact else 'about '}{run.tokens:,}",
            "epochs": run.epochs,
            "steps": f"{run.steps:,}",
            "trained on": f"{run.tokens_trained:,}",
            "disk, peak": shown_bytes(run.peak_bytes),
            "disk, end": shown_bytes(run.end_bytes),
            "training time": shown_time(run.seconds),
        }
        for run in cost.runs
    ]
    if rows:
        yield pd.DataFrame(rows).to_string(index=False)
    yield (
        f"in all: {sum(run.tokens_trained for run in cost.runs):,} tokens trained on in "
        f"{sum(run.steps for run in cost.runs):,} steps"
    )
    at_a_time = f"{cost.jobs} run{'s' if cost.jobs > 1 else ''} at a time"
    yield (
        f"disk, folders of runs: {shown_bytes(cost.peak_bytes)} at the peak ({at_a_time}), "
        f"{shown_bytes(cost.end_bytes)} in the end; {shown_bytes(cost.free_bytes)} are free"
        + (": too little" if cost.peak_bytes > cost.free_bytes else "")
    )
    yield (
        f"time of training, without prediction: {shown_time(cost.seconds)} in all, "
        f"{shown_time(cost.wall_seconds)} with {at_a_time}"
    )
    for model, rate in cost.rates.items():
        known = "no rate is known; earlier runs of this model on this device would tell"
        if rate is not None:
            known = f"{rate.tokens_per_second:,.0f} tokens/s ({rate.device}), by {rate.source}"
        yield f"  {model}: {known}"
    for place, why in cost.failed.items():
        yield f"{place}: its lines can't be taken: {why}"


def shown_bytes(count: float) -> str:
    """Bytes in decimal units, as disks are sold: 84.0 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def shown_time(seconds: float | None) -> str:
    """Seconds as h:mm:ss, or that they are not known."""
    return "unknown" if seconds is None else tqdm.format_interval(seconds)
