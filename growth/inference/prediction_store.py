"""Files of per-sample results: whole or not at all, resumed amid a file, never of two models.

<folder>/run.json         which model made the results, and how
<folder>/<file>           a line per question, written once all are there
<folder>/<file>.<rank>.partial   while under way: the responses that process <rank> has finished
"""

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import (
    is_file,
    json_line,
    open_file,
    parse_json,
    short_name,
    write_errors,
    write_json_lines,
)
from growth.core.options import AUTO, WEIGHT_PRECISIONS
from growth.core.schemas import PredictionRecord, read_record
from growth.inference.requests import Response
from growth.runs.layout import PARTIAL_SUFFIX, RUN_RECORD, Run

# Too deep, and a number that is no index, besides what `json` refuses.
MALFORMED_JSON = (ValueError, RecursionError, OverflowError)
_PRECISION_OF_DEVICE = re.compile(rf" in ({'|'.join(WEIGHT_PRECISIONS)}): ")


def check_same_model(
    folder: Path, run: Run, fields: Sequence[str], pattern: str, remedy: str
) -> Run | None:
    """Check that what `folder` holds was made by the same model in the same way.

    Args:
        folder: of the results.
        run: the record of how results are made now.
        fields: of the record, which decide.
        pattern: of the files of results in it.
        remedy: what to do where they differ.

    Returns:
        The record that is there, None where there is none yet.

    Raises:
        InputError: they differ, or there are results without a record.
    """
    path = folder / RUN_RECORD
    if not is_file(path):
        if any(folder.glob(pattern)):
            raise InputError(
                f"{folder}: holds results without a {RUN_RECORD} that says which model made them; "
                f"{remedy}"
            )
        return None
    earlier = _with_computed_precision(read_record(path, PredictionRecord, remedy))
    different = [
        _difference(name, earlier.get(name), run.get(name))
        for name in fields
        if earlier.get(name) != run.get(name)
    ]
    if different:
        raise InputError(
            f"{folder}: holds results of another model or another way to predict (different: "
            f"{', '.join(different)}); {remedy}"
        )
    return earlier


def _difference(name: str, before: object, now: object) -> str:
    """What differs, of an object also its fields."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return name
    values = [
        f"{key} {before.get(key)!r}, now {now.get(key)!r}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    return f"{name} ({'; '.join(values)})"


def _with_computed_precision(record: Run) -> Run:
    """A record of before, which says "auto" where the line on the device says what was computed."""
    computed = _PRECISION_OF_DEVICE.search(str(record.get("device")))
    for name in ("decoding", "asked"):
        fields = record.get(name)
        if computed and isinstance(fields, dict) and fields.get("precision") == AUTO:
            record = record | {name: fields | {"precision": computed[1]}}
    return record


@dataclass(frozen=True)
class ResultFile:
    """One file of per-sample results, and the notes kept until it is whole.

    Attributes:
        path: of the file.
        digests: of each of its questions: a note counts for the same question only.
    """

    path: Path
    digests: Sequence[str]

    def partial(self, rank: int) -> Path:
        """Where process `rank` notes responses."""
        return self.path.with_name(f"{short_name(self.path.name)}.{rank}{PARTIAL_SUFFIX}")

    def note(self, rank: int, responses: Mapping[int, Response]) -> None:
        """Append responses, by the index of their question; a kill loses none from then on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.partial(rank)
        with write_errors(path), open(path, "a", encoding="utf-8") as file:
            for index, response in responses.items():
                file.write(json_line(self._as_note(index, response)))

    def recover(self) -> dict[int, Response]:
        """The responses that an interrupted launch has noted, each checked.

        All of them are in the main process's notes afterwards, without the half line of a kill.
        """
        found: dict[int, Response] = {}
        paths = self._partial_files()
        for path in paths:
            with open_file(path) as file:
                texts = file.read().split(b"\n")
            for text in texts:
                try:
                    note = parse_json(text.decode())
                    index, response = int(note["line"]), Response.from_json(note["response"])
                    if index >= 0 and note["of"] == self.digests[index]:
                        found[index] = response
                except (LookupError, TypeError, AttributeError, *MALFORMED_JSON):
                    continue
        if paths:
            main = self.partial(0)
            write_json_lines(main, [self._as_note(*item) for item in found.items()])
            for path in paths:
                if path != main:
                    path.unlink()
        return found

    def write(self, results: Iterable[dict[str, Any]]) -> None:
        """Write the whole file, each line as it comes; its notes go."""
        write_json_lines(self.path, results)
        self.remove_notes()

    def remove_notes(self) -> None:
        """Remove what a kill between writing the file and this has left."""
        for path in self._partial_files():
            path.unlink(missing_ok=True)  # another process may have been faster

    def _as_note(self, index: int, response: Response) -> dict[str, Any]:
        return {"line": index, "of": self.digests[index], "response": response.as_json()}

    def _partial_files(self) -> list[Path]:
        pattern = f"{glob.escape(short_name(self.path.name))}.*{PARTIAL_SUFFIX}"
        return sorted(self.path.parent.glob(pattern))
