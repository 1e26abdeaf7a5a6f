"""Files of one folder that hold the same lines, which would count twice."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from growth.core.distributed import distributed_state
from growth.core.errors import InputError

# As file managers and browsers name a copy: "x (1)", "x copy 2", "x - Copy (3)", "x 副本", "x~".
COPY_MARK = re.compile(
    r"(?: ?\(\d+\)|[ _-]+copy(?:[ _]?\d+| ?\(\d+\))?|[ _-]*副本(?: ?\d+| ?\(\d+\))?|~)$",
    re.IGNORECASE,
)
# What evaluate/predict.py adds to a line, which may differ in the last digits, and its number.
UNCOMPARED = ("generated_response", "choice_logits", "generated_ppl", "idx")


def repeated_files(files: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Which files of a folder are copies of each other, a sentence a pair.

    A file is a copy if half of the lines of the smaller one are in both (but for what a model
    said), or if it is named as a copy of the other, which then may have been changed since.

    Args:
        files: the lines of each file, by its name; 8 bytes of each are held.
    """
    if len(files) < 2:
        return []
    import numpy as np  # only here: scripts begin at once

    keys = {
        name: np.unique(np.fromiter(map(_line_key, records), np.int64))
        for name, records in files.items()
    }
    # Most folders hold no line twice; only lines that several files have are compared in pairs.
    every, owners = np.unique(np.concatenate(list(keys.values())), return_counts=True)
    repeated = every[owners > 1]
    shared = {
        name: common
        for name, own in keys.items()
        if len(common := np.intersect1d(own, repeated, assume_unique=True))
    }
    found = {}
    for first, second in combinations(sorted(shared), 2):
        both = len(np.intersect1d(shared[first], shared[second], assume_unique=True))
        if both and 2 * both >= min(len(keys[first]), len(keys[second])):
            found[first, second] = f"{first} and {second} share {both:,} lines"
    for name in sorted(files):
        original = _original(name)
        if original in files and (min(name, original), max(name, original)) not in found:
            found[original, name] = f"{name} is named as a copy of {original}"
    return list(found.values())


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
    return hash(_compared(record))


def _compared(record: Mapping[str, Any]) -> str:
    line = {name: value for name, value in record.items() if name not in UNCOMPARED}
    return json.dumps(line, sort_keys=True)


def _original(name: str) -> str:
    """The file that `name` is named as a copy of; empty where it is not."""
    stem, dot, suffix = name.rpartition(".")
    mark = COPY_MARK.search(stem)
    return stem[: mark.start()] + dot + suffix if mark else ""


def check_no_copies(files: Mapping[str, Iterable[Mapping[str, Any]]], where: str) -> None:
    """No line counts twice because its file was copied.

    Args:
        files: the lines of each file of a folder, by its name.
        where: the folder, and the flag that named it.

    Raises:
        InputError: two files are copies of each other; both are named.
    """
    repeated = repeated_files(files)
    if repeated:
        raise InputError(
            f"{where}: {'; '.join(repeated)}: their lines would count twice; remove one of the two"
        )


def warn_of_copies(files: Mapping[str, Iterable[Mapping[str, Any]]], where: str) -> None:
    """One warning on stderr where files are copies of each other, as one may mean them to be."""
    repeated = repeated_files(files)
    if repeated and distributed_state().is_main_process:
        print(
            f"warning: {where}: {'; '.join(repeated)}: these lines are learnt twice per epoch",
            file=sys.stderr,
        )
