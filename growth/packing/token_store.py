"""Tokenised lines outside of Python's memory, each made a tensor when it is asked for."""

import copy
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import torch

from growth.core.errors import InputError
from growth.model.chat_tokenizer import IGNORED_LABEL

# input_ids (tokens,), labels (tokens,); lost (), supervised tokens that truncation took
Example = dict[str, torch.Tensor]
_IN_MEMORY = 64 * 2**20  # bytes; longer data goes to a temporary file


class TokenStore(Sequence[Example]):
    """Examples in a temporary file: 4 bytes and a bit a token there, 20 bytes an example here.

    A file that is read, rather than mapped, adds nothing to the memory of the process. Slices and
    `take` give views of the same file. Small data stays in memory.

    Attributes:
        lengths: tokens of each example.
        supervised: labels of each example that the loss is taken over.
        lost: supervised tokens of each that truncation took.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.lengths, self.supervised, self.lost = array("i"), array("i"), array("i")
        self._offsets = array("q")
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._end = 0
        for example in examples:
            self.append(example)

    def append(self, example: Example) -> None:
        """Add an example, whose labels are its tokens or IGNORED_LABEL.

        Raises:
            InputError: there is no room for the temporary file.
        """
        ids, labels = example["input_ids"].numpy(), example["labels"].numpy()
        mask = labels != IGNORED_LABEL
        assert np.array_equal(ids[mask], labels[mask])
        data = ids.astype(np.int32).tobytes() + np.packbits(mask).tobytes()
        try:
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: {error.strerror}; tokens of long data are kept there. "
                "Make room, or set TMPDIR to a folder with room"
            ) from None
        self._offsets.append(self._end)
        self._end += len(data)
        self.lengths.append(len(ids))
        self.supervised.append(int(mask[1:].sum()))
        self.lost.append(int(example.get("lost", 0)))

    def take(self, places: Iterable[int]) -> "TokenStore":
        """A view of the examples at these places, in this order."""
        chosen = list(places)
        view = copy.copy(self)
        for name in ("lengths", "supervised", "lost", "_offsets"):
            column = getattr(self, name)
            setattr(view, name, array(column.typecode, map(column.__getitem__, chosen)))
        return view

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> "TokenStore": ...
    def __getitem__(self, place: int | slice) -> "Example | TokenStore":
        if isinstance(place, slice):
            return self.take(range(len(self))[place])
        length = self.lengths[place]
        self._file.seek(self._offsets[place])
        data = self._file.read(4 * length + (length + 7) // 8)
        ids = torch.from_numpy(np.frombuffer(data, np.int32, length).astype(np.int64))
        bits = np.frombuffer(data, np.uint8, offset=4 * length)
        mask = torch.from_numpy(np.unpackbits(bits, count=length).astype(bool))
        return {
            "input_ids": ids,
            "labels": ids.masked_fill(~mask, IGNORED_LABEL),
            "lost": torch.tensor(self.lost[place]),
        }
