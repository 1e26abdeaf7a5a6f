"""Choice perplexities and letter logits: no padding, only the logits that are read."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from growth.attention import VARLEN, attending
from growth.batches import Example, micro_batches
from growth.chat import IGNORED_LABEL
from growth.forward import Supervised, supervised_logits


def continuation_example(
    context: Sequence[int], continuation: Sequence[int], max_length: int
) -> Example:
    """`continuation` as the supervised tokens after `context`, within `max_length` tokens.

    A long context is cut from its left, its last token (the role's) kept; a continuation that alone
    is longer is cut at its end.
    """
    continuation = list(continuation[: max_length - 1])
    context = list(context[-(max_length - len(continuation)) :])
    return {
        "input_ids": torch.tensor(context + continuation),
        "labels": torch.tensor([IGNORED_LABEL] * len(context) + continuation),
    }


@torch.inference_mode()
def perplexities(
    model: PreTrainedModel,
    examples: Sequence[Example],
    max_tokens: int,
    flat: bool = True,
    pad_id: int = 0,
) -> list[float]:
    """The perplexity of the supervised tokens of each example (paper section 4.2), in order.

    The exponential of the mean cross-entropy of a token; bounded, so that JSON can hold it.

    Args:
        model: in evaluation mode.
        examples: any number, of any lengths.
        max_tokens: computed at once.
        flat: as `growth.forward.can_flatten` says of the model.
        pad_id: a token to pad with if not `flat`.
    """
    results = [0.0] * len(examples)
    for indices, supervised in _micro_batch_logits(model, examples, max_tokens, flat, pad_id):
        losses = cross_entropy(supervised.logits.float(), supervised.targets, reduction="none")
        for place, index in enumerate(indices):
            mean = losses[supervised.owners == place].double().mean().item()
            results[index] = math.exp(min(mean, 700.0))
    return results


@torch.inference_mode()
def next_token_logits(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[int],
    max_tokens: int,
    flat: bool = True,
    pad_id: int = 0,
) -> list[list[float]]:
    """The logits of `token_ids` as the next token after each prompt, in order.

    Arguments as those of `perplexities`.
    """
    # A prompt's last place predicts what comes next: supervise a token that is not read.
    examples = [
        {
            "input_ids": torch.tensor([*prompt, 0]),
            "labels": torch.tensor([IGNORED_LABEL] * len(prompt) + [0]),
        }
        for prompt in prompts
    ]
    results: list[list[float]] = [[] for _ in prompts]
    for indices, supervised in _micro_batch_logits(model, examples, max_tokens, flat, pad_id):
        rows = supervised.logits[:, list(token_ids)].float().tolist()
        for owner, row in zip(supervised.owners.tolist(), rows, strict=True):
            results[indices[owner]] = row
    return results


def _micro_batch_logits(
    model: PreTrainedModel, examples: Sequence[Example], max_tokens: int, flat: bool, pad_id: int
) -> Iterator[tuple[list[int], Supervised]]:
    """For each micro-batch the indices of its examples, and the logits of its supervised tokens."""
    numbered: list[dict[str, Any]] = [{**e, "index": i} for i, e in enumerate(examples)]
    for group in micro_batches(numbered, max_tokens):
        with attending(model, VARLEN if flat else model.config._attn_implementation):
            supervised = supervised_logits(model, group, flat, pad_id)
        yield [example["index"] for example in group], supervised
