"""Files that are there whole or not at all."""

import contextlib
import errno
import filecmp
import functools
import glob
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import xxhash

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
_ROOM = 2**20  # bytes; a disk that has less left is full
LONGEST_NAME = 255  # bytes; what Linux's and macOS's file systems allow
_LONGEST_STEM = 180  # bytes; leaves room for what tells temporary files apart
_DEEPEST = 100  # levels of nested JSON; Python's own limit depends on who calls
# a string, closed or not so that no text is looked through twice, or a bracket
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` to write a file or folder to; it replaces `path` at the end.

    Nothing is left, and what was at `path` stays, if the block raises (a full disk, say). A folder
    that already stands at `path` is removed only once the new one is in its place; one with the
    same files stays as it is, so that who reads it meanwhile is not disturbed. All is on the disk
    (fsync) when the block has ended. No two processes share a temporary path: of two that write the
    same file the last one wins. What a killed process left behind is removed the next time; if that
    includes the only copy of what was at `path`, it is put back. A link stays, and what it points
    to is replaced.

    Raises:
        InputError: a device, FIFO or socket is at `path`, which would be one no more; or a folder,
            and a file was written.
    """
    is_file(path, or_folder=True)
    path = path.resolve() if path.is_symlink() else path
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
    except OSError as error:
        # In messages, the file that was to be written: nobody else knows the temporary one.
        if isinstance(error.filename, str) and error.filename.startswith(str(temporary)):
            error.filename = str(path) + error.filename.removeprefix(str(temporary))
        raise
    finally:
        _put_back(outgoing, path)  # in any case first: it may be the only one there is
        _remove(outgoing)
        _remove(temporary)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn the errors of writing `path`, or files in it, into an OSError that names it.

    safetensors, tokenizers, torch and the system itself leave out where the disk was full.

    Raises:
        OSError: for theirs.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:  # tokenizers raises this very class; what is not the disk's goes on
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
    try:
        found = [
            sorted(p.relative_to(folder) for p in folder.rglob("*") if not p.is_dir())
            for folder in (one, other)
        ]
        return found[0] == found[1] and all(
            filecmp.cmp(one / name, other / name, shallow=False) for name in found[0]
        )
    except FileNotFoundError:  # another process replaces it at this moment
        return False


def _replace(temporary: Path, path: Path, outgoing: Path) -> None:
    """Move `temporary` to `path`; a folder that is there goes to `outgoing` first."""
    if not temporary.is_dir():
        is_file(path)
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


def short_name(name: str) -> str:
    """`name`, or its beginning and a checksum where it leaves no room for a suffix."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_STEM:
        return name
    beginning = encoded[:_LONGEST_STEM].decode(errors="ignore")
    return f"{beginning}~{zlib.crc32(encoded):08x}"


def hidden_name(path: Path) -> str:
    """What the names of files that belong to `path`, beside it, begin with; never too long."""
    return f".{short_name(path.name)}"


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
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def json_line(value: Any) -> str:
    """One value as a line of JSON Lines, with its line end."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line, each as it comes."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(map(json_line, values))
        file.flush()
        os.fsync(file.fileno())


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes; what would hang or is none is refused.

    Raises:
        InputError: it is missing, or a folder, FIFO, device or socket.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such file")
    return open(path, "rb")


def is_file(path: Path, *, or_folder: bool = False) -> bool:
    """Whether there is anything at `path`; if so, it is a file.

    Args:
        path: of a file; links are followed.
        or_folder: whether a folder will do.

    Raises:
        InputError: it is a folder, FIFO, device or socket, which would hang who reads it, or be
            replaced by who writes.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name that none can have
        return False
    if stat.S_ISREG(mode) or (or_folder and stat.S_ISDIR(mode)):
        return True
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
    kind = kinds.get(stat.S_IFMT(mode), "device")
    raise InputError(f"{path}: is a {kind}; expected a file. Move it elsewhere, or rename it")


def parse_json(text: str, *, finite: bool = True) -> Any:
    """One JSON value that any JSON file can hold again.

    Args:
        text: JSON.
        finite: whether NaN and numbers beyond a float's range are refused, as JSON has none.

    Raises:
        ValueError: malformed, nested deeper than 100 levels, or with half a surrogate pair,
            wherever it is.
    """
    if text.count("[") + text.count("{") > _DEEPEST and _depth(text) > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    checks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite}
    try:
        value = json.loads(text, **(checks if finite else {}))
    except json.JSONDecodeError as error:
        raise ValueError(f"malformed JSON ({_fault(error)})") from None
    if "\\u" in text:  # only an escape can hold what UTF-8 can't
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            message = "a text holds half a surrogate pair, which no UTF-8 file can"
            raise ValueError(message) from None
    return value


def _fault(error: json.JSONDecodeError) -> str:
    """What is wrong with a text; of one that was cut, where it ends."""
    text = error.doc.rstrip()
    if not text:
        return "empty"
    if error.pos < len(text) and not error.msg.startswith("Unterminated string"):
        return str(error)
    line = text.count("\n") + 1
    at = f"line {line}, column" if line > 1 else "column"
    return f"ends early, at {at} {len(text) - text.rfind(chr(10)) - 1}"


def _depth(text: str) -> int:
    """How deep the brackets of `text` outside of strings are nested."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        if found[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in "]}":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A number as `json` reads it, but for those that no JSON file can hold when written again."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def read_json(path: Path, *, remedy: str = "make it anew", finite: bool = False) -> Any:
    """Read a JSON file, of ours or of a model's folder.

    Args:
        path: of the file.
        remedy: what to do where it can't be read.
        finite: as of `parse_json` (Mamba's published config.json holds an Infinity).

    Raises:
        InputError: the file is missing or no file, too large, not UTF-8 or not JSON.
    """
    with open_file(path) as file:
        data = file.read(_LARGEST_JSON + 1)
    if len(data) > _LARGEST_JSON:
        raise InputError(
            f"{path}: expected a JSON file of at most {_LARGEST_JSON:,} bytes; {remedy}"
        )
    if data.startswith(_LFS_POINTER):
        raise InputError(f"{path}: {LFS_ADVICE}")
    try:
        return parse_json(data.decode("utf-8"), finite=finite)
    except ValueError as error:  # UnicodeDecodeError is one
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


def content_digest(path: Path) -> str:
    """A digest of a file's bytes that keeps up with the disk (XXH3, 128 bits), in hex.

    It tells apart what time and chance make of a file, not what somebody forges. A file that has
    not changed since this process read it is not read again.

    Raises:
        InputError: as `open_file`.
    """
    with open_file(path) as file:
        about = os.fstat(file.fileno())
    place = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    return _content_digest(path, place)


@functools.lru_cache(maxsize=4096)
def _content_digest(path: Path, _: tuple[int, ...]) -> str:
    found, buffer = xxhash.xxh3_128(), memoryview(bytearray(1 << 20))
    with open_file(path) as file:
        while count := file.readinto(buffer):
            found.update(buffer[:count])
    return found.hexdigest()


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
