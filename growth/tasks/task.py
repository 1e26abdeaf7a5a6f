"""Multiple-choice benchmarks: questions in subjects, prompts, and what an answer sheet scores.

A benchmark (CMMLU, AGIEval) says what its subjects are and how a question is put; everything else
is shared. No torch here: data and flags are checked before it takes its seconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from growth.core.errors import InputError
from growth.data.abilities import LETTERS
from growth.scoring.intervals import mean_score, percentages

CHANCE = 100 / len(LETTERS)
Messages = list[dict[str, str]]
Answer = dict[str, Any]  # a line of an answer sheet


@dataclass(frozen=True)
class Item:
    """A question: its 0-based place in its file, its text, choices, and the right letter."""

    place: int
    question: str
    choices: tuple[str, ...]
    gold: str
    passage: str = ""


@dataclass(frozen=True)
class Subject:
    """One subject (CMMLU) or set (AGIEval): what is asked, and the examples shown before."""

    name: str
    items: list[Item]
    shots: list[Item]


class Benchmark(ABC):
    """What a benchmark is; settings are its ways to ask, such as `5-shot`.

    Attributes:
        name: of its folder below evaluate/.
        title: for people.
        subjects: the names of all its subjects.
        settings: the names of all its settings.
        categories: which subjects are averaged together besides.
        place_field: what a question's place in its file is called.
        piece_margin: tokens that each piece of a prompt is counted longer than it is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    subjects: ClassVar[tuple[str, ...]]
    settings: ClassVar[tuple[str, ...]]
    categories: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    place_field: ClassVar[str]
    piece_margin: ClassVar[int] = 0

    @abstractmethod
    def files(self, data_dir: Path, name: str) -> list[Path]:
        """The files that a subject is read from."""

    @abstractmethod
    def read(self, data_dir: Path, name: str) -> Subject:
        """Read a subject.

        Raises:
            InputError: its files do not hold what they should.
        """

    @abstractmethod
    def pieces(self, subject: Subject, item: Item, setting: str) -> tuple[list[str], list[str]]:
        """The texts that are in a prompt whatever its length, and the shots'."""

    @abstractmethod
    def messages(self, subject: Subject, item: Item, setting: str, kept: Sequence[int]) -> Messages:
        """The conversation that asks `item`, with those shots that are `kept`."""

    @abstractmethod
    def text(self, item: Item) -> str:
        """What an answer sheet says the question was."""

    @abstractmethod
    def dumped(
        self, name: str, setting: str, item: Item, max_length: int, messages: Messages
    ) -> dict[str, Any]:
        """How a question as it is asked is shown."""


@dataclass
class Exam:
    """The subjects of a benchmark that are there, and the names of those that are not."""

    subjects: dict[str, Subject] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def questions(self) -> int:
        """How many questions there are."""
        return sum(len(subject.items) for subject in self.subjects.values())


def read_exam(benchmark: Benchmark, data_dir: Path, limit: int | None = None) -> Exam:
    """Read every subject that is there, of each the first `limit` questions.

    Raises:
        InputError: no subject is there, or a file is not what it should be.
    """
    exam = Exam()
    for name in benchmark.subjects:
        if all(path.is_file() for path in benchmark.files(data_dir, name)):
            subject = benchmark.read(data_dir, name)
            exam.subjects[name] = Subject(name, subject.items[:limit], subject.shots)
        else:
            exam.missing.append(name)
    if not exam.subjects:
        expected = benchmark.files(data_dir, benchmark.subjects[0])[0]
        raise InputError(
            f"--data_dir {data_dir}: nothing of {benchmark.title} is there (no {expected}, for "
            f"one); fetch it with: python data/download.py --datasets {benchmark.name}"
        )
    return exam


def score(benchmark: Benchmark, sheets: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """What a setting's answer sheets, by subject, come to; per cent, 95 % intervals.

    Means are over the subjects that are there; those that are not are named, and count nowhere.
    """
    subjects = {}
    for name in benchmark.subjects:
        if name in sheets:
            right = sum(answer["prediction"] == answer["gold"] for answer in sheets[name])
            n = len(sheets[name])
            subjects[name] = {"n": n, **percentages(right, n), "expected": CHANCE}
    answers = [answer for sheet in sheets.values() for answer in sheet]
    right = sum(answer["prediction"] == answer["gold"] for answer in answers)
    return {
        **mean_score("average", list(subjects.values())),
        "over_examples": {"n": len(answers), **percentages(right, len(answers))},
        "missing": [name for name in benchmark.subjects if name not in sheets],
        "fewer_shots": sum(answer["fewer_shots"] for answer in answers),
        "cut": sum(answer["cut"] for answer in answers),
        "categories": {
            category: {
                "subjects": len(entries),
                **mean_score("average", entries),
            }
            for category, names in benchmark.categories.items()
            if (entries := [subjects[name] for name in names if name in subjects])
        },
        "subjects": subjects,
    }


def table(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The results of each setting as a table for people: averages, subjects beside them."""
    names = {name: None for result in settings.values() for name in result["categories"]}
    rows = [["", *settings]]
    for name in ("average", *names, "over examples"):
        rows.append([name, *(_cell(name, result) for result in settings.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(name: str, result: Mapping[str, Any]) -> str:
    if name == "over examples":
        entry = result["over_examples"]
        return f"{entry['score']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]  {entry['n']:,}"
    if name == "average":
        entry, count = result, len(result["subjects"])
    elif name in result["categories"]:
        entry = result["categories"][name]
        count = entry["subjects"]
    else:
        return "-"
    low, high = entry["average_low"], entry["average_high"]
    return f"{entry['average']:.2f} [{low:.2f}, {high:.2f}]  {count}"
