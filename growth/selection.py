"""Which checkpoint of a run is reported: the best on valid, from the fifth epoch on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.command_line import InputError
from growth.layout import checkpoints, trainer_state

FIRST_EPOCH = 5  # earlier checkpoints are no candidates (paper section 4.2)

Result = dict[str, Any]


def first_candidate_epoch(epochs: int) -> int:
    """The epoch whose checkpoint is the first candidate; the first one's when a run is shorter."""
    return FIRST_EPOCH if epochs >= FIRST_EPOCH else 1


def epoch_of(checkpoint: Path) -> int:
    """The epoch that a checkpoint closes."""
    return round(trainer_state(checkpoint)["epoch"])


def candidates(run_dir: Path, epochs: int) -> list[Path]:
    """The checkpoints of a run that selection considers, by step.

    Raises:
        InputError: there is none.
    """
    first = first_candidate_epoch(epochs)
    found = [path for path in checkpoints(run_dir) if epoch_of(path) >= first]
    if not found:
        raise InputError(
            f"{run_dir}: no complete checkpoint from epoch {first} on; go on training with --resume"
        )
    return found


def select(results: Sequence[Result], where: Path) -> dict[str, Any]:
    """Choose among the valid results of one run: the best `average`, ties to the earlier.

    Args:
        results: of one run, one a checkpoint; `where` they came from.

    Raises:
        InputError: no candidate, or candidates scored on different files.
    """
    epochs = results[0]["run"]["epochs"]
    first = first_candidate_epoch(epochs)
    found = sorted(
        (r for r in results if r["run"]["epoch"] >= first), key=lambda r: r["run"]["step"]
    )
    if not found:
        raise InputError(
            f"{where}: no result from epoch {first} on (the run has {epochs} epochs); predict and "
            "score later checkpoints"
        )
    if "average" not in found[0]:
        raise InputError(f"{where}: no file of the ten abilities was scored; choose among those")
    files = {name: entry["n"] for name, entry in found[0]["files"].items()}
    for result in found[1:]:
        if {name: entry["n"] for name, entry in result["files"].items()} != files:
            raise InputError(
                f"{where}: {result['run']['checkpoint']} and {found[0]['run']['checkpoint']} were "
                "scored on different files; predict and score both on the same ones"
            )
    best = max(found, key=lambda r: (r["average"], -r["run"]["step"]))
    run = best["run"]
    return {
        **{name: run.get(name) for name in ("model_size", "data_type", "timestamp", "limit")},
        **{name: run[name] for name in ("checkpoint", "step", "epoch")},
        **{name: best[name] for name in ("average", "average_low", "average_high")},
        "reason": f"best mean valid score ({best['average']:.2f}) of {len(found)} checkpoints from "
        f"epoch {first} on, ties to the earlier",
        "candidates": [
            {name: r["run"][name] for name in ("checkpoint", "step", "epoch")}
            | {"average": r["average"]}
            for r in found
        ],
    }
