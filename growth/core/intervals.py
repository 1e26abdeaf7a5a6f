"""Proportions and means of proportions, with 95 % intervals; runs with other seeds as repeats."""

import math
import statistics
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


def weighted_mean(
    entries: Sequence[Mapping[str, Any]], weights: Sequence[float]
) -> dict[str, float]:
    """The mean of values that need not be proportions: score, low, high, as of `mean_score`.

    Args:
        entries: at least one, each with score, low and high; an end that is nan stays nan.
        weights: of the entries, such as their numbers of questions.
    """
    total = math.fsum(weights)
    score = math.fsum(w * e["score"] for w, e in zip(weights, entries, strict=True)) / total
    below, above = (
        math.hypot(*(w * (e[end] - e["score"]) for w, e in zip(weights, entries, strict=True)))
        for end in ("low", "high")
    )
    return {"score": score, "low": score - below / total, "high": score + above / total}


_NORMAL = 1.959964  # standard errors to either side of a 95 % interval of a large sample


def repeated_score(
    entries: Sequence[Mapping[str, float]], most: float = math.inf
) -> dict[str, float]:
    """The mean over runs with other seeds, with its 95 % interval: score, low, high.

    Two sources of noise. The questions: all runs answer the same, so that more runs don't reduce it
    and the distances of the runs' own intervals are averaged. Training: the standard error of the
    mean of R runs, s / sqrt(R). Both together (MOVER, Zou & Donner 2008):

    low = mean - t / z * sqrt((mean - low_q)^2 + (z * s / sqrt(R))^2), and high likewise,

    with t of Satterthwaite's degrees of freedom (1946), as the variance between few runs is itself
    a guess: df = (v_q + v_r)^2 / (v_r^2 / (R - 1)), v_q and v_r the squared standard errors of
    both. What chance has in a single answer is in both sources, so the interval is somewhat wide.

    Args:
        entries: at least one, each with score, low and high (nan where there is no interval); one
            alone is taken as it is.
        most: that a score can be; the least is 0.
    """
    score = math.fsum(entry["score"] for entry in entries) / len(entries)
    if len(entries) == 1:
        return {name: entries[0][name] for name in ("score", "low", "high")}
    below, above = (
        math.fsum(abs(entry[end] - entry["score"]) for entry in entries) / len(entries) / _NORMAL
        for end in ("low", "high")
    )
    if math.isnan(below + above):
        below = above = 0.0
    training = standard_deviation([entry["score"] for entry in entries]) / math.sqrt(len(entries))
    factor = _student(((below + above) / 2) ** 2, training**2, len(entries) - 1)
    low, high = (factor * math.hypot(side, training) for side in (below, above))
    return {"score": score, "low": max(0.0, score - low), "high": min(most, score + high)}


def standard_deviation(scores: Sequence[float]) -> float:
    """Of runs with other seeds, as an estimate from a sample; nan of one run."""
    return statistics.stdev(scores) if len(scores) > 1 else math.nan


def standard_error(entries: Sequence[Mapping[str, float]]) -> float:
    """What its questions give the score of one run, by the runs' intervals; nan without those.

    The root of the mean square of their half widths, in standard errors.
    """
    halves = [(entry["high"] - entry["low"]) / 2 / _NORMAL for entry in entries]
    return math.sqrt(math.fsum(half**2 for half in halves) / len(halves))


def _student(known: float, estimated: float, freedom: int) -> float:
    """The 97.5 % quantile of t for a variance of which a part is estimated (Satterthwaite 1946).

    Args:
        known: part of the variance.
        estimated: the other part, from few values.
        freedom: degrees of freedom of the estimate.
    """
    from scipy.stats import t

    if estimated == 0:
        return _NORMAL
    # The ratio first: squares of small variances would vanish.
    return float(t.ppf(0.975, freedom * (known / estimated + 1) ** 2))
