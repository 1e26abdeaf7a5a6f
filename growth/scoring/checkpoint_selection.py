"""Which checkpoint of a run is reported: the best on valid, from the fifth epoch on."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from growth.core.errors import InputError
from growth.core.files import write_json
from growth.core.locks import locked
from growth.core.schemas import SCORE_AGAIN, ResultsRecord, read_record
from growth.runs.checkpoints import first_candidate_epoch
from growth.runs.layout import RESULTS_SUFFIX, run_folder, selection_name
from growth.scoring.results import Results

Choice = dict[str, Any]  # the content of a selected-checkpoint.json

NEEDED = ("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs")


OPTIMISTIC = "optimistic, as the highest of several on the same lines: report the test score"


class Choices(NamedTuple):
    """What was chosen, by the folder of the run, and why nothing was in other runs."""

    chosen: list[Choice]
    failed: list[InputError]

    def check(self) -> None:
        """Complain of the runs without a choice.

        Raises:
            InputError: there are such runs; each is named.
        """
        if self.failed:
            raise InputError(
                f"no checkpoint chosen in {len(self.failed)} of "
                f"{len(self.failed) + len(self.chosen)} runs: " + "; ".join(map(str, self.failed))
            )


def choose_checkpoints(results_path: Path, wait: bool = False) -> Choices:
    """Choose a checkpoint of each run, and of each limit of lines, and write the choice.

    A choice is written as `selected-checkpoint.json` to the folder of its run's results. Results
    that are not of a run's checkpoint are left out, with a line on stderr. A run without a
    candidate does not keep the others from theirs.

    Args:
        results_path: folder of results on valid, at any depth.
        wait: where another process chooses for the same run, for it to end.

    Returns:
        The choices, and the runs without one.

    Raises:
        InputError: there is nothing to choose among.
    """
    runs: dict[tuple[Path, int | None], list[Results]] = {}
    for path in sorted(results_path.rglob(f"*{RESULTS_SUFFIX}")):
        results = read_record(path, ResultsRecord, SCORE_AGAIN)
        run = results["run"]
        if all(name in run for name in NEEDED) and run["epochs"] > 0:
            runs.setdefault((path.parent, run.get("limit")), []).append(results)
        else:
            print(f"{path}: not a checkpoint of one of our runs, left out", file=sys.stderr)
    if not runs:
        raise InputError(
            f"--results_path {results_path}: no results of checkpoints below it; "
            "evaluate/score.py writes them"
        )
    choices = Choices([], [])
    for (folder, limit), of_run in runs.items():
        try:
            choice = select(of_run, folder)
        except InputError as error:
            choices.failed.append(error)
            continue
        path = folder / selection_name(limit)
        with locked(path, "--results_path", wait):
            write_json(path, choice)
        choices.chosen.append(choice)
    return choices


def select(results: Sequence[Results], where: Path) -> Choice:
    """Choose among the valid results of one run: the best `average`, ties to the earlier.

    The `average` of a choice among several is also the luckiest of them: among 11 of equal worth,
    1.6 standard errors too high if their answers are independent (2.5 points for ten abilities of
    100 lines), less if not. So it has a note, and no interval.

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
    if any(result.get("average") is None for result in found):
        raise InputError(f"{where}: no file of the ten abilities was scored; choose among those")
    for result in found[1:]:
        if not _same_files(result["files"], found[0]["files"]):
            raise InputError(
                f"{where}: {result['run']['checkpoint']} and {found[0]['run']['checkpoint']} were "
                "scored on different files; predict and score both on the same ones"
            )
    best = max(found, key=lambda r: (r["average"], -r["run"]["step"]))
    run, alone = best["run"], len(found) == 1
    return {
        **{name: run.get(name) for name in ("model_size", "data_type", "timestamp", "limit")},
        **{name: run[name] for name in ("checkpoint", "step", "epoch")},
        "average": best["average"],
        # The interval of one checkpoint's score does not hold for the highest of several.
        **{name: best.get(name) if alone else None for name in ("average_low", "average_high")},
        **({} if alone else {"average_note": OPTIMISTIC}),
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
    note = f"; {choice['average_note']}" if "average_note" in choice else ""
    return f"{run_folder(choice) / choice['checkpoint']}\t{choice['reason']}{note}"
