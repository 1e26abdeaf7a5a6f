"""Choice perplexities and letter logits: nothing is computed twice, or without being read.

Samples that begin alike (the choices of a question, the questions behind a subject's shots) share
their beginning: it is computed once, and kept for the rows that hold the rest of each. There is no
padding, and the output layer runs where a logit is read. Results do not depend on what is computed
together, but for float error.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from growth.core.options import VARLEN
from growth.inference.limits import Limits, within_memory
from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.packing.attention import attending
from growth.packing.batches import Example, micro_batches
from growth.packing.forward import compute_prefixes, reading_only, supervised_logits
from growth.packing.loss import losses_of_tokens
from growth.packing.prefix_attention import PrefixCache
from growth.packing.prefix_sharing import Group, shared_prefixes

T = TypeVar("T")

_SIGNIFICANT_DIGITS = 6  # of a logit or a perplexity: float32 holds no more


def significant(value: float) -> float:
    """A logit or perplexity without the digits that float error makes up."""
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")


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
    limits: Limits,
    packed: bool = True,
    pad_id: int = 0,
    at_once: int | None = None,
) -> Iterator[tuple[int, float]]:
    """The perplexity of the supervised tokens of each example (paper section 4.2), with its index.

    The exponential of the mean cross-entropy of a token; bounded, so that JSON can hold it. They
    come in the order in which they are computed.

    Args:
        model: in evaluation mode.
        examples: any number, of any lengths; those that begin alike share the computation.
        limits: `prefill_tokens` are computed at once.
        packed: as `growth.packing.forward.supports_packing` says of the model.
        pad_id: a token to pad with if not `packed`.
        at_once: logits that may exist, as `growth.packing.loss.bound_of_logits` says of the model;
            None for no bound.

    Raises:
        InputError: there is no memory for a single example.
    """

    def read(row: Sequence[Example], *prefixes: Any) -> list[float]:
        losses, owners = losses_of_tokens(model, row, packed, pad_id, at_once, *prefixes)
        means = [losses[owners == place].double().mean().item() for place in range(len(row))]
        return [math.exp(min(mean, 700.0)) for mean in means]

    yield from _computed(model, examples, limits, packed, read)


@torch.inference_mode()
def next_token_logits(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[int],
    limits: Limits,
    packed: bool = True,
    pad_id: int = 0,
) -> Iterator[tuple[int, list[float]]]:
    """The logits of `token_ids` as the next token after each prompt, with the prompt's index.

    Arguments and errors as those of `perplexities`.
    """
    # A prompt's last place predicts what comes next: supervise a token that is not read.
    examples = [
        {
            "input_ids": torch.tensor([*prompt, 0]),
            "labels": torch.tensor([IGNORED_LABEL] * len(prompt) + [0]),
        }
        for prompt in prompts
    ]
    with reading_only(model, token_ids) as columns:

        def read(row: Sequence[Example], *prefixes: Any) -> list[list[float]]:
            # One supervised token per prompt, in the order of the rows.
            supervised = supervised_logits(model, row, packed, pad_id, *prefixes)
            return supervised.logits[:, columns].float().tolist()

        yield from _computed(model, examples, limits, packed, read)


def _computed(
    model: PreTrainedModel,
    examples: Sequence[Example],
    limits: Limits,
    packed: bool,
    read: Callable[[Sequence[Example], PrefixCache | None, Sequence[int | None]], list[T]],
) -> Iterator[tuple[int, T]]:
    """What `read` makes of the examples, one each, with its index.

    It is given those that are computed together, with the prefixes that they continue. Every index
    comes once, in some order. Where memory runs out in `read`, the rest is computed in smaller
    parts.
    """
    lengths = [len(example["input_ids"]) for example in examples]
    unfinished = dict.fromkeys(range(len(examples)))
    together: list[int] = []  # examples under way at once

    def compute(limits: Limits) -> Iterator[tuple[int, T]]:
        left = list(unfinished)
        together[:] = left
        rows = _packed_rows if packed else _padded_rows
        for row, prefixes in rows(model, [examples[i] for i in left], limits.prefill_tokens):
            together[:] = [left[branch.index] for branch in row]
            own = [branch.example for branch in row]
            values = read(own, prefixes, [branch.prefix_id for branch in row])
            for index, value in zip(list(together), values, strict=True):
                del unfinished[index]
                yield index, value
            together[:] = unfinished

    yield from within_memory(compute, limits, lambda: [lengths[i] for i in together])


@dataclass(frozen=True)
class _Branch:
    """One example's own part: its index, the place of its prefix, what is behind that prefix."""

    index: int
    prefix_id: int | None
    example: Example


def _first_supervised(example: Example) -> int:
    """The place of the first supervised token, at least 1: the first token is never predicted."""
    return max(int((example["labels"] != IGNORED_LABEL).int().argmax()), 1)


def _bundles(groups: list[Group], lengths: list[int], max_tokens: int) -> Iterator[list[Group]]:
    """Groups that are computed together: prefixes first, then what is behind them.

    Largest first, as many as have room in `max_tokens`; those without a prefix come last.
    """

    def size(group: Group) -> int:
        known, indices = group
        return known + sum(lengths[index] - known for index in indices)

    bundle: list[Group] = []
    tokens = 0
    for group in sorted(groups, key=lambda g: (g[0] > 0, size(g)), reverse=True):
        if bundle and tokens + size(group) > max_tokens:
            yield bundle
            bundle, tokens = [], 0
        bundle.append(group)
        tokens += size(group)
    if bundle:
        yield bundle


def _rows(
    bundle: list[Group], examples: Sequence[Example], max_tokens: int
) -> Iterator[list[_Branch]]:
    """What is behind the prefixes of a bundle, cut into rows of at most `max_tokens`.

    Those of one prefix stand together, the longest first.
    """
    row: list[_Branch] = []
    tokens = 0
    for prefix_id, (known, indices) in enumerate(bundle):
        for index in sorted(indices, key=lambda i: len(examples[i]["input_ids"]), reverse=True):
            rest = {name: tensor[known:] for name, tensor in examples[index].items()}
            length = len(rest["input_ids"])
            if row and tokens + length > max_tokens:
                yield row
                row, tokens = [], 0
            row.append(_Branch(index, prefix_id if known else None, rest))
            tokens += length
    if row:
        yield row


def _padded_rows(
    model: PreTrainedModel, examples: Sequence[Example], max_tokens: int
) -> Iterator[tuple[list[_Branch], PrefixCache | None]]:
    """The examples in groups of about one length, nothing shared."""
    places = {id(example): place for place, example in enumerate(examples)}
    for group in micro_batches(examples, max_tokens):
        yield [_Branch(places[id(example)], None, example) for example in group], None


def _packed_rows(
    model: PreTrainedModel, examples: Sequence[Example], max_tokens: int
) -> Iterator[tuple[list[_Branch], PrefixCache | None]]:
    """Rows of examples without what they share, and the computed prefixes that they share."""
    ids = [example["input_ids"].tolist() for example in examples]
    # Shared is what comes before the token whose output is the first one read.
    unread = [sequence[: _first_supervised(e)] for sequence, e in zip(ids, examples, strict=True)]
    with attending(model, VARLEN):
        for bundle in _bundles(shared_prefixes(unread), list(map(len, ids)), max_tokens):
            shared = [(known, indices) for known, indices in bundle if known]
            prefixes = compute_prefixes(model, [ids[group[0]][:known] for known, group in shared])
            for row in _rows(bundle, examples, max_tokens):
                yield row, prefixes
