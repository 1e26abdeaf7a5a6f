"""Greedy answers: batches of about one length, each row stopping as early as it may.

The batches are a function of the prompts and the limits alone, and a batch is computed by itself:
whichever process computes it, and after whatever interruption, the numbers are the same.

    prompts, longest first   |======== |=====  |====      -> batches of at most `tokens`
    prefill                  all prompts of a batch end to end, no padding, last logits only;
                             a beginning that all of them share is computed once
    decode                   one token a step for every row; rows that finish leave
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from growth.core.errors import InputError
from growth.core.options import VARLEN
from growth.inference.kv_cache import (
    buffered_cache,
    bytes_per_token,
    collecting_cache,
    copy_into_rows,
)
from growth.inference.progress import Progress
from growth.packing.attention import attending
from growth.packing.forward import accepts

Stop = Callable[[list[int]], bool]
ANSWER_TOKENS_PLANNED = (
    64  # tokens of answer that a batch is planned with; longer answers may split it later
)
PADDED_COST = 1.25  # of a token in padded rows under a mask, beside one in a packed row
# For keys and values: of what the weights leave of a GPU (growing a buffer takes them twice), and
# of all that a machine has. Not of what is free just now: batches must be the same each time.
GPU_SHARE, CPU_SHARE = 0.4, 0.1


@dataclass
class Prompt:
    """One question to answer.

    Attributes:
        ids: prompt tokens.
        max_new_tokens: of the answer.
        is_settled: tells from the tokens so far that no further one can matter; None where all do.
    """

    ids: list[int]
    max_new_tokens: int
    is_settled: Stop | None = None

    def is_done(self, generated: list[int], stop_ids: frozenset[int]) -> bool:
        """Whether an answer of these tokens is at its end."""
        return (
            generated[-1] in stop_ids
            or len(generated) >= self.max_new_tokens
            or (self.is_settled is not None and self.is_settled(generated))
        )


@dataclass
class Answer:
    """`ids`: generated tokens, the stop token included. `first_logits`: of the tokens asked for,
    at the first step.
    """

    ids: list[int] = field(default_factory=list)
    first_logits: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """How much is computed at once.

    Attributes:
        rows: answers at once.
        tokens: of prompts and answers that keys and values are held of.
        prefill_tokens: of prompts laid end to end.
    """

    rows: int = 64
    tokens: int = 65536
    prefill_tokens: int = 2048

    @classmethod
    def of_device(cls, model: PreTrainedModel, rows: int, prefill_tokens: int) -> "Limits":
        """As many tokens as the memory of the model's device has room for."""
        if model.device.type == "cuda":
            total = torch.cuda.get_device_properties(model.device).total_memory
            room = GPU_SHARE * (total - model.get_memory_footprint())
        else:
            room = CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(rows, max(1, int(room / bytes_per_token(model))), prefill_tokens)


@dataclass(frozen=True)
class Generator:
    """A model that answers greedily.

    Attributes:
        model: in evaluation mode.
        stop_ids: tokens that end an answer.
        read_ids: tokens whose logits are wanted at the first step of each answer.
        pad_id: a token to pad with.
        packed: as `growth.packing.forward.supports_packing` says of the model.
    """

    model: PreTrainedModel
    stop_ids: frozenset[int]
    read_ids: Sequence[int]
    pad_id: int
    packed: bool

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[Prompt], limits: Limits, progress: Progress | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Answer each prompt greedily; yields (index of the prompt, answer) as each finishes.

        `progress` is told of the tokens as they are computed. Where memory runs out, half as much
        is computed at once from then on.

        Raises:
            InputError: there is no memory for a single prompt.
        """
        rows = [_Row(index, prompt) for index, prompt in enumerate(prompts)]
        waiting = [[rows[i] for i in batch] for batch in plan_batches(prompts, limits)][::-1]
        while waiting:
            batch = waiting.pop()
            if len(batch) > limits.rows:
                half = limits.rows
                waiting += [batch[half:], batch[:half]]
                continue
            decoding = _Decoding(self, batch, limits, progress)
            try:
                for row in decoding.run():
                    yield row.index, row.answer
                waiting += decoding.preempted
                continue
            except torch.OutOfMemoryError:
                going = [row for row in batch if not row.done]
                if len(going) == 1:
                    raise InputError(
                        f"out of memory on one prompt of {len(going[0].prompt.ids):,} tokens; "
                        "lower --max_length or --max_new_tokens, or take a larger device"
                    ) from None
            # Out of the except block, whose traceback would keep the tensors alive.
            del decoding
            free_memory()
            limits = replace(limits, rows=-(-len(going) // 2), tokens=max(1, limits.tokens // 2))
            waiting.append(going)


def plan_batches(prompts: Sequence[Prompt], limits: Limits) -> list[list[int]]:
    """Indices of the prompts in batches, longest first; no batch holds more than `limits` says.

    Room for the beginning of each answer is counted in. A batch of these is planned as itself.
    """
    batches: list[list[int]] = []
    columns = 0
    for index in sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids), reverse=True):
        rows = len(batches[-1]) + 1 if batches else 1
        if not batches or rows > limits.rows or rows * columns > limits.tokens:
            batches.append([])
            columns = len(prompts[index].ids) + ANSWER_TOKENS_PLANNED
        batches[-1].append(index)
    return batches


@dataclass
class _Row:
    """A prompt (the `index`th), and its answer so far."""

    index: int
    prompt: Prompt
    answer: Answer = field(default_factory=Answer)
    done: bool = False

    @property
    def ids(self) -> list[int]:
        return self.prompt.ids + self.answer.ids


class _Decoding:
    """One batch on its way: `rows` are going on, the groups `preempted` have to wait for room."""

    def __init__(
        self, generator: Generator, rows: list[_Row], limits: Limits, progress: Progress | None
    ) -> None:
        self.generator, self.rows, self.limits, self.progress = generator, rows, limits, progress
        self.preempted: list[list[_Row]] = []
        self.model = generator.model
        # What some architectures do without, such as positions where ALiBi stands in for them.
        self.takes_positions = accepts(self.model, "position_ids")
        self.keeps_logits = accepts(self.model, "logits_to_keep")

    def run(self) -> Iterator[_Row]:
        """The rows as they finish, until those that are left are set aside."""
        logits = self._prefill()
        if self.progress is not None:
            self.progress.computed(prompt_tokens=int(self.lengths.sum()))
        while True:
            if self.progress is not None:
                self.progress.computed(steps=len(self.rows))
            for row, token in zip(self.rows, _argmax(logits), strict=True):
                row.answer.ids.append(token)
                row.done = row.prompt.is_done(row.answer.ids, self.generator.stop_ids)
            yield from (row for row in self.rows if row.done)
            going = [place for place, row in enumerate(self.rows) if not row.done]
            if len(going) > 1 and len(going) * (self.mask.shape[1] + 1) > self.limits.tokens:
                # Those behind have the shorter prompts: less to compute anew.
                half = -(-len(going) // 2)
                self.preempted.append([self.rows[place] for place in going[half:]])
                going = going[:half]
            if not going:
                return
            if len(going) < len(self.rows):
                self._keep(going)
            logits = self._step()

    def _forward(self, input_ids: torch.Tensor, positions: torch.Tensor, **more: Any) -> Any:
        """Run the model on some tokens of each row; logits of the last position unless told."""
        options: dict[str, Any] = {"logits_to_keep": 1} if self.keeps_logits else {}
        if self.takes_positions:
            options["position_ids"] = positions
        return self.model(input_ids=input_ids, use_cache=True, **(options | more)).logits

    def _prefill(self) -> torch.Tensor:
        """Compute all prompts; `(rows, vocabulary)`, the logits behind each."""
        ids = [row.ids for row in self.rows]
        longest = max(map(len, ids))
        self.mask = self._tensor([[0] * (longest - len(i)) + [1] * len(i) for i in ids])
        self.lengths = self._tensor([len(i) for i in ids])
        cache = buffered_cache(self.model)
        self.cache = cache if cache is not None else DynamicCache(config=self.model.config)
        shared = _common_beginning(ids)
        behind = shared + len(ids) * (longest - shared)  # tokens to compute if it is shared
        if cache is not None and PADDED_COST * behind < sum(map(len, ids)):
            logits = self._prefill_behind(ids, longest, shared)
        elif self.generator.packed and cache is not None:
            logits = self._prefill_packed(ids, longest)
        else:
            logits = self._prefill_padded(ids, longest, 0)
        if new := [place for place, row in enumerate(self.rows) if not row.answer.first_logits]:
            read = logits[:, list(self.generator.read_ids)].float().tolist()
            for place in new:
                self.rows[place].answer.first_logits = read[place]
        return logits

    def _prefill_packed(self, ids: list[list[int]], longest: int) -> torch.Tensor:
        """Prompts end to end, no padding; their keys and values then move to their rows."""
        logits = []
        for start, stop in _spans(list(map(len, ids)), self.limits.prefill_tokens):
            ends = torch.tensor([0, *map(len, ids[start:stop])]).cumsum(0)
            collected = collecting_cache(self.cache)
            with attending(self.model, VARLEN):
                output = self._forward(
                    self._tensor([[token for i in ids[start:stop] for token in i]]),
                    self._tensor([[p for i in ids[start:stop] for p in range(len(i))]]),
                    past_key_values=collected,
                    cu_seq_lens_q=ends.int().to(self.model.device),
                    sample_lengths=ends.diff().tolist(),
                    logits_to_keep=(ends[1:] - 1).to(self.model.device),
                )
            logits.append(output[0])
            places = [
                (start + n, longest - (end - begin), begin, end)
                for n, (begin, end) in enumerate(
                    zip(ends.tolist(), ends.tolist()[1:], strict=False)
                )
            ]
            copy_into_rows(self.cache, collected, len(ids), longest, places)
        return torch.cat(logits)

    def _prefill_behind(self, ids: list[list[int]], longest: int, shared: int) -> torch.Tensor:
        """The shared beginning once, then the same number of last tokens of each prompt.

        row 0   s s s s s s|a b c d      what stands left of the bar is a part of what all
        row 1   - - s s s s|s e f g      share, so that no padding comes between
        """
        rest = longest - shared
        collected = collecting_cache(self.cache)
        self._forward(
            self._tensor([ids[0][:shared]]),
            self._tensor([range(shared)]),
            past_key_values=collected,
        )
        places = [
            (row, min(longest - len(i), shared), 0, max(0, len(i) - rest))
            for row, i in enumerate(ids)
        ]
        copy_into_rows(self.cache, collected, len(ids), shared, places, room=longest)
        return self._prefill_padded(ids, longest, shared)

    def _prefill_padded(self, ids: list[list[int]], longest: int, done: int) -> torch.Tensor:
        """Left-padded rows, of which the first `done` columns are in the cache."""
        pad = self.generator.pad_id
        padded = self._tensor([[pad] * (longest - len(i)) + i for i in ids])
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        return self._forward(
            padded[:, done:],
            positions[:, done:],
            attention_mask=self.mask,
            past_key_values=self.cache,
        )[:, -1]

    def _step(self) -> torch.Tensor:
        """Compute the newest token of each row; `(rows, vocabulary)`."""
        newest = self._tensor([[row.answer.ids[-1]] for row in self.rows])
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        self.lengths = self.lengths + 1
        return self._forward(
            newest,
            self.lengths[:, None] - 1,
            attention_mask=self.mask,
            past_key_values=self.cache,
        )[:, -1]

    def _keep(self, places: list[int]) -> None:
        """Only these rows go on; columns that are padding in all of them go too."""
        self.rows = [self.rows[place] for place in places]
        kept = self._tensor(places)
        self.mask, self.lengths = self.mask[kept], self.lengths[kept]
        if isinstance(self.cache, DynamicCache):
            self.cache.reorder_cache(kept)  # unlike its selection, this knows all kinds of layers
            return
        padding = self.mask.shape[1] - int(self.lengths.max())
        self.mask = self.mask[:, padding:]
        for layer in self.cache.layers:
            if layer.is_initialized:
                layer.select(kept, padding)

    def _tensor(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(values, device=self.model.device)


def _common_beginning(ids: Sequence[list[int]]) -> int:
    """Tokens that all begin with, at least one short of the shortest."""
    first, last = min(ids), max(ids)  # what these share, all between them share
    most = min(map(len, ids)) - 1
    return next((n for n in range(most) if first[n] != last[n]), most)


def _spans(lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Cut a sequence into (start, stop) of at most `max_tokens`, or of one longer item."""
    start, tokens = 0, 0
    for place, length in enumerate(lengths):
        if place > start and tokens + length > max_tokens:
            yield start, place
            start, tokens = place, 0
        tokens += length
    yield start, len(lengths)


def _argmax(logits: torch.Tensor) -> list[int]:
    """The likeliest token of each row, the first of equals."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return logits.numpy().argmax(-1).tolist()  # ten times as fast as torch's
    return logits.argmax(-1).tolist()


def free_memory() -> None:
    """Give back what no tensor holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
