"""The law of one growth curve, by its posterior: a score or a loss against the samples tuned on.

A Hill curve from the untuned model's value to a plateau:

    score(D) = s + (u - s) / (1 + (D0 / D)^b)          loss(D) = E + A / (1 + (D / D0)^b)

which is one formula with s = E + A and u = E. Four parameters and few points do not determine one
another, so no best fit is made: the posterior on a grid of weak priors is, and all that is reported
are quantiles of draws from it. docs/laws.md says where each prior comes from.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaln, logsumexp

Array = np.ndarray[Any, np.dtype[Any]]

DRAWS = 4000  # of each posterior; their error is 1 to 2 % of an interval's width
INTERVAL = (0.05, 0.5, 0.95)  # quantiles reported: the 90 % interval and the median
STEP = 4.0  # factor between sizes, of predictions; the drift of a loss in it is its noise
SLOPES = (0.1, 2.0)  # of losses: from nearly a line in log samples to a fall within a decade
SCORE_SLOPES = (0.3, 3.0)  # of scores, which are known less well
FLOORS = (0.02, 2.0)  # the loss that is left, per loss of the untuned model; above 1: it rises
NOISES = (0.003, 0.06)  # relative, of a loss
HALF_WAY_OF_LOSSES = (1e-3, 1e4)  # half-way point, per smallest and per largest size
HALF_WAY_OF_SCORES = (1e-1, 16.0)
SPREADS = (0.0, 0.01, 0.02, 0.03, 0.045, 0.07, 0.1)  # standard deviations between runs, at 50 %
USUAL_SPREAD = 0.03  # mean of the exponential prior over them
NEAR_CHANCE = 0.05  # how far from chance untuned models score
CELLS = 200  # of the table of likelihoods, from 0 to 100 %
MARGIN_SCORE, MARGIN_LOSS = 2.0, 0.01  # changes that count: points; relative
GROWS, SATURATED, FLAT, DECLINES, UNKNOWN = (
    "grows", "saturated", "flat", "declines", "can't be told"
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The measurements of one curve, one for each repeat of each size.

    Attributes:
        name: of the curve.
        samples: (points,), at least 0; 0 is the untuned model.
        values: (points,), per cent for scores, any unit above 0 for losses.
        questions: (points,) behind each score; None where the values are losses.
        chance: the score of guessing, per cent; None where it is not known.
    """

    name: str
    samples: Array
    values: Array
    questions: Array | None = None
    chance: float | None = None

    @property
    def is_score(self) -> bool:
        """Whether more is better."""
        return self.questions is not None

    @property
    def sizes(self) -> Array:
        """The different sizes, rising."""
        return np.unique(self.samples)

    def up_to(self, size: float) -> "Curve":
        """The part of the curve that a smaller study would have seen."""
        seen = self.samples <= size
        questions = None if self.questions is None else self.questions[seen]
        return Curve(self.name, self.samples[seen], self.values[seen], questions, self.chance)

    def mean_at(self, size: float) -> float:
        """The mean of the repeats of a size."""
        return float(self.values[self.samples == size].mean())


class Interval(NamedTuple):
    """A median with its 90 % interval."""

    low: float
    value: float
    high: float


def interval(draws: Array) -> Interval:
    """The median and the 90 % interval of draws, (draws,)."""
    return Interval(*(float(value) for value in np.quantile(draws, INTERVAL)))


def share_of_gain(samples: Array | float, half_way: Array, slope: Array) -> Array:
    """How much of the way to the plateau is done, 0 to 1: 1 / (1 + (D0 / D)^b)."""
    with np.errstate(divide="ignore", over="ignore"):
        return 1 / (1 + (half_way / samples) ** slope)


@dataclass(frozen=True)
class Posterior:
    """Draws from the posterior of a curve's law; every array is (draws,).

    Attributes:
        curve: what it is of.
        start: value without data (s, or E + A).
        plateau: value with unlimited data (u, or E).
        half_way: samples at half of the gain (D0).
        slope: b.
        noise: of a measurement: for scores the standard deviation between runs at 50 %, in points,
            beyond that of the questions; for losses relative.
        drift: of a loss, the relative deviation from the law at the largest size.
        seed: of the draws made here.
    """

    curve: Curve
    start: Array
    plateau: Array
    half_way: Array
    slope: Array
    noise: Array
    drift: Array
    seed: int

    def at(self, samples: float) -> Array:
        """The curve's value for a number of samples, without noise of measurement."""
        done = share_of_gain(samples, self.half_way, self.slope)
        law = self.start + (self.plateau - self.start) * done
        if self.curve.is_score:
            return law
        steps = max(0.0, np.log(samples / self.curve.sizes[-1]) / np.log(STEP)) if samples else 0
        away = np.random.default_rng(self.seed).normal(size=len(law)) * np.sqrt(steps)
        return law * np.exp(self.drift + self.noise * away)

    def measured_at(self, samples: float, questions: float | None = None) -> Array:
        """What a new measurement of one run may give, on `questions` questions if a score."""
        rng = np.random.default_rng((self.seed, 1))
        value = self.at(samples)
        if not self.curve.is_score:
            return value * np.exp(self.noise * rng.normal(size=len(value)))
        p = np.clip(value / 100, 1e-4, 1 - 1e-4)
        spread = (2 * self.noise / 100) ** 2
        trust = 1 / np.maximum(spread, 1e-6) - 1
        p = rng.beta(p * trust, (1 - p) * trust)
        n = int(questions or np.median(self.curve.questions))  # type: ignore[arg-type]
        return 100 * rng.binomial(n, p) / n

    @property
    def data_for_90(self) -> Array:
        """Samples for 90 % of the gain: D0 * 9^(1/b)."""
        return self.half_way * 9 ** (1 / self.slope)

    def word(self) -> str:
        """What the 90 % intervals allow to say of the curve.

        Past is the change from the smallest size to the largest, next the one to four times that.
        A change counts from `MARGIN_SCORE` points or `MARGIN_LOSS` of a loss on.
        """
        sizes = self.curve.sizes
        first, last, more = self.at(sizes[0]), self.at(sizes[-1]), self.at(STEP * sizes[-1])
        if self.curve.is_score:
            margin, past, coming = MARGIN_SCORE, last - first, more - last
        else:
            margin, past, coming = MARGIN_LOSS, np.log(first / last), np.log(last / more)
        before, ahead = interval(past), interval(coming)
        if before.high < -margin or ahead.high < -margin:
            return DECLINES
        if ahead.low > margin:
            return GROWS
        if before.low > margin and -margin < ahead.low and ahead.high < margin:
            return SATURATED
        if -margin < before.low and before.high < margin:
            return FLAT  # so far: nothing is said of larger sizes
        return UNKNOWN


def fit(curve: Curve, seed: int = 0) -> Posterior:
    """The posterior of a curve's law; curves of at least two sizes, one of them above 0.

    Args:
        curve: scores if it has `questions`, losses else.
        seed: of the draws; the grid itself draws nothing.
    """
    return _fit_scores(curve, seed) if curve.is_score else _fit_losses(curve, seed)


def _log_grid(bounds: tuple[float, float], cells: int) -> Array:
    """The middles of cells that are equally wide in logarithms: a log-uniform prior."""
    low, high = np.log(bounds)
    return np.exp(low + (high - low) * (np.arange(cells) + 0.5) / cells)


def _half_way(curve_sizes: tuple[float, ...], reach: tuple[float, float], cells: int) -> Array:
    tuned = [size for size in curve_sizes if size > 0]
    return _log_grid((tuned[0] * reach[0], tuned[-1] * reach[1]), cells)


class _Losses(NamedTuple):
    """The grid of the law of losses; arrays are (cells,), `logs` is (cells, sizes)."""

    half_way: Array
    slope: Array
    floor: Array
    logs: Array  # of the law, per loss of the untuned model


@functools.lru_cache(maxsize=4)
def _loss_grid(sizes: tuple[float, ...]) -> _Losses:
    axes = (
        _half_way(sizes, HALF_WAY_OF_LOSSES, 36),
        _log_grid(SLOPES, 12),
        _log_grid(FLOORS, 36),
    )
    half_way, slope, floor = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    done = share_of_gain(np.array(sizes), half_way[:, None], slope[:, None])
    return _Losses(half_way, slope, floor, np.log(1 + (floor[:, None] - 1) * done))


def _fit_losses(curve: Curve, seed: int) -> Posterior:
    """Losses: log loss = log law + drift(D) + noise.

    The noise is independent and relative; the drift, by which the true curve leaves the law, is a
    random walk in log samples that moves by the size of the noise for each factor `STEP`. Their
    size is one parameter, estimated. log(E + A) has a flat prior and is integrated out exactly, as
    the logs are linear in it.
    """
    sizes = tuple(float(size) for size in curve.sizes)
    grid = _loss_grid(sizes)
    place = np.searchsorted(sizes, curve.samples)
    # The untuned model is infinitely far in logs: it shares the drift of the first size.
    tuned = np.maximum(curve.samples, min(size for size in sizes if size > 0))
    walk = np.log(tuned / tuned.min()) / np.log(STEP)
    shared = np.minimum.outer(walk, walk)
    inverse = np.linalg.inv(np.eye(len(walk)) + shared)
    precision = inverse.sum()
    residuals = np.log(curve.values) - grid.logs[:, place]
    level = residuals @ inverse.sum(0) / precision
    misfit = np.einsum("cp,pq,cq->c", residuals, inverse, residuals) - precision * level**2
    noises = _log_grid(NOISES, 10)
    log_weight = -misfit[:, None] / (2 * noises**2) - (len(walk) - 1) * np.log(noises)
    cell, of_noise = _drawn(log_weight, seed)
    noise = noises[of_noise]
    rng = np.random.default_rng((seed, 2))
    log_start = level[cell] + noise * rng.normal(size=DRAWS) / np.sqrt(precision)
    # The drift at the largest size, given all residuals.
    gain = shared[np.argmax(walk)] @ inverse
    left = np.sqrt(max(0.0, walk.max() - gain @ shared[np.argmax(walk)]))
    drift = (residuals[cell] - log_start[:, None]) @ gain + noise * left * rng.normal(size=DRAWS)
    start = np.exp(log_start)
    plateau = start * grid.floor[cell]
    return Posterior(
        curve, start, plateau, grid.half_way[cell], grid.slope[cell], noise, drift, seed
    )


class _Scores(NamedTuple):
    """The grid of the law of scores; arrays are (cells,), `row` is (sizes, cells)."""

    start: Array  # 0 to 1
    plateau: Array
    half_way: Array
    slope: Array
    log_prior: Array  # up is as likely as down, and any plateau there is as likely as another
    row: Array  # of the table of likelihoods


_LEVELS, _HALF_WAYS, _SCORE_SLOPES = 41, 16, 6


@functools.lru_cache(maxsize=2)
def _score_grid(sizes: tuple[float, ...]) -> _Scores:
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    axes = (
        levels,
        levels,
        _half_way(sizes, HALF_WAY_OF_SCORES, _HALF_WAYS),
        _log_grid(SCORE_SLOPES, _SCORE_SLOPES),
    )
    start, plateau, half_way, slope = (x.ravel() for x in np.meshgrid(*axes, indexing="ij"))
    rows = [
        np.rint(CELLS * (start + (plateau - start) * share_of_gain(size, half_way, slope)))
        for size in sizes
    ]
    room = np.where(plateau > start, 1 - start, np.where(plateau < start, start, 0.5))
    return _Scores(start, plateau, half_way, slope, -np.log(room), np.array(rows, np.int16))


def _fit_scores(curve: Curve, seed: int) -> Posterior:
    """Scores: right answers are beta-binomial around the law.

    Runs spread around it with a standard deviation that repeats estimate; where there are none its
    prior stays. Where chance is known, half of the prior of the start is near it.
    """
    assert curve.questions is not None
    sizes = tuple(float(size) for size in curve.sizes)
    grid = _score_grid(sizes)
    table = _likelihoods(curve, sizes)
    log_weight = np.array([sum(rows[i][grid.row[i]] for i in range(len(sizes))) for rows in table])
    log_weight += grid.log_prior - np.array(SPREADS)[:, None] / USUAL_SPREAD
    if curve.chance is not None:
        away = (grid.start - curve.chance / 100) / NEAR_CHANCE
        near = np.exp(-(away**2) / 2) / (NEAR_CHANCE * np.sqrt(2 * np.pi))
        log_weight += np.log(0.5 + 0.5 * near)
    cell, spread = _drawn(log_weight.T, seed)
    rng = np.random.default_rng((seed, 2))

    def within() -> Array:
        return rng.uniform(-0.5, 0.5, DRAWS)

    start = 100 * (grid.start[cell] + within() / _LEVELS)
    plateau = 100 * (grid.plateau[cell] + within() / _LEVELS)
    noise = 100 * np.array(SPREADS)[spread]
    return Posterior(
        curve, start, plateau, grid.half_way[cell], grid.slope[cell], noise, np.zeros(DRAWS), seed
    )


def _likelihoods(curve: Curve, sizes: tuple[float, ...]) -> Array:
    """Log likelihood of the scores of each size, (spreads, sizes, CELLS + 1), by the true score."""
    assert curve.questions is not None
    # A true score of exactly 0 or 1 would rule out all others.
    p = np.clip(np.arange(CELLS + 1) / CELLS, 0.25 / CELLS, 1 - 0.25 / CELLS)
    right = curve.values / 100 * curve.questions
    wrong = curve.questions - right
    table = np.zeros((len(SPREADS), len(sizes), CELLS + 1))
    for i, spread in enumerate(SPREADS):
        trust = 1 / (4 * spread**2) - 1 if spread else None
        for size, yes, no in zip(curve.samples, right, wrong, strict=True):
            if trust is None:
                likelihood = yes * np.log(p) + no * np.log1p(-p)
            else:
                a, b = p * trust, (1 - p) * trust
                likelihood = betaln(a + yes, b + no) - betaln(a, b)
            table[i, sizes.index(float(size))] += likelihood
    return table


def _drawn(log_weight: Array, seed: int) -> tuple[Array, Array]:
    """`DRAWS` rows and columns of a grid, by their weights: a systematic sample, shuffled."""
    weight = np.exp(log_weight - logsumexp(log_weight)).ravel()
    rng = np.random.default_rng(seed)
    levels = (np.arange(DRAWS) + rng.uniform()) / DRAWS
    total = np.cumsum(weight)
    drawn = rng.permutation(np.searchsorted(total, levels * total[-1]))
    rows, columns = np.unravel_index(drawn, log_weight.shape)
    return np.asarray(rows), np.asarray(columns)
