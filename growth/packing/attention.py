"""Attention over a packed row: each sample sees itself only, no mask is built.

    row        a b c d | e f g       boundaries 0 4 7
    a sees a; b sees a b; ... | e sees e; f sees e f; ...

Registered with transformers, so that it serves every family. On a GPU in 16 bits "varlen" is one
call of torch's variable-length FlashAttention; elsewhere, and as "per_sample" everywhere, it is a
loop of causal SDPA calls. Both cost the sum of the squared lengths, not the square of their sum.
Samples that begin alike can share their beginning (growth.packing.prefix_attention).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from growth.core.options import PER_SAMPLE, VARLEN
from growth.packing.prefix_attention import PrefixCache, shared_prefix_attention

# What varlen_attn computes: FlashAttention's types, widths of a head, generation of GPUs.
_FLASH_DTYPES = (torch.float16, torch.bfloat16)
_FLASH_WIDTH = 256
_FLASH_CAPABILITY = (8, 0)
# On a CPU, SDPA in 16 bits is several times slower than in fp32 up to about this many tokens, as
# oneDNN sets up each of its small products, which takes longer than they do.
_FP32_LENGTH = 500
# What some families add to attention and SDPA can't do: refused, not silently left out.
_UNSUPPORTED = ("softcap", "s_aux")


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample, in one kernel where the device has it.

    Arguments as those of `per_sample_attention`.
    """
    if query.is_cuda and torch.is_autocast_enabled("cuda"):
        # As autocast does for SDPA: norms of queries and keys leave them in fp32.
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if options.get("prefixes") is not None or not _has_kernel(query):
        return per_sample_attention(module, query, key, value, attention_mask, **options)
    return _kernel_attention(module, query, key, value, **options), None


def per_sample_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    sample_lengths: Sequence[int],
    prefixes: PrefixCache | None = None,
    prefix_ids: Sequence[int | None] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample of a packed row, sample by sample.

    Args:
        module: the attention layer that calls.
        query: `(1, heads, tokens, width)`; `key` and `value` may have fewer heads.
        attention_mask: unused, none is built.
        scaling: of the scores.
        sliding_window: tokens that a token attends to, itself included; None for all before it.
        sample_lengths: tokens of each sample, as Python numbers: reading them costs no
            synchronisation with the device.
        prefixes: without `prefix_ids`, the row holds these prefixes, and their keys and values are
            stored in it.
        prefix_ids: for each sample the prefix that it continues, or None. Samples of one prefix
            are adjacent.

    Returns:
        `(1, tokens, heads, width)`, and None for the weights.

    Raises:
        NotImplementedError: the architecture asks for more than SDPA can do.
    """
    _refuse_unsupported(module, options)
    lengths = list(sample_lengths)
    if prefixes is not None:
        if prefix_ids is not None:
            cached = prefixes.layers[module] if prefixes.lengths else []
            rows = shared_prefix_attention(
                query, key, value, lengths, prefix_ids, cached, scaling, sliding_window
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


def _kernel_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    sample_lengths: Sequence[int],
    cu_seq_lens_q: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    _refuse_unsupported(module, options)
    longest = max(sample_lengths)
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens_q,
        cu_seq_lens_q,
        longest,
        longest,
        scale=scaling,
        # Tokens to the left, not counting the token itself; none to the right.
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)  # a tuple only where `return_aux` is given
    return output[None]


def _has_kernel(query: torch.Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in _FLASH_DTYPES
        and query.shape[-1] <= _FLASH_WIDTH
        and torch.cuda.get_device_capability(query.device) >= _FLASH_CAPABILITY
    )


def _refuse_unsupported(module: torch.nn.Module, options: Mapping[str, Any]) -> None:
    if unsupported := [name for name in _UNSUPPORTED if options.get(name) is not None]:
        raise NotImplementedError(f"{type(module).__name__} asks for {', '.join(unsupported)}")


def _one_sample(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    length = query.shape[2]
    dtype = query.dtype
    in_fp32 = not query.is_cuda and length <= _FP32_LENGTH
    if in_fp32:
        query, key, value = query.float(), key.float(), value.float()
    mask = None
    if sliding_window is not None and sliding_window < length:
        ones = torch.ones(length, length, dtype=torch.bool, device=query.device)
        mask = ones.tril() & ones.triu(1 - sliding_window)
    # Autocast would make 16 bits of them again.
    with torch.autocast("cpu", enabled=False) if in_fp32 else contextlib.nullcontext():
        output = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return output.to(dtype)


@contextlib.contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Let `model` use another attention implementation within the block."""
    before = model.config._attn_implementation
    if before == implementation:
        yield
        return
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


for _name, _attention in ((VARLEN, varlen_attention), (PER_SAMPLE, per_sample_attention)):
    AttentionInterface.register(_name, _attention)
    AttentionMaskInterface.register(_name, lambda *_, **__: None)
