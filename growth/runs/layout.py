"""Where each stage reads and writes, and the run record (run.json) that each folder holds.

    runs/runs-<model_size>/<data_type>/<timestamp>/checkpoint-<step>/
    evaluate/pred-data/<valid|test>/<model_size>/<data_type>/<timestamp>/<checkpoint>/pred_<file>.json
    evaluate/results/<valid|test>/<model_size>/<data_type>/<timestamp>/<checkpoint>-results.json

No stage parses a path: run.json says what a folder is about.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import is_file, write_json
from growth.core.options import AUTO, ResultsOptions
from growth.core.schemas import TrainingRecord, read_record

Run = dict[str, Any]

RUN_RECORD = "run.json"
METRICS = "metrics.jsonl"
# In metrics.jsonl, of an evaluation; and in the record of predictions, of their checkpoint's.
LOSS_BY_ABILITY = "eval_loss_by_ability"
PREDICTIONS = Path("evaluate/pred-data")
RESULTS = Path("evaluate/results")
PLOTS = Path("evaluate/plots")
REPORT = Path("evaluate/report")
COMPARISONS = Path("evaluate/compare")
PREDICTION_PREFIX = "pred_"
PARTIAL_SUFFIX = ".partial"  # of predictions under way
RESULTS_SUFFIX = "-results.json"
DETAILS_SUFFIX = "-details"  # of the folder of verdicts beside a results file
UNTUNED = "untuned"  # the data_type of a model that is not one of our runs; its tag names it
NO_SIZE = "unknown"  # the model_size of a model that a benchmark was run on by its tag alone
MIXED = "mixed"  # in a results file the `type` of a file whose lines are of several types
# No score depends on it: an answer is ended early where what follows could not count.
_NOT_IN_SCORES = "full_responses"


def results_folders(options: ResultsOptions) -> tuple[Path, Path]:
    """The folder of the results to read, and that of the choices of checkpoints."""
    results = options.results_path or RESULTS / "test"
    return results, options.selection_path or results.parent / "valid"


def run_folder(run: Run) -> Path:
    """`<model_size>/<data_type>/<timestamp>`, the part of a path that stands for a run.

    Raises:
        InputError: one of the three is no name of a folder.
    """
    names = [str(run[name]) for name in ("model_size", "data_type", "timestamp")]
    for name in names:
        if not name or name in (".", "..") or "/" in name:
            raise InputError(f"{name!r}: expected a plain name, such as 7b, that a folder can have")
    return Path(*names)


def limit_suffix(limit: int | None) -> str:
    """The suffix of a name where only `limit` lines of each file were used: never a result."""
    return "" if limit is None else f"-limit{limit}"


def selection_name(limit: int | None) -> str:
    """The name of the file that says which checkpoint of a run was chosen."""
    return f"selected-checkpoint{limit_suffix(limit)}.json"


def read_run(run_dir: Path) -> Run | None:
    """The record of a run, or None where `run_dir` is not the folder of one.

    Raises:
        InputError: there is a record, and it is damaged.
    """
    path = run_dir / RUN_RECORD
    if not is_file(path):
        return None
    remedy = "put back what train/finetune.py wrote, or train anew in another --output_dir"
    return read_record(path, TrainingRecord, remedy)


def write_run(run_dir: Path, run: Run) -> None:
    """Write the record of a run."""
    write_json(run_dir / RUN_RECORD, run)


def now() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def decoding_of(run: Run) -> dict[str, Any]:
    """How predictions were made, of what a score depends on and the record says.

    Records of older versions have no `decoding`, or a precision that is still "auto".
    """
    decoding = run.get("decoding") or {}
    return {k: v for k, v in decoding.items() if k != _NOT_IN_SCORES and v != AUTO}


def details_folder(results_file: Path) -> Path:
    """Where the verdicts on the questions of a results file are, if they were written."""
    base = results_file.name.removesuffix(RESULTS_SUFFIX)
    return results_file.with_name(base + DETAILS_SUFFIX)


def cut_at(run: Run) -> str:
    """Where answers were cut, as far as the record of predictions says it; empty or words."""
    most, length = (decoding_of(run).get(name) for name in ("max_new_tokens", "max_length"))
    if most is None:
        return ""
    sooner = "" if length is None else f", sooner where --max_length {length:,} left less room"
    return f" at {most:,} tokens (--max_new_tokens{sooner})"


def decoding_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In what two values of `decoding_of` differ, as far as both say it."""
    return [
        f"{name} {first[name]} and {second[name]}"
        for name in sorted(first.keys() & second.keys())
        if first[name] != second[name]
    ]
