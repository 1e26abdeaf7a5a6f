"""DoIT lines: JSON Lines named `.json`, read and checked, with file:line in every complaint.

The format is that of the published data set (its card; README, "Data format").
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from growth.core.errors import InputError
from growth.data.abilities import ABILITIES, KNOWN_TYPES, LETTERS, Kind, ability_of, checked_ability
from growth.data.copies import check_no_copies, warn_of_copies
from growth.data.lines import Check, Fault, Lines, Record, checked_lines, index_lines, shown

TRUE_WORDS = ("正确", "对", "T", "√", "V")
FALSE_WORDS = ("错误", "错", "F", "×", "X")
ETHICS_LETTER = re.compile("[A-F]")
NUMBER_OF_CHOICES = 3


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
    return [record for _, record in checked_lines(path, check or check_training)]


def read_training_files(folder: Path, flag: str) -> dict[str, Lines]:
    """The lines of every `*.json` of `folder` by file name; `flag` says where it came from.

    Each is checked now and stays in its file. Files that are copies of each other are named in a
    warning.
    """
    files = {path.name: index_lines(path, check_training) for path in data_files(folder, flag)}
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


def _text(value: object, name: str) -> str:
    """`value` if it is a text that says something."""
    if not isinstance(value, str):
        raise Fault(f"{name} must be a string, found {shown(value)}")
    if not value.strip():
        raise Fault(f"{name} is empty")
    return value


def check_training(record: Record) -> None:
    """What training needs: `messages` in turns, user first, the assistant last, none empty."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        found = shown(messages) if "messages" in record else "none"
        raise Fault(f"`messages` must be a list of user and assistant turns, found {found}")
    for position, message in enumerate(messages):
        name = f"messages[{position}]"
        if not isinstance(message, dict):
            raise Fault(f"{name} must be an object with role and content, found {shown(message)}")
        expected = ("user", "assistant")[position % 2]
        if message.get("role") != expected:
            raise Fault(
                f"{name} has the role {shown(message.get('role'))}, expected {expected!r}: "
                "the turns alternate and the user begins"
            )
        _text(message.get("content"), f"{name}.content")
    if len(messages) % 2:
        raise Fault("the last message must be the assistant's: it is the gold answer")


def check_evaluation(record: Record) -> None:
    """What prediction and scoring need in addition: a known type, its format, a gold it allows."""
    check_training(record)
    ability = ability_of(record["type"]) if isinstance(record.get("type"), str) else None
    if ability is None:
        name = record.get("type")
        near = difflib.get_close_matches(str(name), KNOWN_TYPES, n=1, cutoff=0)
        raise Fault(
            f"unknown type {shown(name)}; nearest: {near[0]}; known: {', '.join(KNOWN_TYPES)}"
        )
    format_ = record.get("question_format")
    if isinstance(format_, bool) or format_ not in (0, 1):
        raise Fault(f"question_format must be 0 or 1, found {shown(format_)}")
    if format_ != ability.question_format:
        raise Fault(
            f"type {ability.name} is asked with question_format {ability.question_format}, "
            f"found {format_}"
        )
    if format_ == 1:
        _check_choices(record.get("choices"))
    elif ability.kind is Kind.MATH:
        if not isinstance(record.get("answer"), str):
            raise Fault(
                "`answer`, the short final answer of a math line, must be a string, found "
                + shown(record.get("answer"))
            )
    else:
        _check_gold(record, ability.kind)


def _check_choices(choices: object) -> None:
    if not isinstance(choices, list) or len(choices) != NUMBER_OF_CHOICES:
        found = len(choices) if isinstance(choices, list) else shown(choices)
        raise Fault(
            f"question_format 1 needs `choices`, {NUMBER_OF_CHOICES} strings with the gold one "
            f"first, found {found}"
        )
    for position, choice in enumerate(choices):
        _text(choice, f"choices[{position}]")


def _check_gold(record: Record, kind: Kind) -> None:
    gold = gold_text(record)
    if kind is Kind.LETTER and gold not in LETTERS:
        raise Fault(f"type {record['type']} allows the gold answers A-D, found {shown(gold)}")
    if kind is Kind.LETTER_OR_TRUTH and gold not in LETTERS + TRUE_WORDS + FALSE_WORDS:
        raise Fault(
            f"type {record['type']} allows the gold answers A-D, {' '.join(TRUE_WORDS)} and "
            f"{' '.join(FALSE_WORDS)}, found {shown(gold)}"
        )
    if kind is Kind.LETTER_SET and not ethics_letters(gold):
        raise Fault(
            f"type {record['type']} needs letters A-F on the last line of the gold answer, found "
            f"{shown(gold)}"
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
        f"{path}: neither its lines' type {shown(type_name)} nor its name is one of the ten "
        f"abilities: {', '.join(names)}"
    )


def check_prediction(record: Record) -> None:
    """What scoring needs in addition: what the model answered."""
    check_evaluation(record)
    if record["question_format"] == 1:
        ppl = record.get("generated_ppl")
        if not isinstance(ppl, list) or len(ppl) != NUMBER_OF_CHOICES or not _are_numbers(ppl):
            raise Fault(
                f"`generated_ppl` must be {NUMBER_OF_CHOICES} numbers, found {shown(ppl)}; "
                "evaluate/predict.py writes it"
            )
        return
    if not isinstance(record.get("generated_response"), str):
        raise Fault(
            "`generated_response` must be a string, found "
            f"{shown(record.get('generated_response'))}; evaluate/predict.py writes it"
        )
    logits = record.get("choice_logits")
    if reads_letter(record) and (
        not isinstance(logits, dict) or not _are_numbers([logits.get(letter) for letter in LETTERS])
    ):
        raise Fault(
            f"`choice_logits` must hold a number for each of A-D, found {shown(logits)}; "
            "evaluate/predict.py writes it"
        )


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
