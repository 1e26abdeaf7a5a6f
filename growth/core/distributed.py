"""The processes of one launch (torchrun, accelerate launch, srun with their variables).

Outside a launch there is one process, and nothing here needs torch.distributed.
"""

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from growth.core.errors import InputError

T = TypeVar("T")
# A rank may wait for another's longest answers, hours on a slow machine.
_TIMEOUT = datetime.timedelta(days=7)
_PLACES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where the processes find each other


@dataclass(frozen=True)
class DistributedState:
    """`rank` of `world_size` processes; `local_rank` counts on this machine: its GPU."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that logs and writes what is shared."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Every `world_size`-th of `items`, beginning with this process's rank."""
        return items[self.rank :: self.world_size]

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, by rank, in each of them."""
        if self.world_size == 1:
            return [value]
        from torch import distributed

        self._join()
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.gather(None)

    def leave(self) -> None:
        """End the process group, last of all that a script does: it can't be started again."""
        if self.world_size > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()

    def _join(self) -> None:
        from torch import distributed

        if not distributed.is_initialized():
            # Objects are small and on the CPU: gloo, whatever the model computes on.
            distributed.init_process_group("gloo", timeout=_TIMEOUT)


def distributed_state() -> DistributedState:
    """Which of the launch's processes this is, by the launcher's own variables.

    Raises:
        InputError: they are no numbers, contradict each other, or one is missing.
    """
    for name in (*_PLACES, *_MEETING):
        if os.environ.get(name) == "":
            del os.environ[name]  # as good as unset; accelerate and torch read it as a number
    given = {name: os.environ[name] for name in _PLACES if name in os.environ}
    said = " ".join(f"{name}={value}" for name, value in given.items())
    remedy = "unset them for a single process, or start several with torchrun"
    if not all(value.isdecimal() and value.isascii() for value in given.values()):
        raise InputError(f"{said}: expected whole numbers in these variables; {remedy}")
    numbers = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}
    numbers |= {name: int(value) for name, value in given.items()}
    rank, local_rank, world_size = numbers.values()
    if not max(rank, local_rank) < world_size:
        raise InputError(f"{said}: expected ranks below the number of processes; {remedy}")
    missing = [name for name in _MEETING if name not in os.environ]
    if missing and ("RANK" in given or world_size > 1):
        raise InputError(f"{said} without {', '.join(missing)}: no whole launch; {remedy}")
    return DistributedState(rank, world_size, local_rank)
