"""How much to compute at once, selected automatically by the memory that is free.

Training holds, for each trainable parameter, its fp32 weight and gradient and AdamW's two moments,
for each token of a micro-batch the activations that the backward pass reads, and the logits that
exist at once. Activations are counted by running the architecture on the meta device: shapes
without numbers or weights.
"""

import copy
import math
from dataclasses import dataclass

import psutil
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from growth.core.device import Compute
from growth.core.options import AUTO, MICRO_BATCH_TOKENS, VARLEN, EngineOptions
from growth.model.lora import AdaptedModel, without_adapters
from growth.packing.forward import accepts
from growth.packing.loss import LOGITS_WHOLE, logits_at_once, supports_chunks

_TRAINED_BYTES = 16  # per parameter: fp32 weight, gradient, two moments of AdamW
_TOKENS_WANTED = {"cuda": 2048, "cpu": 256}  # fewer at once are slower than checkpointing
_USABLE = 0.85  # of the free memory; the rest is for the allocator's gaps and the libraries
_HALF_SHARE = 2 / 3  # of the fp32 activations' bytes that 16-bit autocast keeps, measured
_LOGITS_BYTES = 12  # per logit: in 16 bits, in fp32, its gradient
_CHUNK_BYTES = {
    True: 8,
    False: 4,
}  # per logit of a chunk: in 16 bits thrice; in fp32 once, in place
# Bytes of activations at once beyond which more tokens make a CPU no faster: with fewer, what a
# model of hundreds of millions of parameters takes in all is little more than its static bytes.
_ACTIVATIONS_WANTED = {"cuda": math.inf, "cpu": 820 << 20}
# What activations take of the C library's heap, whose gaps are not filled again; measured. CUDA's
# allocator is part of _USABLE.
_GAPS = {"cuda": 1.0, "cpu": 1.6}
# Short samples: the attention weights, which only the meta device keeps, are small then.
_PROBE_SAMPLES, _PROBE_LENGTH = 16, 16


@dataclass(frozen=True)
class MemoryPlan:
    """Tokens that a process computes at once, and whether activations are recomputed.

    `peak_bytes` is what weights, gradients, moments and that many tokens take together.
    """

    tokens_per_micro_batch: int
    gradient_checkpointing: bool
    reason: str
    peak_bytes: int

    def describe(self) -> str:
        """One line for the log."""
        state = "on" if self.gradient_checkpointing else "off"
        return (
            f"{self.tokens_per_micro_batch:,} tokens per micro-batch, "
            f"gradient checkpointing {state}: {self.reason}"
        )


def plan_memory(
    model: AdaptedModel,
    compute: Compute,
    longest: int,
    *,
    tokens_per_micro_batch: int | None = None,
    gradient_checkpointing: str = EngineOptions.gradient_checkpointing,
    shards: int = 1,
) -> MemoryPlan:
    """Choose what fits into the memory that is free now, before `model` is moved to the device.

    Args:
        model: its parameters that take no gradient are frozen (LoRA).
        compute: what it will be trained on.
        longest: tokens of the longest sample, which is never split.
        tokens_per_micro_batch: if it is given; None to choose.
        gradient_checkpointing: one of `growth.core.options.CHECKPOINTING`.
        shards: processes that share out weights, gradients and moments.
    """
    device = compute.device.type
    base = without_adapters(model)
    static = static_bytes(model, compute) / shards
    activations = activation_bytes(base, compute)
    config = base.config.get_text_config()
    layers = max(1, getattr(config, "num_hidden_layers", 1))
    # Checkpointing keeps the input of each layer, and one layer's activations at a time, with their
    # gradients. Without it, those replace activations of the layers after it.
    checkpointed = layers * 4 * config.hidden_size + 2 * activations / layers
    bytes_of = {False: _GAPS[device] * activations, True: _GAPS[device] * checkpointed}
    logits = _LOGITS_BYTES * config.vocab_size
    most = _most_logits_bytes(model, compute)
    budget = _USABLE * free_bytes(compute.device) - static
    fits = {
        on: max(0.0, budget / (each + logits), (budget - most) / each)
        for on, each in bytes_of.items()
    }
    wanted = tokens_per_micro_batch or _TOKENS_WANTED[device]
    if gradient_checkpointing == AUTO:
        checkpointing = fits[False] < min(fits[True], max(longest, wanted))
    else:
        checkpointing = gradient_checkpointing == "on"
    if tokens_per_micro_batch is not None:
        tokens = tokens_per_micro_batch
    else:
        enough = max(_TOKENS_WANTED[device], _ACTIVATIONS_WANTED[device] / bytes_of[checkpointing])
        tokens = max(1, int(min(MICRO_BATCH_TOKENS[device], enough, fits[checkpointing])))
    reason = (
        f"about {budget / 2**30:.1f} GiB free for activations, "
        f"{bytes_of[checkpointing] / 2**20:.2f} MiB per token, and up to "
        f"{min(most, logits * max(tokens, longest)) / 2**20:,.0f} MiB of logits"
    )
    if fits[checkpointing] < longest:
        reason += (
            f"; the longest sample has {longest:,} tokens and may not fit (--lora_rank, "
            "--max_length, or more GPUs with --fsdp_config or --deepspeed need less)"
        )
    own = weight_bytes(model) if device == "cpu" else 0  # there already, no part of `static`
    at_once = max(tokens, longest)
    peak = own + static + min(most, logits * at_once) + bytes_of[checkpointing] * at_once
    return MemoryPlan(tokens, checkpointing, reason, int(peak))


def _most_logits_bytes(model: AdaptedModel, compute: Compute) -> float:
    """Bytes of the logits of a micro-batch, however many tokens it has."""
    if not supports_chunks(model, packed=False):
        return math.inf
    vocabulary = without_adapters(model).config.get_text_config().vocab_size
    many = LOGITS_WHOLE // vocabulary + 1  # tokens that have too many to be computed whole
    at_once = logits_at_once(vocabulary, many, compute.device) or 0
    return max(_CHUNK_BYTES[compute.precision != "fp32"] * at_once, _LOGITS_BYTES * LOGITS_WHOLE)


def free_bytes(device: torch.device) -> int:
    """Bytes that this process may still take on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def static_bytes(model: AdaptedModel, compute: Compute) -> int:
    """Bytes of weights, gradients and moments that are not allocated yet."""
    half = compute.precision != "fp32"
    total = 0
    for parameter in model.parameters():
        size = parameter.numel()
        if parameter.requires_grad:
            # Autocast keeps a 16-bit copy of each fp32 weight.
            total += size * (_TRAINED_BYTES + (2 if half else 0))
            # Weights on the CPU are not allocated again there.
            total -= size * 4 if compute.device.type == "cpu" else 0
        elif compute.device.type != "cpu":
            total += size * parameter.element_size()
    return total


def weight_bytes(model: AdaptedModel) -> int:
    """Bytes of the weights as they are."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def activation_bytes(model: PreTrainedModel, compute: Compute) -> float:
    """Bytes per token that a training step keeps for its backward pass, not counting logits."""
    samples, length = _PROBE_SAMPLES, _PROBE_LENGTH
    try:
        with torch.device("meta"):
            shapes = AutoModelForCausalLM.from_config(copy.deepcopy(model.config))
        shapes.set_attn_implementation(VARLEN)
        saved = float(_saved_bytes(shapes, samples, length))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError):
        # An architecture that can't be packed or has no meta kernels: a LLaMA layer keeps about
        # 90 bytes per column in fp32.
        config = model.config.get_text_config()
        saved = 90.0 * config.hidden_size * config.num_hidden_layers * samples * length
    share = 1.0 if compute.precision == "fp32" else _HALF_SHARE
    return share * saved / (samples * length)


def _saved_bytes(model: PreTrainedModel, samples: int, length: int) -> int:
    """Bytes of the tensors, other than parameters, that autograd keeps of one packed row."""
    own = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    ids = torch.zeros(1, samples * length, dtype=torch.long, device="meta")
    options = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(
            input_ids=ids,
            # A mask keeps transformers from reading the positions, which hold no numbers.
            attention_mask=torch.ones_like(ids),
            sample_lengths=[length] * samples,
            cu_seq_lens_q=torch.arange(samples + 1, dtype=torch.int32) * length,
            use_cache=False,
            **options,
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
