"""Tokenised examples -> batches of tensors."""

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from tqdm import tqdm

from growth.chat import IGNORED_LABEL, ChatTokenizer, Messages
from growth.records import Record

Example = dict[str, torch.Tensor]  # input_ids (tokens,), labels (tokens,)
Batch = dict[str, torch.Tensor]
Group = tuple[int, list[int]]  # tokens in common, indices of the sequences that have them

_WORTH_SHARING = 32  # tokens: sharing less than this costs more than it saves
_LEVEL = 4  # tokens: a difference in what is shared that is looked for; it bounds the recursion


def tokenised(messages: Messages, chat: ChatTokenizer, max_length: int) -> Example:
    """One example, cut at `max_length` tokens as published (paper section 4.1)."""
    input_ids, labels = chat.encode_conversation(messages)
    return {
        "input_ids": torch.tensor(input_ids[:max_length]),
        "labels": torch.tensor(labels[:max_length]),
    }


def tokenised_files(
    files: Mapping[str, Sequence[Record]], chat: ChatTokenizer, max_length: int
) -> list[Example]:
    """The examples of all files, in order; a bar where it takes long."""
    records = [record for file in files.values() for record in file]
    return [
        tokenised(record["messages"], chat, max_length)
        for record in tqdm(records, desc="tokenise", unit="line", delay=5)
    ]


def supervised_tokens(examples: Sequence[Example]) -> int:
    """Tokens that a loss is taken on: labels that have a token before them to predict them from."""
    return sum(int((example["labels"][1:] != IGNORED_LABEL).sum()) for example in examples)


def micro_batches(
    examples: Sequence[Example], max_tokens: int, max_samples: int | None = None
) -> Iterator[list[Example]]:
    """Cut `examples` into groups of about one length, longest first.

    Args:
        examples: any number, in any order.
        max_tokens: of a group; an example that alone is longer is a group of its own.
        max_samples: of a group; None for no bound.
    """
    group: list[Example] = []
    tokens = 0
    for example in sorted(examples, key=lambda e: len(e["input_ids"]), reverse=True):
        length = len(example["input_ids"])
        if group and (tokens + length > max_tokens or len(group) == max_samples):
            yield group
            group, tokens = [], 0
        group.append(example)
        tokens += length
    if group:
        yield group


def computed_tokens(group: Sequence[Example], flat: bool) -> int:
    """Tokens that a micro-batch costs: its own, or with padding to its longest."""
    lengths = [len(example["input_ids"]) for example in group]
    return sum(lengths) if flat else len(lengths) * max(lengths)


def shared_prefixes(sequences: Sequence[list[int]]) -> list[Group]:
    """Which sequences to compute behind a common prefix, so that the fewest tokens are computed.

    Returns:
        (tokens in common, indices of the sequences) of each group; every index once. A sequence
        that shares nothing worth it is a group of its own, with 0 in common. At least one token
        of a sequence is its own.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    # how much each has in common with the one before it in the order
    common = [0] + [
        _common_length(sequences[a], sequences[b]) for a, b in itertools.pairwise(order)
    ]

    def best(first: int, end: int) -> tuple[int, list[Group]]:
        """Tokens saved, and the groups, of the places `first` to `end` of the order."""
        if end - first == 1:
            return 0, [(0, [order[first]])]
        depth = min(common[first + 1 : end])
        cuts = [first, *(i for i in range(first + 1, end) if common[i] < depth + _LEVEL), end]
        saved, groups, together = 0, [], []
        for start, stop in itertools.pairwise(cuts):
            below, parts = best(start, stop)
            if depth * (stop - start) >= below:
                together += order[start:stop]
            else:  # they have more in common with each other
                saved, groups = saved + below, groups + parts
        if depth * (len(together) - 1) >= _WORTH_SHARING:
            return saved + depth * (len(together) - 1), [*groups, (depth, together)]
        return saved, [*groups, *((0, [index]) for index in together)]

    return best(0, len(order))[1] if order else []


def _common_length(a: list[int], b: list[int]) -> int:
    """Tokens that both begin with, one of each left over."""
    bound = min(len(a), len(b)) - 1
    return bisect.bisect_left(range(bound), True, key=lambda i: a[: i + 1] != b[: i + 1])


def flattened(examples: Sequence[Example]) -> Batch:
    """All examples in one row without padding; positions restart at each.

    input_ids, position_ids: `(1, tokens)`. boundaries: `(examples + 1,)`. keep: `(supervised,)`,
    the places whose output predicts a supervised token. targets: `(supervised,)`, those tokens.

        input_ids     a b c d | e f g        boundaries  0 4 7
        position_ids  0 1 2 3 | 0 1 2        labels of c, d, g count:
        keep            1 2       5          targets     c d g
    """
    lengths = [len(example["input_ids"]) for example in examples]
    labels = torch.cat([example["labels"] for example in examples])
    positions = torch.cat([torch.arange(length) for length in lengths])
    supervised = ((labels != IGNORED_LABEL) & (positions > 0)).nonzero().squeeze(1)
    return {
        "input_ids": torch.cat([example["input_ids"] for example in examples])[None],
        "position_ids": positions[None],
        "boundaries": torch.tensor([0, *lengths]).cumsum(0).int(),
        "keep": supervised - 1,
        "targets": labels[supervised],
    }


def padded(examples: Sequence[Example], pad_id: int) -> Batch:
    """One row an example, `(batch, tokens)`, padded on the right: the published way.

    For architectures that can't tell the samples of a flattened row apart, and as a test's oracle.
    """
    pad = torch.nn.utils.rnn.pad_sequence
    input_ids = [example["input_ids"] for example in examples]
    labels = [example["labels"] for example in examples]
    return {
        "input_ids": pad(input_ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad([torch.ones_like(ids) for ids in input_ids], batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=IGNORED_LABEL),
    }
