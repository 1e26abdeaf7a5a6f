"""How many lines of each ability: whole numbers of a total, within what there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from growth.core.errors import InputError
from growth.data.study import Recipe
from growth.report.growth_law import Array

# What a design moves an ability's equal share by.
LEVELS = (0.0, 1 / 3, 1.0, 3.0)


def allotted(total: float, weights: Array, most: Array) -> Array:
    """Shares of a total in proportion to weights; what is over a bound goes to the others.

    Args:
        total: to be shared out.
        weights: (abilities,), at least 0.
        most: (abilities,).

    Returns:
        (abilities,): amounts that sum to the total, or to all there is where that is less.
    """
    amounts = np.zeros(len(weights))
    free = weights > 0
    while free.any():
        left = total - amounts[~free].sum()
        amounts[free] = left * weights[free] / weights[free].sum()
        over = free & (amounts > most)
        if not over.any():
            break
        amounts[over] = most[over]
        free &= ~over
    return amounts


def whole(amounts: Array, most: Array) -> Array:
    """Whole numbers that sum to the (rounded) sum of the amounts, by the largest remainders."""
    lines = np.floor(amounts + 1e-9).astype(int)
    left = round(float(amounts.sum())) - int(lines.sum())
    remainders = np.where(lines + 1 <= most, amounts - lines, -1)
    lines[np.argsort(-remainders, kind="stable")[:left]] += 1
    return lines


@dataclass(frozen=True)
class Mixture:
    """One recipe of a design, by ability: lines, and how many different ones where they repeat."""

    lines: dict[str, int]
    distinct: dict[str, int]


def design(
    pools: dict[str, int], total: int, runs: int, seed: int, *, target: int, repeats: int
) -> list[Mixture]:
    """Mixtures around equal shares: each ability left out, at a third of it, at it, at three times.

    The levels are those of a Latin hypercube (of low discrepancy), so every ability is at each
    level about equally often, and no two move together. All mixtures hold `total` lines. Where they
    stand for runs on more lines, a line repeats as often as there: only the same part of each pool
    is used, total / target.

    Args:
        pools: lines there are, by ability.
        total: lines of a mixture.
        runs: mixtures.
        seed: of the hypercube.
        target: lines of the runs that they stand for.
        repeats: how often a line may be there.

    Raises:
        InputError: fewer than two abilities, or fewer lines than one each, or than there are, or
            so few that most mixtures would be equal shares.
    """
    from scipy.stats import qmc  # only here: scripts begin at once

    names = list(pools)
    if len(names) < 2:
        raise InputError(
            f"a design moves lines among abilities, and there is only {', '.join(names) or 'none'}"
        )
    if total < len(names):
        raise InputError(
            f"--total {total}: below one line for each of the {len(names)} abilities; expected "
            f"{len(names)} or more"
        )
    if target < total:
        raise InputError(f"--target {target}: below --total {total}; expected as much or more")
    usable = np.array([count * total // target for count in pools.values()])
    most = usable * repeats
    sampler = qmc.LatinHypercube(d=len(names), optimization="random-cd", rng=seed)
    levels = np.floor(sampler.random(runs) * len(LEVELS)).astype(int)
    mixtures, unmoved = [], 0
    if most.sum() < total:
        raise InputError(_too_few(total, target, repeats, dict(zip(names, most, strict=True))))
    for level in levels:
        weights = np.array(LEVELS)[level]
        # Nothing would be left of it, or too little to be shared out: all are as they were.
        if most[weights > 0].sum() < total:
            weights = np.ones(len(names))
            unmoved += 1
        lines = whole(allotted(total, weights, most), most)
        over = {
            name: int(few) for name, few, own in zip(names, usable, lines, strict=True) if own > few
        }
        mixtures.append(Mixture(dict(zip(names, map(int, lines), strict=True)), over))
    if 2 * unmoved > runs:
        raise InputError(
            f"--total {total:,}: so near to the {most.sum():,} lines there are that {unmoved} of "
            f"{runs} mixtures would be equal shares; give a smaller total, or more --repeats"
        )
    return mixtures


def _too_few(total: int, target: int, repeats: int, most: dict[str, int]) -> str:
    there = ", ".join(f"{name} {count:,}" for name, count in most.items())
    of_target = f" that are the part of the pool for --target {target:,}" if target > total else ""
    return (
        f"--total {total:,}: there are {sum(most.values()):,} lines with --repeats {repeats}"
        f"{of_target} ({there}); give a smaller total, or more repeats"
    )


def table(names: Sequence[str], mixtures: dict[str, Mixture]) -> str:
    """The lines of each mixture as text, a row each."""
    rows = [("recipe", *names)]
    rows += [(name, *(str(m.lines[n]) for n in names)) for name, m in mixtures.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )


def control_mixes(
    recipe: Recipe, pools: Mapping[str, int], total: int, seed: int
) -> dict[str, dict[str, int]]:
    """Mixtures to compare a plan with, besides equal shares, by name.

    Args:
        recipe: a setting to scale down to the total; of one ability it may hold all there is.
        pools: lines there are, by ability.
        total: lines of a mixture.
        seed: of the random mixture, which is uniform over all.

    Returns:
        `scaled-<the setting>` and `random`: lines by ability.
    """
    known = {share.name: share.quota for share in recipe.shares}
    rest = recipe.samples - sum(quota or 0 for quota in known.values())
    # "all" is what is left of the total; an ability that is not there has none.
    scaled = np.array([known.get(name, 0) for name in pools], float)
    scaled[np.isnan(scaled)] = rest
    most = np.array(list(pools.values()), float)
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(pools)))
    mixes = {f"scaled-{recipe.name}": scaled, "random": drawn}
    return {
        name: dict(zip(pools, map(int, whole(allotted(total, weights, most), most)), strict=True))
        for name, weights in mixes.items()
    }
