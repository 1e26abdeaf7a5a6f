"""Which study a run is of: what its record says, held against --study."""

from collections.abc import Sequence
from pathlib import Path

from growth.core.errors import InputError
from growth.data.study import OF_RUNS, Study, named_study, study_of
from growth.runs.layout import read_run


def study_of_models(names: Sequence[str], flag: Path | None) -> Study:
    """The study of checkpoints or runs of ours, held against `--study`, if that is given.

    Of other models nothing is known: they are asked about what --study says, or else the published
    study.

    Raises:
        InputError: runs of different studies, or of another one than --study.
    """
    found: dict[str, tuple[Study, str]] = {}
    for name in names:
        path = Path(name)
        run = read_run(path) or (read_run(path.resolve().parent) if path.is_dir() else None)
        if run is not None:
            study = study_of(run, flag, name, OF_RUNS)
            found.setdefault(study.digest, (study, name))
    if len(found) > 1:
        named = ", ".join(f"{name} of {study.name}" for study, name in found.values())
        raise InputError(
            f"--model_name_or_path: runs of different studies ({named}); give those of each alone"
        )
    if found:
        return next(iter(found.values()))[0]
    return named_study(flag)
