"""The checkpoints that a run keeps once one is selected, and what its record says of the others.

`removed_checkpoints` in run.json names what is kept and what was removed, so that later stages tell
what was removed on purpose from what is lost.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import is_file
from growth.core.locks import locked
from growth.core.schemas import PredictionRecord, SelectionRecord, read_record
from growth.runs.checkpoints import (
    CHECKPOINT,
    checkpoint_step,
    checkpoints,
    drop_resume_state,
    epoch_of,
    first_candidate_epoch,
    remove_checkpoint,
    weight_problems,
)
from growth.runs.layout import (
    PREDICTION_PREFIX,
    PREDICTIONS,
    RESULTS,
    RUN_RECORD,
    Run,
    limit_suffix,
    now,
    read_run,
    run_folder,
    selection_name,
    write_run,
)

logger = logging.getLogger(__name__)
REMOVED = "removed_checkpoints"  # in run.json
_ANEW = "put it back, or train anew in another --output_dir"


def keep_selected(
    run_dir: Path,
    predictions: Path = PREDICTIONS,
    results: Path = RESULTS,
    *,
    flag: str = "--keep_checkpoints chosen:",
    wait: bool = False,
) -> list[str]:
    """Remove a run's checkpoints but the selected one, and what that holds only for resuming.

    Nothing goes before everything that a checkpoint is for is there: the run has ended, all
    candidates that are left (train/finetune.py --save_total_limit) are predicted on valid, so that
    they can be scored again, and the selected one on test.
    A selection among the first lines of each file (--limit) is no result, and never counts. What is
    once kept stays, even if other rules of scoring select another checkpoint later. A kill amid it
    leaves a run that the next call puts in order; a second call finds nothing to do.

    Args:
        run_dir: of the run.
        predictions: folder of predictions; `results`: of their scores and of the selection.
        flag: what asked for it, for messages.
        wait: where another process works in the folder, for it to end.

    Returns:
        The names of the checkpoints removed now.

    Raises:
        InputError: something of the above is not there; then nothing is removed.
    """
    run = _ended_run(run_dir, flag)
    selected = _selected(run_dir, run, predictions, results, flag)
    with locked(run_dir, flag, wait):
        run = _ended_run(run_dir, flag)  # as it is now that nobody else writes it
        there = checkpoints(run_dir)
        before = run.get(REMOVED, {"kept": [], "removed": []})
        if selected not in [path.name for path in there]:
            if not before["kept"]:
                raise InputError(f"{flag} {run_dir / selected}: selected, and not there; {_ANEW}")
            logger.warning(
                "%s: %s is selected now, and was removed when %s was; nothing more is removed",
                *(run_dir, selected, ", ".join(before["kept"])),
            )
            return []
        if problems := weight_problems(
            run_dir / selected, bool(run["hyperparameters"].get("lora"))
        ):
            raise InputError(f"{flag} {run_dir / selected}: {', '.join(problems)}; {_ANEW}")
        kept = [path.name for path in there if path.name in {*before["kept"], selected}]
        outgoing = [path for path in there if path.name not in kept]
        _record(run_dir, run, kept, outgoing)
        for path in outgoing:
            remove_checkpoint(path)
        for path in run_dir.glob(f".{CHECKPOINT}*"):  # half removed by a kill
            shutil.rmtree(path)
        for name in kept:
            drop_resume_state(run_dir / name)
    return [path.name for path in outgoing]


def _ended_run(run_dir: Path, flag: str) -> Run:
    run = read_run(run_dir)
    if run is None or not run.get("ended"):
        what = f"no {RUN_RECORD} in it" if run is None else "not trained to its end yet"
        raise InputError(f"{flag} {run_dir}: {what}; give the folder of a run that has ended")
    return run


def _selected(run_dir: Path, run: Run, predictions: Path, results: Path, flag: str) -> str:
    """The selected checkpoint of a run, once nothing more is to be computed of the others."""
    folder = run_folder(run)
    path = results / "valid" / folder / selection_name(None)
    if not is_file(path):
        raise InputError(f"{flag} {path}: no such file; evaluate/run.py selects a checkpoint first")
    again = "select again with evaluate/select_checkpoint.py"
    choice = read_record(path, SelectionRecord, again)
    candidates = [entry["checkpoint"] for entry in choice.get("candidates", [])]
    if choice["checkpoint"] not in candidates:
        raise InputError(f"{flag} {path}: its candidates lack {choice['checkpoint']}; {again}")
    if run_folder(choice) != folder or choice.get("limit") is not None:
        raise InputError(
            f"{flag} {path}: is the choice of {run_folder(choice)}, limit {choice.get('limit')}; "
            f"{again}"
        )
    # What --save_total_limit has removed is no candidate any more.
    gaps = choice.get("not_scored", [])
    unscored = [
        checkpoint.name
        for checkpoint in checkpoints(run_dir)
        if any(gap[0] <= epoch_of(checkpoint) <= gap[-1] for gap in gaps if gap)
    ]
    if unscored:
        raise InputError(
            f"{flag} {path}: candidates without a result ({', '.join(unscored)}); evaluate/run.py "
            "predicts and scores them"
        )
    needed = [("valid", name) for name in candidates]
    for split, name in [*needed, ("test", choice["checkpoint"])]:
        if problem := _lacking(predictions / split / folder / name):
            raise InputError(f"{flag} {problem}; evaluate/run.py makes them")
    return choice["checkpoint"]


def _lacking(folder: Path) -> str | None:
    """What a folder of predictions lacks of all that its record says belongs there."""
    if not is_file(folder / RUN_RECORD):
        return f"{folder}: no predictions"
    record = read_record(folder / RUN_RECORD, PredictionRecord, "predict again")
    files = [f"{PREDICTION_PREFIX}{stem}.json" for stem in record.get("lines", {})]
    missing = [name for name in files if not is_file(folder / name)]
    if missing or not files:
        return f"{folder}: predictions are missing ({', '.join(missing[:3]) or 'all'})"
    return None


def _record(run_dir: Path, run: Run, kept: list[str], outgoing: list[Path]) -> None:
    """Say in run.json what is kept and what goes, before it goes."""
    earlier = {entry["checkpoint"]: entry for entry in run.get(REMOVED, {}).get("removed", [])}
    entries = earlier | {
        path.name: {
            "checkpoint": path.name,
            "step": checkpoint_step(path),
            "epoch": epoch_of(path),
        }
        for path in outgoing
    }
    removed = sorted(
        (entry for name, entry in entries.items() if name not in kept), key=lambda e: e["step"]
    )
    before = run.get(REMOVED, {})
    if (before.get("kept"), before.get("removed")) != (kept, removed):
        write_run(run_dir, run | {REMOVED: {"time": now(), "kept": kept, "removed": removed}})


def check_kept(run_dir: Path, run: Run) -> bool:
    """Whether a run keeps its selected checkpoints only.

    Raises:
        InputError: it does, and one of those is not there: it is lost.
    """
    if REMOVED not in run:
        return False
    there = [path.name for path in checkpoints(run_dir)]
    for name in run[REMOVED]["kept"]:
        if name not in there:
            raise InputError(
                f"{run_dir / name}: missing or damaged, and the others were removed once it was "
                f"selected; {_ANEW}"
            )
    return True


def refuse_removed(name: str) -> None:
    """Refuse a checkpoint that was removed on purpose, as a model to load.

    Raises:
        InputError: `name` is one.
    """
    path = Path(name)
    run = None if path.exists() else read_run(path.parent)
    if run is not None and path.name in _removed_names(run):
        kept = ", ".join(run[REMOVED]["kept"])
        raise InputError(
            f"{name}: removed once {kept} was selected (--keep_checkpoints chosen), at "
            f"{run[REMOVED]['time']}; take that one, or train anew with --keep_checkpoints all"
        )


def check_candidates_predicted(
    run_dir: Path, run: Run, limit: int | None, predictions: Path = PREDICTIONS
) -> None:
    """Check that a selection can still be made among all candidates of a run, those removed too.

    Args:
        run_dir: of the run, with `run` its record.
        limit: of lines, that the selection is to be of.
        predictions: folder of predictions.

    Raises:
        InputError: predictions of a removed candidate are not there: it would be among the others.
    """
    first = first_candidate_epoch(run["hyperparameters"]["epochs"])
    for entry in run.get(REMOVED, {}).get("removed", []):
        path = run_dir / entry["checkpoint"]
        if entry["epoch"] < first or path.exists():
            continue
        folder = predictions / "valid" / run_folder(run)
        if problem := _lacking(folder / (entry["checkpoint"] + limit_suffix(limit))):
            kept = run_dir / run[REMOVED]["kept"][0]
            raise InputError(
                f"--run_dir {run_dir}: {entry['checkpoint']} was removed once {kept.name} was "
                f"selected, and can't be predicted any more ({problem}); put its predictions back, "
                f"or predict with evaluate/predict.py --model_name_or_path {kept}"
            )


def _removed_names(run: Mapping[str, Any]) -> set[str]:
    return {entry["checkpoint"] for entry in run.get(REMOVED, {}).get("removed", [])}
