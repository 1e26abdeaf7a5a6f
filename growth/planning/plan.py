"""How many lines of which ability a budget should buy: equal shares, unless there is evidence.

On each draw of the posterior a division of the budget has a utility, and Delta is its gain over
equal shares. The plan maximises

    mean(Delta) - sd(Delta)

over the draws, which is 0 at equal shares. A step away from them changes mean and standard
deviation alike, so where no direction's gain is above one standard deviation of it, equal shares
are the maximum: the wider the posterior, the nearer the plan is to them. Half of the draws find it,
the other half judge it, so that it is not praised for what it was chosen by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import LinearConstraint, minimize
from scipy.special import softmax

from growth.planning.amounts import AmountLaw
from growth.planning.shares import allotted, whole
from growth.report.growth_law import Array, Interval, interval

WORST = "worst"
SOFTNESS = 1.0  # points: how near the smallest score others count with it
STARTS = 8  # of the optimisation, besides equal shares
LEAST_GAIN = 0.01  # in units of utility; less is no gain


@dataclass(frozen=True)
class Budget:
    """What may be bought; arrays are (abilities,).

    Attributes:
        names: of the abilities.
        total: of all costs.
        cost: of a line.
        most: lines that there can be, those one has included.
        have: lines one has, which cost nothing.
        weights: of each ability in the utility, sum 1; None for the worst one.
    """

    names: tuple[str, ...]
    total: float
    cost: Array
    most: Array
    have: Array
    weights: Array | None

    def lines(self, spent: Array) -> Array:
        """Lines of each ability where so much of the total is spent on each."""
        return np.asarray(self.have + spent / self.cost)

    @property
    def bounds(self) -> Array:
        """What can be spent on each."""
        return np.asarray((self.most - self.have) * self.cost)

    def equal(self) -> Array:
        """What equal shares spend on each: as many new lines of each, within the bounds."""
        return allotted(self.total, self.cost, self.bounds)

    def bought(self, spent: Array) -> Array:
        """Whole new lines; where all cost the same, as many as the budget buys."""
        new = spent / self.cost
        most = self.most - self.have
        return whole(new, most) if np.ptp(self.cost) == 0 else np.floor(new + 1e-9).astype(int)


class Plan(NamedTuple):
    """A division of a budget, beside equal shares.

    Attributes:
        lines: of each ability, those one has included.
        equal: of equal shares.
        gain: of the plan's utility over that of equal shares.
        probability: that it is above 0, the share of the `draws` that judge it.
        moved: whether the plan is another one than equal shares.
        table: a row an ability: lines, cost, predicted values of both.
    """

    lines: Array
    equal: Array
    gain: Interval
    probability: float
    moved: bool
    table: pd.DataFrame
    draws: int


def make_plan(laws: Sequence[AmountLaw], budget: Budget, seed: int = 0) -> Plan:
    """The plan that the posterior allows.

    Args:
        laws: of each ability, in the order of the budget.
        budget: with a total that buys at least one line each, and no more than there is.
        seed: of the starts of the optimisation.
    """
    equal = budget.equal()
    finding, judging = (_half(laws, part) for part in (0, 1))
    found = _Gain(finding, budget, equal).best(seed)
    same = budget.have + budget.bought(equal)
    lines = budget.have + budget.bought(found)
    gains = utility(judging, budget, lines)[0] - utility(judging, budget, same)[0]
    if gains.mean() - gains.std() <= LEAST_GAIN or (lines == same).all():
        lines, gains = same, np.zeros(len(gains))
    moved = bool((lines != same).any())
    probability = float(np.mean(gains > 0)) if moved else 0.5
    table = _table(laws, budget, lines, same)
    return Plan(lines, same, interval(gains), probability, moved, table, len(gains))


def utility(laws: Sequence[AmountLaw], budget: Budget, lines: Array) -> tuple[Array, Array]:
    """The utility on each draw, (draws,), and its gradient by the lines, (draws, abilities)."""
    found = [law.utility(lines) for law in laws]
    values, gradients = (np.stack(parts, axis=1) for parts in zip(*found, strict=True))
    if budget.weights is not None:
        return values @ budget.weights, np.einsum("dij,i->dj", gradients, budget.weights)
    # A smooth minimum: the mean of all, weighted towards the smallest.
    weights = softmax(-values / SOFTNESS, axis=1)
    smallest = values.min(1)
    others = np.exp(-(values - smallest[:, None]) / SOFTNESS).mean(1)
    return smallest - SOFTNESS * np.log(others), np.einsum("dij,di->dj", gradients, weights)


def _half(laws: Sequence[AmountLaw], part: int) -> list[AmountLaw]:
    return [law.every_second(part) for law in laws]


class _Gain:
    """Mean less standard deviation of the gain over equal shares."""

    def __init__(self, laws: Sequence[AmountLaw], budget: Budget, equal: Array) -> None:
        self.laws, self.budget, self.start = laws, budget, equal
        self.base = utility(laws, budget, budget.lines(equal))[0]

    def __call__(self, shares: Array) -> tuple[float, Array]:
        """The value to be minimised, and its gradient; shares of the total, (abilities,)."""
        spent = shares * self.budget.total
        values, gradients = utility(self.laws, self.budget, self.budget.lines(spent))
        gains = values - self.base
        mean, away = gains.mean(), gains - gains.mean()
        spread = np.sqrt(np.mean(away**2) + 1e-12)
        by_lines = gradients.mean(0) - (away[:, None] * gradients).mean(0) / spread
        return float(spread - mean), -by_lines / self.budget.cost * self.budget.total

    def best(self, seed: int) -> Array:
        """What to spend on each ability."""
        total, bounds = self.budget.total, self.budget.bounds
        rng = np.random.default_rng(seed)
        count = len(bounds)
        starts = [self.start] + [
            allotted(total, self.start * rng.gamma(2, size=count), bounds) for _ in range(STARTS)
        ]
        best, least = self.start, 0.0
        for start in starts:
            done = minimize(
                self,
                start / total,
                jac=True,
                method="SLSQP",
                bounds=[(0, min(1.0, bound / total)) for bound in bounds],
                constraints=LinearConstraint(np.ones(count), 1, 1),
            )
            spent = np.clip(done.x * total, 0, bounds)
            if abs(spent.sum() - total) < 1e-3 * total and done.fun < least - LEAST_GAIN:
                best, least = spent, done.fun
        return best


def _table(laws: Sequence[AmountLaw], budget: Budget, lines: Array, equal: Array) -> pd.DataFrame:
    rows = []
    for place, (name, law) in enumerate(zip(budget.names, laws, strict=True)):
        row: dict[str, object] = {"ability": name}
        for which, own in (("plan", lines), ("equal", equal)):
            value = interval(law.at(own.astype(float)))
            row |= {
                f"{which}_lines": int(own[place]),
                f"{which}_cost": float((own - budget.have)[place] * budget.cost[place]),
                f"{which}_value": value.value,
                f"{which}_low": value.low,
                f"{which}_high": value.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)
