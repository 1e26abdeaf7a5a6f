"""Attention over a flattened row: each sample sees itself only, no mask is built.

    row        a b c d | e f g       boundaries 0 4 7
    a sees a; b sees a b; ... | e sees e; f sees e f; ...

A loop over the samples, each a causal SDPA call: it costs the sum of the squared lengths instead of
the square of their sum. Registered with transformers as "varlen", so it serves every family.

Samples that begin alike can share their beginning. A row of prefixes is computed first, its keys
and values are kept, and in later rows stands only the rest of each sample, which sees its prefix:

    prefixes   p q r | s t           kept: keys and values of p q r, and of s t, in each layer
    row        a b | c d | e f       parents 0 0 1
    b sees p q r a b; d sees p q r c d; f sees s t e f
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

VARLEN = "varlen"
# What some families add to attention and SDPA can't do; better refused than left out.
_UNSUPPORTED = ("softcap", "s_aux")

KeysValues = tuple[torch.Tensor, torch.Tensor]  # each (1, heads, tokens, width)


@dataclass
class Prefixes:
    """Prefixes that were, or are to be, computed once for many samples.

    Attributes:
        lengths: tokens of each prefix.
        layers: by attention layer, the keys and values of each prefix.
    """

    lengths: list[int]
    layers: dict[torch.nn.Module, list[KeysValues]] = field(default_factory=dict)


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor,
    prefixes: Prefixes | None = None,
    parents: Sequence[int | None] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample of a flattened row.

    Args:
        module: the attention layer that calls.
        query: `(1, heads, tokens, width)`; `key` and `value` may have fewer heads.
        attention_mask: unused, none is built.
        scaling: of the scores.
        sliding_window: tokens that a token sees, itself included; None for all before it.
        cu_seq_lens_q: `(samples + 1,)`, where each sample begins, and the end.
        prefixes: without `parents`, the row holds these prefixes and their keys and values are
            kept in it.
        parents: for each sample the prefix that it goes on from, or None. Samples of one prefix
            stand together.

    Returns:
        `(1, tokens, heads, width)`, and None for the weights.

    Raises:
        NotImplementedError: the architecture asks for more than SDPA can do.
    """
    if unsupported := [name for name in _UNSUPPORTED if options.get(name) is not None]:
        raise NotImplementedError(f"{type(module).__name__} asks for {', '.join(unsupported)}")
    lengths = cu_seq_lens_q.diff().tolist()
    if prefixes is not None:
        if parents is not None:
            kept = prefixes.layers[module] if prefixes.lengths else []
            rows = _behind_prefixes(
                query, key, value, lengths, parents, kept, scaling, sliding_window
            )
            return rows.transpose(1, 2).contiguous(), None
        prefixes.layers[module] = list(
            zip(key.split(lengths, 2), value.split(lengths, 2), strict=True)
        )
    parts = [
        _one_sample(q, k, v, scaling, sliding_window)
        for q, k, v in zip(
            query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True
        )
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _one_sample(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    length = query.shape[2]
    mask = None
    if sliding_window is not None and sliding_window < length:
        ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
        mask = ones.tril() & ones.triu(1 - sliding_window)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _behind_prefixes(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    parents: Sequence[int | None],
    prefixes: list[KeysValues],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Attention in a row of samples, each behind its prefix: `(1, heads, tokens, width)`."""
    attend = _padded_branches if query.is_cuda else _looped_branches
    parts, start, first = [], 0, 0
    for parent, samples in groupby(parents):
        end = first + len(list(samples))
        own = lengths[first:end]
        place = slice(start, start + sum(own))
        nothing = (key[:, :, :0], value[:, :, :0])
        parts.append(
            attend(
                query[:, :, place],
                (key[:, :, place], value[:, :, place]),
                nothing if parent is None else prefixes[parent],
                own,
                scaling,
                sliding_window,
            )
        )
        start, first = place.stop, end
    return torch.cat(parts, dim=2)


def _looped_branches(
    query: torch.Tensor,
    own: KeysValues,
    prefix: KeysValues,
    lengths: list[int],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Samples behind one prefix, one after another: the cheapest on a CPU.

    The prefix's keys are laid down once; each sample's own are written behind them in its turn.
    """
    known, longest = prefix[0].shape[2], max(lengths)
    keys, values = (
        torch.cat([kept, kept.new_empty(*kept.shape[:2], longest, kept.shape[3])], dim=2)
        for kept in prefix
    )
    mask = _later_rows_mask(longest, known, sliding_window, query.device)
    parts = []
    for q, k, v in zip(*(x.split(lengths, 2) for x in (query, *own)), strict=True):
        length = q.shape[2]
        end = known + length
        keys[:, :, known:end], values[:, :, known:end] = k, v
        parts.append(
            scaled_dot_product_attention(
                q,
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=mask[:length, :end],
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        )
    return torch.cat(parts, dim=2)


def _padded_branches(
    query: torch.Tensor,
    own: KeysValues,
    prefix: KeysValues,
    lengths: list[int],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Samples behind one prefix, all at once: a GPU would wait for a loop.

    Behind the end of a shorter sample stand tokens of the next; its own never see what is later.
    """
    known, longest = prefix[0].shape[2], max(lengths)
    sizes = torch.tensor(lengths, device=query.device)
    steps = torch.arange(longest, device=query.device)
    places = (sizes.cumsum(0) - sizes)[:, None] + steps
    places = places.clamp(max=query.shape[2] - 1)

    def in_rows(x: torch.Tensor) -> torch.Tensor:  # (samples, heads, longest, width)
        return x[0][:, places].transpose(0, 1)

    keys, values = (
        torch.cat([kept.expand(len(lengths), -1, -1, -1), in_rows(x)], dim=2)
        for kept, x in zip(prefix, own, strict=True)
    )
    rows = scaled_dot_product_attention(
        in_rows(query),
        keys,
        values,
        attn_mask=_later_rows_mask(longest, known, sliding_window, query.device),
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return rows.transpose(1, 2)[steps < sizes[:, None]].transpose(0, 1)[None]


def _later_rows_mask(
    rows: int, known: int, sliding_window: int | None, device: torch.device
) -> torch.Tensor:
    """What tokens behind `known` others see: `(rows, known + rows)`."""
    mask = torch.ones(rows, known + rows, dtype=torch.bool, device=device).tril(known)
    return mask if sliding_window is None else mask.triu(known + 1 - sliding_window)


@contextlib.contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Let `model` use another attention implementation within a block."""
    before = model.config._attn_implementation
    if before == implementation:
        yield
        return
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, lambda *_, **__: None)
