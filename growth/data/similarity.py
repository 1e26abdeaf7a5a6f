"""Which texts say the same, exactly or nearly.

Near means that two texts share much of their runs of characters (Jaccard similarity). Candidates
are found by MinHash in bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3)
and compared in full, so that chance finds none that isn't one.
"""

import functools
import hashlib
import math
import os.path
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rensa import RMinHash
from tqdm import tqdm

from growth.core.normal_form import nfkc

Groups = npt.NDArray[np.int64]

GRAM = 4  # characters; one changed character of a short Chinese question changes few of them
BANDS, ROWS = 16, 8  # of texts with similarity 0.8 this finds 95 %, with 0.9 all but 1 in 8,000
_MINHASH_SEED = 1
_SHARED_BY = 0.2  # of an ability's questions; what more of them begin or end with is no question
_FEWEST_ALIKE = 20  # questions, so that a few near-duplicates in a small file are no instruction
_SHORTEST_OPENING = 20  # characters, once normalised; a shorter one decides no comparison
_MOST_COMPARED = 8  # of one band, so that a million lines of one template take no square of that
# Spaces and points count between digits only, signs beside a digit: 1.5 is not 15, 7-3 not 73.
_LOOSE = re.compile(r"(?<!\d)[ .]|[ .](?!\d)|(?<!\d)[-*/%](?!\d)")
_COUNTED = "-*/%."
_DIGIT = re.compile(r"\d")
_NO_DIGIT_BESIDE = str.maketrans("", "", " " + _COUNTED)


class _Characters(dict[int, str]):
    """For `str.translate`: separators become spaces, punctuation and control characters go."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in "\t\n\r" or category[0] == "Z":
            kept = " "
        elif category[0] in "PC" and character not in _COUNTED:
            kept = ""
        else:
            kept = character
        self[code] = kept
        return kept


_CHARACTERS = _Characters()


def normalised(text: str) -> str:
    """`text` without what says nothing: width (NFKC), case, spaces and punctuation."""
    folded = nfkc(text).casefold().translate(_CHARACTERS)
    # without a digit, what is loose needs no looking around, which takes most of the time
    if _DIGIT.search(folded):
        kept = _LOOSE.sub("", re.sub(" +", " ", folded))
    else:
        kept = folded.translate(_NO_DIGIT_BESIDE)
    return kept or text.strip()


def grams(text: str, length: int = GRAM) -> set[str]:
    """The runs of `length` characters of `text`; the text itself if it is shorter."""
    return {text[i : i + length] for i in range(max(1, len(text) - length + 1))}


def digest(text: str) -> int:
    """A number of 64 bits that stands for `text`, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def question_of(turns: Sequence[str]) -> str:
    """What a conversation asks: all its user turns, normalised, a line each.

    A first turn that only greets makes no two conversations alike.

    Args:
        turns: the texts of the turns, the user's first.
    """
    return "\n".join(map(normalised, turns[::2]))


class Frame(NamedTuple):
    """What many questions of one ability share around their own text, the longest first.

    Attributes:
        openings: an instruction, say, or a folded system prompt.
        endings: likewise, or options that do not change.
    """

    openings: Sequence[str] = ()
    endings: Sequence[str] = ()


_NO_FRAME = Frame()


def shared_frame(questions: Iterable[str]) -> Frame:
    """What many questions of one ability begin with, and what many end with.

    Args:
        questions: normalised; the order plays no part, and the same question counts once.
    """
    different = set(questions)
    backwards = _shared_openings(question[::-1] for question in different)
    return Frame(_shared_openings(different), [ending[::-1] for ending in backwards])


def _shared_openings(different: Iterable[str]) -> list[str]:
    ordered = sorted(different)
    count = max(_FEWEST_ALIKE, math.ceil(_SHARED_BY * len(ordered)))
    openings = {
        os.path.commonprefix([first, last])  # noqa: RUF071 - texts, no paths; sorted: of all between
        for first, last in zip(ordered, ordered[count - 1 :], strict=False)
    }
    return sorted((o for o in openings if len(o) >= _SHORTEST_OPENING), key=lambda o: (-len(o), o))


def without_frame(question: str, frame: Frame) -> str:
    """`question` without the first of the openings and of the endings that leave some of it."""
    for opening in frame.openings:
        if len(question) > len(opening) and question.startswith(opening):
            question = question[len(opening) :]
            break
    for ending in frame.endings:
        if len(question) > len(ending) and question.endswith(ending):
            return question[: -len(ending)]
    return question


class Fingerprints:
    """What tells near-duplicates among many lines apart, in 150 bytes a line.

    Args:
        near: whether near-duplicates count, or only what is the same once normalised.
        similarity: from which on two questions are near-duplicates, between 0 and 1.
    """

    def __init__(self, near: bool, similarity: float) -> None:
        self._near, self._similarity = near, similarity
        self._questions, self._wholes, self._bands = array("Q"), array("Q"), array("Q")
        # any odd numbers; they make one number of a band's eight
        self._mixers = np.random.default_rng(0).integers(2**63, size=ROWS, dtype=np.uint64) * 2 + 1

    def add(self, turns: Sequence[str], frame: Frame = _NO_FRAME) -> None:
        """Note the texts of one line's turns, the user's first.

        Args:
            turns: their texts.
            frame: of questions, which says nothing where questions are nearly the same.
        """
        question = question_of(turns)
        self._questions.append(digest(question))
        self._wholes.append(digest("".join(map(normalised, turns))))
        if self._near:
            sketch = RMinHash(num_perm=BANDS * ROWS, seed=_MINHASH_SEED)
            sketch.update(list(grams(without_frame(question, frame))))
            rows = np.array(sketch.digest(), np.uint64).reshape(BANDS, ROWS)
            self._bands.frombytes((rows * self._mixers).sum(axis=1).tobytes())

    def groups(self, compared: Callable[[int], str]) -> Groups:
        """A number for each line, the same for lines that say nearly the same question.

        Which lines are together does not depend on the order in which they were added.

        Args:
            compared: the question of the line with this place, normalised, without its frame.
        """
        union = _Union(len(self._questions))
        questions, wholes = (
            np.frombuffer(own, np.uint64) for own in (self._questions, self._wholes)
        )
        _, first = np.unique(questions, return_index=True)
        for keys in (questions, wholes):
            order = np.argsort(keys, kind="stable")
            for place in np.flatnonzero(keys[order[1:]] == keys[order[:-1]]).tolist():
                union.join(int(order[place]), int(order[place + 1]))
        if self._near:
            self._join_near(union, first, compared)
        return union.roots()

    def _join_near(
        self, union: "_Union", places: npt.NDArray[np.intp], compared: Callable[[int], str]
    ) -> None:
        """Join the lines at `places`, one a question, whose questions are similar.

        They come in the order of their questions' digests: which of them are compared does not
        depend on how the files were ordered.
        """

        @functools.lru_cache(maxsize=10_000)
        def grams_of(place: int) -> set[str]:
            return grams(compared(place))

        bands = np.frombuffer(self._bands, np.uint64).reshape(-1, BANDS)
        for band in tqdm(range(BANDS), desc="compare", unit="band", delay=1):
            keys = bands[places, band]
            order = np.argsort(keys, kind="stable")
            ends = np.flatnonzero(np.diff(keys[order], append=keys[order[-1:]] + 1)) + 1
            starts = np.concatenate(([0], ends[:-1]))
            for place in np.flatnonzero(ends - starts > 1).tolist():
                run = places[order[starts[place] : ends[place]]].tolist()
                _join_similar(union, run, grams_of, self._similarity)


def _join_similar(
    union: "_Union", run: Iterable[int], grams_of: Callable[[int], set[str]], similarity: float
) -> None:
    """Join each of `run` with those among the first unlike ones that it is similar to."""
    leaders: list[int] = []
    for place in run:
        known = {union.root(leader) for leader in leaders}
        if union.root(place) in known:
            continue
        for leader in leaders:
            if jaccard(grams_of(leader), grams_of(place)) >= similarity:
                union.join(leader, place)
        if union.root(place) not in map(union.root, leaders) and len(leaders) < _MOST_COMPARED:
            leaders.append(place)


def jaccard(first: set[str], second: set[str]) -> float:
    """The share that two sets have in common of all that is in either."""
    both = len(first & second)
    return both / (len(first) + len(second) - both)


class _Union:
    """Disjoint sets of whole numbers below `size`."""

    def __init__(self, size: int) -> None:
        self._parents = array("q", range(size))

    def root(self, place: int) -> int:
        parents = self._parents
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def join(self, first: int, second: int) -> None:
        first, second = self.root(first), self.root(second)
        self._parents[max(first, second)] = min(first, second)

    def roots(self) -> Groups:
        return np.array([self.root(place) for place in range(len(self._parents))], np.int64)
