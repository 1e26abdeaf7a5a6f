"""Lines -> predictions: generated answers with letter logits, or choice perplexities."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.core.options import DecodingOptions
from growth.data.abilities import LETTERS
from growth.data.records import NUMBER_OF_CHOICES, Record, reads_letter
from growth.inference.backends import Generate, backend_answers
from growth.inference.generation import Generator, Limits, Prompt, Stop, free_memory, plan_batches
from growth.inference.loglikelihood import (
    continuation_example,
    next_token_logits,
    perplexities,
    significant,
)
from growth.inference.progress import Cost, Progress
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import max_positions
from growth.packing.forward import supports_packing

PREDICTED_FIELDS = ("generated_response", "choice_logits", "generated_ppl")
T = TypeVar("T")


class Predictor:
    """A model that predicts lines, in batches that depend on nothing but the lines.

    Args:
        model: any causal language model.
        chat: its tokenizer.
        decoding: how to predict.
        generate: what answers instead of the batched path, if `decoding.backend` says so.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: ChatTokenizer,
        decoding: DecodingOptions,
        generate: Generate | None = None,
    ) -> None:
        self.model, self.chat, self.decoding = model.eval(), chat, decoding
        self.max_length = min(decoding.max_length, max_positions(model) or decoding.max_length)
        self._generate = generate
        self._packed = supports_packing(self.model)
        self._read_ids = [chat.letter_ids[letter] for letter in LETTERS]
        self._generator = Generator(
            self.model, chat.stop_ids, self._read_ids, chat.pad_id, self._packed
        )
        limits = Limits.of_device(self.model, decoding.batch_size, decoding.tokens_per_batch)
        if decoding.cache_tokens:
            limits = Limits(limits.rows, decoding.cache_tokens, limits.prefill_tokens)
        self._limits = limits

    def plan(self, records: Sequence[Record]) -> list[list[int]]:
        """Indices of the lines in batches for `predict_batch`, the longest first."""
        answered = [i for i, r in enumerate(records) if r["question_format"] == 0]
        rated = [i for i, r in enumerate(records) if r["question_format"] == 1]
        prompts = [self._prompt(records[i]) for i in answered]
        if self._generate is None:
            planned = plan_batches(prompts, self._limits)
        else:
            planned = [list(range(len(prompts)))] if prompts else []
        batches = [[answered[place] for place in batch] for batch in planned]
        rated.sort(key=lambda i: self.work(records[i]).prompt, reverse=True)
        rows = self.decoding.batch_size
        return batches + [rated[start : start + rows] for start in range(0, len(rated), rows)]

    def predict(self, records: Sequence[Record]) -> list[Record]:
        """Each line with what the model says, in order."""
        predictions: list[Record] = [{} for _ in records]
        for batch in self.plan(records):
            fields = self.predict_batch([records[i] for i in batch])
            for index, predicted in zip(batch, fields, strict=True):
                predictions[index] = predicted_record(records[index], predicted)
        return predictions

    def predict_batch(
        self, records: Sequence[Record], progress: Progress | None = None
    ) -> list[Record]:
        """What the model says of the lines of one planned batch; `progress` is told.

        Raises:
            InputError: the model gives no numbers, or memory does not suffice for one line.
        """
        if records[0]["question_format"] == 1:
            return self._choice_perplexities(records, progress)
        return self._answers(records, progress)

    def is_cut(self, record: Record) -> bool:
        """Whether the line's prompt loses its beginning, to leave room for the answer."""
        prompt = len(self.chat.encode_prompt(record["messages"][:-1]))
        if record["question_format"] == 0:
            return prompt > self.max_length - 1
        longest = max(len(choice) for choice in self._choices(record))
        return prompt > max(1, self.max_length - longest)

    def work(self, record: Record) -> Cost:
        """How much there is to compute for a line, at most."""
        if record["question_format"] == 0:
            prompt = self._prompt(record)
            room = prompt.max_new_tokens if prompt.is_settled is None else 2
            return Cost(len(prompt.ids), min(room, prompt.max_new_tokens))
        context = len(self.chat.encode_prompt(record["messages"][:-1]))
        return Cost(context + sum(map(len, self._choices(record))))

    def _answers(self, records: Sequence[Record], progress: Progress | None) -> list[Record]:
        prompts = [self._prompt(record) for record in records]
        responses: list[list[int]] = [[] for _ in records]
        logits: list[list[float]] = [[] for _ in records]
        if self._generate is None:
            for index, answer in self._generator.answers(prompts, self._limits, progress):
                responses[index], logits[index] = answer.ids, answer.first_logits
                if progress is not None:
                    progress.finished(self.work(records[index]), len(answer.ids))
        else:
            for index, ids in backend_answers(self._generate, prompts, self.chat.stop_ids):
                responses[index] = ids
                if progress is not None:
                    progress.computed(len(prompts[index].ids), len(ids))
                    progress.finished(self.work(records[index]), len(ids))
        if self.chat.letter_prefix or self._generate is not None:
            # Where every letter begins with the same tokens, the logits behind them are read.
            asked = [(p.ids + self.chat.letter_prefix)[-self.max_length :] for p in prompts]
            logits = self._with_less_memory(
                lambda tokens: next_token_logits(
                    self.model, asked, self._read_ids, tokens, self._packed, self.chat.pad_id
                )
            )
        return [
            {
                "generated_response": self.chat.decode(ids),
                "choice_logits": dict(zip(LETTERS, map(significant, values), strict=True)),
            }
            for ids, values in zip(responses, logits, strict=True)
        ]

    def _prompt(self, record: Record) -> Prompt:
        """The prompt, cut from its left so that at least one token of answer has a place."""
        ids = self.chat.encode_prompt(record["messages"][:-1])[-(self.max_length - 1) :]
        room = min(self.decoding.max_new_tokens, self.max_length - len(ids))
        return Prompt(ids, room, self._stop(record))

    def _stop(self, record: Record) -> Stop | None:
        """More than one character falls back on the letter logits, whatever else follows."""
        if self.decoding.full_responses or not reads_letter(record):
            return None

        def is_settled(generated: list[int]) -> bool:
            text = self.chat.decode(generated)
            # Two or three bytes alone, which decode to as many U+FFFD, may still become one.
            return len(text) > 1 and text not in ("\ufffd" * 2, "\ufffd" * 3)

        return is_settled

    def _choices(self, record: Record) -> list[list[int]]:
        return [
            [*self.chat.encode_content(choice), self.chat.eot_id] for choice in record["choices"]
        ]

    def _choice_perplexities(
        self, records: Sequence[Record], progress: Progress | None
    ) -> list[Record]:
        examples = [
            continuation_example(
                self.chat.encode_prompt(record["messages"][:-1]), choice, self.max_length
            )
            for record in records
            for choice in self._choices(record)
        ]
        values = self._with_less_memory(
            lambda tokens: perplexities(
                self.model, examples, tokens, self._packed, self.chat.pad_id
            )
        )
        if progress is not None:
            for work in map(self.work, records):
                progress.computed(work.prompt)
                progress.finished(work)
        return [
            {"generated_ppl": [significant(value) for value in values[i : i + NUMBER_OF_CHOICES]]}
            for i in range(0, len(values), NUMBER_OF_CHOICES)
        ]

    def _with_less_memory(self, compute: Callable[[int], T]) -> T:
        """`compute(tokens at once)`, with half as many each time that memory runs out."""
        tokens = self.decoding.tokens_per_batch
        while True:
            try:
                return compute(tokens)
            except torch.OutOfMemoryError:
                if tokens == 1:
                    raise InputError(
                        "out of memory on a single line; lower --max_length or take a larger device"
                    ) from None
            free_memory()
            tokens //= 2


def predicted_record(record: Record, fields: Record) -> Record:
    """A line with its prediction, in place of any that it brought along."""
    return {k: v for k, v in record.items() if k not in PREDICTED_FIELDS} | fields
