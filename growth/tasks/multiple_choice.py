"""The subjects of a multiple-choice benchmark as tasks: the answer is the likeliest letter."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from growth.core.files import json_line
from growth.core.softmax import softmax_at
from growth.data.abilities import LETTERS
from growth.inference.loglikelihood import significant
from growth.inference.prompting import PromptFormat
from growth.inference.requests import Request, Response
from growth.model.chat_tokenizer import ChatTokenizer
from growth.tasks.benchmark import (
    GOLD_PROBABILITY,
    Benchmark,
    Item,
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
        self._tokens: dict[str, int] = {}  # of texts that had to be counted, such as shots

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
        wanted = len(benchmark.shots_of(subject, setting))
        while True:
            kept = self._fitting(item, room, wanted, format_.chat)
            if kept is None:
                messages = benchmark.shortest(subject, item, setting)
            else:
                messages = benchmark.messages(subject, item, setting, kept)
            ids = format_.encode(messages)
            if not kept or len(ids) <= max_length:
                break
            room -= len(ids) - max_length  # by what surrounds the texts, such as role tokens
        fewer = len(kept or ()) < wanted
        return RenderedPrompt(
            messages, ids[-max_length:], fewer, kept is None or len(ids) > max_length
        )

    def _fitting(
        self, item: Item, room: int, wanted: int, chat: ChatTokenizer
    ) -> Sequence[int] | None:
        """See `Benchmark.fitting_shots`.

        The published runners count the texts of a prompt one by one. Where all shots fit even by
        an upper bound of those counts, which is the rule, the question is encoded once only: as
        part of its prompt. Shots are the same for every question, and counted once.
        """

        def count(text: str) -> int:
            if text not in self._tokens:
                self._tokens[text] = len(chat.encode_content(text))
            return self._tokens[text]

        def at_most(text: str) -> int:
            return self._tokens.get(text) or chat.content.at_most(text.strip())

        for counted in (at_most, count):
            kept = self.benchmark.fitting_shots(self.subject, item, self.setting, room, counted)
            if kept is not None and len(kept) == wanted:
                break
        return kept

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
        return {
            self.benchmark.place_field: item.place,
            "question": self.benchmark.text(item),
            "choice_logits": dict(zip(LETTERS, map(significant, logits), strict=True)),
            "prediction": LETTERS[logits.index(best)],
            "gold": item.gold,
            # among the four letters, of the likeliest and of the gold one
            "confidence": significant(softmax_at(logits, logits.index(best))),
            GOLD_PROBABILITY: significant(softmax_at(logits, LETTERS.index(item.gold))),
            "fewer_shots": request.fewer_shots,
            "cut": request.was_cut,
        }

    def check_results(self, path: Path) -> None:
        """See `Task`."""
        read_results(path, len(self))
