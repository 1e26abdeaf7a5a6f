"""Folders that one launch at a time works in; the kernel releases a lock when its process dies."""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import hidden_name

logger = logging.getLogger(__name__)


def lock_path(folder: Path) -> Path:
    """The file that stands for the lock of `folder`, beside it."""
    folder = folder.resolve()
    return folder.with_name(f"{hidden_name(folder)}.lock")


@contextlib.contextmanager
def locked(folder: Path, flag: str) -> Iterator[None]:
    """Keep other launches out of `folder`, which need not exist yet, while the block runs.

    Whoever dies leaves a file that no process locks: the next one takes it over. Where the file
    system has no locks (some network mounts), this is logged and the block runs without.

    Args:
        folder: to be written to.
        flag: where it came from, for the message.

    Raises:
        InputError: another process works in it; the message names it.
    """
    path = lock_path(folder)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, f"{flag} {folder}")
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # before it is released: nobody holds it yet
            os.close(descriptor)
        with contextlib.suppress(OSError):  # something was written there, or is by others
            for parent in made:
                parent.rmdir()


def locked_for_launch(folder: Path, flag: str) -> contextlib.AbstractContextManager[None]:
    """As `locked`; the main process holds the lock for all processes of the launch."""
    if distributed_state().is_main_process:
        return locked(folder, flag)
    return contextlib.nullcontext()


def _acquire(path: Path, what: str) -> int | None:
    """The descriptor of the locked file; None where there are no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise InputError(
                f"{what}: {_described(owner)} is at work in it; wait until it has ended, or choose "
                "another folder"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            logger.warning("%s: no locks on this file system; keep other launches out", what)
            return None
        if _is_still(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _owner().encode(), 0)
            return descriptor
        os.close(descriptor)  # its owner ended and removed it in between


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner() -> str:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _described(owner: bytes) -> str:
    try:
        about = json.loads(owner)
        return f"process {about['pid']} on {about['host']}, since {about['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has not written its name yet
