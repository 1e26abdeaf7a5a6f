"""Proportions and means of proportions, with 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Z_95 = 1.959963984540054  # the two-sided 95 % point of the normal distribution


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion, 0 to 1 (Wilson 1927).

    ((p + z^2/2n) +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    p, z2 = successes / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def percentages(successes: int, n: int) -> dict[str, float]:
    """A proportion as `score`, with its 95 % Wilson interval as `low` and `high`; per cent."""
    low, high = wilson(successes, n)
    return {
        "score": _rounded(100 * successes / n),
        "low": _rounded(100 * low),
        "high": _rounded(100 * high),
    }


def _rounded(value: float) -> float:
    return round(value, 2)


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
        name: _rounded(mean),
        f"{name}_low": _rounded(mean - below),
        f"{name}_high": _rounded(mean + above),
        f"expected_{name}": _rounded(sum(entry["expected"] for entry in entries) / k),
    }
