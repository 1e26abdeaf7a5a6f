"""Tokenised examples -> batches of tensors."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from tqdm import tqdm

from growth.data.lines import Record
from growth.model.chat_tokenizer import IGNORED_LABEL, ChatTokenizer, Messages
from growth.packing.token_store import Example, TokenStore

Batch = dict[str, torch.Tensor]


def tokenised(messages: Messages, chat: ChatTokenizer, max_length: int) -> Example:
    """One example, truncated to `max_length` tokens as published (paper section 4.1)."""
    input_ids, labels = chat.encode_conversation(messages)
    beyond = labels[max_length:]
    return {
        "input_ids": torch.tensor(input_ids[:max_length]),
        "labels": torch.tensor(labels[:max_length]),
        "lost": torch.tensor(len(beyond) - beyond.count(IGNORED_LABEL)),
    }


def tokenised_files(
    files: Mapping[str, Sequence[Record]], chat: ChatTokenizer, max_length: int
) -> TokenStore:
    """The examples of all files, in order; shows a progress bar if it takes long."""
    total = sum(map(len, files.values()))
    with tqdm(total=total, desc="tokenise", unit="line", delay=5) as bar:
        store = TokenStore()
        for records in files.values():
            for record in records:
                store.append(tokenised(record["messages"], chat, max_length))
                bar.update()
    return store


def token_lengths(examples: Sequence[Example]) -> Sequence[int]:
    """The tokens of each example."""
    if isinstance(examples, TokenStore):
        return examples.lengths
    return [len(example["input_ids"]) for example in examples]


def supervised_counts(examples: Sequence[Example]) -> Sequence[int]:
    """What `supervised_tokens` counts, of each example."""
    if isinstance(examples, TokenStore):
        return examples.supervised
    return [int((example["labels"][1:] != IGNORED_LABEL).sum()) for example in examples]


def supervised_tokens(examples: Sequence[Example]) -> int:
    """Tokens that the loss is taken over: labels with a token before them to predict them from."""
    return sum(supervised_counts(examples))


def digest(examples: Sequence[Example]) -> str:
    """Changes when a token or a label of `examples` does."""
    found = hashlib.sha256()
    for example in examples:
        for name in ("input_ids", "labels"):
            found.update(len(example[name]).to_bytes(8, "little"))
            found.update(example[name].numpy().tobytes())
    return found.hexdigest()


def cut_answers(examples: Sequence[Example]) -> tuple[int, int]:
    """How many of `examples` truncation left with part of their answer, and how many with none."""
    if isinstance(examples, TokenStore):
        lost: Sequence[int] = examples.lost
    else:
        lost = [int(example.get("lost", 0)) for example in examples]
    left = [count for count, gone in zip(supervised_counts(examples), lost, strict=True) if gone]
    return len(left) - left.count(0), left.count(0)


def micro_batches(
    examples: Sequence[Example], max_tokens: int, max_samples: int | None = None
) -> Iterator[Sequence[Example]]:
    """Cut `examples` into groups of about one length, longest first.

    Args:
        examples: any number, in any order; groups of a `TokenStore` are views of it.
        max_tokens: of a group; an example that alone is longer is a group of its own.
        max_samples: of a group; None for no bound.
    """
    for places in micro_batch_places(token_lengths(examples), max_tokens, max_samples):
        yield taken(examples, places)


def micro_batch_places(
    lengths: Sequence[int], max_tokens: int, max_samples: int | None = None
) -> Iterator[list[int]]:
    """The places of the examples of each of the `micro_batches`, from the tokens of each."""
    group: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if group and (tokens + lengths[place] > max_tokens or len(group) == max_samples):
            yield group
            group, tokens = [], 0
        group.append(place)
        tokens += lengths[place]
    if group:
        yield group


def taken(examples: Sequence[Example], places: Sequence[int]) -> Sequence[Example]:
    """The examples at these places; of a `TokenStore` a view of it."""
    if isinstance(examples, TokenStore):
        return examples.take(places)
    return [examples[place] for place in places]


def computed_tokens(group: Sequence[Example], packed: bool) -> int:
    """Tokens that a micro-batch costs: its own, or padded each to the longest."""
    lengths = token_lengths(group)
    return sum(lengths) if packed else len(lengths) * max(lengths)


def pack_row(examples: Sequence[Example]) -> Batch:
    """All examples in one row without padding; positions restart at each.

    input_ids, position_ids: `(1, tokens)`. boundaries: `(examples + 1,)`.
    logit_positions: `(supervised,)`, the positions whose output predicts a supervised token.
    targets: `(supervised,)`, those tokens.

        input_ids        a b c d | e f g     boundaries  0 4 7
        position_ids     0 1 2 3 | 0 1 2     supervised are c, d, g:
        logit_positions    1 2       5       targets     c d g
    """
    lengths = [len(example["input_ids"]) for example in examples]
    labels = torch.cat([example["labels"] for example in examples])
    positions = torch.cat([torch.arange(length) for length in lengths])
    supervised = ((labels != IGNORED_LABEL) & (positions > 0)).nonzero().squeeze(1)
    return {
        "input_ids": torch.cat([example["input_ids"] for example in examples])[None],
        "position_ids": positions[None],
        "boundaries": torch.tensor([0, *lengths]).cumsum(0).int(),
        "logit_positions": supervised - 1,
        "targets": labels[supervised],
    }


def pad_rows(examples: Sequence[Example], pad_id: int) -> Batch:
    """One row per example, `(batch, tokens)`, padded on the right: the published way.

    For architectures that can't tell the samples of a packed row apart, and as a test's oracle.
    """
    pad = torch.nn.utils.rnn.pad_sequence
    input_ids = [example["input_ids"] for example in examples]
    labels = [example["labels"] for example in examples]
    return {
        "input_ids": pad(input_ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad([torch.ones_like(ids) for ids in input_ids], batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=IGNORED_LABEL),
    }
