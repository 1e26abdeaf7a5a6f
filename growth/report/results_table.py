"""Results files -> a table: one row for each scored file of each run, one checkpoint a run."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from growth.core.errors import InputError
from growth.core.schemas import SelectionRecord, read_record
from growth.data.study import AVERAGE, OOD_AVERAGE, Study
from growth.report.results_rows import (
    IDENTITY,
    ROW,
    SCORES,
    Rows,
    ScoredFile,
    joined,
    read_rows,
)
from growth.report.values import SCORE
from growth.runs.layout import Run, decoding_differences, selection_name

_SELECTION = r"selected-checkpoint(-limit\d+)?\.json"  # as `selection_name` makes it
RUN = ["model_size", "data_type", "timestamp"]
SETTING = ["model_size", "setting"]
RunKey = tuple[Hashable, ...]  # model_size, data_type, timestamp, limit


class Results(NamedTuple):
    """What a results folder holds.

    Attributes:
        rows: a row a scored file and run, in the columns of `ROW`; per cent, or in the unit of the
            value. `parts` counts the files behind a row: 1, or those of an average; `scored_on` has
            the name, number of questions and digest of each of them; `decoding` is how they were
            predicted.
        notes: what was left out and why, a sentence each.
        study: that all of them are of.
    """

    rows: pd.DataFrame
    notes: list[str]
    study: Study


def read_results(
    results_path: Path, selection_path: Path, flag: Path | None = None, value: str = SCORE
) -> Results:
    """Read every results file below a folder; keep one checkpoint a run.

    Args:
        results_path: folder of `*-results.json` files, at any depth.
        selection_path: folder of the choices that `select_checkpoint.py` wrote, at any depth.
        flag: the value of --study; None for the study that the results say.
        value: what of the files is read as the score, one of `growth.report.values.VALUES`.

    Raises:
        InputError: they are of several studies or of another one than `flag`, there are no results,
            they can't be placed on a curve, a file is malformed, or a run has several checkpoints
            and none of them was selected.
    """
    return results_of(read_rows(results_path, flag, value), results_path, selection_path)


def results_of(read: Rows, results_path: Path, selection_path: Path) -> Results:
    """The table of what was `read` from `results_path`; see `read_results`."""
    notes = read.notes
    table = pd.DataFrame(read.rows, columns=ROW, dtype=object)
    table = table.astype(dict.fromkeys(SCORES, float))
    _check_unique(table, results_path)
    table = _selected(_longest(table, notes), results_path, selection_path, notes)
    table = _predicted_alike(table, notes)
    table = _averages_over_same_files(table, notes)
    _note_shared_seeds(table, notes)
    return Results(table.reset_index(drop=True), notes, read.study)


def _check_unique(rows: pd.DataFrame, results_path: Path) -> None:
    """A result that counts twice is an error: valid and test together, or a copied folder."""
    for identity, group in rows.groupby([*IDENTITY, "limit"], dropna=False, sort=False):
        paths = list(dict.fromkeys(group["path"]))
        if len(paths) > 1:
            raise InputError(
                f"--results_path {results_path}: {paths[0]} and {paths[1]} are both results of "
                f"{joined(identity[:4])}; point --results_path at one of valid and test, or "
                "remove one of the two"
            )


def _selected(
    rows: pd.DataFrame, results_path: Path, selection_path: Path, notes: list[str]
) -> pd.DataFrame:
    """The rows of one checkpoint a run: the selected one where there are several.

    Raises:
        InputError: a run has several checkpoints, and no selection names one of them.
    """
    selections = read_selections(selection_path, notes)
    kept, undecided = [], []
    for run, group in rows.groupby(RUN, sort=False):
        found = list(dict.fromkeys(group["checkpoint"]))
        # A choice by a smoke run counts for results of the same smoke run only.
        limit = group["limit"].iloc[0]
        own = selections.get((*run, None if pd.isna(limit) else int(limit)))
        chosen = own or selections.get((*run, None))
        if len(found) == 1:
            if chosen not in (None, *found):
                notes.append(
                    f"{joined(run)}: drawn with {found[0]}, the only one scored there, though "
                    f"{chosen} was selected"
                )
            kept.append(group)
        elif chosen in found:
            kept.append(group[group["checkpoint"] == chosen])
        else:
            why = "none was selected" if chosen is None else f"the selected {chosen} is not there"
            undecided.append(f"{joined(run)} has {', '.join(found)}, and {why}")
    if undecided:
        more = f" (and {len(undecided) - 1} more runs alike)" if len(undecided) > 1 else ""
        raise InputError(
            f"--results_path {results_path}: a curve needs one checkpoint a run, but "
            f"{undecided[0]}{more}. Looked for {selection_name(None)} below {selection_path}; "
            f"choose with `python evaluate/select_checkpoint.py --results_path {selection_path}`, "
            "or give --selection_path"
        )
    return pd.concat(kept)


def read_selections(selection_path: Path, notes: list[str]) -> dict[RunKey, str]:
    """The selected checkpoint of each (model_size, data_type, timestamp, limit).

    Only files that are named as `select_checkpoint.py` names them count; others get a note.

    Raises:
        InputError: a selection file is damaged, or two are of one run and name two checkpoints.
    """
    selections: dict[RunKey, tuple[str, Path]] = {}
    for path in sorted(selection_path.rglob(f"{Path(selection_name(None)).stem}*.json")):
        if not re.fullmatch(_SELECTION, path.name):
            notes.append(f"{path}: not read, as no choice has such a name")
            continue
        remedy = "make it anew with evaluate/select_checkpoint.py"
        selection = read_record(path, SelectionRecord, remedy)
        limit, checkpoint = selection.get("limit"), selection["checkpoint"]
        if path.name != selection_name(limit):
            raise InputError(f"{path}: is a choice with the limit {limit} by its content; {remedy}")
        run = (*(selection[name] for name in RUN), limit)
        other, of_other = selections.setdefault(run, (checkpoint, path))
        if other != checkpoint:
            raise InputError(
                f"--selection_path {selection_path}: of {joined(run[:3])}, {of_other} has chosen "
                f"{other} and {path} {checkpoint}; remove one of the two"
            )
    return {run: checkpoint for run, (checkpoint, _) in selections.items()}


def _longest(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Of a setting's results the complete ones; a smoke run next to them does not count."""
    kept = []
    for setting, group in rows.groupby(SETTING, sort=False):
        limits = group["limit"].map(lambda limit: np.inf if pd.isna(limit) else limit)
        longest = group[limits == limits.max()]
        if len(longest) < len(group):
            left = sorted({str(path) for path in set(group["path"]) - set(longest["path"])})
            notes.append(
                f"{joined(setting)}: left out, as longer results are there: {', '.join(left)}"
            )
        kept.append(longest)
    return pd.concat(kept)


def _predicted_alike(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Without the runs that were predicted in another way than most of their size; each is noted.

    Runs of different sizes are on different curves; that they differ is noted.
    """
    left_out: list[Hashable] = []
    usual: dict[Hashable, Run] = {}
    for size, group in rows.groupby("model_size", sort=False):
        ways = dict(zip(group["path"], group["decoding"], strict=True))
        kept = max(ways, key=lambda path: sum(_agreement(ways[path], way) for way in ways.values()))
        usual[size] = ways[kept]
        found = {path: decoding_differences(way, ways[kept]) for path, way in ways.items()}
        others = _others(kept, list(found.values()).count([]), len(found))
        for path, different in found.items():
            if different:
                left_out += list(group.index[group["path"] == path])
                notes.append(
                    f"{path}: left out, as it was predicted in another way than {others}: "
                    f"{', '.join(different)}"
                )
    for (one, way), (other, of_other) in combinations(usual.items(), 2):
        if different := decoding_differences(way, of_other):
            notes.append(
                f"{one} and {other} were predicted in different ways: {', '.join(different)}"
            )
    return rows.drop(index=left_out)


def _agreement(first: Run, second: Run) -> int:
    """In how many fields two ways of predicting agree, less those in which they differ."""
    return len(first.keys() & second.keys()) - 2 * len(decoding_differences(first, second))


def _others(kept: object, alike: int, runs: int) -> str:
    """What those that are left out are compared with."""
    return "most runs" if 2 * alike > runs else str(kept)


def _averages_over_same_files(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Without the averages of runs that were scored on other files than most; each is noted.

    A score of a single ability stays; that its files are others is noted.
    """
    left_out: list[Hashable] = []
    different: dict[str, list[str]] = {}
    for key, group in rows.groupby("ability", sort=False):
        ability, of_run = str(key), _scored_on(group)
        counts = Counter(of_run.values())
        if len(counts) < 2:
            continue
        if ability not in (AVERAGE, OOD_AVERAGE):
            found = sorted({name for files in counts for name, *_ in files})
            different.setdefault(", ".join(found), []).append(ability)
            continue
        most = max(counts, key=lambda files: (counts[files], len(files)))
        kept = next(own["path"].iloc[0] for run, own in group.groupby(list(IDENTITY), sort=False)
                    if of_run[run] == most)  # fmt: skip
        others = _others(kept, counts[most], len(of_run))
        for run, own in group.groupby(list(IDENTITY), sort=False):
            if of_run[run] != most:
                left_out += list(own.index)
                notes.append(
                    f"{own['path'].iloc[0]}: left out of {ability}, as it was scored on other "
                    f"files than {others}: {_difference(of_run[run], most)}"
                )
    for differing, abilities in different.items():
        notes.append(
            f"{', '.join(abilities)}: one curve holds runs scored on different lines ({differing})"
        )
    return rows.drop(index=left_out)


def _scored_on(rows: pd.DataFrame) -> dict[Hashable, tuple[ScoredFile, ...]]:
    """The files behind the scores of one ability, by run; digests only where all are known."""
    known = all(digest for files in rows["scored_on"] for *_, digest in files)
    return {
        run: tuple(
            sorted(
                (name, n, digest if known else None)
                for files in own["scored_on"]
                for name, n, digest in files
            )
        )
        for run, own in rows.groupby(list(IDENTITY), sort=False)
    }


def _difference(files: Iterable[ScoredFile], most: Iterable[ScoredFile]) -> str:
    """What distinguishes the files of one run from those of most runs."""
    own, others = ({name: (n, digest) for name, n, digest in group} for group in (files, most))
    parts = [f"without {name}" for name in others if name not in own]
    parts += [f"with {name}" for name in own if name not in others]
    for name in own.keys() & others.keys():
        if own[name] != others[name]:
            what = "other" if own[name][0] == others[name][0] else f"{own[name][0]:,}"
            parts.append(f"{what} lines of {name}")
    return ", ".join(sorted(parts))


def _note_shared_seeds(rows: pd.DataFrame, notes: list[str]) -> None:
    """Several runs of one setting and seed are one repeat (`growth.report.curves`)."""
    for _, group in rows.groupby([*SETTING, "seed"], sort=False):
        runs = group.drop_duplicates(RUN)
        setting, seed = runs[SETTING].iloc[0], runs["seed"].iloc[0]
        if len(runs) > 1:
            named = ", ".join(f"{run.data_type}/{run.timestamp}" for run in runs.itertuples())
            notes.append(
                f"{joined(setting)}: {named} have the seed {seed} in common and count as one "
                "repeat, their mean"
            )
