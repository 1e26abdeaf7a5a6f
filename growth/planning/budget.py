"""What a plan may spend, from what its flags say."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from growth.core.errors import InputError
from growth.core.options import PlanOptions
from growth.data.settings import pool_sizes
from growth.data.study import Study, read_recipe
from growth.planning.measured import lines_of
from growth.planning.plan import WORST, Budget
from growth.report.growth_law import Array
from growth.report.laws import number_of, read_csv

MEAN = "mean"


def budget_of(options: PlanOptions, names: tuple[str, ...], study: Study | None) -> Budget:
    """The budget that the flags of a plan describe.

    Args:
        options: of the plan.
        names: of the abilities that were measured.
        study: whose pools and settings there are; None where the abilities are none of a study's.

    Raises:
        InputError: an unknown name, a number that is none, a budget below a line for each ability
            or above all there is, or lines at hand that are more than there can be.
    """
    cost = _by_name("--cost", options.cost, names, 1.0, least=1e-9)
    asked = _by_name("--at_most", options.at_most, names, math.inf, least=0)
    most = np.minimum(asked, _there(options, names, study))
    have = np.array(_have(options.have, names, study))
    if (have > most).any():
        over = ", ".join(
            f"{name} {own:g} of {bound:g}"
            for name, own, bound in zip(names, have, most, strict=True)
            if own > bound
        )
        raise InputError(
            f"--have {options.have}: holds more lines than there can be ({over}); raise --at_most"
        )
    if options.budget < cost.sum():
        raise InputError(
            f"--budget {options.budget}: below one line for each of the {len(names)} abilities, "
            f"which cost {cost.sum():g}; expected as much or more"
        )
    there = float(((most - have) * cost).sum())
    if options.budget > there:
        what = ", ".join(f"{name} {n:g}" for name, n in zip(names, most - have, strict=True))
        raise InputError(
            f"--budget {options.budget}: all lines that can be bought cost {there:g} ({what}); "
            "give a smaller budget, more data, or more --repeats"
        )
    return Budget(names, float(options.budget), cost, most, have, _weights(options, names))


def _there(options: PlanOptions, names: tuple[str, ...], study: Study | None) -> Array:
    """Lines of each ability in the study's pool, as often as they may repeat; no bound without."""
    if study is None:
        return np.full(len(names), math.inf)
    pool = study.pool_of_lines(options.pool)
    if not (options.data_dir / study.pools[pool].path).exists():
        return np.full(len(names), math.inf)
    sizes = pool_sizes(study, pool, options.data_dir)
    return np.array([sizes[name] * options.repeats for name in names], float)


def _have(setting: str | None, names: tuple[str, ...], study: Study | None) -> Sequence[float]:
    """The lines of --have by ability; none without it."""
    if setting is None:
        return (0.0,) * len(names)
    if study is None:
        raise InputError(f"--have {setting}: these abilities are of no study that has settings")
    is_file = setting.endswith(".toml")
    recipe = read_recipe(Path(setting), study) if is_file else study.recipe(setting, "--have")
    lines = lines_of(recipe, names)
    if lines is None:
        raise InputError(
            f"--have {setting}: how many lines it has of each ability is not known; give a setting "
            "whose numbers are in the study file, or a recipe"
        )
    return lines


def _weights(options: PlanOptions, names: tuple[str, ...]) -> Array | None:
    """How much each ability counts; None for the worst one."""
    if options.objective == WORST:
        return None
    if options.objective == MEAN:
        return np.full(len(names), 1 / len(names))
    path = Path(options.objective)
    if path.suffix != ".csv":
        raise InputError(
            f"--objective {options.objective}: expected {MEAN}, {WORST}, or a CSV file with the "
            "columns ability and weight"
        )
    weights: dict[str, float] = {}
    for line, row in read_csv(path, "--objective", ("ability", "weight"), "no others"):
        where = f"--objective {path}:{line}"
        _check_name(row["ability"], names, where)
        if row["ability"] in weights:
            raise InputError(f"{where}: {row['ability']} has a weight already; give it once")
        weights[row["ability"]] = number_of(row["weight"], f"{where}: weight", 0, 1e9, "a weight")
    total = sum(weights.values())
    if not total:
        raise InputError(f"--objective {path}: no ability has a weight above 0")
    return np.array([weights.get(name, 0.0) / total for name in names])


def _by_name(
    flag: str, texts: Sequence[str], names: tuple[str, ...], default: float, *, least: float
) -> Array:
    """NAME=NUMBER texts as an array in the order of `names`."""
    found: dict[str, float] = {}
    for text in texts:
        name, sign, number = text.rpartition("=")  # names may have one
        if not sign:
            raise InputError(f"{flag} {text}: expected NAME=NUMBER, such as {names[0]}=3")
        _check_name(name, names, f"{flag} {text}")
        if name in found:
            raise InputError(f"{flag} {text}: {name} has a number already; give it once")
        meaning = "above 0" if least else "lines"
        found[name] = number_of(number, f"{flag} {name}", least, 1e12, meaning)
        if not least and not found[name].is_integer():
            raise InputError(f"{flag} {text}: expected a whole number of lines")
    return np.array([found.get(name, default) for name in names])


def _check_name(name: str, names: Sequence[str] | Mapping[str, object], where: str) -> None:
    if name not in names:
        raise InputError(f"{where}: {name!r} is not one of the abilities {', '.join(names)}")
