"""Which samples an optimizer step holds, and which of them this process computes."""

import math
import random
from collections.abc import Container, Iterator, Sequence
from typing import cast

from torch.utils.data import DataLoader, Sampler


class StepSampler(Sampler[list[int]]):
    """A rank's share of the samples of each optimizer step.

    Which samples a step holds depends on seed and epoch alone, so that they are the same for any
    number of processes and after an interruption. The last step of an epoch holds what is left.
    Within a step the samples are dealt out by length, so that the work is about equal.
    """

    def __init__(
        self, lengths: Sequence[int], step_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.lengths, self.step_size, self.seed = lengths, step_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def first_step_within(self, samples: Container[int], epochs: int) -> tuple[int, int] | None:
        """The first (epoch, step), both from 1, all of whose samples are among `samples`."""
        whole = StepSampler(self.lengths, self.step_size, self.seed, 0, 1)
        for epoch in range(epochs):
            whole.epoch = epoch
            for step, held in enumerate(whole, start=1):
                if all(sample in samples for sample in held):
                    return epoch + 1, step
        return None

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.step_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}/epoch {self.epoch}").shuffle(order)
        for start in range(0, len(order), self.step_size):
            step = order[start : start + self.step_size]
            step.sort(key=lambda sample: self.lengths[sample], reverse=True)
            yield step[self.rank :: self.world_size]


class StepLoader(DataLoader):
    """Batches that are whole optimizer steps; the Trainer sets the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the samples (called by the Trainer as an epoch begins)."""
        cast(StepSampler, self.batch_sampler).epoch = epoch
