"""Which sequences share a prefix that is worth computing once."""

import bisect
import itertools
from collections.abc import Sequence

Group = tuple[int, list[int]]  # tokens in common, indices of the sequences that have them
_WORTH_SHARING = 32  # tokens: sharing less than this costs more than it saves
_LEVEL = 4  # tokens: a difference in what is shared that is looked for; it bounds the recursion


def shared_prefixes(sequences: Sequence[list[int]]) -> list[Group]:
    """Group sequences by the prefix that they share, so that the fewest tokens are computed.

    Returns:
        (tokens in common, indices of the sequences) of each group; every index once. A sequence
        that shares too little is a group of its own, with 0 in common. At least one token of each
        sequence is left out of the prefix.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    # how much each has in common with the one before it in the order
    common = [0] + [
        _common_length(sequences[a], sequences[b]) for a, b in itertools.pairwise(order)
    ]

    def best(first: int, end: int) -> tuple[int, list[Group]]:
        """Tokens saved, and the groups, of the places `first` to `end` of the order."""
        if end - first == 1:
            return 0, [(0, [order[first]])]
        depth = min(common[first + 1 : end])
        cuts = [first, *(i for i in range(first + 1, end) if common[i] < depth + _LEVEL), end]
        saved, groups, together = 0, list[Group](), list[int]()
        for start, stop in itertools.pairwise(cuts):
            below, parts = best(start, stop)
            if depth * (stop - start) >= below:
                together += order[start:stop]
            else:  # they have more in common with each other
                saved, groups = saved + below, groups + parts
        if depth * (len(together) - 1) >= _WORTH_SHARING:
            return saved + depth * (len(together) - 1), [*groups, (depth, together)]
        return saved, [*groups, *((0, [index]) for index in together)]

    return best(0, len(order))[1] if order else []


def _common_length(a: list[int], b: list[int]) -> int:
    """Tokens that both begin with, one of each left over."""
    bound = min(len(a), len(b)) - 1
    return bisect.bisect_left(range(bound), True, key=lambda i: a[: i + 1] != b[: i + 1])
