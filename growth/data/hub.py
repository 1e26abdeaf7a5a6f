"""Published data sets from a hub: downloaded, compared with the manifest, only then put in place.

`huggingface_hub` downloads into its cache (HF_HOME), where finished files stay, so an interrupted
download resumes. Only data files are downloaded, and nothing from a repository is executed.
"""

import contextlib
import errno
import filecmp
import lzma
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from growth.core.errors import InputError
from growth.core.files import replacing
from growth.core.locks import locked
from growth.data.published import Dataset, Files

DATA_FILES = ("*.json", "*.jsonl", "*.csv", "*.zip")
HUB_TIMEOUT = 15  # seconds for the hub's first answer; the library's own default is none
# What zipfile and its decompressors raise of a zip that is cut off, damaged or encrypted.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error),
    *(IndexError, ValueError, NotImplementedError, RuntimeError, MemoryError),
)
ARCHIVE_LIMIT = 2**25  # bytes of a zip: its list of members alone takes memory and time
MEMBERS_LIMIT = 10_000
# What the system says to an impossible place in a zip, or name of a member.
_IMPOSSIBLE = (errno.EINVAL, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
UNPACKED_LIMIT = 2**30  # bytes; the one archive known (CMMLU's) unpacks to less than 10 MB


def provide(
    dataset: Dataset,
    repo_id: str,
    destination: Path,
    *,
    revision: str | None = None,
    force: bool = False,
    wait: bool = False,
) -> str:
    """Put `dataset` below `destination`, from the hub if it is not there already.

    Args:
        dataset: one of `growth.data.published.DATASETS`.
        repo_id: the hub's dataset repository.
        destination: the folder that gets the files.
        revision: a branch, tag or commit of the repository; None for its main branch.
        force: download it even if it is there, and replace files that differ.
        wait: where another process puts the same data set there, for it to end.

    Returns:
        What was done, in one line, with the commit that was downloaded.

    Raises:
        InputError: the hub or the repository can't be reached, the counts are not the published
            ones, or other files are in the way. Nothing was put in place then.
    """
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination}: a file where {dataset.title} needs a folder; move it")
    with locked(destination / dataset.name, f"folder of {dataset.title}", wait):
        return _provide(dataset, repo_id, destination, revision, force)


def _provide(
    dataset: Dataset, repo_id: str, destination: Path, revision: str | None, force: bool
) -> str:
    """`provide`, once nobody else does."""
    present = _files_in_place(dataset, destination)
    if not force and not dataset.problems(present):
        return f"{dataset.title}: already there, {destination} has the published counts"
    with tempfile.TemporaryDirectory() as unpacked:
        print(f"{dataset.title}: downloading {repo_id}", file=sys.stderr)
        snapshot = _download(dataset, repo_id, destination, revision)
        for archive in sorted(snapshot.rglob("*.zip")):
            _unpack(archive, Path(unpacked) / archive.relative_to(snapshot))
        files = _files_of(dataset, (snapshot, Path(unpacked)))
        problems = dataset.problems(files)
        if problems:
            raise InputError(
                f"{dataset.title}: hub dataset {repo_id} does not hold what was published; nothing "
                f"was put in {destination}.\n  "
                + "\n  ".join(problems)
                + f"\nDo one of these: {_remedy(dataset, destination)}"
            )
        for name in dataset.changed(files):
            print(
                f"warning: {name} of {repo_id} has the published number of lines but not the "
                "recorded sha256: it was changed since, so lines may differ from the study's",
                file=sys.stderr,
            )
        written = _put_in_place(files, present, destination, force)
    return (
        f"{dataset.title}: {len(files)} files in {destination}, {written} of them new, "
        f"from commit {snapshot.name}"
    )


def _remedy(dataset: Dataset, destination: Path) -> str:
    by_hand = dataset.by_hand.format(destination=destination)
    return f"name another repository with --{dataset.name}_repo_id, or {by_hand}"


def _download(dataset: Dataset, repo_id: str, destination: Path, revision: str | None) -> Path:
    """The folder of the hub's cache that holds a repository's data files; its name is the commit.

    Raises:
        InputError: the hub can't be reached, has no such repository or does not give access.
    """
    # Only here: the import takes a second, and a data set that is there needs no hub.
    import httpx2  # what huggingface_hub speaks HTTP with; it lets these errors through
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    hub, remedy = constants.ENDPOINT, _remedy(dataset, destination)
    try:
        # Looked up apart from the files: this has a timeout, and an error is the hub's own.
        commit = HfApi().dataset_info(repo_id, revision=revision, timeout=HUB_TIMEOUT).sha
        folder = snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=commit,
            allow_patterns=list(DATA_FILES),
            ignore_patterns=list(dataset.ignored),
        )
    except errors.HFValidationError as error:
        raise InputError(f"--{dataset.name}_repo_id {repo_id!r}: {error}") from None
    except errors.GatedRepoError:
        raise InputError(
            f"hub dataset {repo_id} at {hub} is gated: accept its terms there and log in "
            f"(`hf auth login`, or HF_TOKEN), {remedy}"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"--revision {revision}: hub dataset {repo_id} at {hub} has no such branch, tag or "
            "commit; leave --revision out for its main branch"
        ) from None
    except PermissionError:
        raise
    except ImportError as error:  # raised as the proxy of the environment is looked at
        raise InputError(
            f"no download of {repo_id} from {hub}: {error} (ALL_PROXY, HTTPS_PROXY or HTTP_PROXY "
            "names one). Install it, or name an HTTP proxy"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the hub's
            raise InputError(f"{error} (the hub's cache is {constants.HF_HUB_CACHE})") from None
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
        if status in (401, 403, 404):
            raise InputError(
                f"hub dataset {repo_id}: {hub} has no such dataset, or not for you (HTTP "
                f"{status}): check the id, log in if it is private, {remedy}"
            ) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"no download of {repo_id} from {hub}: {reason}\n"
            "Run the same command again (it resumes), set HF_ENDPOINT to a mirror of the hub that "
            f"can be reached, or {dataset.by_hand.format(destination=destination)}"
        ) from None
    return Path(folder)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the data files of a zip below `folder`; other members are left out.

    Raises:
        InputError: not a zip, a member that points out of the folder, an encrypted member, or
            larger than `ARCHIVE_LIMIT`, `MEMBERS_LIMIT` and `UNPACKED_LIMIT` say. `folder` may hold
            a part of a damaged one then.
    """
    packed_size = archive.stat().st_size
    if packed_size > ARCHIVE_LIMIT:
        raise InputError(
            f"{archive}: refused, a zip of {packed_size:,} bytes, more than the "
            f"{ARCHIVE_LIMIT:,} allowed"
        )
    try:
        with zipfile.ZipFile(archive) as packed:
            if len(packed.infolist()) > MEMBERS_LIMIT:
                raise InputError(
                    f"{archive}: refused, it has {len(packed.infolist()):,} members, more than the "
                    f"{MEMBERS_LIMIT:,} allowed"
                )
            for name in packed.namelist():
                parts = PurePosixPath(name.replace("\\", "/")).parts
                if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
                    raise InputError(
                        f"{archive}: refused, its member {name!r} points out of the archive's own "
                        "folder. Do not use this repository"
                    )
            size = sum(member.file_size for member in packed.infolist())
            if size > UNPACKED_LIMIT:
                raise InputError(
                    f"{archive}: refused, it unpacks to {size:,} bytes, "
                    f"more than the {UNPACKED_LIMIT:,} allowed"
                )
            # Links are written as plain files that hold their target's name.
            wanted = [n for n in packed.namelist() if n.endswith((".json", ".jsonl", ".csv"))]
            packed.extractall(folder, wanted)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _IMPOSSIBLE:
            raise
        raise InputError(
            f"{archive}: no zip that can be read ({type(error).__name__}: {error}); delete it and "
            "run again"
        ) from None


def _files_of(dataset: Dataset, folders: Iterable[Path]) -> Files:
    """The files of `dataset` below `folders`, however deep they lie.

    Raises:
        InputError: two different files claim one name.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            relative = PurePosixPath(path.relative_to(folder).as_posix())
            # macOS's zips hold a "._name" for each name.
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in relative.parts)
            name = None if hidden else dataset.destination(relative)
            if name is None or any(fnmatch(str(relative), pattern) for pattern in dataset.ignored):
                continue
            if name in files and not filecmp.cmp(files[name], path, shallow=False):
                raise InputError(f"two different files for {name}: {files[name]} and {path}")
            files.setdefault(name, path)
    return files


def _files_in_place(dataset: Dataset, destination: Path) -> Files:
    """The files of `dataset` that are at their place below `destination`."""
    return {
        str(part.folder / path.name): path
        for part in dataset.parts
        for path in sorted(destination.glob(part.pattern))
        if path.is_file() and not path.name.startswith(".")
    }


def _put_in_place(files: Files, present: Files, destination: Path, force: bool) -> int:
    """Copy `files` below `destination`: all of them or none; identical ones are left alone.

    Returns:
        How many files were written.

    Raises:
        InputError: a file of `present` differs (unless `force`), or is not of the data set.
    """
    extra = sorted(present.keys() - files.keys())
    if extra:
        raise InputError(
            f"{destination / extra[0]}: not a file of the data set, but it would be read as one; "
            "move it elsewhere and run again"
        )
    new = [
        name
        for name, path in files.items()
        if name not in present or not filecmp.cmp(path, present[name], shallow=False)
    ]
    different = [name for name in new if name in present]
    if different and not force:
        raise InputError(
            f"{destination / different[0]}: differs from the published file "
            f"({len(different)} such files); move it elsewhere, or replace it with --force"
        )
    with contextlib.ExitStack() as together:  # renamed only when all of them are written
        for name in new:
            shutil.copyfile(files[name], together.enter_context(replacing(destination / name)))
    return len(new)
