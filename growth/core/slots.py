"""The GPUs of this machine, shared out among its jobs: each is at most one job's at a time."""

import contextlib
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from growth.core.errors import InputError
from growth.core.locks import LockedError, locked

logger = logging.getLogger(__name__)
_POLL = 0.5  # seconds between two looks for a free GPU


def check_slots(gpus: Sequence[str], count: int, flag: str = "--gpus") -> None:
    """Check that `count` GPUs can be had at all.

    Raises:
        InputError: no GPU, one twice, a name that no file can have, or fewer than `count`.
    """
    named = ",".join(gpus)
    for gpu in gpus:
        if not gpu or "/" in gpu:
            raise InputError(
                f"{flag} {named}: {gpu!r} is no GPU; give their numbers by nvidia-smi -L, such as "
                "0,1"
            )
    if len(set(gpus)) < len(gpus):
        raise InputError(f"{flag} {named}: names a GPU twice; name each once")
    if not 1 <= count <= len(gpus):
        raise InputError(
            f"{flag} {named}: {len(gpus)} GPUs, and a job takes {count}; name as many at least"
        )


@contextlib.contextmanager
def gpu_slots(
    gpus: Sequence[str], count: int, folder: Path, flag: str = "--gpus"
) -> Iterator[list[str]]:
    """Hold `count` of `gpus` while the block runs, for CUDA_VISIBLE_DEVICES; waits until all are.

    The kernel frees those of a process that dies. Jobs are served one after the other, so that two
    that each take several never wait for one another with some in hand.

    Args:
        gpus: their ids, such as ["0", "1"].
        count: of those that the job takes.
        folder: holds the lock files, and is made; what shares it shares the GPUs. Those of other
            machines that see the same folder are told apart by the host's name.
        flag: where the ids came from, for messages.

    Yields:
        The ids, in the order of `gpus`.

    Raises:
        InputError: as `check_slots`, or the file system has no locks.
    """
    check_slots(gpus, count, flag)
    folder.mkdir(parents=True, exist_ok=True)  # and stays: jobs begin while others end
    with contextlib.ExitStack() as taken:
        with locked(folder / f"{socket.gethostname()}-queue", flag, wait=True):
            ids = _take(gpus, count, folder, flag, taken)
        yield ids


def _take(
    gpus: Sequence[str], count: int, folder: Path, flag: str, taken: contextlib.ExitStack
) -> list[str]:
    """Lock `count` of `gpus` as they become free; `taken` releases them."""
    ids: list[str] = []
    said = False
    while True:
        for gpu in gpus:
            if gpu in ids:
                continue
            with contextlib.suppress(LockedError):
                taken.enter_context(locked(folder / f"{socket.gethostname()}-gpu-{gpu}", flag))
                ids.append(gpu)
            if len(ids) == count:
                return [gpu for gpu in gpus if gpu in ids]
        if not said:
            logger.warning(
                "%s %s: waits for %s of them to become free", flag, ",".join(gpus), count - len(ids)
            )
            said = True
        time.sleep(_POLL)
