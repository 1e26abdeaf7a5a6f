"""Which checkpoint of a run is reported: the best on valid, from the fifth epoch on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.runs.checkpoints import first_candidate_epoch

Result = dict[str, Any]


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
