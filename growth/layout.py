"""Where each stage reads and writes, and the run record (run.json) that goes along.

    runs/runs-<model_size>/<data_type>/<timestamp>/checkpoint-<step>/
    evaluate/pred-data/<valid|test>/<model_size>/<data_type>/<timestamp>/<checkpoint>/pred_<file>.json
    evaluate/results/<valid|test>/<model_size>/<data_type>/<timestamp>/<checkpoint>-results.json

No stage parses a path: what a folder is about stands in its run.json.
"""

import datetime
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from growth.command_line import InputError
from growth.files import read_json, write_json

RUN_RECORD = "run.json"
METRICS = "metrics.jsonl"
TRAINER_STATE = "trainer_state.json"
CHECKPOINT = "checkpoint-"

PREDICTIONS = Path("evaluate/pred-data")
RESULTS = Path("evaluate/results")
PLOTS = Path("evaluate/plots")
PREDICTION_PREFIX = "pred_"
RESULTS_SUFFIX = "-results.json"

_RECORDED_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "sentencepiece")

Run = dict[str, Any]


def now() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """What made a result besides its inputs: git commit, dirty or not, versions."""
    return {
        "git": _git_state(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _RECORDED_LIBRARIES},
    }


def _git_state() -> dict[str, Any]:
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}  # a copy without git


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the Trainer wrote of a checkpoint: `global_step`, `epoch` ...

    Raises:
        InputError: the checkpoint is incomplete.
    """
    return read_json(checkpoint / TRAINER_STATE)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, by the record inside it."""
    return int(trainer_state(checkpoint)["global_step"])


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the Trainer writes its state last."""
    try:
        return checkpoint_step(checkpoint) >= 0
    except (InputError, KeyError, TypeError, ValueError):
        return False


def checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, by step."""
    found = [path for path in run_dir.glob(f"{CHECKPOINT}*") if is_complete(path)]
    return sorted(found, key=checkpoint_step)


def read_run(run_dir: Path) -> Run | None:
    """The record of a run, or None where `run_dir` is not the folder of one."""
    path = run_dir / RUN_RECORD
    return read_json(path) if path.is_file() else None


def write_run(run_dir: Path, run: Run) -> None:
    """Write the record of a run."""
    write_json(run_dir / RUN_RECORD, run)


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


def limit_mark(limit: int | None) -> str:
    """What marks a name where only `limit` lines of each file were used: never a result."""
    return "" if limit is None else f"-limit{limit}"


def selection_name(limit: int | None) -> str:
    """The name of the file that says which checkpoint of a run was chosen."""
    return f"selected-checkpoint{limit_mark(limit)}.json"
