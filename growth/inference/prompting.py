"""Questions of a benchmark -> token ids -> letter logits -> an answer sheet.

A question is asked in the study's own control tokens or in a model's own chat template, and the
letters are read as training taught them or as the published runners read them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.data.abilities import LETTERS
from growth.inference.loglikelihood import next_token_logits, significant
from growth.model.chat_tokenizer import ChatTokenizer
from growth.packing.forward import supports_packing
from growth.tasks.task import Answer, Benchmark, Item, Messages, Subject


class PromptFormat(ABC):
    """How a conversation becomes the ids of a prompt, and which ids are the letters.

    Attributes:
        chat: the model's tokenizer.
        letter_ids: the tokens of A, B, C, D.
    """

    chat: ChatTokenizer
    letter_ids: list[int]

    @abstractmethod
    def encode(self, messages: Messages) -> list[int]:
        """The ids after which a letter is the next token."""


class ControlFormat(PromptFormat):
    """The study's own form (paper section 4.1): `<user> ... <eot> <assistant>`."""

    def __init__(self, chat: ChatTokenizer, letter_tokens: str) -> None:
        self.chat = chat
        self._prefix = chat.letter_prefix
        self.letter_ids = [chat.letter_ids[letter] for letter in LETTERS]
        if letter_tokens == "bare":
            self._prefix, self.letter_ids = [], bare_letters(chat)

    def encode(self, messages: Messages) -> list[int]:
        """See `PromptFormat`."""
        return self.chat.encode_prompt(messages) + self._prefix


class NativeFormat(PromptFormat):
    """A model's own chat template.

    Raises:
        InputError: the tokenizer has none, or no token for each letter.
    """

    def __init__(self, chat: ChatTokenizer, letter_tokens: str, source: str) -> None:
        self.chat = chat
        self._tokenizer = chat.tokenizer
        if not self._tokenizer.chat_template:
            raise InputError(
                f"--chat_template native: the tokenizer of {source} has no chat template; leave "
                "the flag out to ask in the study's control tokens"
            )
        self._special = set(self._tokenizer.all_special_ids)
        self._controls: dict[int, int] = {}  # control tokens of a prompt, by its turns
        self._before_letter = self._between() if letter_tokens == "answer" else None
        self.letter_ids = self._letters(source) if letter_tokens == "answer" else bare_letters(chat)

    def encode(self, messages: Messages) -> list[int]:
        """See `PromptFormat`.

        Raises:
            InputError: the text of a message spells a control token of the model.
        """
        ids = self._ids(messages)
        turns = len(messages)
        if turns not in self._controls:
            plain = [message | {"content": "."} for message in messages]
            self._controls[turns] = self._count_special(self._ids(plain))
        if self._count_special(ids) != self._controls[turns]:
            raise InputError(
                "--chat_template native: a question spells a control token of this model "
                f"({messages[-1]['content'][:80]!r} ...)"
            )
        return ids

    def _rendered(self, messages: Messages, ask: bool) -> str:
        return self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=ask
        )

    def _ids(self, messages: Messages, letter: str | None = None) -> list[int]:
        """The prompt's ids, with the letter's at the end if one is given."""
        text = self._rendered(messages, True)
        if self._before_letter is None:
            return self._tokenizer(text, add_special_tokens=False)["input_ids"]
        # A space before a letter may be part of its token: what comes before is known only with
        # a letter behind it.
        text += self._before_letter + (letter or LETTERS[0])
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids if letter else ids[:-1]

    def _count_special(self, ids: list[int]) -> int:
        return sum(token in self._special for token in ids)

    def _between(self) -> str:
        """What the template puts between prompt and answer: nothing, a space, an empty thought."""
        question = [{"role": "user", "content": "."}]
        answer = {"role": "assistant", "content": LETTERS[0]}
        prompt = self._rendered(question, True)
        whole = self._rendered([*question, answer], False)
        return whole[len(prompt) :].partition(LETTERS[0])[0] if whole.startswith(prompt) else ""

    def _letters(self, source: str) -> list[int]:
        question = [{"role": "user", "content": "."}]
        answered = [self._ids(question, letter) for letter in LETTERS]
        letters = [ids[-1] for ids in answered]
        if len({tuple(ids[:-1]) for ids in answered}) > 1 or len(set(letters)) < len(LETTERS):
            raise InputError(
                f"--chat_template native: the tokenizer of {source} gives the letters A-D no token "
                f"each behind its template ({answered}); letter answers can't be read from it"
            )
        return letters


def bare_letters(chat: ChatTokenizer) -> list[int]:
    """The ids of the pieces "A" to "D" themselves, which the published runners read.

    Raises:
        InputError: the vocabulary lacks one.
    """
    ids = chat.tokenizer.convert_tokens_to_ids(list(LETTERS))
    if any(token is None or token == chat.tokenizer.unk_token_id for token in ids):
        raise InputError(
            "--letter_tokens bare: the vocabulary has no pieces A, B, C, D; use answer"
        )
    return ids


def make_prompt_format(
    chat: ChatTokenizer, chat_template: str, letter_tokens: str, source: str
) -> PromptFormat:
    """The form that the flags name, for the tokenizer of `source`."""
    if chat_template == "native":
        return NativeFormat(chat, letter_tokens, source)
    return ControlFormat(chat, letter_tokens)


@dataclass(frozen=True)
class RenderedPrompt:
    """A question as it is asked.

    Attributes:
        messages: the conversation.
        ids: its tokens.
        fewer_shots: whether shots were left out to make it fit.
        cut: whether it was cut from its left besides.
    """

    messages: Messages
    ids: list[int]
    fewer_shots: bool
    cut: bool


def ask(
    benchmark: Benchmark, subject: Subject, setting: str, form: PromptFormat, max_length: int
) -> list[RenderedPrompt]:
    """Every question of a subject, in order, built to fit `max_length` tokens.

    Shots are left out longest first (those of one length together, as published) until the rest
    fits. A question that alone does not fit is cut from its left.
    """

    def count(text: str) -> int:
        return len(form.chat.encode_content(text)) + benchmark.piece_margin

    costs: list[int] = []
    asked = []
    for item in subject.items:
        fixed, shots = benchmark.pieces(subject, item, setting)
        costs = costs or [count(shot) for shot in shots]  # the same for every question
        room = max_length - sum(map(count, fixed))
        kept = list(range(len(shots)))
        while kept and sum(costs[i] for i in kept) > room:
            kept = _without_longest(kept, costs)
        messages = benchmark.messages(subject, item, setting, kept)
        ids = form.encode(messages)
        while kept and len(ids) > max_length:
            kept = _without_longest(kept, costs)
            messages = benchmark.messages(subject, item, setting, kept)
            ids = form.encode(messages)
        cut = len(ids) > max_length
        asked.append(RenderedPrompt(messages, ids[-max_length:], len(kept) < len(shots), cut))
    return asked


def _without_longest(kept: list[int], costs: Sequence[int]) -> list[int]:
    longest = max(costs[i] for i in kept)
    return [i for i in kept if costs[i] != longest]


class LetterScorer:
    """A model that fills in answer sheets."""

    def __init__(
        self, model: PreTrainedModel, form: PromptFormat, max_length: int, tokens_per_batch: int
    ) -> None:
        self.model, self.form, self.max_length = model.eval(), form, max_length
        self._forward = (tokens_per_batch, supports_packing(self.model), form.chat.pad_id)

    def answer(
        self,
        benchmark: Benchmark,
        subject: Subject,
        setting: str,
        progress: Callable[[int], object] = lambda index: None,
    ) -> list[Answer]:
        """The answer sheet of a subject; `progress` is told the index of each question done."""
        asked = ask(benchmark, subject, setting, self.form, self.max_length)
        logits = next_token_logits(
            self.model,
            [question.ids for question in asked],
            self.form.letter_ids,
            *self._forward,
            progress=progress,
        )
        return [
            answer_line(benchmark, item, question, values)
            for item, question, values in zip(subject.items, asked, logits, strict=True)
        ]


def answer_line(
    benchmark: Benchmark, item: Item, asked: RenderedPrompt, logits: Sequence[float]
) -> dict[str, Any]:
    """One line of an answer sheet; a tie goes to the earlier letter, as argmax has it.

    Raises:
        InputError: a logit is no number.
    """
    if not all(map(math.isfinite, logits)):
        raise InputError(
            f"{benchmark.place_field} {item.place}: the model's logits are {list(logits)}; its "
            "weights are broken, or its range is too small for them: try --precision bf16 or fp32"
        )
    best = max(logits)
    # softmax over the four letters, of the likeliest
    confidence = 1 / math.fsum(math.exp(value - best) for value in logits)
    return {
        benchmark.place_field: item.place,
        "question": benchmark.text(item),
        "choice_logits": dict(zip(LETTERS, map(significant, logits), strict=True)),
        "prediction": LETTERS[logits.index(best)],
        "gold": item.gold,
        "confidence": significant(confidence),
        "fewer_shots": asked.fewer_shots,
        "cut": asked.cut,
    }
