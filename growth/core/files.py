"""Files that are there whole or not at all."""

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from growth.core.errors import InputError

Object = dict[str, Any]  # a JSON object
_LARGEST_JSON = 1 << 26  # bytes; a trainer_state.json of 100,000 steps has 30 million
_JSON_NAMES = {list: "a list", str: "a text", int: "a number", float: "a number"} | {
    bool: "true or false",
    type(None): "null",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_ADVICE = (
    "a pointer of Git LFS, not the file itself; run `git lfs pull` where it was cloned (git lfs "
    "install before the first time)"
)
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


def read_json(path: Path, *, remedy: str = "make it anew", finite: bool = False) -> Any:
    """Read a JSON file, of ours or of a model's folder.

    Args:
        path: of the file.
        remedy: what to do where it can't be read.
        finite: whether NaN and numbers beyond a float's range are refused; `json` itself reads them
            (and Mamba's published config.json holds an Infinity).

    Raises:
        InputError: the file is missing, too large, not UTF-8 or not JSON.
    """
    if not path.is_file():
        what = "no such file" if not path.exists() else "no regular file"
        raise InputError(f"{path}: {what}; {remedy}")
    size = path.stat().st_size
    if size > _LARGEST_JSON:
        raise InputError(
            f"{path}: {size:,} bytes; expected a JSON file of at most {_LARGEST_JSON:,}; {remedy}"
        )
    data = path.read_bytes()
    if data.startswith(_LFS_POINTER):
        raise InputError(f"{path}: {LFS_ADVICE}")
    options: dict[str, Any] = (
        {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    )
    try:
        value = json.loads(data.decode("utf-8"), **options)
        if b"\\u" in data:  # only an escape can hold what UTF-8 can't: half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON in UTF-8 ({error}); {remedy}") from None


def read_object(path: Path, *, remedy: str = "make it anew", finite: bool = False) -> Object:
    """Read a file that holds one JSON object; arguments as those of `read_json`.

    Raises:
        InputError: as `read_json`, or it holds something else.
    """
    value = read_json(path, remedy=remedy, finite=finite)
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: expected a JSON object, found {_JSON_NAMES[type(value)]}; {remedy}"
        )
    return value


def is_lfs_pointer(path: Path) -> bool:
    """Whether `path` holds the address of a file in Git LFS instead of the file."""
    with open(path, "rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
