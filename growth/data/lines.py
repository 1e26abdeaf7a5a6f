"""JSON Lines, one at a time: a checked line stays in its file until it is asked for.

A million lines are a few gigabytes as Python's objects and 12 megabytes as their places.
"""

import io
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from growth.core.errors import InputError
from growth.core.files import open_file, parse_json

Record = dict[str, Any]
Check = Callable[[Record], None]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Fault(Exception):
    """What is wrong with one line; the reader adds where."""


class Lines(Sequence[Record]):
    """Lines of files, in any order; each is read from its file whenever it is asked for.

    Args:
        paths: the files.
        owners: which of the files each line is in, by its number there.
        offsets: where in its file each line begins, in bytes.
    """

    def __init__(
        self, paths: Sequence[Path], owners: Iterable[int] = (), offsets: Iterable[int] = ()
    ) -> None:
        self.paths = paths
        self._owners, self._offsets = array("I", owners), array("q", offsets)

    def append(self, owner: int, offset: int) -> None:
        """Add the line at `offset` of the file that `owner` numbers."""
        self._owners.append(owner)
        self._offsets.append(offset)

    def take(self, order: Iterable[int]) -> "Lines":
        """The lines at these places, in this order."""
        chosen = array("q", order)
        owners, offsets = (map(own.__getitem__, chosen) for own in (self._owners, self._offsets))
        return Lines(self.paths, owners, offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "Lines": ...
    def __getitem__(self, place: int | slice) -> "Record | Lines":
        if isinstance(place, slice):
            return Lines(self.paths, self._owners[place], self._offsets[place])
        return next(iter(self.take([range(len(self))[place]])))

    def __iter__(self) -> Iterator[Record]:
        file: io.BufferedReader | None = None
        opened = -1
        try:
            for owner, offset in zip(self._owners, self._offsets, strict=True):
                if file is None or owner != opened:
                    if file is not None:
                        file.close()
                    file, opened = open_file(self.paths[owner]), owner
                yield self._line_at(file, owner, offset)
        finally:
            if file is not None:
                file.close()

    def _line_at(self, file: io.BufferedReader, owner: int, offset: int) -> Record:
        file.seek(offset)
        try:
            return _parsed(file.readline())
        except (Fault, UnicodeDecodeError):
            raise InputError(
                f"{self.paths[owner]}: was changed while it was read; run the command again"
            ) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(own == theirs for own, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment] # as of a list


def checked_lines(path: Path, check: Check) -> Iterator[tuple[int, Record]]:
    """The lines of one file that are not blank, each checked, with the bytes before each.

    A byte order mark and CRLF pass. Only line feeds end a line (not U+2028).

    Raises:
        InputError: the file can't be read or has no line, or a line is malformed (file:line).
    """
    offset, found = 0, False
    with open_file(path) as file:
        for number, line in enumerate(file, start=1):
            mark = len(_BYTE_ORDER_MARK) if number == 1 and line.startswith(_BYTE_ORDER_MARK) else 0
            try:
                if line[mark:].decode("utf-8").strip():
                    record = _parsed(line[mark:])
                    check(record)
                    found = True
                    yield offset + mark, record
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}:{number}: not UTF-8 (byte {error.object[error.start]:#04x}); save it "
                    "as UTF-8"
                ) from None
            except Fault as fault:
                raise InputError(f"{path}:{number}: {fault}") from None
            offset += len(line)
    if not found:
        raise InputError(f"{path}: the file has no line; expected one JSON object a line")


def index_lines(path: Path, check: Check) -> Lines:
    """The lines of one file, each checked once now; raises as `checked_lines`."""
    lines = Lines([path])
    for offset, _ in checked_lines(path, check):
        lines.append(0, offset)
    return lines


def _parsed(line: bytes) -> Record:
    try:
        record = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise Fault(f"{error}; expected one JSON object a line") from None
    if not isinstance(record, dict):
        raise Fault(f"expected a JSON object, found {shown(record)}")
    return record


def shown(value: object) -> str:
    """A value as a message shows it, its beginning where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
