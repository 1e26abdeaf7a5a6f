"""Choice perplexities and letter logits: no padding, only the logits that are read."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from growth.attention import VARLEN, attending
from growth.batches import Example, flattened, micro_batches, supervised_logits
from growth.chat import IGNORED_LABEL


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
    model: PreTrainedModel, examples: Sequence[Example], max_tokens: int
) -> list[float]:
    """The perplexity of the supervised tokens of each example (paper section 4.2), in order.

    The exponential of the mean cross-entropy of a token; bounded, so that JSON can hold it.
    """
    results = [0.0] * len(examples)
    for indices, logits, targets, owners in _micro_batch_logits(model, examples, max_tokens):
        losses = cross_entropy(logits.float(), targets, reduction="none").double()
        for place, index in enumerate(indices):
            mean = losses[owners == place].mean().item()
            results[index] = math.exp(min(mean, 700.0))
    return results


@torch.inference_mode()
def next_token_logits(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[int],
    max_tokens: int,
) -> list[list[float]]:
    """The logits of `token_ids` as the next token after each prompt, in order."""
    # A prompt's last place predicts what comes next: supervise a token that is not read.
    examples = [
        {
            "input_ids": torch.tensor([*prompt, 0]),
            "labels": torch.tensor([IGNORED_LABEL] * len(prompt) + [0]),
        }
        for prompt in prompts
    ]
    results: list[list[float]] = [[] for _ in prompts]
    for indices, logits, _, _ in _micro_batch_logits(model, examples, max_tokens):
        for index, row in zip(indices, logits[:, list(token_ids)].float().tolist(), strict=True):
            results[index] = row
    return results


def _micro_batch_logits(
    model: PreTrainedModel, examples: Sequence[Example], max_tokens: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each micro-batch: indices of its examples, `(supervised, vocabulary)` logits, targets,
    and for each supervised place the place of its example in the micro-batch.
    """
    numbered: list[dict[str, Any]] = [{**e, "index": i} for i, e in enumerate(examples)]
    for group in micro_batches(numbered, max_tokens):
        batch = {name: tensor.to(model.device) for name, tensor in flattened(group).items()}
        with attending(model, VARLEN):
            logits = supervised_logits(model, batch)
        starts = (batch["position_ids"][0] == 0).cumsum(0) - 1
        yield [e["index"] for e in group], logits, batch["targets"], starts[batch["keep"]]
