"""The comparisons of a report: neighbouring sizes of a series, and two series at one size."""

import functools
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd
from tqdm import tqdm

from growth.core.errors import InputError
from growth.data.study import AVERAGE, Study
from growth.report.answers import read_answers
from growth.report.comparison import Comparison, Side, compare, side_of_rows
from growth.report.curves import sizes_of
from growth.report.paired import LEVEL, holm
from growth.report.training_runs import Problem, problem

_SHOWN = (
    *("questions", "clusters", "score_a", "score_b", "difference", "low", "high", "p", "test"),
    "detectable",
)
_MOST_HELD = 64  # runs' answers at once, so that most are read once


def compared_settings(
    rows: pd.DataFrame, study: Study
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every pair of settings that a reader of the curves compares, the larger or first series as A.

    Args:
        rows: of the results, as `growth.report.results_table.read_results` gives them.
        study: that they are of.

    Returns:
        A row a pair: model_size, a and b (settings), runs_a, runs_b, limit; questions, clusters,
        score_a, score_b, difference, low, high, p, test, detectable of the mean over the abilities
        (of the first ability, if there is one only); p_holm, corrected over all pairs; `differing`:
        each ability and OOD set with Holm's p below 0.05 in its pair, with its difference;
        `abilities`: the rows of evaluate/compare.py; notes. And what could not be compared.
    """
    found: list[dict[str, Any]] = []
    failed: list[str] = []
    pairs = list(_pairs(rows, study))
    read = functools.lru_cache(_MOST_HELD)(read_answers)
    for size, a, b in tqdm(pairs, desc="compare", unit="pair", file=sys.stderr, delay=10):
        try:
            found.append(
                {"model_size": size, **_row(compare(a, b, seed=0, flag=study.source, read=read))}
            )
        except InputError as error:
            failed.append(f"{a.label} and {b.label}: {error}")
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = p
    problems = []
    if failed:
        count = f"{len(failed)} of {len(pairs)} pairs of settings are not compared"
        problems.append(problem("not compared", f"{count}; {failed[0]}"))
    return found, problems


def _pairs(rows: pd.DataFrame, study: Study) -> Iterator[tuple[str, Side, Side]]:
    """The model size and both sides of each pair: A and B."""
    for size in sizes_of(rows):
        own = rows[rows["model_size"] == size]
        sides: dict[str, dict[int, Side]] = {}
        for (source, samples), runs in own.groupby(["source", "samples"], sort=True):
            if source in study.series:
                side = side_of_rows(runs, f"{size}/{runs['setting'].iloc[0]}")
                sides.setdefault(str(source), {})[int(str(samples))] = side
        for series in study.series:
            at = sides.get(series, {})
            yield from ((size, at[more], at[fewer]) for fewer, more in pairwise(at))
        first, *others = study.series or [""]
        for other in others:
            for samples, side in sides.get(first, {}).items():
                if samples in sides.get(other, {}):
                    yield size, side, sides[other][samples]


def _row(comparison: Comparison) -> dict[str, Any]:
    """One pair as the report has it."""
    written = comparison.as_json()
    rows = written["rows"]
    mean = next((row for row in rows if row["ability"] == AVERAGE), rows[0])
    differing = [row for row in rows if row["p_holm"] is not None and row["p_holm"] < LEVEL]
    return {
        "a": comparison.a.label.partition("/")[2],
        "b": comparison.b.label.partition("/")[2],
        "runs_a": len(comparison.a.repeats),
        "runs_b": len(comparison.b.repeats),
        "limit": comparison.limit,
        **{name: mean[name] for name in _SHOWN},
        "p_holm": None,
        "differing": [
            {name: row[name] for name in ("ability", "title", "difference")} for row in differing
        ],
        "abilities": rows,
        "notes": written["notes"],
    }
