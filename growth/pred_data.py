"""Folders of predictions: whose they are, and what is there already.

    <pred_data_path>/<split>/<model_size>/<data_type>/<timestamp>/<checkpoint>/pred_<file>.json

run.json in each says which model made them and how; predictions of two models never mix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from growth.command_line import InputError
from growth.files import read_json
from growth.layout import (
    PREDICTION_PREFIX,
    RUN_RECORD,
    Run,
    limit_mark,
    read_run,
    run_folder,
    trainer_state,
)
from growth.models import FLAG, find_model
from growth.prediction import PREDICTED_FIELDS
from growth.records import Record, read_records
from growth.selection import candidates, epoch_of

UNTUNED = "untuned"  # the data_type of a model that is not one of our runs
_SAME = ("model_size", "data_type", "timestamp", "checkpoint", "fingerprint", "decoding", "limit")


def models_named(name: str, model_size: str | None, tag: str | None) -> list[tuple[str, Run]]:
    """The models that a value of --model_name_or_path stands for, with what is known of each.

    Args:
        name: a checkpoint of ours, a run of ours (its candidates for selection), or any model.
        model_size: what to call a model that is not one of our runs, with `tag`.
        tag: likewise.

    Raises:
        InputError: no such model, an incomplete one, or one without a name.
    """
    path = Path(name)
    run = read_run(path)
    if run is not None:
        paths = candidates(path, run["hyperparameters"]["epochs"])
    else:
        find_model(name)
        run = read_run(path.resolve().parent) if path.is_dir() else None
        paths = [path]
    if run is None:
        if model_size is None or tag is None:
            raise InputError(
                f"{FLAG} {name}: not a checkpoint of one of our runs (there is no {RUN_RECORD} "
                "beside it); say what to call it with --model_size and --tag"
            )
        known = {"model_size": model_size, "data_type": UNTUNED, "timestamp": tag}
        return [(name, known | {"checkpoint": "checkpoint-0", "step": 0, "epoch": 0, "epochs": 0})]
    known = {field: run[field] for field in ("model_size", "data_type", "timestamp", "seed")}
    known |= {"epochs": run["hyperparameters"]["epochs"], "samples": run["train"]["samples"]}
    found = []
    for checkpoint in paths:
        find_model(str(checkpoint))
        step = trainer_state(checkpoint)["global_step"]
        place = {"checkpoint": checkpoint.resolve().name, "step": step}
        found.append((str(checkpoint), known | place | {"epoch": epoch_of(checkpoint)}))
    return found


def prediction_folder(pred_data_path: Path, run: Run) -> Path:
    """Where the predictions of the checkpoint, split and limit that `run` tells of belong."""
    folder = pred_data_path / run["split"] / run_folder(run)
    return folder / (run["checkpoint"] + limit_mark(run["limit"]))


def prediction_file(folder: Path, stem: str) -> Path:
    """The predictions of the input file `<stem>.json`."""
    return folder / f"{PREDICTION_PREFIX}{stem}.json"


def missing_files(
    folder: Path, run: Run, files: Mapping[str, Sequence[Record]]
) -> dict[str, Sequence[Record]]:
    """Those of `files` (by stem) that `folder` has no predictions of yet.

    Raises:
        InputError: what is there is of another model, way to predict, or other lines.
    """
    _check_same_model(folder, run)
    return {
        stem: records for stem, records in files.items() if not _is_there(folder, stem, records)
    }


def _check_same_model(folder: Path, run: Run) -> None:
    record = folder / RUN_RECORD
    if not record.is_file():
        if any(folder.glob(f"{PREDICTION_PREFIX}*.json")):
            raise InputError(
                f"{folder}: holds predictions without a {RUN_RECORD} that says which model made "
                "them; remove them or choose another --pred_data_path"
            )
        return
    earlier = read_json(record)
    different = [key for key in _SAME if earlier.get(key) != run.get(key)]
    if different:
        raise InputError(
            f"{folder}: holds predictions of another model or way to predict (different: "
            f"{', '.join(different)}); remove the folder or choose another --pred_data_path"
        )


def _is_there(folder: Path, stem: str, records: Sequence[Record]) -> bool:
    path = prediction_file(folder, stem)
    if not path.is_file():
        return False

    def asked(record: Record) -> Record:
        return {key: value for key, value in record.items() if key not in PREDICTED_FIELDS}

    if list(map(asked, read_records(path))) != list(map(asked, records)):
        raise InputError(
            f"{path}: predictions of other lines than --eval_data_path has now; remove the file to "
            "predict it again"
        )
    return True
