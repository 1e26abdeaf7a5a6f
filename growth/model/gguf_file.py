"""GGUF files of strangers: read within their bounds."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFReader

from growth.core.errors import InputError
from growth.core.files import LFS_ADVICE, is_lfs_pointer


class _BoundedReader(GGUFReader):
    """Ends where the file does.

    Beyond it, the library finds nothing any number of times: a file of 60 bytes that announces an
    array of 2^60 numbers never ends.
    """

    def _get(
        self, offset: int, dtype: npt.DTypeLike, count: int = 1, override_order: Any = None
    ) -> npt.NDArray[Any]:
        start = int(offset)
        end = start + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it ends before byte {start:,}, which something in it points to")
        # as the library, but for a plain array, of which a slice costs half as much
        found = np.asarray(self.data)[start:end].view(dtype)
        return found.view(found.dtype.newbyteorder(override_order or self.byte_order))


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """transformers takes what `read_gguf` has read, instead of reading the file for itself.

    It does so for a config and for weights; with a vocabulary of 262,144 each time takes 12 s.
    """

    def reader(path: str | os.PathLike[str]) -> GGUFReader:
        return read_gguf(Path(path))

    library = gguf.GGUFReader
    gguf.GGUFReader = reader  # type: ignore[misc, assignment] # which it imports when it reads
    try:
        yield
    finally:
        gguf.GGUFReader = library  # type: ignore[misc]


def read_gguf(path: Path) -> GGUFReader:
    """The fields and tensors of a GGUF file, which are read from it once.

    Raises:
        InputError: it is no GGUF file, or a damaged one.
    """
    about = path.stat()
    return _read(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path: Path, size: int, modified: int) -> GGUFReader:
    if is_lfs_pointer(path):
        raise InputError(f"{path}: {LFS_ADVICE}")
    try:
        with np.errstate(all="ignore"):  # sizes that overflow are refused all the same
            return _BoundedReader(path)
    # What the library raises on bytes it did not expect, UnicodeDecodeError among them.
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: no GGUF file, or a damaged one ({reason}); fetch it again"
        ) from None
