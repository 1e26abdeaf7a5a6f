"""Folders that one launch at a time works in; the kernel releases a lock when its process dies."""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import hidden_name, tidy

logger = logging.getLogger(__name__)
_INTRODUCTION = 2  # seconds that the owner of a lock may take to write its name
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_held: set[int] = set()  # descriptors of the locks that this process holds


class LockedError(InputError):
    """Another process holds the lock."""


def _leave_to_parent() -> None:
    """Close the parent's locks in a process that it forked: they end with the parent alone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def lock_path(folder: Path) -> Path:
    """The file that stands for the lock of `folder`, beside it."""
    folder = folder.resolve()
    return folder.with_name(f"{hidden_name(folder)}.lock")


@contextlib.contextmanager
def locked(folder: Path, flag: str, wait: bool = False, *, make: bool = False) -> Iterator[None]:
    """Keep other launches out of `folder`, which need not exist yet, while the block runs.

    Whoever dies leaves a file that no process locks: the next one takes it over, and puts in order
    what it finds half replaced (`growth.core.files.tidy`). A folder that is there is locked itself,
    too, where the file system can, so that removing that file lets nobody in.

    Args:
        folder: to be written to; a file serves as well.
        flag: where it came from, for the message.
        wait: for the other process to end.
        make: the folder, so that it can be locked; one that is still empty goes at the end.

    Raises:
        LockedError: another process works in it, which the message names (unless `wait`).
        InputError: the file system has no locks (some network mounts).
    """
    path = lock_path(folder)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, f"{flag} {folder}", wait)
    _held.add(descriptor)
    of_folder: int | None = None
    try:
        tidy(folder.resolve())  # where what replaces it is put together
        if make and not folder.exists():
            made.insert(0, folder)
            folder.resolve().mkdir(exist_ok=True)
        of_folder = _lock_folder(folder, f"{flag} {folder}", wait)
        yield
    finally:
        if _is_still(path, descriptor):  # not one that was made after this one was removed
            path.unlink(missing_ok=True)  # before it is released: nobody holds it yet
        _release(descriptor)
        if of_folder is not None:
            _release(of_folder)
        with contextlib.suppress(OSError):  # something was written there, or is by others
            for parent in made:
                parent.rmdir()


def _lock_folder(folder: Path, what: str, wait: bool) -> int | None:
    """The descriptor of a locked folder; None for a file, and where folders can't be locked (NFS).

    Whoever holds it has lost the file that says who it is.
    """
    if not folder.is_dir():
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise LockedError(
            f"{what}: another process, whose lock file {lock_path(folder).name} was removed, is at "
            "work in it; wait until it has ended (--wait does that), or choose another folder"
        ) from None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EBADF, errno.EINVAL, *_NO_LOCKS):
            raise
        return None
    _held.add(descriptor)
    return descriptor


def _release(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def locked_for_launch(
    folder: Path, flag: str, wait: bool = False, *, make: bool = False
) -> contextlib.AbstractContextManager[None]:
    """As `locked`; the main process holds the lock for all processes of the launch."""
    if distributed_state().is_main_process:
        return locked(folder, flag, wait, make=make)
    return contextlib.nullcontext()


def _acquire(path: Path, what: str, wait: bool) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, what, wait)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(path, descriptor):
            with contextlib.suppress(OSError):  # a full disk; it is locked all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _owner().encode(), 0)
            return descriptor
        os.close(descriptor)  # its owner ended and removed it in between


def _lock(descriptor: int, what: str, wait: bool) -> None:
    """Lock an open file, or say who has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise InputError(
            f"{what}: its file system has no locks ({error.strerror}), without which two launches "
            "could mix there; mount it with locks (Lustre: -o flock), or choose a folder on another"
        ) from None
    owner = _owner_of(descriptor)
    if not wait:
        raise LockedError(
            f"{what}: {owner} is at work in it; wait until it has ended (--wait does that), or "
            "choose another folder"
        )
    logger.warning("%s: waits for %s", what, owner)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner() -> str:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _owner_of(descriptor: int) -> str:
    """Who holds a lock, in words."""
    deadline = time.monotonic() + _INTRODUCTION
    while True:
        try:
            about = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {about['pid']} on {about['host']}, since {about['since']},"
        except (ValueError, KeyError, TypeError):
            if time.monotonic() > deadline:
                return "another process"
            time.sleep(0.02)
