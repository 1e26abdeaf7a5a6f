"""Files that are there whole or not at all."""

import contextlib
import errno
import filecmp
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from growth.core.errors import InputError

_COUNT = itertools.count()
# temporary files of a path: .<name>.<host>.<process>.<number>.tmp, and .old for what is replaced
_LEFTOVER = re.compile(r"\.([0-9a-f]{8})\.(\d+)\.\d+\.(?:tmp|old)")
_ROOM = 2**20  # bytes; a disk that has less left is full
_LONGEST_NAME = 200  # bytes, of the 255 that a name may have


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write a file or folder to; it replaces `path` at the end.

    Nothing is left, and what was at `path` stays, if the block raises (a full disk, say). A folder
    that already stands at `path` is removed only once the new one is in its place; one with the
    same files stays as it is, so that who reads it meanwhile is not disturbed. All is on the disk
    (fsync) when the block has ended. No two processes share a temporary path: of two that write the
    same file the last one wins. What a killed process left behind is removed the next time; if that
    includes the only copy of what was at `path`, it is put back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path)
    stem = f"{hidden_name(path)}.{_host()}.{os.getpid()}.{next(_COUNT)}"
    temporary, outgoing = path.with_name(f"{stem}.tmp"), path.with_name(f"{stem}.old")
    try:
        with write_errors(path):
            yield temporary
        if not _same_folders(temporary, path):
            sync(temporary)
            _replace(temporary, path, outgoing)
            sync_names(path.parent)
    finally:
        _put_back(outgoing, path)  # in any case first: it may be the only one there is
        _remove(outgoing)
        _remove(temporary)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn the errors of writing `path`, or files in it, into an OSError that names it.

    safetensors, torch and the system itself leave out where the disk was full.

    Raises:
        OSError: for theirs.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except (SafetensorError, RuntimeError) as error:
        number = _errno_of(error, path)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None


def _errno_of(error: Exception, path: Path) -> int | None:
    """The system's error behind one of safetensors or torch, None where it is another."""
    if code := re.search(r"\(os error (\d+)\)", str(error)):
        return int(code[1])
    if not re.search(r"PytorchStreamWriter|inline_container|iostream", str(error)):
        return None
    # torch does not say why it could not write
    return errno.ENOSPC if shutil.disk_usage(path.parent).free < _ROOM else errno.EIO


def hidden_name(path: Path) -> str:
    """What the names of files that belong to `path`, beside it, begin with; never too long."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{zlib.crc32(os.fsencode(name)):08x}"
    return f".{name}"


def sync(path: Path) -> None:
    """Have the system write a file, or a folder with all that is in it, to the disk.

    Raises:
        OSError: the disk failed.
    """
    if not path.is_dir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return
    for inner in path.iterdir():
        sync(inner)
    sync_names(path)


def sync_names(folder: Path) -> None:
    """Have the system write the names of the files in `folder` to the disk, where it can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def _same_folders(one: Path, other: Path) -> bool:
    """Whether two folders, if they are that, hold the same files."""
    if not one.is_dir() or not other.is_dir():
        return False
    found = [
        sorted(p.relative_to(folder) for p in folder.rglob("*") if not p.is_dir())
        for folder in (one, other)
    ]
    return found[0] == found[1] and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in found[0]
    )


def _replace(temporary: Path, path: Path, outgoing: Path) -> None:
    """Move `temporary` to `path`; a folder that is there goes to `outgoing` first."""
    while True:
        if temporary.is_dir() and path.exists():
            _remove(outgoing)
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                os.replace(path, outgoing)
        try:
            os.replace(temporary, path)
            return
        except OSError as error:
            # Another process has put its folder there in between.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _put_back(outgoing: Path, path: Path) -> None:
    """Return a folder that was to be replaced to its place, unless there is another now."""
    if outgoing.exists() and not path.exists():
        try:
            os.replace(outgoing, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                raise


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def tidy(path: Path) -> None:
    """Remove temporary files of `path` whose process is dead; of other machines nothing is known.

    What was moved away and never replaced goes back. Those without a process in their name are of
    versions that had one name for all.
    """
    prefix = hidden_name(path)
    left = [path.with_name(f"{prefix}{end}") for end in (".old", ".tmp")]
    for found in sorted(path.parent.glob(f"{glob.escape(prefix)}.*")):
        match = _LEFTOVER.fullmatch(found.name.removeprefix(prefix))
        if match and match[1] == _host() and not _is_alive(int(match[2])):
            left.append(found)
    for found in left:
        if found.suffix == ".old":
            _put_back(found, path)
    for found in left:
        _remove(found)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or gone in between
        return True
    # Killed, and its parent has not taken note: in a container nobody may ever.
    return not status.rpartition(")")[2].startswith(" Z")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # another process may be removing it
    else:
        path.unlink(missing_ok=True)


def check_writable(folder: Path, flag: str) -> None:
    """Find out before any work whether `folder`, existing or not, can be written to.

    Raises:
        InputError: it can't; `flag` says where the folder came from.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{flag} {folder}: {existing} is a file; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"{flag} {folder}: no permission to write in {existing}; choose another folder or "
            "change its rights"
        )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write one indented JSON value; NaN and infinity are refused, as JSON has none."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """One value as a line of JSON Lines, with its line end."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line."""
    write_text(path, "".join(map(json_line, values)))


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        InputError: the file is missing, not UTF-8 or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a JSON file ({error}); make it anew") from None


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
