"""Train, valid and test of a pool of lines, by seed, with whole groups on one side."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from growth.core.errors import InputError
from growth.core.options import EXACT, NEAR, NONE
from growth.data.similarity import Groups, digest

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
_LEAKS = "which lets lines with the same question stand in train and test"
_REMEDIES = {
    NEAR: "give another size or a higher --similarity, --split_by exact to part all that are not "
    f"the same, or --split_by none, {_LEAKS}",
    EXACT: f"give another size, or --split_by none, {_LEAKS}",
    NONE: "give another size",
}


@dataclass(frozen=True)
class Sizes:
    """How much of each ability goes to valid and test: a share below 1, else a number of lines."""

    valid: float
    test: float

    def __post_init__(self) -> None:
        for name, size in (("valid", self.valid), ("test", self.test)):
            if size < 0 or (size > 1 and size != int(size)):
                raise InputError(
                    f"--{name} {size:g}: expected a share below 1, or a whole number of lines"
                )

    def of(self, name: str, lines: int) -> tuple[int, int]:
        """The lines of valid and of test for an ability that has `lines`.

        Raises:
            InputError: nothing would be left to train on.
        """
        valid, test = (
            int(size) if size >= 1 else math.floor(size * lines + 0.5)
            for size in (self.valid, self.test)
        )
        if valid + test >= lines:
            raise InputError(
                f"--valid {self.valid:g} --test {self.test:g}: {name} has {lines:,} lines, of "
                f"which {valid:,} and {test:,} leave none to train on; give smaller sizes, or more "
                f"lines of {name}"
            )
        return valid, test


def split(
    groups: Groups,
    types: npt.NDArray[np.int64],
    names: Sequence[str],
    keys: npt.NDArray[np.uint64],
    sizes: Sizes,
    seed: int,
) -> npt.NDArray[np.int8]:
    """Which of `SPLITS` each line goes to; the order of the lines plays no part.

    Groups are dealt out in an order that the seed gives, each to test if it fits there, else to
    valid, else to train. A group of lines of several abilities stays together too.

    Args:
        groups: of each line; lines of one group stay on one side.
        types: of each line, the place of its ability in `names`.
        names: of the abilities.
        keys: of each line, a digest of what it says.
        sizes: of valid and test, for each ability.
        seed: of the order.

    Raises:
        InputError: an ability has too few lines.
    """
    counts = np.bincount(types, minlength=len(names))
    wanted = [sizes.of(name, int(count)) for name, count in zip(names, counts, strict=True)]
    left = {TEST: [test for _, test in wanted], VALID: [valid for valid, _ in wanted]}
    sides = np.full(len(groups), TRAIN, np.int8)
    members = _members(groups, keys)
    for lines in sorted(members, key=lambda lines: digest(f"{seed}/{keys[lines[0]]}")):
        needed = Counter(types[lines].tolist())
        for side in (TEST, VALID):
            if all(left[side][type_] >= count for type_, count in needed.items()):
                sides[lines] = side
                for type_, count in needed.items():
                    left[side][type_] -= count
                break
    return sides


def unserved(
    sides: npt.NDArray[np.int8],
    groups: Groups,
    types: npt.NDArray[np.int64],
    names: Sequence[str],
    sizes: Sizes,
    split_by: str,
) -> list[str]:
    """Which shares of valid and test are smaller than asked for, a sentence each.

    Args:
        sides: of each line, as `split` dealt them out.
        groups: of each line.
        types: of each line, the place of its ability in `names`.
        names: of the abilities.
        sizes: of valid and test, for each ability.
        split_by: what made the groups, one of `growth.core.options.SPLIT_BY`.

    Raises:
        InputError: a number of lines can't be served, or nothing of a share.
    """
    members = np.bincount(groups)
    short = []
    for place, name in enumerate(names):
        of_ability = types == place
        count, largest = int(of_ability.sum()), int(members[groups[of_ability]].max())
        for side, size, wanted in zip(
            (VALID, TEST), (sizes.valid, sizes.test), sizes.of(name, count), strict=True
        ):
            served = int((of_ability & (sides == side)).sum())
            if served == wanted:
                continue
            message = (
                f"--{SPLITS[side]} {size:g}: {name} has {count:,} lines, but so many "
                f"near-duplicates that only {served:,} of {wanted:,} can be "
                "told apart from the rest; the largest group that stays on one side has "
                f"{largest:,} lines"
            )
            if size >= 1 or not served:
                raise InputError(f"{message}; {_REMEDIES[split_by]}")
            short.append(message)
    return short


def _members(groups: Groups, keys: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.intp]]:
    """The places of each group's lines, the line with the smallest key first."""
    order = np.lexsort((keys, groups))
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.split(order, starts)
