"""The subjects of a multiple-choice benchmark as tasks: the answer is the likeliest letter."""

import functools
import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from growth.core.files import json_line
from growth.data.abilities import LETTERS
from growth.inference.loglikelihood import significant
from growth.inference.prompting import PromptFormat
from growth.inference.requests import Request, Response
from growth.tasks.benchmark import (
    Benchmark,
    Count,
    Messages,
    Subject,
    read_results,
    result_file,
)
from growth.tasks.task import Prompting, Result, Task


@dataclass(frozen=True)
class RenderedPrompt:
    """A question as it is put to a model.

    Attributes:
        messages: the conversation.
        ids: its tokens.
        fewer_shots: whether shots were left out to make it fit.
        was_cut: whether it lost its beginning besides.
    """

    messages: Messages
    ids: list[int]
    fewer_shots: bool
    was_cut: bool


class SubjectTask(Task):
    """The questions of one subject under one setting."""

    def __init__(
        self, benchmark: Benchmark, subject: Subject, setting: str, suffix: str = ""
    ) -> None:
        self.benchmark, self.subject, self.setting = benchmark, subject, setting
        self.file = result_file(setting, suffix, subject.name)
        self.label = f"{subject.name} {setting}"
        self.turn = benchmark.settings.index(setting)
        self._count: Count | None = None

    def __len__(self) -> int:
        """How many questions there are."""
        return len(self.subject.items)

    def digest(self, index: int) -> str:
        """See `Task`; the shots are part of it."""
        shown = [asdict(item) for item in (self.subject.items[index], *self.subject.shots)]
        return hashlib.sha256(json_line([self.setting, shown]).encode()).hexdigest()[:16]

    def render(self, index: int, format_: PromptFormat, max_length: int) -> RenderedPrompt:
        """A question built to fit `max_length` tokens.

        The benchmark says which shots have room. A question that alone has none is put as shortly
        as the benchmark does, and cut from its left.
        """
        benchmark, subject, setting = self.benchmark, self.subject, self.setting
        item, room = subject.items[index], max_length
        # Shots are the same for every question.
        count = self._count = self._count or functools.lru_cache(64)(
            lambda text: len(format_.chat.encode_content(text))
        )
        while True:
            kept = benchmark.fitting_shots(subject, item, setting, room, count)
            if kept is None:
                messages = benchmark.shortest(subject, item, setting)
            else:
                messages = benchmark.messages(subject, item, setting, kept)
            ids = format_.encode(messages)
            if not kept or len(ids) <= max_length:
                break
            room -= len(ids) - max_length  # by what surrounds the texts, such as role tokens
        shown = len(kept or ())
        fewer = shown < len(benchmark.shots_of(subject, setting))
        return RenderedPrompt(
            messages, ids[-max_length:], fewer, kept is None or len(ids) > max_length
        )

    def request(self, index: int, prompting: Prompting) -> Request:
        """See `Task`."""
        rendered = self.render(index, prompting.format, prompting.max_length)
        return Request(
            "letters",
            rendered.ids,
            read_ids=prompting.format.letter_ids,
            max_length=prompting.max_length,
            was_cut=rendered.was_cut,
            fewer_shots=rendered.fewer_shots,
        )

    def result(self, index: int, request: Request, response: Response) -> Result:
        """One per-sample result; a tie goes to the earlier letter, as argmax has it."""
        item, logits = self.subject.items[index], response.logits
        best = max(logits)
        # softmax over the four letters, of the likeliest
        confidence = 1 / math.fsum(math.exp(value - best) for value in logits)
        return {
            self.benchmark.place_field: item.place,
            "question": self.benchmark.text(item),
            "choice_logits": dict(zip(LETTERS, map(significant, logits), strict=True)),
            "prediction": LETTERS[logits.index(best)],
            "gold": item.gold,
            "confidence": significant(confidence),
            "fewer_shots": request.fewer_shots,
            "cut": request.was_cut,
        }

    def check_results(self, path: Path) -> None:
        """See `Task`."""
        read_results(path, len(self))
