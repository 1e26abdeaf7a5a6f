"""AGIEval v1 (Zhong et al. 2023, arXiv 2304.06364): its ten Chinese sets of choice questions.

Only questions with four choices and one right answer are asked, 3,269 of 4,299. Few-shot shows the
published demonstrations as turns of a chat.
"""

import ast
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.data.abilities import LETTERS
from growth.data.published import AGIEVAL_SETS, AGIEVAL_SHOTS, read_table
from growth.tasks.benchmark import Benchmark, Count, Item, Messages, Subject

BOS, RESERVED = 1, 48  # tokens that the published runner counts besides those of texts
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
        questions, shots = self.files(data_dir, name)
        return Subject(name, _items(questions), _demonstrations(shots, name))

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
    last = LETTERS[len(item.choices) - 1] if len(item.choices) > 1 else LETTERS[-1]
    return f"答案：从A到{last}, 我们应选择"


def _items(path: Path) -> list[Item]:
    """The four-choice questions with one right answer of a JSON Lines file.

    Raises:
        InputError: not UTF-8, not JSON, not an item of AGIEval, or no question.
    """
    items = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); fetch it again") from None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            item = _item(json.loads(line), number)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number + 1}: not an AGIEval item ({error!r})") from None
        if item is not None and len(item.choices) == len(LETTERS):
            items.append(item)
    if not items:
        raise InputError(f"{path}: holds no question with four choices; fetch it again")
    return items


def _item(fields: dict[str, Any], place: int) -> Item | None:
    """An item with one right answer; None for one with several."""
    # a label is a letter, several letters, or a list of letters
    choices, label = fields["options"], fields["label"]
    if len(label) != 1:
        return None
    if label[0] not in LETTERS or not all(isinstance(text, str) for text in choices):
        raise ValueError(f"label {label!r}, options {choices!r}")
    if not isinstance(fields["question"], str):
        raise TypeError(f"question {fields['question']!r}")
    return Item(place, fields["question"], tuple(choices), label[0], fields["passage"] or "")


def _demonstrations(path: Path, name: str) -> list[Item]:
    """A set's column of the table of demonstrations; every other row is an explanation.

    Raises:
        InputError: no such column, or something else in it.
    """
    header, *rows = read_table(path) or [[]]
    if name not in header:
        raise InputError(f"{path}: no column {name}; fetch it again")
    column = header.index(name)
    items = []
    for number, row in enumerate(rows[::2], start=1):
        cell = row[column].strip() if column < len(row) else ""
        if not cell:
            continue
        try:
            item = _item(_parsed(cell), number)
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: column {name}, sample {number}: not an AGIEval item ({error!r})"
            ) from None
        if item is not None:
            items.append(item)
    return items


def _parsed(cell: str) -> dict[str, Any]:
    """Some cells are JSON, some are Python's notation."""
    try:
        return json.loads(cell)
    except ValueError:
        return ast.literal_eval(cell)
