"""Which checkpoint of a run is reported: the best on valid, from the fifth epoch on."""

import sys
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from growth.core.errors import InputError
from growth.core.files import write_json
from growth.core.locks import locked
from growth.core.schemas import SCORE_AGAIN, ResultsRecord, read_record
from growth.data.study import named_study, recorded, study_of
from growth.runs.checkpoints import first_candidate_epoch
from growth.runs.layout import (
    RESULTS_SUFFIX,
    decoding_differences,
    decoding_of,
    run_folder,
    selection_name,
)
from growth.scoring.results import Results

Choice = dict[str, Any]  # the content of a selected-checkpoint.json

NEEDED = ("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs")
# What all checkpoints of one run have in common.
_OF_RUN = ("model_size", "data_type", "timestamp", "seed", "epochs", "samples", "split")
_Group = tuple[Path, int | None]  # the folder of a run's results, and their limit of lines
_Found = dict[Path, Results]

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


def choose_checkpoints(results_path: Path, wait: bool = False, flag: Path | None = None) -> Choices:
    """Choose a checkpoint of each run, and of each limit of lines, and write the choice.

    A choice is written as `selected-checkpoint.json` to the folder of its run's results. Results
    that are not of a run's checkpoint are left out, with a line on stderr. A run without a
    candidate, or with a damaged results file, does not keep the others from theirs.

    Args:
        results_path: folder of results on valid, at any depth.
        wait: where another process chooses for the same run, for it to end.
        flag: the value of --study, which all results have to be of; None for any study.

    Returns:
        The choices, and the runs without one.

    Raises:
        InputError: there is nothing to choose among, or --study can't be read.
    """
    named_study(flag)  # a fault of the flag is not one of each run
    runs, damaged = _read_runs(results_path, flag)
    if not runs and not damaged:
        raise InputError(
            f"--results_path {results_path}: no results of checkpoints below it; "
            "evaluate/score.py writes them"
        )
    choices = Choices([], list(damaged.values()))
    for (folder, limit), of_run in runs.items():
        if folder in damaged:
            continue
        try:
            _check_one_run(of_run, folder)
            choice = select(list(of_run.values()), folder)
        except InputError as error:
            choices.failed.append(error)
            continue
        path = folder / selection_name(limit)
        with locked(path, "--results_path", wait):
            write_json(path, choice)
        choices.chosen.append(choice)
    return choices


def _read_runs(
    results_path: Path, flag: Path | None
) -> tuple[dict[_Group, _Found], dict[Path, InputError]]:
    """The results of each run by their files, and the folders with one that can't be taken."""
    runs: dict[_Group, _Found] = {}
    damaged: dict[Path, InputError] = {}
    for path in sorted(results_path.rglob(f"*{RESULTS_SUFFIX}")):
        try:
            results = read_record(path, ResultsRecord, SCORE_AGAIN)
            if flag is not None:
                study_of(results["run"], flag, path)
        except InputError as error:
            damaged.setdefault(path.parent, error)
            continue
        run = results["run"]
        if all(name in run for name in NEEDED) and run["epochs"] > 0:
            runs.setdefault((path.parent, run.get("limit")), {})[path] = results
        else:
            print(f"{path}: not a checkpoint of one of our runs, left out", file=sys.stderr)
    return runs, damaged


def _check_one_run(found: _Found, where: Path) -> None:
    """Checkpoints are compared within one run, each once, all predicted in one way.

    Raises:
        InputError: they are not.
    """
    for (path, first), (other, second) in combinations(found.items(), 2):
        names, runs = f"{path.name} and {other.name}", (first["run"], second["run"])
        values = {name: [_shown(run.get(name)) for run in runs] for name in _OF_RUN}
        values["study"] = [recorded(run)["digest"] for run in runs]
        different = [
            f"{name} {' and '.join(of_both)}"
            for name, of_both in values.items()
            if "" not in of_both and len({*of_both}) > 1
        ]
        if different:
            raise InputError(
                f"{where}: {names} are of different runs ({', '.join(different)}); give the "
                "results of each a folder of their own"
            )
        different = decoding_differences(*map(decoding_of, runs))
        if different:
            raise InputError(
                f"{where}: {names} were predicted in different ways ({', '.join(different)}); "
                "predict and score both in one way"
            )
        if runs[0]["step"] == runs[1]["step"]:
            raise InputError(
                f"{where}: {names} are both results of step {runs[0]['step']}; remove one of them"
            )


def _shown(value: Any) -> str:
    """A value of a record, empty for none; a study by the digest of its rules."""
    return str(value["digest"] if isinstance(value, dict) else "" if value is None else value)


def select(results: Sequence[Results], where: Path) -> Choice:
    """Choose among the valid results of one run: the best `average`, ties to the earlier.

    The `average` of a choice among several is also the luckiest of them: among 11 of equal worth,
    1.6 standard errors too high if their answers are independent (2.5 points for ten abilities of
    100 lines), less if not. So it has a note, and no interval. Candidates without a result, of a
    run that has not ended say, are in `not_scored`: the first and last epoch of each gap.

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
        raise InputError(
            f"{where}: no file of an ability of the study was scored; choose among those"
        )
    for result in found[1:]:
        if not _same_files(result["files"], found[0]["files"]):
            raise InputError(
                f"{where}: {result['run']['checkpoint']} and {found[0]['run']['checkpoint']} were "
                "scored on different files; predict and score both on the same ones"
            )
    best = max(found, key=lambda r: (r["average"], -r["run"]["step"]))
    run, alone = best["run"], len(found) == 1
    split = run.get("split", "valid")
    there = [first - 1, *sorted(r["run"]["epoch"] for r in found), epochs + 1]
    lacking = [[before + 1, after - 1] for before, after in pairwise(there) if after - before > 1]
    return {
        **{name: run.get(name) for name in ("model_size", "data_type", "timestamp", "limit")},
        **{name: run[name] for name in ("checkpoint", "step", "epoch")},
        "average": best["average"],
        # The interval of one checkpoint's score does not hold for the highest of several.
        **{name: best.get(name) if alone else None for name in ("average_low", "average_high")},
        **({} if alone else {"average_note": OPTIMISTIC}),
        "split": split,
        **({"not_scored": lacking} if lacking else {}),
        "reason": f"best mean {split} score ({best['average']:.2f}) of {len(found)} checkpoints "
        f"from epoch {first} on, ties to the earlier",
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
    notes = [choice["average_note"]] if "average_note" in choice else []
    if "not_scored" in choice:
        epochs = ", ".join(" to ".join(map(str, sorted({*gap}))) for gap in choice["not_scored"])
        notes.append(f"without a result: epoch {epochs}")
    if choice.get("split") == "test":
        notes.append("selected on test, whose score is no fair estimate any more: select on valid")
    why = choice.get("reason", "")
    return "; ".join([f"{run_folder(choice) / choice['checkpoint']}\t{why}", *notes])
