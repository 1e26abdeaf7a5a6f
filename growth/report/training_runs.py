"""The training runs below a folder: what each cost, whether it ended, what made it."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from growth.core.errors import InputError
from growth.core.files import Object
from growth.data.study import Study, recorded
from growth.runs.layout import RUN_RECORD, Run, read_run
from growth.runs.record import RESUMED_OTHERWISE, read_metrics

RunKey = tuple[str, str, str]  # model_size, data_type, timestamp
Problem = dict[str, str]  # kind, message


class TrainingRun(NamedTuple):
    """A run: its folder, its record, the lines of its metrics."""

    folder: Path
    record: Run
    metrics: list[Object]

    @property
    def log(self) -> Path:
        """What training printed, where `scripts/run_train.sh` began it."""
        return self.folder.with_name(f"{self.folder.name}.log")


def key_of(run: Mapping[str, Any]) -> RunKey:
    """What tells runs apart."""
    return str(run["model_size"]), str(run["data_type"]), str(run["timestamp"])


def problem(kind: str, message: str) -> Problem:
    """An entry of what a report lists as missing or failed."""
    return {"kind": kind, "message": message}


def read_training_runs(
    runs_dir: Path, study: Study
) -> tuple[dict[RunKey, TrainingRun], list[Problem]]:
    """Every run of `study` below a folder, and what was left out, a sentence each."""
    runs: dict[RunKey, TrainingRun] = {}
    problems: list[Problem] = []
    for path in sorted(runs_dir.rglob(RUN_RECORD)):
        try:
            record = read_run(path.parent)
        except InputError as error:
            problems.append(problem("damaged file", str(error)))
            continue
        if record is None:
            continue
        # By name: training depends on no rule of scoring.
        if (of := recorded(record).get("name")) != study.name:
            what = f"{path.parent}: left out, a run of the study {of}"
            problems.append(problem("left out", what))
        elif key_of(record) in runs:
            what = f"{path.parent}: left out, a copy of {runs[key_of(record)].folder}"
            problems.append(problem("left out", what))
        else:
            runs[key_of(record)] = TrainingRun(path.parent, record, read_metrics(path.parent))
    return runs, problems


def cost_of(run: TrainingRun) -> dict[str, Any]:
    """What a run took; None where its record and metrics don't say.

    Returns:
        `steps` done of `steps_planned`; `epochs`; `samples` and `tokens` of the training set;
        `tokens_trained` and `supervised_tokens_trained`, over all steps; `step_seconds`, the time
        spent in them; `seconds`, from the start to the end of the run, pauses and validation
        included; `peak_memory_bytes` of the last launch; `device`; `parameters` of the model.
    """
    record, steps = run.record, _steps(run.metrics)
    tokens = [line.get("tokens") for line in steps]
    speeds = [line.get("tokens_per_second") for line in steps]
    seconds = [
        count / speed
        for count, speed in zip(tokens, speeds, strict=True)
        if count is not None and speed and math.isfinite(speed)
    ]
    return {
        "steps": max((line["step"] for line in steps), default=0),
        "steps_planned": record["steps"],
        "epochs": record["hyperparameters"]["epochs"],
        "samples": record["train"]["samples"],
        "tokens": record["train"].get("tokens"),
        "tokens_trained": _total(tokens),
        "supervised_tokens_trained": _total([line.get("supervised_tokens") for line in steps]),
        "step_seconds": round(sum(seconds), 1) if steps and len(seconds) == len(steps) else None,
        "seconds": _seconds_between(record["started"], record.get("ended")),
        "peak_memory_bytes": record.get("peak_memory_bytes"),
        "device": record["device"],
        "parameters": record["parameters"],
    }


def _steps(metrics: Sequence[Object]) -> list[Object]:
    """The lines of training steps, one a step; that of a resumed run counts."""
    return list({line["step"]: line for line in metrics if "loss" in line}.values())


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known and len(known) == len(numbers) else None


def _seconds_between(started: str, ended: str | None) -> float | None:
    try:
        end, start = datetime.fromisoformat(ended or ""), datetime.fromisoformat(started)
        return (end - start).total_seconds()
    except (ValueError, TypeError):  # not a time, or only one of them knows its zone
        return None


def made_by(run: TrainingRun) -> dict[str, Any]:
    """What made a run: the model, the data down to the digest of each file, code and device."""
    record = run.record
    names = (
        *("model_name_or_path", "model_fingerprint", "parameters", "seed", "hyperparameters"),
        *("git", "versions", "device", "started", "ended", RESUMED_OTHERWISE),
    )
    return {
        "folder": str(run.folder),
        **{name: record.get(name) for name in names},
        "data": {
            part: {
                "dir": record[part].get("dir"),
                "tokens_sha256": record[part].get("tokens_sha256"),
                "files": record[part]["files"],
            }
            for part in ("train", "valid")
        },
    }


def problems_of(run: TrainingRun) -> list[Problem]:
    """What is wrong with a run by its own record."""
    found = []
    if not run.record.get("ended"):
        cost = cost_of(run)
        log = f"; its log is {run.log}" if run.log.is_file() else ""
        message = (
            f"{run.folder}: {cost['steps']:,} of {cost['steps_planned']:,} steps, not ended: "
            f"stopped, failed, or still at work{log}"
        )
        found.append(problem("unfinished run", message))
    if lost := run.record["train"].get("answers_lost"):
        message = f"{run.folder}: {lost:,} training samples lost their whole answer to --max_length"
        found.append(problem("truncated", message))
    if times := len(run.record.get(RESUMED_OTHERWISE) or []):
        message = (
            f"{run.folder}: by {RESUMED_OTHERWISE} in its {RUN_RECORD} resumed {times} times with "
            "other ways to compute; its weights are not bit for bit those of an unbroken run"
        )
        found.append(problem("resumed otherwise", message))
    return found
