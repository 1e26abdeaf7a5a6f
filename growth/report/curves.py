"""A table of results -> the places of growth curves: score against the samples tuned on.

`growth_points` gives one row for each place on a curve. No figure is drawn here.
"""

import re
from collections.abc import Hashable, Iterable
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from growth.core.intervals import (
    pooled_score,
    repeated_score,
    standard_deviation,
    standard_error,
    weighted_mean,
)
from growth.report.plot_types import SIGMA
from growth.report.results_rows import IDENTITY, SCORES, Row
from growth.report.results_table import SETTING
from growth.report.values import SCORE, VALUES

POINT = (
    *("ability", "model_size", "source", "data_type", "samples", "score", "low", "high", "chance"),
    *("n", "parts", "runs", "run_scores", "sd", "sd_questions", "limit", "checkpoints", "value"),
)


def size_key(model_size: str) -> tuple[float, str]:
    """Sorts model sizes by the parameters that they name: 270m, 7b, 13b; other names come last."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmbt]?)", model_size.lower())
    if match is None:
        return float("inf"), model_size
    unit = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[match[2]]
    return float(match[1]) * unit, model_size


def sizes_of(points: pd.DataFrame) -> list[str]:
    """The model sizes there are, the smallest first."""
    return sorted(set(points["model_size"]), key=size_key)


def growth_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The places of the curves: one row an ability, model size and setting (columns of `POINT`).

    Repeats of one setting, runs with other seeds, give the mean of their scores, with an interval
    of both questions and training (`repeated_score`); of one run it is that of its questions.
    `run_scores` keeps each, `sd` is their standard deviation, `sd_questions` that which the
    questions give one run by its own interval; `n` counts the questions of one run. Runs of one
    setting and seed, `baseline` and `curated-10000` say, are trained alike, so together they are
    one repeat, their mean. Several files of one ability in one run are pooled by their numbers of
    questions.
    """
    places: dict[tuple[str, ...], dict[tuple[str, ...], list[Row]]] = {}
    for row in cast(list[Row], rows.to_dict("records")):
        runs = places.setdefault(tuple(row[key] for key in ("ability", *SETTING)), {})
        runs.setdefault(tuple(row[key] for key in IDENTITY), []).append(row)
    points = [_point(runs) for runs in places.values()]
    points.sort(key=lambda p: (size_key(p["model_size"]), p["source"], p["samples"]))
    return pd.DataFrame(points, columns=POINT)


def _point(runs: dict[tuple[str, ...], list[Row]]) -> Row:
    """One place of a curve, from the rows of each run there."""
    repeats: dict[Hashable, list[Row]] = {}
    for identity, rows in sorted(runs.items()):
        repeats.setdefault(repeat_of(rows[0], identity), []).append(_pooled(rows))
    pooled = [_repeat(of_seed) for of_seed in repeats.values()]
    first = next(iter(runs.values()))[0]
    limit = first["limit"]
    return {
        **{name: first[name] for name in ("ability", "model_size", "source", "samples")},
        **repeated_score(pooled, VALUES[first["value"]].most),
        "data_type": first["setting"],
        "chance": _mean(run["expected"] for run in pooled),
        "n": max(run["n"] for run in pooled),
        "parts": max(row["parts"] for rows in runs.values() for row in rows),
        "runs": len(pooled),
        "run_scores": tuple(run["score"] for run in pooled),
        "sd": standard_deviation([run["score"] for run in pooled]),
        "sd_questions": standard_error(pooled),
        "limit": None if pd.isna(limit) else int(limit),
        "checkpoints": tuple("/".join(identity[1:]) for identity in sorted(runs)),
        "value": first["value"],
    }


def _pooled(rows: list[Row]) -> Row:
    """Several files of one ability in one run as one, by their numbers of questions."""
    if rows[0]["value"] == SCORE or len(rows) == 1:
        return pooled_score(rows)
    questions = [row["n"] for row in rows]
    return {"n": sum(questions), "expected": np.nan, **weighted_mean(rows, questions)}


def repeat_of(row: Row, identity: tuple[str, ...]) -> Hashable:
    """What runs of one setting have in common that are one repeat: the seed, if it is known."""
    return identity if pd.isna(row["seed"]) else int(row["seed"])


def _repeat(runs: list[Row]) -> Row:
    """The mean of the runs of one setting and seed."""
    if len(runs) == 1:
        return runs[0]
    means = {key: _mean(run[key] for run in runs) for key in SCORES}
    return {"n": max(run["n"] for run in runs)} | means


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))


def smooth(
    xs: ArrayLike, ys: ArrayLike, sigma: float = SIGMA, steps: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    """The look of the published figures: filtered points, and a smooth curve through them.

    A Gaussian filter over the index of the points (mirrored at both ends, cut at four sigma), then
    a monotone cubic (PCHIP, Fritsch and Butland 1984), which stays between neighbouring points,
    through the filtered ones.

    Args:
        xs: (points,), rising; take logarithms first if the axis is logarithmic.
        ys: (points,).
        sigma: of the filter, in points.
        steps: of the curve between two neighbouring points; 1 gives the filtered points alone.

    Returns:
        The curve's xs and ys, ((points - 1) * steps + 1,).
    """
    # Only here: most figures are raw, and these imports take a second.
    from scipy.interpolate import PchipInterpolator
    from scipy.ndimage import gaussian_filter1d

    x, y = np.asarray(xs, float), gaussian_filter1d(np.asarray(ys, float), sigma)
    if len(x) == 1:
        return x, y
    fractions = np.arange(steps) / steps
    dense = np.append((x[:-1, None] + np.diff(x)[:, None] * fractions).ravel(), x[-1])
    return dense, PchipInterpolator(x, y)(dense)
