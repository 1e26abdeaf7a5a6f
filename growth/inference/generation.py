"""Greedy answers: batches of about one length, each row stopping as early as it may.

The batches are a function of the prompts and the limits alone, and a batch is computed by itself:
whichever process computes it, and after whatever interruption, the numbers are the same.

    prompts, longest first   |======== |=====  |====      -> batches of at most `tokens`
    prefill                  all prompts of a batch end to end, no padding, last logits only;
                             a beginning that all of them share is computed once
    decode                   one token per step for every row; rows that finish leave
"""

import contextlib
import itertools
from collections.abc import Generator as Generating
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from growth.core.errors import InputError
from growth.core.options import VARLEN
from growth.inference.kv_cache import (
    BufferedLayer,
    buffered_cache,
    collecting_cache,
    copy_into_rows,
)
from growth.inference.limits import Limits, within_memory
from growth.inference.progress import Progress
from growth.inference.requests import Request, Response
from growth.model.loading import check_weights_are_numbers
from growth.packing.attention import attending
from growth.packing.forward import accepts, agree, last_feed_forward_at
from growth.packing.loss import rows_in_cache

ANSWER_TOKENS_PLANNED = 64  # that a batch has room for; longer answers may split it later
# For the check of batches: prompts of different lengths, an answer to go on with, steps; rows leave
# after the second.
_PROBE_PROMPTS, _PROBE_ANSWER, _PROBE_STEPS = ((1, 2, 3, 4, 5, 6, 7), (8, 9)), 3, 4
# Products of fewer rows are computed by other kernels, and their sums rounded otherwise.
_FEW_ROWS = 4
PADDED_COST = 1.25  # of a token in padded rows under a mask, relative to one in a packed row


@dataclass(frozen=True)
class Generator:
    """A model that answers greedily.

    Attributes:
        model: in evaluation mode.
        stop_ids: tokens that end an answer.
        read_ids: tokens whose logits are read at the first step of each answer.
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
        self, requests: Sequence[Request], limits: Limits, progress: Progress | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Answer each request greedily; yields (index, response) as each finishes.

        `progress` counts the tokens as they are computed.

        Raises:
            InputError: there is no memory for a single prompt.
        """
        rows = [_Row(index, request) for index, request in enumerate(requests)]
        waiting = [[rows[i] for i in batch] for batch in plan_batches(requests, limits)][::-1]

        def compute(limits: Limits) -> Iterator[_Row]:
            while waiting:
                # Stays in the list until it is through, in case memory runs out.
                waiting[-1] = [row for row in waiting[-1] if not row.done]
                if len(waiting[-1]) > limits.rows:
                    batch = waiting.pop()
                    waiting.extend([batch[limits.rows :], batch[: limits.rows]])
                preempted = yield from _decode(self, waiting[-1], limits, progress)
                waiting.pop()
                waiting.extend(preempted)

        def under_way() -> list[int]:
            return [len(row.ids) for row in waiting[-1] if not row.done]

        for row in within_memory(compute, limits, under_way):
            yield row.index, row.response


def check_batching(generator: Generator) -> None:
    """Check on two short prompts that answers computed together are those of each alone.

    Families whose states are more than keys and values may mix padding into them, or not follow
    when rows leave a batch.

    Raises:
        InputError: they are not.
    """
    model = generator.model
    rows = [_Row(i, Request("generate", list(ids), 4)) for i, ids in enumerate(_PROBE_PROMPTS)]
    agreed = True
    try:
        with torch.inference_mode():
            state, logits = prefill(generator, rows, Limits())
            for place in range(_PROBE_STEPS):
                alone = [
                    model(input_ids=_tensor(model, [row.ids]), use_cache=False).logits[0, -1]
                    for row in state.rows
                ]
                expected = torch.stack(alone).float()
                agreed = agreed and agree(logits.float(), expected, model.dtype)
                for row in state.rows:
                    row.response.ids.append(_PROBE_ANSWER)
                if place == 1:
                    compact(state, [1])
                logits = step(model, state)
    except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError, IndexError):
        agreed = False
    if not agreed:
        check_weights_are_numbers(model, type(model).__name__)
        raise InputError(
            f"{type(model).__name__}: answers that transformers computes in a batch are not those "
            "of each question alone, so scores would depend on how questions are batched; this "
            "architecture can't be evaluated here"
        )


def plan_batches(requests: Sequence[Request], limits: Limits) -> list[list[int]]:
    """Indices of the requests in batches, longest first; no batch holds more than `limits` says.

    Room for the beginning of each answer is counted in. A batch of these is planned as itself.
    """
    batches: list[list[int]] = []
    columns = 0
    lengths = [len(request.prompt_ids) for request in requests]
    for index in sorted(range(len(requests)), key=lengths.__getitem__, reverse=True):
        rows = len(batches[-1]) + 1 if batches else 1
        if not batches or rows > limits.rows or rows * columns > limits.tokens:
            batches.append([])
            columns = lengths[index] + ANSWER_TOKENS_PLANNED
        batches[-1].append(index)
    return batches


@dataclass
class _Row:
    """A request (the `index`th), and its answer so far."""

    index: int
    request: Request
    response: Response = field(default_factory=Response)
    done: bool = False

    @property
    def ids(self) -> list[int]:
        return [*self.request.prompt_ids, *self.response.ids]


@dataclass
class DecodeState:
    """One batch between two decoding steps.

    Attributes:
        rows: that are not finished.
        cache: keys and values of all their tokens but the newest.
        mask: `(rows, columns)`, 0 at left padding.
        lengths: `(rows,)`, tokens in the cache.
        accepted: optional arguments that the architecture's forward takes; ALiBi, say, stands in
            for positions.
    """

    rows: list[_Row]
    cache: Cache
    mask: torch.Tensor
    lengths: torch.Tensor
    accepted: frozenset[str]


def _decode(
    generator: Generator, rows: list[_Row], limits: Limits, progress: Progress | None
) -> Generating[_Row, None, list[list[_Row]]]:
    """Yield the rows as they finish; returns groups of rows that have to wait for room."""
    preempted: list[list[_Row]] = []
    state, logits = prefill(generator, rows, limits)
    if progress is not None:
        progress.computed(prompt_tokens=int(state.lengths.sum()))
    while True:
        if progress is not None:
            progress.computed(steps=len(state.rows))
        for row, token in zip(state.rows, _argmax(logits), strict=True):
            row.response.ids.append(token)
            row.done = row.request.is_done(row.response.ids, generator.stop_ids)
        yield from (row for row in state.rows if row.done)
        kept = [place for place, row in enumerate(state.rows) if not row.done]
        if len(kept) > 1 and len(kept) * (state.mask.shape[1] + 1) > limits.tokens:
            # The last ones have the shorter prompts: less to compute anew.
            half = -(-len(kept) // 2)
            preempted.append([state.rows[place] for place in kept[half:]])
            kept = kept[:half]
        if not kept:
            return preempted
        if len(kept) < len(state.rows):
            compact(state, kept)
        logits = step(generator.model, state)


def prefill(
    generator: Generator, rows: list[_Row], limits: Limits
) -> tuple[DecodeState, torch.Tensor]:
    """Compute all prompts; the state, and `(rows, vocabulary)`, the logits after each."""
    model = generator.model
    ids = [row.ids for row in rows]
    longest = max(map(len, ids))
    mask = _tensor(model, [[0] * (longest - len(i)) + [1] * len(i) for i in ids])
    buffers = buffered_cache(model)
    cache = buffers if buffers is not None else DynamicCache(config=model.config)
    optional = ("position_ids", "logits_to_keep")
    accepted = frozenset(name for name in optional if accepts(model, name))
    state = DecodeState(rows, cache, mask, _tensor(model, [len(i) for i in ids]), accepted)
    shared = _common_beginning(ids)
    behind = shared + len(ids) * (longest - shared)  # tokens to compute if it is shared
    if buffers is not None and PADDED_COST * behind < sum(map(len, ids)):
        logits = _prefill_shared(generator, state, ids, shared)
    elif generator.packed and buffers is not None:
        logits = _prefill_packed(model, state, ids, limits.prefill_tokens)
    else:
        logits = _prefill_padded(generator, state, ids, 0)
    if new := [place for place, row in enumerate(rows) if not row.response.logits]:
        read = logits[:, list(generator.read_ids)].float().tolist()
        for place in new:
            rows[place].response.logits = read[place]
    return state, logits


def _prefill_packed(
    model: PreTrainedModel, state: DecodeState, ids: list[list[int]], max_tokens: int
) -> torch.Tensor:
    """Prompts end to end, no padding; their keys and values are then copied into their rows."""
    longest = max(map(len, ids))
    logits = []
    for start, stop in _spans(list(map(len, ids)), max_tokens):
        ends = torch.tensor([0, *map(len, ids[start:stop])]).cumsum(0)
        collected = collecting_cache(state.cache)
        with attending(model, VARLEN):
            output = _forward(
                model,
                state,
                _tensor(model, [[token for i in ids[start:stop] for token in i]]),
                _tensor(model, [[p for i in ids[start:stop] for p in range(len(i))]]),
                past_key_values=collected,
                cu_seq_lens_q=ends.int().to(model.device),
                sample_lengths=ends.diff().tolist(),
                logits_to_keep=(ends[1:] - 1).to(model.device),
            )
        logits.append(output[0])
        bounds = ends.tolist()
        places = [
            (start + n, longest - (end - begin), begin, end)
            for n, (begin, end) in enumerate(itertools.pairwise(bounds))
        ]
        copy_into_rows(state.cache, collected, len(ids), longest, places)
    return torch.cat(logits)


def _prefill_shared(
    generator: Generator, state: DecodeState, ids: list[list[int]], shared: int
) -> torch.Tensor:
    """The shared beginning once, then the same number of last tokens of each prompt.

    row 0   s s s s s s|a b c d      what stands left of the bar is a part of what all
    row 1   - - s s s s|s e f g      share, so that no padding comes between
    """
    model = generator.model
    longest = max(map(len, ids))
    rest = longest - shared
    collected = collecting_cache(state.cache)
    _forward(
        model,
        state,
        _tensor(model, [ids[0][:shared]]),
        _tensor(model, [range(shared)]),
        past_key_values=collected,
    )
    places = [
        (row, min(longest - len(i), shared), 0, max(0, len(i) - rest)) for row, i in enumerate(ids)
    ]
    copy_into_rows(state.cache, collected, len(ids), shared, places, room=longest)
    return _prefill_padded(generator, state, ids, shared)


def _prefill_padded(
    generator: Generator, state: DecodeState, ids: list[list[int]], done: int
) -> torch.Tensor:
    """Left-padded rows, of which the first `done` columns are in the cache."""
    longest = max(map(len, ids))
    padded = _tensor(generator.model, [[generator.pad_id] * (longest - len(i)) + i for i in ids])
    positions = (state.mask.cumsum(1) - 1).clamp(min=0)
    return _forward(
        generator.model,
        state,
        padded[:, done:],
        positions[:, done:],
        attention_mask=state.mask,
        past_key_values=state.cache,
    )[:, -1]


def step(model: PreTrainedModel, state: DecodeState) -> torch.Tensor:
    """Compute the newest token of each row; `(rows, vocabulary)`."""
    newest = _tensor(model, [[row.response.ids[-1]] for row in state.rows])
    state.mask = torch.cat([state.mask, state.mask.new_ones(len(state.rows), 1)], dim=1)
    state.lengths = state.lengths + 1
    return _forward(
        model,
        state,
        newest,
        state.lengths[:, None] - 1,
        attention_mask=state.mask,
        past_key_values=state.cache,
    )[:, -1]


def compact(state: DecodeState, places: list[int]) -> None:
    """Keep only these rows; columns that are padding in all of them go too."""
    state.rows = [state.rows[place] for place in places]
    kept = torch.tensor(places, device=state.mask.device)
    state.mask, state.lengths = state.mask[kept], state.lengths[kept]
    if isinstance(state.cache, DynamicCache):
        # Unlike its selection, this knows all kinds of layers.
        state.cache.reorder_cache(cast("torch.LongTensor", kept))
        return
    padding = state.mask.shape[1] - int(state.lengths.max())
    state.mask = state.mask[:, padding:]
    for layer in state.cache.layers:
        if isinstance(layer, BufferedLayer) and layer.is_initialized:
            layer.compact(kept, padding)


def _forward(
    model: PreTrainedModel,
    state: DecodeState,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    **more: Any,
) -> torch.Tensor:
    """Run the model on some tokens of each row; logits of the last position by default."""
    options = {"logits_to_keep": 1, "position_ids": positions}
    options = {name: value for name, value in options.items() if name in state.accepted}
    rows, columns = input_ids.shape
    narrowed: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if columns > 1:  # a step of one token has nothing to leave out
        read = more.get("logits_to_keep")
        if read is None:
            read = torch.tensor([columns - 1], device=input_ids.device)
        if rows * len(read) >= _FEW_ROWS:
            narrowed = last_feed_forward_at(model, read)
    with narrowed:
        return model(input_ids=input_ids, use_cache=True, **(options | more)).logits


def _tensor(model: PreTrainedModel, values: Sequence[Any]) -> torch.Tensor:
    return torch.tensor(values, device=model.device)


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
    if logits.is_cuda:
        return logits.argmax(-1).tolist()
    # numpy's is many times as fast as torch's.
    parts = logits.split(rows_in_cache(logits))
    return [token for part in parts for token in part.float().numpy().argmax(-1).tolist()]
