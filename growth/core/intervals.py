"""Proportions and means of proportions, with 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion, 0 to 1 (Wilson 1927)."""
    from scipy.stats import binomtest  # only here: its import takes longer than a script's --help

    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def percentages(successes: int, n: int) -> dict[str, float]:
    """A proportion as `score`, with its 95 % Wilson interval as `low` and `high`; per cent."""
    low, high = wilson(successes, n)
    return {
        "score": rounded(100 * successes / n),
        "low": rounded(100 * low),
        "high": rounded(100 * high),
    }


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of at least two values, with its 95 % interval by Student's t; as low and high."""
    from scipy.stats import sem, t

    mean, error = math.fsum(values) / len(values), float(sem(values))
    if error == 0:  # scipy gives nan
        return mean, mean
    low, high = t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def rounded(value: float) -> float:
    """A number of a results file: per cent to two places."""
    return round(value, 2)


def pooled_score(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Several files' scores as one of all their questions: n, score, low, high, expected; per cent.

    Args:
        entries: each with n, score and expected; one alone is taken as it is.
    """
    if len(entries) == 1:
        return {name: entries[0][name] for name in ("n", "score", "low", "high", "expected")}
    n = sum(entry["n"] for entry in entries)
    right = sum(round(entry["score"] * entry["n"] / 100) for entry in entries)
    expected = sum(entry["expected"] * entry["n"] for entry in entries) / n
    return {"n": n, **percentages(right, n), "expected": expected}


def mean_score(name: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of the scores of at least one entry, as `name`.

    With the interval of a mean of proportions (MOVER, Zou & Donner 2008):

    low = mean - sqrt(sum (score_i - low_i)^2) / k, and high likewise.
    """
    k = len(entries)
    mean = sum(entry["score"] for entry in entries) / k
    below = math.sqrt(sum((entry["score"] - entry["low"]) ** 2 for entry in entries)) / k
    above = math.sqrt(sum((entry["high"] - entry["score"]) ** 2 for entry in entries)) / k
    return {
        name: rounded(mean),
        f"{name}_low": rounded(mean - below),
        f"{name}_high": rounded(mean + above),
        f"expected_{name}": rounded(sum(entry["expected"] for entry in entries) / k),
    }
