"""Multiple-choice benchmarks: questions in subjects, how they are put, and their scores.

A benchmark (CMMLU, AGIEval, one of yours) says what its subjects are and how a question is put;
everything else is shared. No torch here: data and flags are checked before it takes its seconds.
"""

import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from growth.core.errors import InputError
from growth.core.files import open_file, parse_json
from growth.core.intervals import mean_score, percentages, rounded
from growth.core.schemas import AnswerRecord, check_schema
from growth.data.abilities import LETTERS

CHANCE = 100 / len(LETTERS)
GOLD_PROBABILITY = "gold_probability"  # of an answer 0 to 1, of a subject the mean in per cent
Messages = list[dict[str, str]]
Count = Callable[[str], int]
Result = dict[str, Any]  # a line of a file of per-sample results


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
    """One subject (CMMLU) or set (AGIEval): what is asked, and the examples shown before.

    Attributes:
        name: of the subject.
        items: its questions; `shots`: the examples.
        left_out: what in its files could not be read, a sentence each that names the place.
        not_asked: how many questions are of another kind than the benchmark asks.
    """

    name: str
    items: list[Item]
    shots: list[Item]
    left_out: tuple[str, ...] = ()
    not_asked: int = 0


_LABEL_MARKS = re.compile(r"[\s()\[\]【】.,、。;]+")
_OPTION_LETTERS = "ABCDEFGH"
_LONGEST_LABEL = 200  # characters; what is longer is a text


def right_letters(label: object) -> str:
    """The letters of a label, which may be spelt `B`, `(B)`, `Ｂ`, `b.`, `["B"]` or `A, C`.

    Raises:
        ValueError: there is no letter in it, or something else.
    """
    parts: list[object] = label if isinstance(label, list) else [label]
    spelt = [part for part in parts if isinstance(part, str)]
    if len(spelt) == len(parts) and sum(map(len, spelt)) <= _LONGEST_LABEL:
        text = unicodedata.normalize("NFKC", "".join(spelt))
        letters = _LABEL_MARKS.sub("", text).upper()
        if letters and set(letters) <= set(_OPTION_LETTERS):
            return letters
    raise ValueError(f"the label {repr(label)[:_LONGEST_LABEL]} names no option")


def check_question(text: str, choices: Sequence[str]) -> None:
    """A question says something, and so does each of its choices.

    Raises:
        ValueError: they don't.
    """
    if not text.strip():
        raise ValueError("the question is empty")
    for letter, choice in zip(_OPTION_LETTERS, choices, strict=False):
        if not choice.strip():
            raise ValueError(f"the option {letter} is empty")


class Benchmark(ABC):
    """What a benchmark is; settings are its ways to prompt, such as `5-shot`.

    A new one has to say `name`, `title`, `subjects`, `files`, `read` and `text`; the rest has
    defaults for questions that are put one by one, without shots.

    Attributes:
        name: of its folder below evaluate/.
        title: for people.
        subjects: the names of all its subjects.
        settings: the names of all its settings.
        categories: which subjects are averaged together besides.
        place_field: what a question's place in its file is called.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    subjects: ClassVar[tuple[str, ...]]
    settings: ClassVar[tuple[str, ...]] = ("0-shot",)
    categories: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    place_field: ClassVar[str] = "line"

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
    def text(self, item: Item) -> str:
        """A question with its choices; also what the per-sample results say it was."""

    def own_doubts(self, item: Item) -> list[str]:
        """What is odd about a question that is asked all the same, as published."""
        return []

    def doubts(self, subject: Subject) -> dict[str, int]:
        """How many questions of a subject are odd in which way, though they are asked."""
        contents = [(item.passage, item.question, item.choices) for item in subject.items]
        shown = {(shot.passage, shot.question, shot.choices) for shot in subject.shots}
        found = Counter(doubt for item in subject.items for doubt in self.own_doubts(item))
        found["repeat another one"] = len(contents) - len(set(contents))
        found["are among the shots"] = sum(content in shown for content in contents)
        return {doubt: count for doubt, count in found.items() if count}

    def shots_wanted(self, setting: str) -> int:
        """How many shots a setting promises, at least."""
        return 0

    def shots_of(self, subject: Subject, setting: str) -> list[Item]:
        """The shots of a setting: all, unless a benchmark has it otherwise."""
        return subject.shots

    def fitting_shots(
        self, subject: Subject, item: Item, setting: str, max_length: int, count: Count
    ) -> list[int] | None:
        """The places of the shots of `shots_of` that a prompt of `max_length` tokens has room for.

        Unless a benchmark's published runner does otherwise: the longest run from the beginning.

        Args:
            subject: the subject of the question.
            item: the question.
            setting: one of `settings`.
            max_length: of the prompt, in tokens.
            count: gives the tokens of a text.

        Returns:
            The places; None where the question has to be put in its `shortest` way.
        """
        texts = [self.text(shot) + shot.gold for shot in self.shots_of(subject, setting)]
        return longest_run(map(count, texts), max_length - count(self.text(item)))

    def messages(self, subject: Subject, item: Item, setting: str, kept: Sequence[int]) -> Messages:
        """The conversation that puts `item`, with those shots that are `kept`."""
        return [{"role": "user", "content": self.text(item)}]

    def shortest(self, subject: Subject, item: Item, setting: str) -> Messages:
        """The conversation that puts an `item` for which there is no room even without shots."""
        return self.messages(subject, item, setting, [])

    def dumped(
        self, name: str, setting: str, item: Item, max_length: int, messages: Messages
    ) -> dict[str, Any]:
        """How a rendered prompt is shown."""
        return {
            "subject": name,
            "setting": setting,
            self.place_field: item.place,
            "label": item.gold,
            "messages": messages,
        }


def longest_run(costs: Iterable[int], room: int) -> list[int]:
    """The places of the first shots that fit together; the rest's costs are not asked for."""
    kept: list[int] = []
    for place, cost in enumerate(costs):
        room -= cost
        if room < 0:
            break
        kept.append(place)
    return kept


def result_file(setting: str, suffix: str, name: str) -> Path:
    """Where the results of a subject are, below the folder of a model's results."""
    return Path(f"{setting}{suffix}", f"{name}.jsonl")


def read_results(path: Path, questions: int | None = None) -> list[Result]:
    """Read the per-sample results of a subject.

    Args:
        path: of the file.
        questions: how many were asked; None where that is not known.

    Raises:
        InputError: it is no such file, or of another number of questions.
    """
    with open_file(path) as file:
        data = file.read()
    # Only line feeds end a line: a question may hold other separators, such as U+2028.
    lines = data.removesuffix(b"\n").split(b"\n")
    results = [_result(path, number, line) for number, line in enumerate(lines, start=1)]
    if questions not in (None, len(results)):
        raise InputError(
            f"{path}: holds {len(results)} answers, {questions} questions were asked; remove it, "
            "and run again"
        )
    return results


def _result(path: Path, number: int, line: bytes) -> Result:
    remedy = "remove the file, and run again"
    try:
        result = parse_json(line.decode("utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise InputError(f"{path}:{number}: not JSON ({error}); {remedy}") from None
    check_schema(result, AnswerRecord, f"{path}:{number}", remedy)
    return result


@dataclass
class Exam:
    """The subjects of a benchmark that `data_dir` holds, and the names of those that it lacks.

    Of a subject whose files can't be read at all, `unreadable` says why.
    """

    data_dir: Path
    subjects: dict[str, Subject] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def questions(self) -> int:
        """How many questions there are."""
        return sum(len(subject.items) for subject in self.subjects.values())

    def left_out(self) -> dict[str, list[str]]:
        """By subject, what its files hold that could not be read."""
        found = {name: list(s.left_out) for name, s in self.subjects.items() if s.left_out}
        return found | {name: [reason] for name, reason in self.unreadable.items()}


def read_exam(benchmark: Benchmark, data_dir: Path, limit: int | None = None) -> Exam:
    """Read every subject that is there, of each the first `limit` questions.

    What can't be read is left out and named in what is returned; the rest is asked.

    Raises:
        InputError: no subject is there that can be read.
    """
    exam = Exam(data_dir)
    for name in benchmark.subjects:
        if all(path.is_file() for path in benchmark.files(data_dir, name)):
            try:
                subject = benchmark.read(data_dir, name)
            except InputError as error:
                exam.unreadable[name] = str(error)
            else:
                exam.subjects[name] = replace(subject, items=subject.items[:limit])
        else:
            exam.missing.append(name)
    if not exam.subjects and exam.unreadable:
        raise InputError(
            f"--data_dir {data_dir}: nothing of {benchmark.title} there can be read: "
            + "; ".join(list(exam.unreadable.values())[:3])
        )
    if not exam.subjects:
        expected = benchmark.files(data_dir, benchmark.subjects[0])[0]
        raise InputError(
            f"--data_dir {data_dir}: nothing of {benchmark.title} is there (no {expected}, for "
            f"one); fetch it with: python data/download.py --datasets {benchmark.name}"
        )
    return exam


def short_of_shots(benchmark: Benchmark, setting: str, shots: Mapping[str, int]) -> dict[str, int]:
    """The subjects with fewer shots than a setting promises, and how many they have."""
    wanted = benchmark.shots_wanted(setting)
    return {name: count for name, count in shots.items() if count < wanted}


def score(
    benchmark: Benchmark,
    results: Mapping[str, Sequence[Result]],
    setting: str = "",
    read: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The scores of one setting, from its per-sample results by subject; per cent, 95 % intervals.

    Means are over the subjects that are there; those that are not are named, and count nowhere.

    Args:
        benchmark: that was asked.
        results: of each subject.
        setting: that was asked.
        read: by subject what was read of its files: its number of "shots", what was "left_out",
            how many were "not_asked", and which are odd ("doubts").
    """
    read = read or {}
    shots = {name: read[name]["shots"] for name in results if name in read}
    subjects = {}
    for name in benchmark.subjects:
        if name in results:
            right = sum(answer["prediction"] == answer["gold"] for answer in results[name])
            n = len(results[name])
            subjects[name] = {"n": n, **percentages(right, n), "expected": CHANCE}
            subjects[name] |= _gold_probability(results[name])
    answers = [answer for subject in results.values() for answer in subject]
    right = sum(answer["prediction"] == answer["gold"] for answer in answers)
    return {
        **mean_score("average", list(subjects.values())),
        **_mean_probability(subjects.values()),
        "over_examples": {"n": len(answers), **percentages(right, len(answers))},
        "missing": [name for name in benchmark.subjects if name not in results],
        "left_out": {name: about["left_out"] for name, about in read.items() if about["left_out"]},
        "not_asked": sum(read[name]["not_asked"] for name in results if name in read),
        "doubts": {
            name: read[name]["doubts"] for name in results if read.get(name, {}).get("doubts")
        },
        "short_of_shots": short_of_shots(benchmark, setting, shots) if setting else {},
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


def _gold_probability(answers: Sequence[Result]) -> dict[str, float]:
    """The mean probability of the gold letter, per cent; nothing where an answer lacks it."""
    found = [answer.get(GOLD_PROBABILITY) for answer in answers]
    known = [probability for probability in found if probability is not None]
    if not known or len(known) < len(found):
        return {}
    return {GOLD_PROBABILITY: rounded(100 * math.fsum(known) / len(known))}


def _mean_probability(subjects: Collection[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over the subjects, if all have it."""
    known = [entry[GOLD_PROBABILITY] for entry in subjects if GOLD_PROBABILITY in entry]
    if not known or len(known) < len(subjects):
        return {}
    return {GOLD_PROBABILITY: rounded(math.fsum(known) / len(known))}


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
