"""Training data as people have it: JSON Lines, JSON arrays and Parquet, read as a stream.

Nothing here knows what the fields mean (`growth.data.conversations` does).
"""

import codecs
import glob
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import open_file, parse_json

SUFFIXES = (".json", ".jsonl", ".parquet")
_CHUNK = 1 << 20  # characters of an array that are read at once
_LONGEST = 1 << 26  # characters of one entry of an array; what is longer is a bracket left open
_LEFT_OUT = "the rest of the array is left out"
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_SPACES = " \t\n\r"

Fields = dict[str, Any]


class Refusal(Exception):
    """Why one line can't be used: `reason` in words that many lines share, and the details."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(details)
        self.reason = reason


class Row:
    """One entry of a file: its number, how far the file is read, and its fields or a refusal.

    Args:
        number: from 1; of the line that it begins on, or of the row in Parquet.
        position: how much of the file is read, in bytes (about, in Parquet).
        content: the fields, or why there are none.
    """

    def __init__(self, number: int, position: int, content: "Fields | Refusal") -> None:
        self.number, self.position, self.content = number, position, content


def find_files(inputs: Sequence[Path], flag: str) -> list[Path]:
    """The files that `inputs` name, those in folders too, each once, in order of their paths.

    Raises:
        InputError: one is missing, of no known kind, or a folder without a file; `flag` says where
            the names came from.
    """
    found: dict[Path, Path] = {}
    for path in inputs:
        if path.is_dir():
            inside = [file for file in path.rglob("*") if _is_data(file, path)]
            if not inside:
                raise InputError(f"{flag} {path}: no file in it named {' or '.join(SUFFIXES)}")
        elif not path.exists():
            raise InputError(f"{flag} {path}: no such file or folder")
        elif path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{flag} {path}: expected a file named {' or '.join(SUFFIXES)}; rename it, or "
                "export it as JSON Lines"
            )
        else:
            inside = [path]
        for file in sorted(inside):
            found.setdefault(file.resolve(), file)
    return sorted(found.values())


def _is_data(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    is_hidden = any(part.startswith(".") for part in parts)
    return file.suffix.lower() in SUFFIXES and not is_hidden and not file.is_dir()


def read_rows(path: Path) -> Iterator[Row]:
    """The entries of one file, whatever of the three kinds it is; memory stays flat.

    Raises:
        InputError: it is no file (a FIFO, say), or named .parquet and is none.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    return _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    with open_file(path) as file:
        start = file.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        file.seek(0)
        yield from _array_rows(file) if start == b"[" else _line_rows(file)


def _line_rows(file: io.BufferedReader) -> Iterator[Row]:
    position = 0
    for number, line in enumerate(file, start=1):  # only line feeds end a line, not U+2028
        position += len(line)
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield Row(number, position, _fields(line.decode("utf-8", "surrogateescape")))


def _array_rows(file: io.BufferedReader) -> Iterator[Row]:
    """The entries of an array; where it is malformed, one last refusal stands for the rest."""
    text = _Buffer(file)
    text.skip_spaces()
    text.take(1)  # the bracket
    while text.skip_spaces() != "]":
        number = text.line
        try:
            entry = text.take_value()
            yield Row(number, text.position, _fields(entry))
            text.take_comma()
        except Refusal as refusal:
            yield Row(text.line, text.position, refusal)
            return


class _Buffer:
    """The part of a JSON text that is being looked at."""

    def __init__(self, file: io.BufferedReader) -> None:
        # What is not UTF-8 becomes half surrogates, so that one entry is refused and not all.
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._file = file
        self._text, self._at = "", 0
        # finds where a value ends; what the value is, `parse_json` says
        self._decoder = json.JSONDecoder(parse_int=str, parse_float=str)
        self.line = 1

    @property
    def position(self) -> int:
        """Bytes read from the file."""
        return self._file.tell()

    def _grow(self) -> bool:
        """Read as much again, so that a long entry is not looked through too often."""
        left = len(self._text) - self._at
        more = self._file.read(max(_CHUNK, left))
        self._text = self._text[self._at :] + self._utf8.decode(more, final=not more)
        self._at = 0
        return bool(more)

    def take(self, length: int) -> str:
        taken = self._text[self._at : self._at + length]
        self.line += taken.count("\n")
        self._at += length
        return taken

    def skip_spaces(self) -> str:
        """Go to the next character that is no space, and return it; none at the end."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in _SPACES:
                    return character
                self.take(1)
            if not self._grow():
                return ""

    def take_comma(self) -> None:
        """Go behind the comma that follows an entry, if the array goes on.

        Raises:
            Refusal: neither a comma nor the closing bracket follows.
        """
        found = self.skip_spaces()
        if found == ",":
            self.take(1)
        elif found != "]":
            raise Refusal("malformed JSON", f"expected a comma or a closing bracket; {_LEFT_OUT}")

    def take_value(self) -> str:
        """The text of the value that begins here.

        Raises:
            Refusal: none does.
        """
        while True:
            try:
                end = self._decoder.raw_decode(self._text, self._at)[1]
            except json.JSONDecodeError as error:
                if len(self._text) - self._at < _LONGEST and self._grow():
                    continue
                self.take(error.pos - self._at)
                message = f"{error.msg}; {_LEFT_OUT}"
                raise Refusal("malformed JSON", message) from None
            except RecursionError:
                message = f"nested too deep; {_LEFT_OUT}"
                raise Refusal("malformed JSON", message) from None
            if end < len(self._text) or not self._grow():  # a number may go on
                return self.take(end - self._at)


def _fields(text: str) -> "Fields | Refusal":
    if _NOT_UTF8.search(text):
        return Refusal("not UTF-8", "not UTF-8; save the file as UTF-8")
    try:
        value = parse_json(text)
    except ValueError as error:
        return Refusal("malformed JSON", str(error))
    if not isinstance(value, dict):
        return Refusal("malformed JSON", "expected a JSON object")
    return value


def _parquet_rows(path: Path) -> Iterator[Row]:
    """The rows, without the columns that are empty in them; images stay encoded."""
    import datasets  # takes a second
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    with open_file(path) as file:  # so that what is no file is refused
        size = path.stat().st_size
        try:
            total = read_metadata(file).num_rows
        except (ArrowException, OSError) as error:
            raise InputError(f"{path}: not a Parquet file, or damaged ({error})") from None
    try:
        stream = datasets.IterableDataset.from_parquet(glob.escape(str(path)))
    except ValueError as error:  # a type of column that `datasets` has no word for
        raise InputError(f"{path}: {error} Leave that column out of the file") from None
    rows = iter(stream.decode(False))
    for number in range(1, total + 1):
        try:
            row = next(rows)
        except StopIteration:
            return
        except (ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path}:{number}: the Parquet file is damaged ({error})") from None
        # NaN is how pandas writes an empty cell of numbers
        fields = {name: value for name, value in row.items() if value is not None}
        fields = {name: value for name, value in fields.items() if value == value}
        yield Row(number, size * number // total, fields)
