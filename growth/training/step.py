"""The loss of one optimizer step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.packing.batches import Example
from growth.packing.forward import supervised_logits

# What a process computes, without effect, while others still have a micro-batch: engines that
# gather weights or gradients need every process in every pass.
DUMMY_EXAMPLE: Example = {
    "input_ids": torch.tensor([0, 0]),
    "labels": torch.tensor([IGNORED_LABEL, 0]),
}


def linear_decay(step: int, steps: int, end_factor: float) -> float:
    """The factor on the learning rate: 1 at the first optimizer step, `end_factor` at the last."""
    return 1 - (1 - end_factor) * min(1.0, step / max(1, steps - 1))


def summed_loss(
    model: torch.nn.Module, examples: Sequence[Example], packed: bool, pad_id: int = 0
) -> torch.Tensor:
    """The sum of the cross-entropies of the supervised tokens of `examples`, in nats."""
    logits, targets, _ = supervised_logits(model, examples, packed, pad_id)
    return cross_entropy(logits.float(), targets, reduction="sum")


@dataclass(frozen=True)
class StepMeasures:
    """Sums over the processes of a step: tokens that are `supervised`, `tokens` in all, tokens
    `computed` (padding included), and the `seconds` that it took.
    """

    supervised: int = 0
    tokens: int = 0
    computed: int = 1
    seconds: float = 1.0


def perplexity(loss: float) -> float:
    """The exponential of a mean cross-entropy in nats, bounded so that JSON can hold it."""
    return math.exp(min(loss, 700.0))
