"""AGIEval v1 (Zhong et al. 2023, arXiv 2304.06364): its ten Chinese sets of choice questions.

Only questions with four choices and one right answer are asked, 3,269 of 4,299. Few-shot shows the
published demonstrations as turns of a chat.
"""

import ast
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import open_file, parse_json
from growth.data.abilities import LETTERS
from growth.data.published import AGIEVAL_SETS, AGIEVAL_SHOTS, read_table
from growth.tasks.benchmark import (
    Benchmark,
    Count,
    Item,
    Messages,
    Subject,
    check_question,
    right_letters,
)

BOS, RESERVED = 1, 48  # tokens that the published runner counts besides those of texts
_LETTERS = "ABCDEFG"  # AGIEval's own options
_FEWEST_SHOTS = 3
# An option's letter and its text: `(A)text`, `A．text`, `A text`.
_OWN_LETTER = re.compile(r"\s*[(（]?([A-G])[)）.．、:：\s]*(.*)", re.DOTALL)
# What reading a damaged item raises.
NOT_AN_ITEM = (ValueError, KeyError, TypeError)
ZERO_SHOT, FEW_SHOT = "zero-shot", "few-shot"


class AGIEval(Benchmark):
    """The benchmark; its settings are `zero-shot` and `few-shot`."""

    name = "agieval"
    title = "AGIEval"
    subjects = tuple(AGIEVAL_SETS)
    settings = (ZERO_SHOT, FEW_SHOT)
    place_field = "line"

    def files(self, data_dir: Path, name: str) -> list[Path]:
        """The set, and the demonstrations of all sets."""
        return [data_dir / "v1" / f"{name}.jsonl", data_dir / AGIEVAL_SHOTS]

    def read(self, data_dir: Path, name: str) -> Subject:
        """A set's questions, and its demonstrations with one right answer."""
        questions, demonstrations = self.files(data_dir, name)
        items, not_asked, problems = _items(questions)
        shots, of_shots = _demonstrations(demonstrations, name)
        return Subject(name, items, shots, (*problems, *of_shots), not_asked)

    def own_doubts(self, item: Item) -> list[str]:
        """The published sets have options in the order A, C, B, D, and some without a text."""
        parts = [_OWN_LETTER.match(choice) for choice in item.choices]
        doubts = []
        if [part and part[1] for part in parts] != list(LETTERS):
            doubts.append("have options without the letters A to D in their order")
        if any(part and not part[2] for part in parts):
            doubts.append("have an option of its letter alone")
        return doubts

    def shots_wanted(self, setting: str) -> int:
        """The published table has three to five demonstrations with one right answer for a set."""
        return 0 if setting == ZERO_SHOT else _FEWEST_SHOTS

    def shots_of(self, subject: Subject, setting: str) -> list[Item]:
        """All demonstrations, or none."""
        return [] if setting == ZERO_SHOT else subject.shots

    def fitting_shots(
        self, subject: Subject, item: Item, setting: str, max_length: int, count: Count
    ) -> list[int] | None:
        """As published: the longest run from the beginning that fits.

        The published runner encodes demonstrations as one text with a BOS, and leaves room for the
        question, counted alike, and for `RESERVED` tokens of what stands around it.
        """
        question = "".join([item.passage, item.question, " ".join(item.choices)])
        room = max_length - RESERVED - (BOS + count(question)) - BOS
        shown = self.shots_of(subject, setting)
        runs = itertools.accumulate(_numbered(shot, shot.place) + shot.gold for shot in shown)
        return [place for place, text in enumerate(runs) if count(text) <= room]

    def messages(self, subject: Subject, item: Item, setting: str, kept: Sequence[int]) -> Messages:
        """A turn for the question, after two for each demonstration."""
        if setting == ZERO_SHOT:
            return [{"role": "user", "content": self.text(item)}]
        messages = []
        for shot in (subject.shots[i] for i in kept):
            messages.append({"role": "user", "content": _numbered(shot, shot.place)})
            messages.append({"role": "assistant", "content": shot.gold})
        # As published, the question is numbered by the demonstrations that are left, though these
        # keep the numbers they had among all.
        return [*messages, {"role": "user", "content": _numbered(item, len(kept) + 1)}]

    def text(self, item: Item) -> str:
        """The zero-shot prompt."""
        choices = " ".join(item.choices)
        return f"{item.passage}问题：{item.question} 选项：{choices}\n{_request(item)}"

    def dumped(
        self, name: str, setting: str, item: Item, max_length: int, messages: Messages
    ) -> dict[str, Any]:
        """The turns."""
        return {
            "dataset": name,
            "setting": setting,
            "line": item.place,
            "label": item.gold,
            "messages": messages,
        }


def _numbered(item: Item, number: int) -> str:
    """The few-shot prompt."""
    return (
        f"问题 {number}.   {item.passage} {item.question}\n"
        f"从以下选项中选择:    {' '.join(item.choices)}\n{_request(item)}"
    )


def _request(item: Item) -> str:
    # Some demonstrations have all four choices in one string.
    last = _LETTERS[len(item.choices) - 1] if len(item.choices) > 1 else LETTERS[-1]
    return f"答案：从A到{last}, 我们应选择"


def _items(path: Path) -> tuple[list[Item], int, list[str]]:
    """The questions of a JSON Lines file that are asked, how many are not, and what is no question.

    Raises:
        InputError: not UTF-8, or without a four-choice question with one right answer.
    """
    items, not_asked, problems = [], 0, []
    try:
        with open_file(path) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); fetch it again") from None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            item = _item(parse_json(line), number)
        except NOT_AN_ITEM as error:
            problems.append(f"{path}:{number + 1}: {_left_out(error)}")
            continue
        if item is not None and len(item.choices) == len(LETTERS):
            items.append(item)
        else:
            not_asked += 1
    if not items:
        reasons = "".join(f"; {problem}" for problem in problems[:1])
        raise InputError(f"{path}: holds no question with four choices{reasons}; fetch it again")
    return items, not_asked, problems


def _item(fields: dict[str, Any], place: int) -> Item | None:
    """An item with one right answer; None for one with several.

    Raises:
        ValueError, KeyError, TypeError: it is no item.
    """
    choices, gold = _choices(fields["options"]), right_letters(fields["label"])
    if len(gold) != 1:
        return None
    # Some demonstrations have all four choices in one string.
    if gold not in _LETTERS[: len(choices) if len(choices) > 1 else len(LETTERS)]:
        raise ValueError(f"label {fields['label']!r} of options {fields['options']!r}")
    question, passage = fields["question"], fields.get("passage") or ""
    if not isinstance(question, str) or not isinstance(passage, str):
        raise TypeError(f"passage {passage!r} and question {question!r}")
    if len(choices) == len(LETTERS):  # others are not asked
        check_question(passage + question, choices)
    return Item(place, question, choices, gold, passage)


def _left_out(error: Exception) -> str:
    return f"left out, not an AGIEval item ({repr(error)[:200]})"


def _choices(options: object) -> tuple[str, ...]:
    """The choices, each with its letter in front; an object has them by letter.

    Raises:
        ValueError: they are no texts.
    """
    if isinstance(options, str):
        return (options,)
    if isinstance(options, dict) and sorted(options) == list(_LETTERS[: len(options)]):
        options = [
            f"({letter}){text}"
            if isinstance(text, str) and not text.lstrip().startswith(f"({letter})")
            else text
            for letter, text in sorted(options.items())
        ]
    if not isinstance(options, list) or not options:
        raise ValueError(f"options {options!r}")
    if len(options) > len(_LETTERS) or not all(isinstance(text, str) for text in options):
        raise ValueError(f"options {options!r}")
    return tuple(options)


def _demonstrations(path: Path, name: str) -> tuple[list[Item], list[str]]:
    """A set's column of the table of demonstrations, and what in it is none.

    Every other row is an explanation.

    Raises:
        InputError: no such column.
    """
    header, *rows = read_table(path) or [[]]
    if name not in header:
        raise InputError(f"{path}: no column {name}; fetch it again")
    column = header.index(name)
    items, problems = [], []
    for number, row in enumerate(rows[::2], start=1):
        cell = row[column].strip() if column < len(row) else ""
        if not cell:
            continue
        try:
            item = _item(_parsed(cell), number)
        except NOT_AN_ITEM as error:
            problems.append(f"{path}: column {name}, sample {number}: {_left_out(error)}")
            continue
        if item is not None:
            items.append(item)
    return items, problems


def _parsed(cell: str) -> dict[str, Any]:
    """Some cells are JSON, some are Python's notation.

    Raises:
        ValueError, TypeError: the cell is neither.
    """
    try:
        return parse_json(cell)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(cell)
    except (SyntaxError, MemoryError, RecursionError) as error:  # the latter two: nested too deeply
        raise ValueError(f"neither JSON nor Python's notation: {error}") from None
    return parse_json(json.dumps(value))  # what JSON can't hold is none here either
