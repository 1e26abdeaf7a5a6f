"""Which checkpoint of a run is reported: the best on valid, from the fifth epoch on."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import read_json, write_json
from growth.runs.checkpoints import first_candidate_epoch
from growth.runs.layout import RESULTS_SUFFIX, run_folder, selection_name
from growth.scoring.results import Results

Choice = dict[str, Any]  # the content of a selected-checkpoint.json

NEEDED = ("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs")


def choose_checkpoints(results_path: Path) -> list[Choice]:
    """Choose a checkpoint of each run, and of each limit of lines, and write the choice.

    A choice is written as `selected-checkpoint.json` to the folder of its run's results. Results
    that are not of a run's checkpoint are left out, with a line on stderr.

    Args:
        results_path: folder of results on valid, at any depth.

    Returns:
        The choices, by the folder of the run.

    Raises:
        InputError: there is nothing to choose among.
    """
    runs: dict[tuple[Path, int | None], list[Results]] = {}
    for path in sorted(results_path.rglob(f"*{RESULTS_SUFFIX}")):
        results = read_json(path)
        run = results.get("run", {})
        if all(name in run for name in NEEDED) and run["epochs"] > 0:
            runs.setdefault((path.parent, run.get("limit")), []).append(results)
        else:
            print(f"{path}: not a checkpoint of one of our runs, left out", file=sys.stderr)
    if not runs:
        raise InputError(
            f"--results_path {results_path}: no results of checkpoints below it; "
            "evaluate/score.py writes them"
        )
    choices = []
    for (folder, limit), of_run in runs.items():
        choice = select(of_run, folder)
        write_json(folder / selection_name(limit), choice)
        choices.append(choice)
    return choices


def select(results: Sequence[Results], where: Path) -> Choice:
    """Choose among the valid results of one run: the best `average`, ties to the earlier.

    Args:
        results: of one run, one a checkpoint.
        where: they came from.

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
    for result in found[1:]:
        if not _same_files(result["files"], found[0]["files"]):
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


def _same_files(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two results are of the same lines; those of older results have no digest."""
    return first.keys() == second.keys() and all(
        entry["n"] == second[name]["n"]
        and len({entry.get("digest"), second[name].get("digest")} - {None}) < 2
        for name, entry in first.items()
    )


def description(choice: Choice) -> str:
    """A choice on one line: `<model_size>/<data_type>/<timestamp>/<checkpoint>`, a tab, why."""
    return f"{run_folder(choice) / choice['checkpoint']}\t{choice['reason']}"
