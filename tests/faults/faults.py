"""What can go wrong in a process: at a file operation of its choice, or with its disk."""

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILL, INTERRUPT, IO_ERROR, DISK_FULL = "kill", "interrupt", "I/O error", "disk full"
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_REMOUNT, _MS_PRIVATE_REC = 32, 0x44000
PAGE = 4096


def at_operation(number: int, fault: str) -> Callable[[], None]:
    """Let the `number`-th file operation of the process fail in its way (see `watch`).

    A full disk stays full from then on; everything else happens once.
    """

    def act(count: int) -> None:
        if count == number and fault == KILL:
            os.kill(_MAIN[0], signal.SIGKILL)
        elif count == number and fault == INTERRUPT:
            os.kill(_MAIN[0], signal.SIGINT)
        elif count == number and fault == IO_ERROR:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        elif count >= number and fault == DISK_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: watch(act)


_MAIN = [0]  # the process of the stage, whose workers are watched too


def watch(act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, ... before each file operation below the current folder, from now on.

    Those are the ones Python knows of (opening to write, renaming, removing, making folders,
    fsync); what safetensors and torch write on their own lies between them. With a full disk only
    what needs room is one.
    """
    folder, count = os.getcwd(), 0
    _MAIN[0] = os.getpid()

    def operation() -> None:
        nonlocal count
        count += 1
        act(count)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & _WRITING
        else:
            writes = event in _EVENTS
        if writes and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(args[0]))
            if path.startswith(f"{folder}{os.sep}"):
                operation()

    fsync = os.fsync

    def watched_fsync(descriptor: int) -> None:
        operation()
        fsync(descriptor)

    os.fsync = watched_fsync
    sys.addaudithook(hook)


def count_operations(file: Path) -> None:
    """Keep the number of the process's file operations in `file`."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    watch(lambda count: os.pwrite(descriptor, str(count).encode(), 0))


def pages(folder: Path) -> int:
    """Pages of a tmpfs that hold what is in `folder`."""
    return sum(
        1 + (0 if path.is_dir() else -(-path.stat().st_size // PAGE)) for path in folder.rglob("*")
    )


def own_mounts() -> None:
    """Give this process, which has one thread, mounts of its own.

    Raises:
        OSError: the system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    libc = _libc()
    if user == 0:
        _call(libc.unshare, _CLONE_NEWNS)
    else:
        _call(libc.unshare, _CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call(libc.mount, b"none", b"/", None, _MS_PRIVATE_REC, None)


def mount_small(folder: Path, size: int) -> None:
    """Mount a tmpfs of `size` pages."""
    options = f"size={size * PAGE}".encode()
    _call(_libc().mount, b"faults", os.fsencode(folder), b"tmpfs", 0, options)


def enlarge(folder: Path) -> None:
    """Make room on a tmpfs."""
    _call(_libc().mount, b"faults", os.fsencode(folder), b"tmpfs", _MS_REMOUNT, b"size=64m")


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def cut(path: Path, how: str) -> None:
    """Cut a file off: "empty", "half", or without its last "line" (byte, if it has no lines)."""
    content = path.read_bytes()
    if how == "line" and b"\n" in content[:-1]:
        size = content[:-1].rindex(b"\n") + 1
    else:
        size = {"empty": 0, "half": len(content) // 2, "line": max(0, len(content) - 1)}[how]
    os.truncate(path, size)


def copy_tree(source: Path, target: Path) -> None:
    """Copy the files of a study, into a folder that may be there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(source, target, dirs_exist_ok=True)
