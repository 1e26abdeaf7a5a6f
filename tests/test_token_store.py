"""Tokenised lines in a file: the same tensors as in memory, and the memory that they take."""

import tracemalloc

import pytest
import torch
from test_batches import examples

from growth.core.errors import InputError
from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.packing import token_store
from growth.packing.batches import (
    cut_answers,
    digest,
    micro_batches,
    supervised_counts,
    supervised_tokens,
    token_lengths,
)
from growth.packing.token_store import TokenStore


def made(count, length=200, vocabulary=2**31 - 1):
    """Examples of one length, half of whose tokens are supervised, every third with some lost."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        ids = torch.randint(vocabulary, (length,), generator=generator)
        mask = torch.rand(length, generator=generator) < 0.5
        labels = ids.masked_fill(~mask, IGNORED_LABEL)
        lost = torch.tensor(number if number % 3 == 0 else 0)
        yield {"input_ids": ids, "labels": labels, "lost": lost}


def same(first, second):
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("in_memory", [1, 2**20])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 300])
def test_examples_come_back_as_they_were(monkeypatch, in_memory, length):
    monkeypatch.setattr(token_store, "_IN_MEMORY", in_memory)
    kept = list(made(12, length))
    store = TokenStore(kept)
    assert same(store, kept)
    assert store[3]["input_ids"].dtype == kept[3]["input_ids"].dtype
    assert same(store[2::3], kept[2::3])
    assert same(store[::-1][1:4].take([2, 0]), [kept[8], kept[10]])
    assert same([store[-1]], [kept[-1]])
    with pytest.raises(IndexError):
        store[12]
    for measure in (supervised_tokens, cut_answers, digest):
        assert measure(store) == measure(kept)
    for measure in (token_lengths, supervised_counts):
        assert list(measure(store)) == measure(kept)


def test_micro_batches_are_the_same_groups():
    kept = [e | {"lost": torch.tensor(0)} for e in examples()]
    for limits in ((20, None), (1000, 2), (13, 3)):
        ours, expected = (list(micro_batches(e, *limits)) for e in (TokenStore(kept), kept))
        assert len(ours) == len(expected)
        assert all(map(same, ours, expected))


def test_a_line_of_200_tokens_takes_less_than_a_kilobyte(monkeypatch):
    monkeypatch.setattr(token_store, "_IN_MEMORY", 1)
    tracemalloc.start()
    try:
        store = TokenStore(made(2000))
        held = tracemalloc.get_traced_memory()[0]
        total = sum(int(example["input_ids"][0]) > 0 for example in store)
        assert total
        assert tracemalloc.get_traced_memory()[0] < held + 100_000
    finally:
        tracemalloc.stop()
    assert held < 100 * len(store)  # in Python's memory
    assert store._file.seek(0, 2) < 1000 * len(store)  # in the file


def test_a_full_disk_is_named_with_the_remedy(monkeypatch):
    class Full:
        def seek(self, place):
            pass

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_store.tempfile, "SpooledTemporaryFile", lambda **_: Full())
    with pytest.raises(InputError, match=r"No space left on device.*TMPDIR"):
        TokenStore(made(1))
