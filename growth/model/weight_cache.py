"""What takes long to make of a model's files, kept ready to be mapped into memory.

    $GROWTH_CACHE, else $XDG_CACHE_HOME/growth, else ~/.cache/growth
        <key>/  config.json  model.safetensors ...  digests.json

A GGUF file is unpacked, and a LoRA adapter merged, once: the next start maps what came of it. The
key covers every byte of what it was made of and the libraries that made it. Nothing depends on the
cache: where it can't be written to, or an entry is damaged, all is made as if there were none.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from growth.core.errors import InputError
from growth.core.files import content_digest, read_object, replacing, tidy, write_json
from growth.core.locks import locked

logger = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")
FOLDER = "GROWTH_CACHE"  # empty: no cache
SIZE = "GROWTH_CACHE_GB"
_DEFAULT_SIZE = 40.0  # GB; two models of 7 billion parameters in 16 bits and some smaller ones
_DIGESTS = "digests.json"
_FORMAT = 1  # of the entries; another one makes all of them anew
_LIBRARIES = ("torch", "transformers", "peft", "gguf", "safetensors")


def cache_folder() -> Path | None:
    """Where entries are; None where the cache is off."""
    given = os.environ.get(FOLDER)
    if given is not None:
        return Path(given) if given else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "growth"
    except RuntimeError:  # a user without a home
        return None


def entry_of(*parts: object) -> Path | None:
    """The folder of what is made of `parts`, there or not; None where the cache is off."""
    folder = cache_folder()
    made_by = [_FORMAT, *(metadata.version(name) for name in _LIBRARIES)]
    key = hashlib.sha256(json.dumps([*map(str, parts), *made_by]).encode()).hexdigest()
    return None if folder is None else folder / key[:32]


def is_whole(entry: Path | None) -> bool:
    """Whether an entry is there, with the bytes that it was made with; one that is not goes."""
    # os.path, as the cache may be another user's, or its name too long
    if entry is None or not os.path.isdir(entry):
        return False
    try:
        digests = read_object(entry / _DIGESTS)
        if not digests:
            raise InputError(f"{entry / _DIGESTS}: names no file")
        for name, digest in digests.items():
            if content_digest(entry / name) != digest:
                raise InputError(f"{entry / name}: changed since it was made")
        with contextlib.suppress(OSError):  # of a cache that is read only
            os.utime(entry)  # used now
        return True
    except (InputError, OSError) as error:
        logger.warning("the cache of converted models: %s; it is made anew", error)
        shutil.rmtree(entry, ignore_errors=True)
        return False


def kept(entry: Path | None, load: Callable[[Path], Loaded]) -> Loaded | None:
    """What `load` makes of an entry; None where there is none, or where it fails.

    Another process may remove an entry at any moment, to make room. What fails on a whole one is
    told, and all is made as if there were none.
    """
    if entry is None or not is_whole(entry):
        return None
    try:
        return load(entry)
    except Exception as error:
        if is_whole(entry):
            logger.warning(
                "the cache of converted models: %s can't be loaded (%s: %s); it is done without. "
                "If that happens again, remove it",
                *(entry, type(error).__name__, error),
            )
        return None


def fill(entry: Path, write: Callable[[Path], None]) -> None:
    """Make an entry, and remove the ones used longest ago where all are too large together.

    Args:
        entry: of `entry_of`.
        write: writes its files to a folder.

    Raises:
        InputError: the variable that bounds the cache holds no number.
    """
    most = _most_bytes()
    try:
        with locked(entry, f"${FOLDER}", wait=True):
            if entry.is_dir():  # another process was faster
                return
            with replacing(entry) as temporary:
                temporary.mkdir()
                write(temporary)
                files = sorted(path for path in temporary.iterdir() if path.is_file())
                digests = {path.name: content_digest(path) for path in files}
                write_json(temporary / _DIGESTS, digests)
        _bound(entry, most)
    except (OSError, InputError) as error:
        logger.warning(
            "%s: no room for converted models there (%s): they are made at every start; set %s to "
            "another folder, or to nothing for no cache",
            *(entry.parent, error, FOLDER),
        )


def _most_bytes() -> float:
    given = os.environ.get(SIZE)
    try:
        return float(given or _DEFAULT_SIZE) * 1e9
    except ValueError:
        raise InputError(f"{SIZE}={given}: expected a number of gigabytes") from None


def _bound(newest: Path, most: float) -> None:
    """Remove entries, those used longest ago first, until the others fit into `most` bytes."""
    sizes, used = {}, {}
    for entry in newest.parent.iterdir():
        with contextlib.suppress(OSError):  # removed by another process
            if entry.name.startswith("."):  # being made, or left by a process that was killed
                tidy(entry.with_name(entry.name[1:].partition(".")[0]))
            elif (entry / _DIGESTS).is_file():
                sizes[entry] = sum(path.stat().st_size for path in entry.iterdir())
                used[entry] = entry.stat().st_mtime
    total = sum(sizes.values())
    for entry in sorted(sizes, key=used.__getitem__):
        if total > most and entry != newest:
            shutil.rmtree(entry, ignore_errors=True)
            total -= sizes[entry]
