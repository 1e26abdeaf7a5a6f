"""The 19 data types (experimental settings) as recipes, and the sampling behind them.

Source: paper section 4.1 and the published data script. What differs: the subsets are nested, and
they depend on the seed and the lines alone, not on the order or number of files in a folder.
"""

import difflib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from growth.core.errors import InputError
from growth.data.abilities import ABILITY_NAMES
from growth.data.copies import check_no_copies
from growth.data.lines import Lines, Record, checked_lines
from growth.data.records import ability_name, check_training, data_files

SYNTHETIC = "synthetic"
ALL = None  # a quota: every line there is
CURATED_SIZES = (10, 40, 160, 640, 2560, 10000)
SYNTHETIC_SIZES = (10, 40, 160, 640, 2560, 10000, 40960)
MIX_SIZES = (0, 2560, 40960)
# Folders below the data folder that a recipe takes its lines from.
CURATED_SAMPLES, CURATED_FULL, SYNTHETIC_FULL = "curated/1000", "curated/full", "synthetic/40960"
# reconstruct and maximum hold little of what saturates early and stays flat (paper section 4.4).
_SATURATED = {"ethics": 64, "role_play": 64, "creative_writing": 1000}
_RECONSTRUCT = dict.fromkeys(ABILITY_NAMES, 1305) | _SATURATED | {"biology": ALL, "chinese": 1306}
_MAXIMUM = dict.fromkeys(ABILITY_NAMES, ALL) | _SATURATED


@dataclass(frozen=True)
class Recipe:
    """What one setting holds: lines of each ability, and synthetic lines.

    Attributes:
        curated: lines by ability, `ALL` for every line there is; empty for none.
        synthetic: number of synthetic lines.
        sampled: curated lines are a seeded sample of `curated/1000`; otherwise they are the first
            lines of `curated/full`.
        samples: lines in all with the published data; the place on a plot's axis.
    """

    curated: Mapping[str, int | None]
    synthetic: int
    sampled: bool
    samples: int


def _curated(size: int) -> Recipe:
    return Recipe(dict.fromkeys(ABILITY_NAMES, size // len(ABILITY_NAMES)), 0, True, size)


RECIPES: dict[str, Recipe] = {
    **{f"curated-{size}": _curated(size) for size in CURATED_SIZES},
    **{f"synthetic-{size}": Recipe({}, size, True, size) for size in SYNTHETIC_SIZES},
    "baseline": _curated(10000),
    "reconstruct": Recipe(_RECONSTRUCT, 0, False, 10000),
    "maximum": Recipe(_MAXIMUM, 0, False, 39564),
    **{f"mix-{size}": Recipe(_MAXIMUM, size, False, 39564 + size) for size in MIX_SIZES},
}
DATA_TYPES = tuple(RECIPES)


def recipe_of(data_type: str, flag: str = "--data_type") -> Recipe:
    """The recipe of a setting.

    Raises:
        InputError: there is no such setting; the nearest ones are named first.
    """
    if data_type in RECIPES:
        return RECIPES[data_type]
    near = difflib.get_close_matches(data_type, DATA_TYPES, n=len(DATA_TYPES), cutoff=0)
    raise InputError(
        f"{flag} {data_type}: no such setting. The {len(DATA_TYPES)} settings, nearest first: "
        + ", ".join(near)
    )


def default_epochs(samples: int) -> int:
    """Epochs for a setting of `samples` lines.

    The published script meant more epochs for the three smallest totals, but a typo kept the rule
    from firing; the intent is followed here (README, table of differences).
    """
    return {10: 25, 40: 20, 160: 18}.get(samples, 15)


def build_setting(data_type: str, data_dir: Path, seed: int) -> dict[str, Lines]:
    """The lines of a setting, by the stem of the file that holds them.

    For one seed curated-10 is the beginning of curated-40, and so on; the same for synthetic-N.
    All lines are checked; they stay in their files, and only their places are held.

    Args:
        data_type: one of `DATA_TYPES`.
        data_dir: folder that holds `curated/` and `synthetic/`.
        seed: of the sampling.

    Raises:
        InputError: the setting, a file or enough lines are missing.
    """
    recipe = recipe_of(data_type)
    built: dict[str, Lines] = {}
    if recipe.curated:
        folder = data_dir / (CURATED_SAMPLES if recipe.sampled else CURATED_FULL)
        pools = _pools(folder, ability_name)
        for ability in sorted(recipe.curated):
            lines = pools.get(ability, Lines([]))
            if recipe.sampled:
                lines = _permuted(lines, f"{seed}/{ability}")
            quota = recipe.curated[ability]
            built[ability] = _first(lines, quota, data_type, folder, ability)
    if recipe.synthetic:
        folder = data_dir / SYNTHETIC_FULL
        lines = _pools(folder, _synthetic).get(SYNTHETIC, Lines([]))
        lines = _permuted(lines, f"{seed}/{SYNTHETIC}")
        built[SYNTHETIC] = _first(lines, recipe.synthetic, data_type, folder, SYNTHETIC)
    return built


def _pools(folder: Path, name_of: Callable[[Record, Path], str]) -> dict[str, Lines]:
    """The lines of every file of `folder`, gathered under the name that `name_of` gives.

    Raises:
        InputError: two files are copies of each other, so that a sample could repeat a line.
    """
    pools: dict[str, Lines] = {}
    paths = data_files(folder, "--data_dir")
    files = {path.name: Lines([path]) for path in paths}
    for number, path in enumerate(paths):
        for offset, record in checked_lines(path, check_training):
            files[path.name].append(0, offset)
            pools.setdefault(name_of(record, path), Lines(paths)).append(number, offset)
    check_no_copies(files, f"--data_dir {folder}")
    return pools


def _synthetic(record: Record, path: Path) -> str:
    """The name of any synthetic line."""
    return SYNTHETIC


def _permuted(lines: Lines, seed: str) -> Lines:
    """A seeded permutation: its prefixes are nested samples without replacement."""
    order = list(range(len(lines)))
    # A string seed is hashed by `random` itself, the same on every machine and Python version.
    random.Random(seed).shuffle(order)
    return lines.take(order)


def _first(lines: Lines, quota: int | None, data_type: str, folder: Path, name: str) -> Lines:
    wanted = max(1, quota if quota is not None else 1)
    if len(lines) < wanted:
        raise InputError(
            f"--data_type {data_type} asks for {wanted:,} lines of {name}, but {folder} holds "
            f"{len(lines):,}: add lines of {name} there, choose a smaller setting, or point "
            "--data_dir at complete data (`python data/download.py` downloads it)"
        )
    return lines if quota is ALL else lines[:quota]
