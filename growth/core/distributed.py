"""The processes of one launch (torchrun, accelerate launch, srun with their variables).

Outside a launch there is one process, and nothing here needs torch.distributed.
"""

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
# A rank may wait for another's longest answers, hours on a slow machine.
_TIMEOUT = datetime.timedelta(days=7)


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
    """Which of the launch's processes this is, by the launcher's own variables."""
    return DistributedState(
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
