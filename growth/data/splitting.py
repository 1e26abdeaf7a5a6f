"""Train, valid and test of a pool of lines, by seed, with whole groups on one side."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from growth.core.errors import InputError
from growth.data.similarity import Groups, digest

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)


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
        InputError: an ability has too few lines, or too few outside of large groups.
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
    for side, size in ((VALID, sizes.valid), (TEST, sizes.test)):
        missing = next((place for place, count in enumerate(left[side]) if count), None)
        if size >= 1 and missing is not None:
            raise InputError(
                f"--{SPLITS[side]} {size:g}: {names[missing]} has {counts[missing]:,} lines, but "
                f"so many near-duplicates that only {int(size) - left[side][missing]:,} can be "
                "told apart from the rest; give a smaller size or a higher --similarity, or "
                "--split_by exact"
            )
    return sides


def _members(groups: Groups, keys: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.intp]]:
    """The places of each group's lines, the line with the smallest key first."""
    order = np.lexsort((keys, groups))
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.split(order, starts)
