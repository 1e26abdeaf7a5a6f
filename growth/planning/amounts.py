"""The law in amounts: what each ability gains from its own lines, and from those of the others.

An ability's Hill curve (`growth.report.growth_law`) over its effective amount of data,

    x_i = D_i + sum_j k_ij D_j^a,      k_ij >= 0,

with D the lines of each ability that a run was tuned on. As amounts have a unit, all are divided
by the reference M, the lines of each ability in the middle of what was measured, so that k_ij is
what M lines of j are worth to i, per M lines of its own.

With k = theta^2 and a normal prior on theta of standard deviation tau, k has most of its prior
weight near zero, and a best fit would minimise misfit + sum k / tau^2: tau is how much the others
may help, and cross-validation over the mixtures chooses it. Draws of the posterior come from
randomised optimisation: prior means and data are drawn anew by their own noise, and the best fit to
these is a draw, exactly so in a linear model (Bardsley, Solonen, Haario & Laine 2014,
"Randomize-then-Optimize"). docs/plan.md has the priors, and what it reaches.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit
from tqdm import tqdm

from growth.core.workers import worker_pool
from growth.report.growth_law import NOISES, USUAL_SPREAD, Array

T = TypeVar("T")
DRAWS = 300  # of each posterior; each is an optimisation of some milliseconds
FOLDS = 5  # of the cross-validation
ENOUGH = 2 * FOLDS  # mixtures from which on it says something
FEW_MIXTURES = (
    f"below {ENOUGH} mixtures that are no multiples of each other: how much abilities help each "
    "other is mostly the prior's; run a design (data/design.py)"
)
# How much all others together help as much as an ability's own data, before anything is measured:
# the expected sum of k. In the middle is what stays where there is no cross-validation.
HELP = (0.03, 0.1, 0.3, 1.0, 3.0)
USUAL_HELP = 1.0
USUAL_LOSS_NOISE = 0.02  # relative, of a loss, where nothing says how large it is
# Means and standard deviations of the normal priors. Of scores, per cent; the start where chance is
# known, else the wide one. Of losses, the plateau is the log of E / (E + A).
START_SD, UNKNOWN, UNKNOWN_SD = 8.0, 50.0, 30.0
FLOOR, FLOOR_SD = float(np.log(0.4)), 1.0
HALF_WAY, HALF_WAY_SD = 0.0, 2.0  # log of D0 / M
SLOPE, SLOPE_SD = float(np.log(0.7)), 0.6  # log of b
POWER, POWER_SD = float(np.log(0.5)), 0.3  # log of a
LEVEL_SD = 5.0  # of a log loss around the mean of those measured
_MOST = 3.0  # of these logs, many deviations off
_LEAST = -30.0  # of the log of a plateau; below, 1 - its fall is 0
_CURVE = 5  # parameters before those of the others' data
_START, _PLATEAU, _HALF_WAY, _SLOPE, _POWER = range(_CURVE)
_NOTHING = 1e-6  # an effective amount for a run without data, so that it has a logarithm
_EVALUATIONS = 60  # of one optimisation; it needs about 20


@dataclass(frozen=True)
class Outcome:
    """What one ability came to in runs on several mixtures.

    Attributes:
        ability: whose.
        amounts: (points, abilities), the lines of each ability that the run was tuned on.
        values: (points,), per cent for scores, any unit above 0 for losses.
        questions: (points,) behind each score; None where the values are losses.
        chance: the score of guessing, per cent; None where it is not known.
    """

    ability: str
    amounts: Array
    values: Array
    questions: Array | None = None
    chance: float | None = None

    @property
    def is_score(self) -> bool:
        """Whether more is better."""
        return self.questions is not None

    @property
    def mixtures(self) -> Array:
        """(points,): a number for each point that is the same for runs on the same amounts."""
        return np.unique(self.amounts, axis=0, return_inverse=True)[1].ravel()


@dataclass(frozen=True)
class Measured:
    """The outcomes of a study.

    Attributes:
        names: of the abilities that the lines are of, in the order of the amounts.
        outcomes: one of each ability that was measured, all scores or all losses.
        reference: lines (M).
    """

    names: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    reference: float

    @property
    def is_design(self) -> bool:
        """Whether there are enough mixtures that are no multiples of each other."""
        amounts = self.outcomes[0].amounts
        shares = amounts / np.maximum(amounts.sum(1, keepdims=True), 1)
        return len(np.unique(shares.round(3), axis=0)) >= ENOUGH


@dataclass(frozen=True)
class AmountLaw:
    """Draws from the posterior of one ability's law in amounts.

    Attributes:
        ability: whose; `own`: its place among the abilities.
        is_score: whether more is better.
        reference: lines (M).
        parameters: (draws, 5 + abilities - 1): of the curve, then theta of each other ability.
        noise: of a measurement, in points beyond that of the questions, or relative.
        help: the expected sum of k in the prior.
    """

    ability: str
    own: int
    is_score: bool
    reference: float
    parameters: Array
    noise: float
    help: float

    def at(self, amounts: Array) -> Array:
        """The value on each draw, (draws,), for lines of each ability, (abilities,)."""
        value = self._parts(amounts).value[:, 0]
        return np.clip(value, 0, 100) if self.is_score else np.exp(value)

    def utility(self, amounts: Array) -> tuple[Array, Array]:
        """What is to be as large as possible, (draws,), and its gradient, (draws, abilities).

        Points of a score; for a loss, per cent of it less.
        """
        parts = self._parts(amounts)
        by_log = parts.rise * parts.share * (1 - parts.share) * parts.slope / parts.effective
        k = self.parameters[:, _CURVE:] ** 2
        others = np.delete(amounts, self.own) / self.reference
        power = np.exp(self.parameters[:, _POWER])
        # The first lines of another ability would help without bound.
        each = power[:, None] * np.maximum(others, 1 / self.reference) ** (power[:, None] - 1)
        gradient = by_log * np.insert(k * each, self.own, 1.0, axis=1) / self.reference
        if not self.is_score:
            return -100 * parts.value[:, 0], -100 * gradient
        inside = (parts.value > 0) & (parts.value < 100)
        return np.clip(parts.value[:, 0], 0, 100), np.where(inside, gradient, 0)

    def every_second(self, first: int) -> "AmountLaw":
        """Half of the draws, from the first (0) or the second one (1) on."""
        return dataclasses.replace(self, parameters=self.parameters[first::2])

    @property
    def start(self) -> Array:
        """(draws,): value of the untuned model."""
        start = self.parameters[:, _START]
        return np.clip(start, 0, 100) if self.is_score else np.exp(start)

    @property
    def half_way(self) -> Array:
        """(draws,): effective lines at half of the gain (D0)."""
        return np.exp(self.parameters[:, _HALF_WAY]) * self.reference

    @property
    def transference(self) -> Array:
        """(draws, abilities): what one more line of each is worth, per line of its own.

        dx_i / dD_j at M lines of each, which is a k_ij; 1 for its own.
        """
        power = np.exp(self.parameters[:, _POWER])[:, None]
        return np.insert(power * self.parameters[:, _CURVE:] ** 2, self.own, 1.0, axis=1)

    def _parts(self, amounts: Array) -> "_Parts":
        return _parts(self.parameters, amounts[None] / self.reference, self.own, self.is_score)


class _Parts(NamedTuple):
    """A law at several amounts; all are (draws, points), but for those noted."""

    value: Array  # per cent, or a log loss
    rise: Array  # its derivative by the share of the gain
    share: Array  # of the gain, 0 to 1
    slope: Array  # (draws, 1)
    logs: Array  # log of x / D0
    effective: Array  # x
    powers: Array  # (draws, points, others), D_j^a


def _bounded(parameters: Array, is_score: bool) -> Array:
    """(draws, parameters) without what the prior all but rules out, where numbers overflow.

    An optimizer tries it all the same.
    """
    least, most = np.full(parameters.shape[1], -np.inf), np.full(parameters.shape[1], np.inf)
    most[[_SLOPE, _POWER]] = _MOST
    if not is_score:
        least[_PLATEAU] = _LEAST
    return np.clip(parameters, least, most)


def _parts(parameters: Array, amounts: Array, own: int, is_score: bool) -> _Parts:
    """The law for each draw of the parameters, (draws, parameters), and each amount."""
    parameters = _bounded(parameters, is_score)
    others = np.delete(amounts, own, axis=1)
    with np.errstate(divide="ignore"):
        powers = np.exp(np.exp(parameters[:, _POWER, None, None]) * np.log(others))
    k = parameters[:, None, _CURVE:] ** 2
    effective = amounts[:, own] + (k * powers).sum(-1) + _NOTHING
    logs = np.log(effective) - parameters[:, _HALF_WAY, None]
    slope = np.exp(parameters[:, _SLOPE, None])
    share = expit(slope * logs)
    start, plateau = parameters[:, _START, None], parameters[:, _PLATEAU, None]
    if is_score:
        rise = np.broadcast_to(plateau - start, share.shape)
        return _Parts(start + rise * share, rise, share, slope, logs, effective, powers)
    fall = 1 - np.exp(plateau)
    left = 1 - fall * share
    return _Parts(start + np.log(left), -fall / left, share, slope, logs, effective, powers)


def _jacobian(parameters: Array, amounts: Array, own: int, is_score: bool) -> Array:
    """Derivatives of the value by each parameter, (points, parameters), for one draw."""
    parameters = _bounded(parameters[None], is_score)[0]
    parts = _parts(parameters[None], amounts, own, is_score)
    others = np.delete(amounts, own, axis=1)
    by_logit = (parts.rise * parts.share * (1 - parts.share))[0]
    slope, theta = parts.slope[0], parameters[_CURVE:]
    by_log = by_logit * slope / parts.effective[0]
    power = np.exp(parameters[_POWER])
    logs = np.log(np.where(others > 0, others, 1))
    found = np.empty((len(amounts), len(parameters)))
    if is_score:
        found[:, _START], found[:, _PLATEAU] = 1 - parts.share[0], parts.share[0]
    else:
        left = 1 - (1 - np.exp(parameters[_PLATEAU])) * parts.share[0]
        found[:, _START] = 1
        found[:, _PLATEAU] = np.exp(parameters[_PLATEAU]) * parts.share[0] / left
    found[:, _HALF_WAY] = -by_logit * slope
    found[:, _SLOPE] = by_logit * slope * parts.logs[0]
    found[:, _POWER] = by_log * power * ((parts.powers[0] * logs) @ theta**2)
    found[:, _CURVE:] = by_log[:, None] * 2 * theta * parts.powers[0]
    return found


class _Problem(NamedTuple):
    """One ability's fit; `scale` is the noise of each point, (points,)."""

    amounts: Array
    values: Array
    scale: Array
    own: int
    is_score: bool
    mean: Array  # of the prior, (parameters,)
    spread: Array  # its standard deviations

    def best(self, start: Array) -> Array:
        """The parameters that fit best, (parameters,), from `start` on."""

        def residuals(p: Array) -> Array:
            value = _parts(p[None], self.amounts, self.own, self.is_score).value[0]
            return np.append((value - self.values) / self.scale, (p - self.mean) / self.spread)

        def jacobian(p: Array) -> Array:
            of_points = _jacobian(p, self.amounts, self.own, self.is_score) / self.scale[:, None]
            return np.vstack([of_points, np.diag(1 / self.spread)])

        found = least_squares(residuals, start, jacobian, method="lm", max_nfev=_EVALUATIONS)
        return np.asarray(found.x)


def _problem(outcome: Outcome, own: int, reference: float, help: float, noise: float) -> _Problem:
    """The fit of an outcome with noise beyond that of the questions."""
    others = outcome.amounts.shape[1] - 1
    tau = np.sqrt(help / max(others, 1))
    shared = ((HALF_WAY, HALF_WAY_SD), (SLOPE, SLOPE_SD), (POWER, POWER_SD))
    if outcome.is_score:
        chance = outcome.chance
        start = (UNKNOWN, UNKNOWN_SD) if chance is None else (chance, START_SD)
        priors = (start, (UNKNOWN, UNKNOWN_SD), *shared)
        values = outcome.values
    else:
        values = np.log(outcome.values)
        priors = ((float(values.mean()), LEVEL_SD), (FLOOR, FLOOR_SD), *shared)
    mean, spread = np.array([*priors, *[(0.0, tau)] * others]).T
    scale = np.sqrt(_question_variance(outcome) + noise**2)
    amounts = outcome.amounts / reference
    return _Problem(amounts, values, scale, own, outcome.is_score, mean, spread)


def _question_variance(outcome: Outcome) -> Array:
    """The binomial variance of each score, points squared; 0 for losses. (points,)."""
    if outcome.questions is None:
        return np.zeros(len(outcome.values))
    n = outcome.questions
    # Agresti and Coull's: scores of 0 and 100 % are not certain.
    p = (outcome.values / 100 * n + 2) / (n + 4)
    return 1e4 * p * (1 - p) / (n + 4)


def _first_guess(problem: _Problem) -> Array:
    """The prior's mean, with some help of all others: at theta = 0 no gradient leads away."""
    return np.append(problem.mean[:_CURVE], 0.7 * problem.spread[_CURVE:])


def _held_out(outcome: Outcome, own: int, reference: float, noise: float) -> Array:
    """Squared errors at mixtures that were left out, (HELP, points)."""
    fold = outcome.mixtures % FOLDS
    errors = np.zeros((len(HELP), len(fold)))
    for i, help in enumerate(HELP):
        problem = _problem(outcome, own, reference, help, noise)
        for out in range(FOLDS):
            seen, left = fold != out, fold == out
            part = problem._replace(
                amounts=problem.amounts[seen],
                values=problem.values[seen],
                scale=problem.scale[seen],
            )
            best = part.best(_first_guess(part))
            value = _parts(best[None], problem.amounts[left], own, outcome.is_score).value[0]
            errors[i, left] = (value - problem.values[left]) ** 2
    return errors


def _drawn(
    outcome: Outcome,
    own: int,
    reference: float,
    noise: float,
    *,
    help: float,
    draws: int,
    seed: int,
) -> AmountLaw:
    """The posterior of one ability, by randomised optimisation."""
    rng = np.random.default_rng((seed, own))
    problem = _problem(outcome, own, reference, help, noise)
    best = problem.best(_first_guess(problem))
    found = np.empty((draws, len(best)))
    for i in range(draws):
        mean = problem.mean + problem.spread * rng.normal(size=len(best))
        values = problem.values + problem.scale * rng.normal(size=len(problem.values))
        start = np.append(best[:_CURVE], mean[_CURVE:])
        found[i] = problem._replace(mean=mean, values=values).best(start)
    return AmountLaw(outcome.ability, own, outcome.is_score, reference, found, noise, help)


def fit_amounts(measured: Measured, seed: int = 0, draws: int | None = None) -> list[AmountLaw]:
    """The posterior of each ability's law in amounts; progress goes to stderr.

    How much the others' data may help is one number for all abilities, chosen by cross-validation
    over the mixtures where there are enough of them. Its errors also say how large the noise is;
    without it repeats do, but no less than is usual.

    Args:
        measured: of a study.
        seed: of the draws.
        draws: of each posterior; `DRAWS` by default.
    """
    outcomes = measured.outcomes
    places = [measured.names.index(outcome.ability) for outcome in outcomes]
    noises = [_usual_noise(outcome) for outcome in outcomes]
    shared = (measured.reference,) * len(outcomes)
    help = USUAL_HELP
    if measured.is_design:
        errors = _each(_held_out, "cross-validate", outcomes, places, shared, noises)
        # Each ability counts by its own scale.
        best = int(np.argmin(np.mean([np.log(own.mean(1)) for own in errors], axis=0)))
        help = HELP[best]
        noises = [_noise(outcome, own[best]) for own, outcome in zip(errors, outcomes, strict=True)]
    draw = partial(_drawn, help=help, draws=draws or DRAWS, seed=seed)
    return _each(draw, "fit", outcomes, places, shared, noises)


def _each(
    function: Callable[..., T], label: str, outcomes: Sequence[Outcome], *columns: Iterable[Any]
) -> list[T]:
    """`function` of each outcome with its own of the other columns, by all processors."""
    with worker_pool() as pool:
        done = pool.map(function, outcomes, *columns)
        return list(tqdm(done, label, len(outcomes), unit="ability", delay=1))


def _noise(outcome: Outcome, squares: Array) -> float:
    """Noise of training by squared errors of prediction, beyond that of the questions."""
    least = 0.0 if outcome.is_score else NOISES[0]
    return float(np.sqrt(max(least**2, np.mean(squares - _question_variance(outcome)))))


def _usual_noise(outcome: Outcome) -> float:
    """Noise of training by the repeats, no less than is usual."""
    values = outcome.values if outcome.is_score else np.log(outcome.values)
    usual = 100 * USUAL_SPREAD if outcome.is_score else USUAL_LOSS_NOISE
    groups = [values[outcome.mixtures == i] for i in np.unique(outcome.mixtures)]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return usual
    variance = sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom
    return float(np.sqrt(max(usual**2, variance - _question_variance(outcome).mean())))
