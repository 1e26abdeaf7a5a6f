"""Where each stage reads and writes, and the run record (run.json) that each folder holds.

    runs/runs-<model_size>/<data_type>/<timestamp>/checkpoint-<step>/
    evaluate/pred-data/<valid|test>/<model_size>/<data_type>/<timestamp>/<checkpoint>/pred_<file>.json
    evaluate/results/<valid|test>/<model_size>/<data_type>/<timestamp>/<checkpoint>-results.json

No stage parses a path: run.json says what a folder is about.
"""

from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.schemas import TrainingRecord, read_record

Run = dict[str, Any]

RUN_RECORD = "run.json"
METRICS = "metrics.jsonl"
PREDICTIONS = Path("evaluate/pred-data")
RESULTS = Path("evaluate/results")
PLOTS = Path("evaluate/plots")
REPORT = Path("evaluate/report")
PREDICTION_PREFIX = "pred_"
RESULTS_SUFFIX = "-results.json"


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
    if not path.is_file():
        return None
    remedy = "put back what train/finetune.py wrote, or train anew in another --output_dir"
    return read_record(path, TrainingRecord, remedy)
