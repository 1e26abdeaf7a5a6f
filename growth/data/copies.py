"""Lines that a folder holds more than once, which count twice: copied files, repeated lines."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, NamedTuple

from growth.core.distributed import distributed_state
from growth.core.errors import InputError

# As file managers and browsers name a copy: "x (1)", "x copy 2", "x - Copy (3)", "x 副本", "x~".
COPY_MARK = re.compile(
    r"(?: ?\(\d+\)|[ _-]+copy(?:[ _]?\d+| ?\(\d+\))?|[ _-]*副本(?: ?\d+| ?\(\d+\))?|~)$",
    re.IGNORECASE,
)
# Of a predicted line, where it is true: the answer ended because its room did.
RESPONSE_CUT = "response_cut"
# What evaluate/predict.py adds to a line; it may differ in the last digits.
PREDICTED_FIELDS = ("generated_response", "choice_logits", "generated_ppl", RESPONSE_CUT)
UNCOMPARED = (*PREDICTED_FIELDS, "idx")
# What makes a question, besides its messages; whatever else is noted of it makes no other one.
_QUESTION = ("type", "choices", "answer")
# What repeated lines do to a score.
COUNTED_AGAIN = "each counts as often as it is there, and intervals are too narrow"
_NAMED = 5  # repeats that a warning names


class Repeats(NamedTuple):
    """Lines that are there more than once.

    Attributes:
        copies: which files are copies of each other, a sentence a pair.
        shared: which files share fewer lines than copies do, a sentence a pair.
        within: by file that has any, how many of its lines repeat one before them in it.
        lines: by file, how many it holds.
    """

    copies: list[str]
    shared: list[str]
    within: dict[str, int]
    lines: dict[str, int]

    def described(self) -> str:
        """What is repeated without being a copy; empty where nothing is."""
        parts = [
            f"{count:,} of the {self.lines[name]:,} lines of {name} repeat another one of it"
            for name, count in self.within.items()
        ] + self.shared
        more = f"; and {len(parts) - _NAMED:,} more files alike" if len(parts) > _NAMED else ""
        return "; ".join(parts[:_NAMED]) + more


def find_repeats(files: Mapping[str, Iterable[Mapping[str, Any]]]) -> Repeats:
    """Which lines of a folder are there more than once.

    Lines are the same if their type, messages, choices and answer are, white space aside. A file is
    a copy if half of the lines of the smaller one are in both, or if it is named as a copy of the
    other, which then may have been changed since.

    Args:
        files: the lines of each file, by its name; 8 bytes of each are held.
    """
    import numpy as np  # only here: scripts begin at once

    keys, lines = {}, {}
    for name, records in files.items():
        every = np.fromiter(map(_line_key, records), np.int64)
        keys[name], lines[name] = np.unique(every), len(every)
    within = {name: lines[name] - len(own) for name, own in keys.items() if lines[name] > len(own)}
    # Most folders hold no line twice; only lines that several files have are compared in pairs.
    of_all = np.concatenate([np.empty(0, np.int64), *keys.values()])
    every, owners = np.unique(of_all, return_counts=True)
    repeated = every[owners > 1]
    common = {
        name: of_others
        for name, own in keys.items()
        if len(of_others := np.intersect1d(own, repeated, assume_unique=True))
    }
    copies, shared = {}, []
    for first, second in combinations(sorted(common), 2):
        both = len(np.intersect1d(common[first], common[second], assume_unique=True))
        sentence = f"{first} and {second} share {both:,} lines"
        if both and 2 * both >= min(len(keys[first]), len(keys[second])):
            copies[first, second] = sentence
        elif both:
            shared.append(sentence)
    for name in sorted(files):
        original = _original(name)
        if original in files and (min(name, original), max(name, original)) not in copies:
            copies[original, name] = f"{name} is named as a copy of {original}"
    return Repeats(list(copies.values()), shared, within, lines)


class LinesDigest:
    """A digest of lines in their order, whatever was predicted of them."""

    def __init__(self) -> None:
        self._found = hashlib.sha256()
        self._separator = ""

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the next line."""
        self._found.update(f"{self._separator}{_compared(record)}".encode())
        self._separator = "\n"

    def hexdigest(self) -> str:
        """16 digits."""
        return self._found.hexdigest()[:16]


def _line_key(record: Mapping[str, Any]) -> int:
    messages = [[message["role"], message["content"]] for message in record["messages"]]
    question = [messages, *(record.get(name) for name in _QUESTION)]
    return hash(json.dumps(_without_spaces(question), sort_keys=True))


def _without_spaces(value: Any) -> Any:
    """`value` with each run of white space in its texts as one blank, and none at their ends."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [_without_spaces(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_spaces(part) for name, part in value.items()}
    return value


def _compared(record: Mapping[str, Any]) -> str:
    line = {name: value for name, value in record.items() if name not in UNCOMPARED}
    return json.dumps(line, sort_keys=True)


def _original(name: str) -> str:
    """The file that `name` is named as a copy of; empty where it is not."""
    stem, dot, suffix = name.rpartition(".")
    mark = COPY_MARK.search(stem)
    return stem[: mark.start()] + dot + suffix if mark else ""


def check_no_copies(files: Mapping[str, Iterable[Mapping[str, Any]]], where: str) -> Repeats:
    """No line counts twice because its file was copied.

    Args:
        files: the lines of each file of a folder, by its name.
        where: the folder, and the flag that named it.

    Returns:
        What is repeated though no file is a copy.

    Raises:
        InputError: two files are copies of each other; both are named.
    """
    repeats = find_repeats(files)
    if repeats.copies:
        raise InputError(
            f"{where}: {'; '.join(repeats.copies)}: their lines would count twice; remove one of "
            "the two"
        )
    return repeats


def warn_of_repeats(repeats: Repeats, where: str, effect: str) -> None:
    """One warning on stderr where lines are there more than once, as one may mean them to be.

    Args:
        repeats: what is there more than once.
        where: the folder or setting, and the flag that named it.
        effect: of it.
    """
    parts = [*repeats.copies, *filter(None, [repeats.described()])]
    if parts and distributed_state().is_main_process:
        print(f"warning: {where}: {'; '.join(parts)}: {effect}", file=sys.stderr)
