"""DoIT lines: JSON Lines named `.json`, read and checked, with file:line in every complaint.

The format is that of the published data set (its card; README, "Data format").
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.data.abilities import ABILITIES, KNOWN_TYPES, LETTERS, Kind, ability_of, checked_ability
from growth.data.copies import check_no_copies, warn_of_copies

Record = dict[str, Any]
Check = Callable[[Record], None]
TRUE_WORDS = ("正确", "对", "T", "√", "V")
FALSE_WORDS = ("错误", "错", "F", "×", "X")
ETHICS_LETTER = re.compile("[A-F]")
NUMBER_OF_CHOICES = 3
MOST_NESTED = 100


class _Fault(Exception):
    """What is wrong with one line; the reader adds where."""


def data_files(folder: Path, flag: str) -> list[Path]:
    """Every `*.json` of `folder`, sorted by name, so that no order of a file system shows through.

    Raises:
        InputError: the folder is missing or holds no such file; `flag` says where it came from.
    """
    if not folder.is_dir():
        raise InputError(
            f"{flag} {folder}: no such folder. Give the folder of the *.json files; "
            "`python data/download.py` downloads the published data."
        )
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    if not files:
        raise InputError(f"{flag} {folder}: no *.json file in it")
    return files


def read_records(path: Path, check: Check | None = None) -> list[Record]:
    """Read the lines of one file, each checked; a byte order mark, CRLF and blank lines pass.

    Args:
        path: a file of JSON Lines in UTF-8.
        check: `check_training` (default), or the check of a later use.

    Raises:
        InputError: the file is missing, empty or not UTF-8, or a line is malformed (file:line).
    """
    records = []
    for number, text in _numbered_lines(path):
        try:
            record = _parse(text)
            (check or check_training)(record)
        except _Fault as fault:
            raise InputError(f"{path}:{number}: {fault}") from None
        records.append(record)
    if not records:
        raise InputError(f"{path}: the file has no line; expected one JSON object a line")
    return records


def read_training_files(folder: Path, flag: str) -> dict[str, list[Record]]:
    """The lines of every `*.json` of `folder` by file name; `flag` says where it came from.

    Files that are copies of each other are named in a warning.
    """
    files = {path.name: read_records(path) for path in data_files(folder, flag)}
    warn_of_copies(files, f"{flag} {folder}")
    return files


def read_evaluation_files(
    folder: Path, flag: str, limit: int | None = None
) -> dict[str, list[Record]]:
    """The lines of every `*.json` of `folder` by the file's stem, the first `limit` of each.

    Raises:
        InputError: as `data_files` and `read_records`, or two files are copies of each other;
            `flag` says where the folder came from.
    """
    files = {path.name: read_records(path, check_evaluation) for path in data_files(folder, flag)}
    check_no_copies(files, f"{flag} {folder}")
    return {Path(name).stem: records[:limit] for name, records in files.items()}


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1. Only line feeds end a line (not U+2028)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}:{number}: not UTF-8 (byte {line[error.start]:#04x}); save it as UTF-8"
            ) from None
        if text.strip():
            yield number, text


def _parse(text: str) -> Record:
    try:
        record = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _Fault(f"malformed JSON ({error}); expected one JSON object a line") from None
    if not isinstance(record, dict):
        raise _Fault(f"expected a JSON object, found {_shown(record)}")
    # what is read here is written again elsewhere, deeper in calls, where fewer levels are left
    if text.count("[") + text.count("{") > MOST_NESTED and _depth(record) > MOST_NESTED:
        raise _Fault(f"lists and objects in each other, more than {MOST_NESTED} deep")
    if "\\u" in text:  # only an escape can hold what UTF-8 can't
        _check_encodable(record)
    return record


def _depth(value: object) -> int:
    """How many lists and objects are in each other."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, (dict, list))]:
        depth += 1
        level = [c for part in level for c in (part.values() if isinstance(part, dict) else part)]
    return depth


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A number as `json` reads it, but for those that no JSON file can hold when written again."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _check_encodable(record: Record) -> None:
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _Fault("a text holds half a surrogate pair, which no UTF-8 file can") from None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: object, name: str) -> str:
    """`value` if it is a text that says something."""
    if not isinstance(value, str):
        raise _Fault(f"{name} must be a string, found {_shown(value)}")
    if not value.strip():
        raise _Fault(f"{name} is empty")
    return value


def check_training(record: Record) -> None:
    """What training needs: `messages` in turns, user first, the assistant last, none empty."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        found = _shown(messages) if "messages" in record else "none"
        raise _Fault(f"`messages` must be a list of user and assistant turns, found {found}")
    for position, message in enumerate(messages):
        name = f"messages[{position}]"
        if not isinstance(message, dict):
            raise _Fault(f"{name} must be an object with role and content, found {_shown(message)}")
        expected = ("user", "assistant")[position % 2]
        if message.get("role") != expected:
            raise _Fault(
                f"{name} has the role {_shown(message.get('role'))}, expected {expected!r}: "
                "the turns alternate and the user begins"
            )
        _text(message.get("content"), f"{name}.content")
    if len(messages) % 2:
        raise _Fault("the last message must be the assistant's: it is the gold answer")


def check_evaluation(record: Record) -> None:
    """What prediction and scoring need in addition: a known type, its format, a gold it allows."""
    check_training(record)
    ability = ability_of(record["type"]) if isinstance(record.get("type"), str) else None
    if ability is None:
        name = record.get("type")
        near = difflib.get_close_matches(str(name), KNOWN_TYPES, n=1, cutoff=0)
        raise _Fault(
            f"unknown type {_shown(name)}; nearest: {near[0]}; known: {', '.join(KNOWN_TYPES)}"
        )
    format_ = record.get("question_format")
    if isinstance(format_, bool) or format_ not in (0, 1):
        raise _Fault(f"question_format must be 0 or 1, found {_shown(format_)}")
    if format_ != ability.question_format:
        raise _Fault(
            f"type {ability.name} is asked with question_format {ability.question_format}, "
            f"found {format_}"
        )
    if format_ == 1:
        _check_choices(record.get("choices"))
    elif ability.kind is Kind.MATH:
        if not isinstance(record.get("answer"), str):
            raise _Fault(
                "`answer`, the short final answer of a math line, must be a string, found "
                + _shown(record.get("answer"))
            )
    else:
        _check_gold(record, ability.kind)


def _check_choices(choices: object) -> None:
    if not isinstance(choices, list) or len(choices) != NUMBER_OF_CHOICES:
        found = len(choices) if isinstance(choices, list) else _shown(choices)
        raise _Fault(
            f"question_format 1 needs `choices`, {NUMBER_OF_CHOICES} strings with the gold one "
            f"first, found {found}"
        )
    for position, choice in enumerate(choices):
        _text(choice, f"choices[{position}]")


def _check_gold(record: Record, kind: Kind) -> None:
    gold = gold_text(record)
    if kind is Kind.LETTER and gold not in LETTERS:
        raise _Fault(f"type {record['type']} allows the gold answers A-D, found {_shown(gold)}")
    if kind is Kind.LETTER_OR_TRUTH and gold not in LETTERS + TRUE_WORDS + FALSE_WORDS:
        raise _Fault(
            f"type {record['type']} allows the gold answers A-D, {' '.join(TRUE_WORDS)} and "
            f"{' '.join(FALSE_WORDS)}, found {_shown(gold)}"
        )
    if kind is Kind.LETTER_SET and not ethics_letters(gold):
        raise _Fault(
            f"type {record['type']} needs letters A-F on the last line of the gold answer, found "
            f"{_shown(gold)}"
        )


def gold_text(record: Record) -> str:
    """The gold answer: the last message, stripped."""
    return record["messages"][-1]["content"].strip()


def reads_letter(record: Record) -> bool:
    """Whether the score of a generated answer depends on one letter A-D and nothing else."""
    kind = checked_ability(record["type"]).kind
    return kind not in (Kind.MATH, Kind.LETTER_SET) and gold_text(record) in LETTERS


def ethics_letters(text: str) -> frozenset[str]:
    """The letters A-F on the last line of `text` that is not empty."""
    lines = [line for line in text.split("\n") if line.strip()]
    return frozenset(ETHICS_LETTER.findall(lines[-1])) if lines else frozenset()


def ability_name(record: Record, path: Path) -> str:
    """The ability of a curated training line: its type, else its file's name less the last part.

    Raises:
        InputError: neither names one of the ten abilities.
    """
    names = [ability.name for ability in ABILITIES]
    type_name, stem = record.get("type"), path.stem.rpartition("_")[0]
    for name in (type_name, stem, path.stem):
        if name in names:
            return name
    raise InputError(
        f"{path}: neither its lines' type {_shown(type_name)} nor its name is one of the ten "
        f"abilities: {', '.join(names)}"
    )


def common_type(records: Sequence[Record]) -> str | None:
    """The one type that all `records` have, or None where they differ."""
    types = {record["type"] for record in records}
    return types.pop() if len(types) == 1 else None


def check_prediction(record: Record) -> None:
    """What scoring needs in addition: what the model answered."""
    check_evaluation(record)
    if record["question_format"] == 1:
        ppl = record.get("generated_ppl")
        if not isinstance(ppl, list) or len(ppl) != NUMBER_OF_CHOICES or not _are_numbers(ppl):
            raise _Fault(
                f"`generated_ppl` must be {NUMBER_OF_CHOICES} numbers, found {_shown(ppl)}; "
                "evaluate/predict.py writes it"
            )
        return
    if not isinstance(record.get("generated_response"), str):
        raise _Fault(
            "`generated_response` must be a string, found "
            f"{_shown(record.get('generated_response'))}; evaluate/predict.py writes it"
        )
    logits = record.get("choice_logits")
    if reads_letter(record) and (
        not isinstance(logits, dict) or not _are_numbers([logits.get(letter) for letter in LETTERS])
    ):
        raise _Fault(
            f"`choice_logits` must hold a number for each of A-D, found {_shown(logits)}; "
            "evaluate/predict.py writes it"
        )


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
