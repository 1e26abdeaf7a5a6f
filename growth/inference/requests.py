"""What a model is asked, tokenised once, and what it says.

A task turns each of its questions into one `Request`; the predictor answers requests in batches and
gives one `Response` each; the task turns that into a per-sample result.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from growth.inference.progress import Cost

Kind = Literal["generate", "letters", "choices"]
Stop = Callable[[list[int]], bool]

_SETTLED_STEPS = 2  # what an answer that may stop early is expected to take


@dataclass
class Request:
    """One question for a model.

    Attributes:
        kind: "generate" an answer, read the logits of "letters" as the next token, or take the
            perplexity of each of several "choices".
        prompt_ids: tokens of the prompt, cut to fit; of choices the whole context.
        max_new_tokens: of a generated answer.
        is_settled: whether, by the tokens so far, no further one can matter; None where all do.
        read_ids: tokens whose logits are read, as the next token after the prompt.
        read_after: tokens between the prompt and those that are read.
        continuations: tokens of each choice.
        max_length: tokens that prompt and continuation may have together.
        was_cut: whether the prompt lost its beginning.
        fewer_shots: whether shots were left out of it.
    """

    kind: Kind
    prompt_ids: Sequence[int]
    max_new_tokens: int = 0
    is_settled: Stop | None = None
    read_ids: Sequence[int] = ()
    read_after: Sequence[int] = ()
    continuations: Sequence[Sequence[int]] = ()
    max_length: int = 0
    was_cut: bool = False
    fewer_shots: bool = False

    def __post_init__(self) -> None:
        self.prompt_ids = array("i", self.prompt_ids)  # a tenth of a list's memory

    @property
    def cost(self) -> Cost:
        """What there is to compute, at most."""
        prompt = len(self.prompt_ids) + sum(map(len, self.continuations))
        room = self.max_new_tokens
        return Cost(prompt, room if self.is_settled is None else min(room, _SETTLED_STEPS))

    def is_done(self, generated: list[int], stop_ids: frozenset[int]) -> bool:
        """Whether an answer of these tokens goes no further."""
        return len(generated) >= self.max_new_tokens or not self.would_go_on(generated, stop_ids)

    def would_go_on(self, generated: list[int], stop_ids: frozenset[int]) -> bool:
        """Whether a further token could matter, if there were room for it."""
        settled = self.is_settled is not None and self.is_settled(generated)
        return generated[-1] not in stop_ids and not settled


@dataclass
class Response:
    """What a model says to one request.

    Attributes:
        ids: generated tokens, the stop token included.
        text: of the generated tokens, without special ones, stripped.
        logits: of `Request.read_ids`.
        perplexities: of `Request.continuations`.
        was_cut: whether the answer ended because its room did.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    logits: list[float] = field(default_factory=list)
    perplexities: list[float] = field(default_factory=list)
    was_cut: bool = False

    def as_json(self) -> dict[str, Any]:
        """What a note of this response holds; `from_json` gives it back exactly."""
        return {
            "text": self.text,
            "logits": self.logits,
            "perplexities": self.perplexities,
            "was_cut": self.was_cut,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Response":
        """The response that was noted, without its tokens.

        Raises:
            KeyError, TypeError, ValueError: `value` is no such note.
        """
        if not isinstance(value["text"], str):
            raise TypeError("text")
        return cls(
            text=value["text"],
            logits=list(map(float, value["logits"])),
            perplexities=list(map(float, value["perplexities"])),
            was_cut=bool(value["was_cut"]),
        )
