"""Folders of predictions: whose they are, and what is there already.

    <pred_data_path>/<split>/<model_size>/<data_type>/<timestamp>/<checkpoint>/pred_<file>.json

run.json in each says which model made them and how; predictions of two models never mix. While a
file is under way its finished lines stand in pred_<file>.json.<rank>.partial beside it.
"""

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growth.core.distributed import DistributedState
from growth.core.errors import InputError
from growth.core.files import json_line, read_json, write_json, write_json_lines
from growth.data.records import Record, read_records
from growth.inference.predictor import PREDICTED_FIELDS, Predictor, predicted_record
from growth.inference.progress import Progress
from growth.model.source import DEFAULT_OPTIONS, find_model
from growth.runs.checkpoints import candidates, epoch_of, trainer_state
from growth.runs.layout import PREDICTION_PREFIX, RUN_RECORD, Run, limit_suffix, run_folder
from growth.runs.record import read_run

UNTUNED = "untuned"  # the data_type of a model that is not one of our runs
PARTIAL_SUFFIX = ".partial"
_SAME = ("model_size", "data_type", "timestamp", "checkpoint", "fingerprint", "decoding", "limit")


def resolve_models(name: str, model_size: str | None, tag: str | None) -> list[tuple[str, Run]]:
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
                f"{DEFAULT_OPTIONS.origin} {name}: not a checkpoint of one of our runs (there is "
                f"no {RUN_RECORD} beside it); say what to call it with --model_size and --tag"
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
    return folder / (run["checkpoint"] + limit_suffix(run["limit"]))


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
    _remove_partial(folder, stem)  # of a kill between writing the file and this
    return True


def record_cuts(folder: Path, predictor: Predictor, files: Mapping[str, Sequence[Record]]) -> int:
    """Note in the folder's run.json how many prompts of each of `files` are cut; their sum."""
    cuts = {stem: sum(map(predictor.is_cut, records)) for stem, records in files.items()}
    run = read_json(folder / RUN_RECORD)
    known = run.get("cut_prompts", {})
    write_json(folder / RUN_RECORD, run | {"cut_prompts": dict(sorted((known | cuts).items()))})
    return sum(cuts.values())


Predicted = dict[str, dict[int, Record]]  # by stem of the file and index of the line


def predict_files(
    predictor: Predictor,
    folder: Path,
    files: Mapping[str, Sequence[Record]],
    state: DistributedState,
    bar: Any,
) -> None:
    """Predict the lines of `files` (by stem), together with the launch's other processes.

    The batches are planned from the lines alone and dealt out whole, so that the numbers are the
    same however many processes there are and whatever was interrupted. Each process notes its
    batches in a partial file; the first one writes a file once all its lines are known.

    Args:
        predictor: the model.
        folder: of the predictions.
        files: those that are not there yet.
        state: this process.
        bar: a tqdm bar, for `Progress`.
    """
    # The first process looks what is there, and plans; nobody writes before all have heard of it.
    plan = None
    if state.is_main_process:
        known = {stem: _recover(folder, stem, records) for stem, records in files.items()}
        plan = known, _dealt_out(predictor, files, known, state.world_size)
    known, shares = state.gather(plan)[0]
    mine = shares[state.rank]
    works = {stem: list(map(predictor.work, records)) for stem, records in files.items()}
    progress = Progress(bar, [works[stem][i] for stem, batch in mine for i in batch])
    for stem, batch in mine:
        bar.set_postfix_str(stem, refresh=False)
        fields = predictor.predict_batch([files[stem][i] for i in batch], progress)
        predicted = dict(zip(batch, fields, strict=True))
        _note(partial_file(folder, stem, state.rank), files[stem], predicted)
        known[stem] |= predicted
        if state.is_main_process:
            _write_complete(folder, files, known)
    for others in state.gather(known):
        for stem in files:
            known[stem] |= others[stem]
    if state.is_main_process:
        _write_complete(folder, files, known)
    state.wait()


def partial_file(folder: Path, stem: str, rank: int) -> Path:
    """Where process `rank` notes the predictions of `<stem>.json` until it is whole."""
    path = prediction_file(folder, stem)
    return path.with_name(f"{path.name}.{rank}{PARTIAL_SUFFIX}")


def _partial_files(folder: Path, stem: str) -> list[Path]:
    return sorted(
        folder.glob(f"{glob.escape(prediction_file(folder, stem).name)}.*{PARTIAL_SUFFIX}")
    )


def _remove_partial(folder: Path, stem: str) -> None:
    for path in _partial_files(folder, stem):
        path.unlink(missing_ok=True)  # another process may have been faster


def _digest(record: Record) -> str:
    return hashlib.sha256(json_line(record).encode()).hexdigest()[:16]


def _note(path: Path, records: Sequence[Record], predicted: Mapping[int, Record]) -> None:
    """Append predictions to a partial file; they are out of this process's hands then."""
    with open(path, "a", encoding="utf-8") as file:
        for index, fields in predicted.items():
            note = {"line": index, "of": _digest(records[index]), "prediction": fields}
            file.write(json_line(note))


def _recover(folder: Path, stem: str, records: Sequence[Record]) -> dict[int, Record]:
    """What an interrupted launch has noted: each line checked, the rest thrown away.

    All of it is in the first process's partial file afterwards, without the half line of a kill.
    """
    found: dict[int, Record] = {}
    paths = _partial_files(folder, stem)
    for path in paths:
        for text in path.read_bytes().split(b"\n"):
            try:
                note = json.loads(text)
                index, fields = note["line"], note["prediction"]
                whole = note["of"] == _digest(records[index]) and fields.keys() <= set(
                    PREDICTED_FIELDS
                )
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                continue
            if whole:
                found[index] = fields
    first = partial_file(folder, stem, 0)
    if paths:
        notes = [
            {"line": index, "of": _digest(records[index]), "prediction": fields}
            for index, fields in found.items()
        ]
        write_json_lines(first, notes)
    for path in paths:
        if path != first:
            path.unlink()
    return found


def _dealt_out(
    predictor: Predictor, files: Mapping[str, Sequence[Record]], known: Predicted, count: int
) -> list[list[tuple[str, list[int]]]]:
    """For each of `count` processes its batches (stem, indices), the longest first.

    A batch of which a line is missing is computed whole again, so that its numbers are the same.
    """
    batches = []
    for stem, records in files.items():
        for batch in predictor.plan(records):
            if not known[stem].keys() >= set(batch):
                works = [predictor.work(records[i]) for i in batch]
                batches.append((sum(work.most for work in works), stem, batch))
    batches.sort(key=lambda item: item[0], reverse=True)
    return [
        [(stem, batch) for _, stem, batch in DistributedState(rank, count).shard(batches)]
        for rank in range(count)
    ]


def _write_complete(folder: Path, files: Mapping[str, Sequence[Record]], known: Predicted) -> None:
    """Write the files all of whose lines are known, once; their partial files go."""
    for stem, records in files.items():
        path = prediction_file(folder, stem)
        if len(known[stem]) < len(records) or path.is_file():
            continue
        write_json_lines(path, [predicted_record(r, known[stem][i]) for i, r in enumerate(records)])
        _remove_partial(folder, stem)
