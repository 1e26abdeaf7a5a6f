"""Lines -> predictions: generated answers with letter logits, or choice perplexities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from growth.abilities import LETTERS
from growth.chat import ChatTokenizer
from growth.forward import can_flatten
from growth.generation import Prompt, Stop, greedy_answers
from growth.likelihood import continuation_example, next_token_logits, perplexities
from growth.models import max_positions
from growth.records import NUMBER_OF_CHOICES, Record, reads_letter

PREDICTED_FIELDS = ("generated_response", "choice_logits", "generated_ppl")
SIGNIFICANT_DIGITS = 6  # of a logit or a perplexity: float32 holds no more


@dataclass(frozen=True)
class Decoding:
    """How to predict (paper section 4.2).

    Attributes:
        max_length: tokens of prompt and answer together; the model's positions bound it too.
        max_new_tokens: of an answer.
        full_responses: also where the score reads only a letter, go on to the end of the answer.
        batch_size: answers generated at once.
        tokens_per_batch: tokens of choices computed at once.
    """

    max_length: int = 2048
    max_new_tokens: int = 1024
    full_responses: bool = False
    batch_size: int = 32
    tokens_per_batch: int = 2048

    def identity(self) -> dict[str, int | bool]:
        """What a prediction depends on; how many are computed at once changes none."""
        return {
            name: getattr(self, name) for name in ("max_length", "max_new_tokens", "full_responses")
        }


class Predictor:
    """A model that predicts lines."""

    def __init__(self, model: PreTrainedModel, chat: ChatTokenizer, decoding: Decoding) -> None:
        self.model, self.chat, self.decoding = model.eval(), chat, decoding
        self._forward = (decoding.tokens_per_batch, can_flatten(self.model), chat.pad_id)
        self.max_length = min(decoding.max_length, max_positions(model) or decoding.max_length)

    def predict(
        self, records: Sequence[Record], progress: Callable[[int], object] = lambda lines: None
    ) -> list[Record]:
        """Each line with what the model says, in order; `progress` is told of finished lines."""
        predictions: list[Record] = [{} for _ in records]
        for question_format, predict in ((0, self._answers), (1, self._choice_perplexities)):
            indices = [i for i, r in enumerate(records) if r["question_format"] == question_format]
            predicted = predict([records[i] for i in indices], progress)
            for index, fields in zip(indices, predicted, strict=True):
                kept = {k: v for k, v in records[index].items() if k not in PREDICTED_FIELDS}
                predictions[index] = kept | fields
        return predictions

    def _answers(
        self, records: Sequence[Record], progress: Callable[[int], object]
    ) -> list[Record]:
        prompts = [self._prompt(record) for record in records]
        read_ids = [self.chat.letter_ids[letter] for letter in LETTERS]
        fields: list[Record] = [{} for _ in records]
        for index, answer in greedy_answers(
            self.model,
            prompts,
            self.chat.stop_ids,
            read_ids,
            self.chat.pad_id,
            self.decoding.batch_size,
        ):
            fields[index] = {
                "generated_response": self.chat.decode(answer.ids),
                "choice_logits": self._by_letter(answer.first_logits),
            }
            progress(1)
        if self.chat.letter_prefix:
            # In this vocabulary every letter begins with the same tokens: read the logits behind.
            logits = next_token_logits(
                self.model,
                [(p.ids + self.chat.letter_prefix)[-self.max_length :] for p in prompts],
                read_ids,
                *self._forward,
            )
            for line, values in zip(fields, logits, strict=True):
                line["choice_logits"] = self._by_letter(values)
        return fields

    def _prompt(self, record: Record) -> Prompt:
        """The prompt, cut from its left so that at least one token of answer has a place."""
        ids = self.chat.encode_prompt(record["messages"][:-1])[-(self.max_length - 1) :]
        room = min(self.decoding.max_new_tokens, self.max_length - len(ids))
        return Prompt(ids, room, self._stop(record))

    def _stop(self, record: Record) -> Stop:
        """More than one character falls back on the letter logits, whatever else follows."""
        if self.decoding.full_responses or not reads_letter(record):
            return lambda generated: False

        def is_settled(generated: list[int]) -> bool:
            text = self.chat.decode(generated)
            # Two or three bytes alone, which decode to as many U+FFFD, may still become one.
            return len(text) > 1 and text not in ("\ufffd" * 2, "\ufffd" * 3)

        return is_settled

    def _by_letter(self, logits: Sequence[float]) -> dict[str, float]:
        return {letter: _shortened(value) for letter, value in zip(LETTERS, logits, strict=True)}

    def _choice_perplexities(
        self, records: Sequence[Record], progress: Callable[[int], object]
    ) -> list[Record]:
        fields = []
        chunk = max(1, self.decoding.batch_size)
        for start in range(0, len(records), chunk):
            part = records[start : start + chunk]
            examples = [
                continuation_example(
                    self.chat.encode_prompt(record["messages"][:-1]),
                    [*self.chat.encode_content(choice), self.chat.eot_id],
                    self.max_length,
                )
                for record in part
                for choice in record["choices"]
            ]
            values = perplexities(self.model, examples, *self._forward)
            for i in range(0, len(values), NUMBER_OF_CHOICES):
                ppl = [_shortened(value) for value in values[i : i + NUMBER_OF_CHOICES]]
                fields.append({"generated_ppl": ppl})
            progress(len(part))
        return fields


def _shortened(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
