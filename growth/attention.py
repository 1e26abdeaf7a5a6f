"""Attention over a flattened row: each sample sees itself only, no mask is built.

    row        a b c d | e f g       boundaries 0 4 7
    a sees a; b sees a b; ... | e sees e; f sees e f; ...

A loop over the samples, each a causal SDPA call: it costs the sum of the squared lengths instead of
the square of their sum. Registered with transformers as "varlen", so it serves every family.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

VARLEN = "varlen"
# What some families add to attention and SDPA can't do; better refused than left out.
_UNSUPPORTED = ("softcap", "s_aux")


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

    Returns:
        `(1, tokens, heads, width)`, and None for the weights.

    Raises:
        NotImplementedError: the architecture asks for more than SDPA can do.
    """
    if unsupported := [name for name in _UNSUPPORTED if options.get(name) is not None]:
        raise NotImplementedError(f"{type(module).__name__} asks for {', '.join(unsupported)}")
    lengths = cu_seq_lens_q.diff().tolist()
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
