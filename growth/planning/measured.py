"""What was measured on mixtures: results of runs, or a CSV file -> `growth.planning.amounts`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from growth.core.errors import InputError
from growth.core.intervals import pooled_score
from growth.core.options import MixtureOptions
from growth.core.schemas import SCORE_AGAIN, ResultsRecord, read_record
from growth.data.study import Recipe, Study
from growth.planning.amounts import Measured, Outcome
from growth.report.curves import sizes_of
from growth.report.laws import LARGEST, measurement, number_of, read_csv
from growth.report.results_rows import IDENTITY, Row
from growth.report.results_table import read_results
from growth.runs.layout import results_folders

SCORE, LOSS = VALUES = ("score", "loss")
REQUIRED = ("run", "ability", "value")
_NOT_LINES = (*REQUIRED, "n", "repeat")
Point = tuple[tuple[float, ...], float, float | None]  # lines, value, questions


class Found(NamedTuple):
    """What was read.

    Attributes:
        measured: of all abilities.
        notes: on what was left out, a sentence each.
        study: that the results are of; None for a CSV file.
    """

    measured: Measured
    notes: list[str]
    study: Study | None


def measured(source: MixtureOptions, flag: Path | None, value: str) -> Found:
    """What the flags name.

    Args:
        source: results, or a CSV file.
        flag: the value of --study.
        value: SCORE or LOSS, of results.

    Raises:
        InputError: flags that exclude each other, or as `measured_of_results` and
            `measured_of_csv`.
    """
    if source.mixtures is None:
        return measured_of_results(source, flag, value)
    others = ("results_path", "selection_path", "model_size", "value")
    if given := [name for name in others if getattr(source, name) is not None]:
        raise InputError(
            f"--mixtures {source.mixtures}: goes without --{given[0]}, which is about results; "
            "give one of the two"
        )
    return measured_of_csv(source.mixtures)


def measured_of_results(source: MixtureOptions, flag: Path | None, value: str) -> Found:
    """The results of all runs of one model size whose lines of each ability are known.

    Args:
        source: where they are.
        flag: the value of --study.
        value: SCORE, or LOSS of the gold answers, which scores stand in for where no result has
            one and the flags do not ask for it.

    Raises:
        InputError: as `read_results`; several model sizes; or an ability has not been measured, or
            on one mixture only.
    """
    results_path, selection_path = results_folders(source)
    results = read_results(results_path, selection_path, flag)
    model_size = source.model_size
    rows, notes, study = results.rows, list(results.notes), results.study
    where = f"--results_path {results_path}"
    sizes = sizes_of(rows)
    if model_size is None and len(sizes) > 1:
        raise InputError(f"{where}: results of {', '.join(sizes)}; choose one with --model_size")
    if model_size is not None and model_size not in sizes:
        raise InputError(f"--model_size {model_size}: {where} has {', '.join(sizes)}")
    rows = rows[rows["model_size"] == (model_size or sizes[0])]
    rows = rows[rows["samples"] > 0]  # what a model that is no run of ours was tuned on, who knows?
    limits = sorted({int(limit) for limit in rows["limit"].dropna()})
    if limits:
        notes.append(f"{where}: smoke runs, of the first {limits[0]} lines a file; not a result")
    names = tuple(ability.name for ability in study.in_domain)
    lines: dict[str, tuple[float, ...]] = {}
    for name in dict.fromkeys(rows["data_type"]):
        found = lines_of(study.recipes[name], names)
        if found is None:
            notes.append(f"{name}: left out, its lines are not known by ability")
        else:
            lines[name] = found
    rows = rows[rows["data_type"].isin(lines) & rows["ability"].isin(names)]
    groups = rows.groupby(["ability", *IDENTITY], sort=False)
    runs = [cast(list[Row], group.to_dict("records")) for _, group in groups]
    losses = [_loss(own) for own in runs] if value == LOSS else [None] * len(runs)
    if value == LOSS and source.value is None and not any(losses):
        notes.append(f"{where}: no result has a loss, so scores are fitted")
        value = SCORE
    points: dict[str, list[Point]] = defaultdict(list)
    chances: dict[str, float] = {}
    for own, loss in zip(runs, losses, strict=True):
        ability = own[0]["ability"]
        score = pooled_score(own)
        amounts = lines[own[0]["data_type"]]
        if value == SCORE:
            points[ability].append((amounts, score["score"], score["n"]))
            chances[ability] = score["expected"]
        elif loss is not None:
            points[ability].append((amounts, loss, None))
    return Found(_measured(names, points, chances, f"{where}, {value}"), notes, study)


def lines_of(recipe: Recipe, names: Sequence[str]) -> tuple[float, ...] | None:
    """How many lines a setting has of each ability; None where that is not known."""
    quotas: dict[str, int | None] = {share.name: share.quota for share in recipe.shares}
    if None in quotas.values() or not set(quotas) <= set(names):
        return None
    return tuple(float(quotas.get(name) or 0) for name in names)


def _loss(rows: Sequence[Row]) -> float | None:
    """The loss of an ability that the results file of a run records; None where it does not."""
    path = rows[0]["path"]
    entry: Mapping[str, Any] = read_record(path, ResultsRecord, SCORE_AGAIN)["files"][
        rows[0]["file"]
    ]
    return entry.get("loss")


def measured_of_csv(path: Path) -> Found:
    """The rows of a CSV file: run, ability, value, n if scores, and a column of lines an ability.

    Raises:
        InputError: it is no such file; the line is named.
    """
    flag = "--mixtures"
    rows = read_csv(path, flag, REQUIRED, "a column with the lines of each ability")
    if not rows:
        raise InputError(f"{flag} {path}: has no rows below its header; give one a run and ability")
    names = tuple(name for name in rows[0][1] if name not in _NOT_LINES)
    points: dict[str, list[Point]] = defaultdict(list)
    seen: dict[tuple[str, str], int] = {}
    mixtures: dict[str, tuple[int, tuple[float, ...]]] = {}
    for line, row in rows:
        where = f"{flag} {path}:{line}"
        ability = row["ability"]
        if ability not in names:
            raise InputError(
                f"{where}: ability is {ability!r}, and there is no column of its lines; expected "
                f"one of {', '.join(names) or 'such columns'}"
            )
        if (row["run"], ability) in seen:
            other = seen[row["run"], ability]
            raise InputError(f"{where}: {row['run']} has a value of {ability} in line {other}")
        seen[row["run"], ability] = line
        amounts = tuple(
            number_of(row[name], f"{where}: {name}", 0, LARGEST, "lines") for name in names
        )
        other, mixture = mixtures.setdefault(row["run"], (line, amounts))
        if amounts != mixture:
            raise InputError(
                f"{where}: {row['run']} has other lines than in line {other}; a run is tuned on "
                "one mixture: give it the same in all its rows, or another name"
            )
        value, questions = measurement(row, where)
        points[ability].append((amounts, value, questions))
    return Found(_measured(names, points, {}, f"{flag} {path}"), [], None)


def _measured(
    names: tuple[str, ...],
    points: Mapping[str, list[Point]],
    chances: Mapping[str, float],
    where: str,
) -> Measured:
    """The points as one measurement.

    Raises:
        InputError: of an ability there are none, or on one mixture only, or scores and losses.
    """
    if missing := [name for name in names if not points.get(name)]:
        raise InputError(
            f"{where}: nothing was measured of {', '.join(missing)}; lines can be shared out among "
            "abilities that have been measured only"
        )
    outcomes = []
    for name in names:
        amounts, values, questions = zip(*points[name], strict=True)
        if len({asked is None for asked in questions}) > 1:
            raise InputError(f"{where}: {name} has scores and losses; give one kind")
        asked = None if questions[0] is None else np.array(questions, float)
        outcomes.append(
            Outcome(name, np.array(amounts), np.array(values, float), asked, chances.get(name))
        )
    if len({outcome.is_score for outcome in outcomes}) > 1:
        raise InputError(f"{where}: scores of some abilities and losses of others; give one kind")
    mixtures = np.unique(np.concatenate([outcome.amounts for outcome in outcomes]), axis=0)
    few = [o.ability for o in outcomes if len(np.unique(o.mixtures)) < 2]
    if few:
        raise InputError(
            f"{where}: {', '.join(few)} was measured on one size and mixture only; a law needs two "
            "or more: other sizes, or a design (data/design.py)"
        )
    totals = mixtures.sum(1)
    reference = np.exp(np.mean(np.log(totals[totals > 0] / len(names))))
    return Measured(names, tuple(outcomes), float(reference))
