"""Everything that would fail hours later, checked before a sweep starts anything."""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from growth.core.errors import InputError
from growth.core.files import check_writable
from growth.core.locks import locked
from growth.core.names import fault_of_name
from growth.core.options import LOCAL, SLURM, ModelOptions, SweepOptions
from growth.core.slots import check_slots
from growth.data.records import read_evaluation_files
from growth.data.study import Study, read_recipe
from growth.sweep.plan import BENCHMARKS, CMMLU, Exam, Model, Setting, SweepRun
from growth.sweep.snakemake import read_profile

T = TypeVar("T")
LARGEST_SEED = 2**32 - 1  # what numpy takes
_TAME = re.compile(r"[\w.-]*", re.ASCII)
_SEED = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


class Problems:
    """Collects what is wrong, so that a user hears of all of it at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def of(self, check: Callable[[], T], otherwise: T) -> T:
        """What a check returns; `otherwise` where it complains, which is kept."""
        try:
            return check()
        except InputError as error:
            self._found.append(str(error))
            return otherwise

    def check(self) -> None:
        """End here if anything is wrong.

        Raises:
            InputError: all complaints, in one line.
        """
        if len(self._found) == 1:
            raise InputError(self._found[0])
        if self._found:
            listed = "; ".join(f"({number}) {text}" for number, text in enumerate(self._found, 1))
            raise InputError(f"{len(self._found)} things to mend: {listed}")


def words_of(flags: str, name: str) -> tuple[str, ...]:
    """The words of a flag that holds flags, as a shell separates and unquotes them; none is run.

    Raises:
        InputError: a quote has no end.
    """
    try:
        return tuple(shlex.split(flags))
    except ValueError as error:
        raise InputError(f"--{name} '{flags}': {error}; quote as on a command line") from None


def listed(values: Iterable[str]) -> list[str]:
    """Names between spaces or commas."""
    return [name for value in values for name in re.split(r"[\s,]+", value) if name]


def seeds_of(text: str | None) -> list[int]:
    """The seeds of --seeds.

    Raises:
        InputError: it is no list of different seeds.
    """
    names = re.split(r"[\s,]+", (text if text is not None else "0").strip())
    for name in names:
        if not _SEED.fullmatch(name) or int(name) > LARGEST_SEED:
            raise InputError(
                f"--seeds '{text}': {name!r}: expected a whole number of at least 0 and below "
                f"{LARGEST_SEED + 1} without leading zeros, or several such as 0,1,2"
            )
    if len({*names}) < len(names):
        raise InputError(f"--seeds '{text}': a seed twice, which would be the same run twice")
    return [int(name) for name in names]


def models_of(options: SweepOptions) -> list[Model]:
    """The models of --models, or of --model_size and --model_name_or_path.

    Raises:
        InputError: none, half of one, or two of one size.
    """
    size, name = options.model_size, options.model_name_or_path
    if options.models:
        if size is not None or name is not None:
            raise InputError(
                "--models: beside --model_size or --model_name_or_path, which it replaces; give "
                "either"
            )
        found = []
        for word in [word for value in options.models for word in value.split()]:
            size, equals, name = word.partition("=")
            if not equals or not name or not _is_plain(size):
                raise InputError(f"--models {word}: expected SIZE=MODEL, such as 7b=path/to/model")
            if re.search(r",[^,/]*=", name):
                raise InputError(f"--models {word}: several models go between spaces, not commas")
            found.append(Model(size, name))
        if not found:
            raise InputError("--models: is empty; expected SIZE=MODEL, such as 7b=path/to/model")
        sizes = [model.size for model in found]
        if twice := [size for size in sizes if sizes.count(size) > 1]:
            raise InputError(f"--models: {twice[0]} twice; its runs would share their folders")
        return found
    if size is None:
        raise InputError("--model_size is missing, such as 7b; it names the runs")
    if name is None:
        raise InputError("--model_name_or_path is missing")
    return [Model(size, name)]


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and name.isprintable()


def settings_of(study: Study, options: SweepOptions) -> list[Setting]:
    """The settings that --data_types names, and the recipes of --recipes.

    Raises:
        InputError: no such setting or recipe, two recipes of one name, or nothing is named and the
            study has no series.
    """
    names, recipes = listed(options.data_types), _recipes(study, options.recipes)
    if names or not recipes:
        names = study.matching(names)
    if not names and not recipes:
        there = ", ".join(study.recipes) or "none; give it [[series]] or [[settings]]"
        raise InputError(
            f"--data_types: the study {study.source} has no series, whose settings are the "
            f"default; name settings of it ({there})"
        )
    return [Setting(name, study.recipes[name].samples) for name in names] + recipes


def _recipes(study: Study, places: Iterable[str]) -> list[Setting]:
    """The recipes of files, and of the *.toml of folders."""
    found: dict[str, Setting] = {}
    for text in places:
        if not text:
            raise InputError("--recipes: an empty name; expected a file, or a folder of *.toml")
        place = Path(text)
        paths = sorted(place.glob("*.toml")) if place.is_dir() else [place]
        if not paths:
            raise InputError(f"--recipes {place}: no *.toml in this folder")
        for path in paths:
            recipe = read_recipe(path, study)
            known = found.setdefault(recipe.name, Setting(recipe.name, recipe.samples, path))
            if known.recipe != path:
                raise InputError(
                    f"--recipes {path}: name: {recipe.name!r} is that of {known.recipe}, too; "
                    "rename one"
                )
    return list(found.values())


def exams_of(options: SweepOptions) -> tuple[Exam, ...]:
    """The benchmarks that --benchmarks names.

    Raises:
        InputError: there is no such benchmark.
    """
    names = listed([options.benchmarks or ""])
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(f"--benchmarks {name}: expected {' or '.join(BENCHMARKS)}")
    if options.benchmark_limit is not None and not names:
        raise InputError("--benchmark_limit needs --benchmarks")
    return tuple(
        Exam(name, options.cmmlu_dir if name == CMMLU else options.agieval_dir)
        for name in dict.fromkeys(names)
    )


def gpus_of(options: SweepOptions, count: Callable[[], int]) -> tuple[str, ...]:
    """The GPUs that --gpus names, of those that this process may see.

    Args:
        options: of the sweep.
        count: how many GPUs there are; called where CUDA_VISIBLE_DEVICES doesn't say.

    Raises:
        InputError: there is no such GPU, or fewer than a run needs.
    """
    if options.gpus is None:
        return ()
    names = listed([options.gpus])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = listed([visible]) if visible is not None else list(map(str, range(count())))
    for name in names:
        if name not in there:
            has = f"has {', '.join(there)}" if there else "has none"
            by = " (CUDA_VISIBLE_DEVICES)" if visible is not None else ""
            raise InputError(f"--gpus {options.gpus}: no GPU {name}; this machine {has}{by}")
    check_slots(names, options.num_processes)
    return tuple(names)


def check_executor(options: SweepOptions) -> None:
    """Whether what is to carry out the runs is there, and can have runs of these names.

    Raises:
        InputError: it is not.
    """
    if options.profile is not None and options.executor != SLURM:
        raise InputError(f"--profile {options.profile}: needs --executor {SLURM}")
    if options.executor == LOCAL:
        return
    if options.executor == SLURM:
        if options.gpus is not None:
            raise InputError(
                f"--gpus {options.gpus}: SLURM hands out GPUs; ask for them in --profile"
            )
        if shutil.which("sbatch") is None:
            raise InputError(
                f"--executor {SLURM}: there is no sbatch on the PATH of this machine; start the "
                "sweep on a node that submits jobs, or leave --executor out"
            )
    for name in (options.run_name or "", options.model_size or "", *options.models):
        if not _TAME.fullmatch(name.partition("=")[0]):
            raise InputError(
                f"--executor {options.executor}: {name}: Snakemake reads some characters of names "
                "as its own; take letters, digits, '.', '_' and '-' for --run_name and sizes"
            )
    if find_spec("snakemake") is None:
        raise InputError(
            f"--executor {options.executor}: Snakemake is not installed; pip install -r "
            "requirements-sweep.txt"
        )
    if options.profile is not None:
        read_profile(options.profile)


def check_evaluation_lines(study: Study, data_dir: Path) -> None:
    """Whether the valid and test lines are there, and on what the study says.

    Raises:
        InputError: they are not.
    """
    for folder in study.splits.values():
        read_evaluation_files(data_dir / folder, "--data_dir", study)


def check_models_and_exams(
    models: Iterable[Model], options: ModelOptions, exams: Iterable[Exam], limit: int | None
) -> None:
    """Whether models and benchmarks are there and whole; takes the imports of transformers.

    Raises:
        InputError: one is not.
    """
    from growth.model.source import find_model
    from growth.tasks.agieval import AGIEval
    from growth.tasks.benchmark import read_exam
    from growth.tasks.cmmlu import CMMLU as Cmmlu

    for model in models:
        find_model(model.name_or_path, options)
    for exam in exams:
        read_exam(Cmmlu() if exam.name == CMMLU else AGIEval(), exam.data_dir, limit)


def count_gpus() -> int:
    """How many GPUs this machine has; takes the import of torch."""
    import torch

    return torch.cuda.device_count()


def check_run_names(names: Iterable[str]) -> None:
    """Whether runs can have these names.

    Raises:
        InputError: one of them can't be a folder's, or is like those of logs and records of runs.
    """
    for name in names:
        if fault := fault_of_name(name):
            raise InputError(f"--run_name {name!r}: {fault}")
        if name.endswith((".log", ".json")):
            raise InputError(
                f"--run_name {name}: ends as the logs and records of runs do; take another"
            )


def check_unlocked(runs: Iterable[SweepRun]) -> None:
    """Whether no other sweep is at work on one of the runs.

    Raises:
        InputError: there is; the message says who.
    """
    for run in runs:
        check_writable(run.folder.parent, "--run_name")
        with locked(run.log, "--run_name"):
            pass
