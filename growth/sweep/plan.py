"""Which runs a sweep makes (a model, a setting, a seed each), and what they have in common."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from growth.core.errors import InputError
from growth.core.files import read_object, write_text
from growth.core.options import ALL
from growth.runs.layout import PREDICTIONS, RESULTS, selection_name

SWEEP = "sweep"  # the name of a run where --run_name gives none
CMMLU, AGIEVAL = BENCHMARKS = ("cmmlu", "agieval")


@dataclass(frozen=True)
class Model:
    """A foundation model: `size` names its runs, `name_or_path` is a folder, hub id or .gguf."""

    size: str
    name_or_path: str


@dataclass(frozen=True)
class Setting:
    """What is trained on.

    Attributes:
        name: of a setting of the study, or of a recipe.
        samples: lines in all; 0 where only its building can tell.
        recipe: the file of a recipe that the study does not list; None for a setting of the study.
    """

    name: str
    samples: int = 0
    recipe: Path | None = None


@dataclass(frozen=True)
class SweepRun:
    """A run: everything below `folder`, and what is predicted and scored of it.

    Attributes:
        model, setting: what is tuned, on what.
        seed: draws the lines and the order of training.
        name: of the run's folder.
    """

    model: Model
    setting: Setting
    seed: int
    name: str

    @property
    def place(self) -> Path:
        """`<model_size>/<data_type>/<timestamp>`, as `growth.runs.layout.run_folder` has it."""
        return Path(self.model.size, self.setting.name, self.name)

    @property
    def folder(self) -> Path:
        """The run's own."""
        return Path("runs", f"runs-{self.model.size}", self.setting.name, self.name)

    @property
    def training_log(self) -> Path:
        """What training printed; `log` has that of the other stages."""
        return self.folder.with_name(f"{self.name}.log")

    @property
    def log(self) -> Path:
        """What the stages before and behind training printed, and how the job ended."""
        return self.folder.with_name(f"{self.name}.sweep.log")

    @property
    def record(self) -> Path:
        """Written once all stages have ended well."""
        return self.folder.with_name(f"{self.name}.sweep.json")

    def selection(self, limit: int | None) -> Path:
        """The file that says which checkpoint was chosen."""
        return RESULTS / "valid" / self.place / selection_name(limit)

    def predictions(self, split: str) -> Path:
        """The folder of its predictions."""
        return PREDICTIONS / split / self.place


@dataclass(frozen=True)
class Exam:
    """A public benchmark to run on each chosen checkpoint: one of `BENCHMARKS`, and its data."""

    name: str
    data_dir: Path


@dataclass(frozen=True)
class Plan:
    """A sweep: its runs, and what is the same for all of them.

    Attributes:
        runs: the longest first, so that no processor is idle at the end.
        study: the value of --study.
        data_dir: holds the pools; `valid` is the folder of valid lines below it.
        build_dir: settings are built below it, those of each seed and data folder apart.
        train_flags: words for train/finetune.py; `predict_flags` for evaluate/run.py.
        benchmarks: to run on the chosen checkpoints, on `benchmark_limit` questions per subject.
        benchmark_flags: words for both of them.
        keep_checkpoints: one of `growth.core.options.KEEP_CHECKPOINTS`.
        limit: of lines to predict, where `predict_flags` set one.
        num_processes: of a run, one per GPU.
        gpus: of this machine, which runs get for themselves; () leaves all to all.
        wait: where another process is at work on a run, for it to end.
    """

    runs: tuple[SweepRun, ...]
    study: Path | None
    data_dir: Path
    valid: str
    build_dir: Path
    train_flags: tuple[str, ...] = ()
    predict_flags: tuple[str, ...] = ()
    benchmarks: tuple[Exam, ...] = ()
    benchmark_limit: int | None = None
    benchmark_flags: tuple[str, ...] = ()
    keep_checkpoints: str = ALL
    limit: int | None = None
    num_processes: int = 1
    gpus: tuple[str, ...] = ()
    wait: bool = False

    def builds(self, seed: int) -> Path:
        """The folder of the settings of a seed: no two sweeps train on each other's lines."""
        sources = [self.data_dir, *([self.study] if self.study else [])]
        text = "\n".join(str(path.resolve()) for path in sources)
        return self.build_dir / f"seed-{seed}-{zlib.crc32(text.encode())}"

    def run_at(self, place: str) -> SweepRun:
        """The run whose `place` this is.

        Raises:
            InputError: there is none.
        """
        for run in self.runs:
            if str(run.place) == place:
                return run
        raise InputError(f"--run {place}: no such run in the plan")


def run_names(run_name: str | None, seeds: Iterable[int]) -> dict[int, str]:
    """The name of the folder of each seed's runs: sweep, sweep-seed-1; just `run_name` for one."""
    seeds = list(seeds)
    if run_name is not None and len(seeds) == 1:
        return {seeds[0]: run_name}
    name = run_name or SWEEP
    return {seed: f"{name}-seed-{seed}" if seed else name for seed in seeds}


def make_runs(
    models: Iterable[Model], settings: Iterable[Setting], names: dict[int, str]
) -> tuple[SweepRun, ...]:
    """Every model on every setting with every seed (of `names`), the longest first."""
    runs = [
        SweepRun(model, setting, seed, name)
        for model in models
        for setting in settings
        for seed, name in names.items()
    ]
    return tuple(sorted(runs, key=lambda run: -run.setting.samples))


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as JSON, for jobs in processes of their own."""
    write_text(path, msgspec.json.encode(plan, enc_hook=str).decode("utf-8") + "\n")


def read_plan(path: Path) -> Plan:
    """Read what `write_plan` wrote.

    Raises:
        InputError: there is no such file, or it holds no plan.
    """
    remedy = "start the sweep again, which writes it"
    plan = read_object(path, remedy=remedy, finite=True)
    try:
        return msgspec.convert(plan, Plan, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        raise InputError(f"--plan {path}: no plan of a sweep ({error}); {remedy}") from None


def _decoded(kind: type[Any], value: Any) -> Any:
    return kind(value)
