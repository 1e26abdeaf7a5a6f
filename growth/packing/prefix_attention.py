"""Shared-prefix attention: samples that continue a prefix whose keys and values are cached.

prefixes   p q r | s t           cached: keys and values of p q r, and of s t, in each layer
row        a b | c d | e f       prefix_ids 0 0 1
b attends to p q r a b; d to p q r c d; f to s t e f
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention

KeysValues = tuple[torch.Tensor, torch.Tensor]  # each (1, heads, tokens, width)


@dataclass
class PrefixCache:
    """Prefixes that are computed once for many samples.

    Attributes:
        lengths: tokens of each prefix.
        layers: by attention layer, the keys and values of each prefix.
    """

    lengths: list[int]
    layers: dict[torch.nn.Module, list[KeysValues]] = field(default_factory=dict)


def shared_prefix_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    prefix_ids: Sequence[int | None],
    prefixes: list[KeysValues],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Attention in a row of samples, each after its prefix: `(1, heads, tokens, width)`."""
    attend = _padded_branches if query.is_cuda else _looped_branches
    parts, token, sample = [], 0, 0
    for prefix_id, group in groupby(prefix_ids):
        end = sample + len(list(group))
        own = lengths[sample:end]
        columns = slice(token, token + sum(own))
        empty = (key[:, :, :0], value[:, :, :0])
        parts.append(
            attend(
                query[:, :, columns],
                (key[:, :, columns], value[:, :, columns]),
                empty if prefix_id is None else prefixes[prefix_id],
                own,
                scaling,
                sliding_window,
            )
        )
        token, sample = columns.stop, end
    return torch.cat(parts, dim=2)


def _looped_branches(
    query: torch.Tensor,
    own: KeysValues,
    prefix: KeysValues,
    lengths: list[int],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Samples of one prefix, one after another: the cheapest on a CPU.

    The prefix's keys are copied once; each sample's own are written after them in turn.
    """
    known, longest = prefix[0].shape[2], max(lengths)
    keys, values = (
        torch.cat([cached, cached.new_empty(*cached.shape[:2], longest, cached.shape[3])], dim=2)
        for cached in prefix
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
    """Samples of one prefix, all at once: a loop would keep a GPU waiting.

    Shorter samples are filled up with tokens of the next; causality keeps these out of their own.
    """
    known, longest = prefix[0].shape[2], max(lengths)
    sizes = torch.tensor(lengths, device=query.device)
    steps = torch.arange(longest, device=query.device)
    places = (sizes.cumsum(0) - sizes)[:, None] + steps
    places = places.clamp(max=query.shape[2] - 1)

    def in_rows(x: torch.Tensor) -> torch.Tensor:  # (samples, heads, longest, width)
        return x[0][:, places].transpose(0, 1)

    keys, values = (
        torch.cat([cached.expand(len(lengths), -1, -1, -1), in_rows(x)], dim=2)
        for cached, x in zip(prefix, own, strict=True)
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
    """What `rows` tokens after `known` others attend to: `(rows, known + rows)`."""
    mask = torch.ones(rows, known + rows, dtype=torch.bool, device=device).tril(known)
    return mask if sliding_window is None else mask.triu(known + 1 - sliding_window)
