"""Files that are there whole or not at all."""

import contextlib
import errno
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

from growth.core.errors import InputError

_COUNT = itertools.count()
# temporary files of a path: .<name>.<host>.<process>.<number>.tmp, and .old for what is replaced
_LEFTOVER = re.compile(r"\.([0-9a-f]{8})\.(\d+)\.\d+\.(?:tmp|old)")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write a file or folder to; it replaces `path` at the end.

    Nothing is left, and what was at `path` stays, if the block raises (a full disk, say). A folder
    that already stands at `path` is removed only once the new one is complete. No two processes
    share a temporary path: of two that write the same file the last one wins. What a killed process
    left behind is removed the next time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    stem = f".{path.name}.{_host()}.{os.getpid()}.{next(_COUNT)}"
    temporary, outgoing = path.with_name(f"{stem}.tmp"), path.with_name(f"{stem}.old")
    try:
        yield temporary
        _replace(temporary, path, outgoing)
    finally:
        _remove(temporary)
        _remove(outgoing)


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


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose process is dead; of other machines nothing is known.

    Those without a process in their name are of versions that had one name for all.
    """
    for name in (f".{path.name}.tmp", f".{path.name}.old"):
        _remove(path.with_name(name))
    prefix = f".{path.name}"
    for left in path.parent.glob(f"{glob.escape(prefix)}.*"):
        match = _LEFTOVER.fullmatch(left.name.removeprefix(prefix))
        if match and match[1] == _host() and not _is_alive(int(match[2])):
            _remove(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


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
        file.flush()
        os.fsync(file.fileno())


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
