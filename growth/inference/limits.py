"""How much is computed at once, and what happens where memory does not hold it."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.core.options import TOKENS_PER_BATCH, DecodingOptions
from growth.inference.kv_cache import bytes_per_token

T = TypeVar("T")

# For keys and values: of what the weights leave of a GPU (growing a buffer takes them twice), and
# of all that a machine has. Not of what is free just now: batches must be the same each time.
GPU_SHARE, CPU_SHARE = 0.4, 0.1


@dataclass(frozen=True)
class Limits:
    """How much is computed at once.

    Attributes:
        rows: answers generated at once.
        tokens: of prompts and answers whose keys and values are held.
        prefill_tokens: of prompts and choices laid end to end.
    """

    rows: int = DecodingOptions.batch_size
    tokens: int = 65536
    prefill_tokens: int = TOKENS_PER_BATCH

    @classmethod
    def of_device(cls, model: PreTrainedModel, rows: int, prefill_tokens: int) -> "Limits":
        """As many tokens as the memory of the model's device has room for."""
        if model.device.type == "cuda":
            total = torch.cuda.get_device_properties(model.device).total_memory
            room = GPU_SHARE * (total - model.get_memory_footprint())
        else:
            room = CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(rows, max(1, int(room / bytes_per_token(model))), prefill_tokens)

    def halved(self, unfinished: int) -> "Limits":
        """For `unfinished` rows that did not fit together."""
        return Limits(
            rows=-(-unfinished // 2),
            tokens=max(1, self.tokens // 2),
            prefill_tokens=max(1, self.prefill_tokens // 2),
        )


def within_memory(
    compute: Callable[[Limits], Iterator[T]],
    limits: Limits,
    under_way: Callable[[], Sequence[int]],
) -> Iterator[T]:
    """Everything that `compute` yields; out of memory, it begins again with half as much at once.

    Args:
        compute: yields what is not finished yet, however often it is called.
        limits: to begin with.
        under_way: the tokens of each row that is being computed, together with the others.

    Raises:
        InputError: memory does not hold a single row.
    """
    while True:
        try:
            yield from compute(limits)
            return
        except torch.OutOfMemoryError:
            rows = under_way()
            if len(rows) <= 1 or limits.tokens == limits.prefill_tokens == 1:
                raise InputError(
                    f"out of memory on one question of {max(rows, default=0):,} tokens; lower "
                    "--max_length, or take a larger device"
                ) from None
        # Out of the except block, whose traceback would keep the tensors alive.
        free_memory()
        limits = limits.halved(len(rows))


def free_memory() -> None:
    """Give back what no tensor holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
