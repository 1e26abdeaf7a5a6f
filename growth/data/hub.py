"""DoIT, CMMLU and AGIEval from a dataset hub: fetched, counted, and only then put in place.

Downloads go through the cache of huggingface_hub (HF_HOME), which keeps every finished file, so an
interrupted download goes on where it stopped. Only data files are asked for, and nothing from a
repository is executed. A dataset that does not have the published counts is not put in place.
"""

import contextlib
import csv
import filecmp
import json
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from growth.core.errors import InputError
from growth.core.files import replacing
from growth.data.abilities import ABILITY_NAMES

# The files of a dataset: name below its destination -> where the bytes are.
Files = dict[str, Path]
DATA_FILES = ("*.json", "*.jsonl", "*.csv", "*.zip")
HUB_TIMEOUT = 15  # seconds for the hub's first answer; the library's own default waits for minutes
UNPACKED_LIMIT = 2**30  # bytes; the one archive known (CMMLU's) unpacks to less than 10 MB
# Published counts: the cards of the three datasets.
DOIT_FULL = {
    "reasoning": 12751,
    "math": 11501,
    "code": 4968,
    "understanding": 4885,
    "history": 1856,
    "chinese": 1434,
    "biology": 1041,
    "creative_writing": 1000,
    "ethics": 1000,
    "role_play": 1000,
}  # 41,436 lines in all
DOIT_THOUSAND = 1000
DOIT_EVALUATED = 100  # at least: history and chinese may hold a few more
DOIT_CEVAL_FILES, DOIT_CEVAL_LINES = 3, 40
DOIT_SYNTHETIC = 40960
CMMLU_SUBJECTS = 67
CMMLU_SHOTS = 5  # questions a subject in dev
CMMLU_QUESTIONS = 11582  # in test, all subjects together
# set: (lines, those with one right answer among four choices); 4,299 and 3,269 in all
AGIEVAL_SETS = {
    "logiqa-zh": (651, 651),
    "gaokao-chinese": (246, 246),
    "gaokao-geography": (199, 199),
    "gaokao-history": (235, 235),
    "gaokao-biology": (210, 210),
    "gaokao-chemistry": (207, 207),
    "gaokao-mathqa": (351, 344),
    "gaokao-physics": (200, 165),
    "jec-qa-kd": (1000, 479),
    "jec-qa-ca": (1000, 533),
}
AGIEVAL_SHOTS = "few_shot_prompts.csv"


@dataclass(frozen=True)
class Dataset:
    """One dataset: which files belong to it, what they must hold, how to get it by hand.

    `place` gives a file's name below the destination from its path in a repository (None: not of
    this dataset); `folders` are those that such names lie in. `problems` says what is wrong with
    a set of files, an empty list when nothing is.
    """

    name: str
    title: str
    repo_id: str
    folders: tuple[str, ...]
    place: Callable[[PurePosixPath], str | None]
    problems: Callable[[Files], list[str]]
    by_hand: str


def provide(dataset: Dataset, repo_id: str, destination: Path, force: bool = False) -> str:
    """Put `dataset` below `destination`, from the hub if it is not there already.

    Args:
        dataset: One of `DATASETS`.
        repo_id: The hub's dataset repository to fetch from.
        destination: The folder that gets the files.
        force: Fetch it even if it is there, and replace files that differ.

    Returns:
        What happened, in one line.

    Raises:
        InputError: the hub or the repository cannot be reached, the counts are not the published
            ones, or other files are in the way. Nothing was put in place then.
    """
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination}: a file where {dataset.title} needs a folder; move it")
    if not force and not dataset.problems(files_in_place(dataset, destination)):
        return f"{dataset.title}: already there, {destination} has the published counts"
    with tempfile.TemporaryDirectory() as unpacked:
        print(f"{dataset.title}: fetching {repo_id}", file=sys.stderr)
        snapshot = download(dataset, repo_id, destination)
        for archive in sorted(snapshot.rglob("*.zip")):
            unpack(archive, Path(unpacked) / archive.relative_to(snapshot))
        files = gather(dataset, (snapshot, Path(unpacked)))
        problems = dataset.problems(files)
        if problems:
            raise InputError(
                f"{dataset.title}: hub dataset {repo_id} does not hold what was published; nothing "
                f"was put in {destination}.\n  "
                + "\n  ".join(problems)
                + f"\nName another repository with --{dataset.name}_repo_id, or "
                + dataset.by_hand.format(destination=destination)
            )
        written = put_in_place(files, files_in_place(dataset, destination), destination, force)
    return f"{dataset.title}: {len(files)} files in {destination}, {written} of them new"


def download(dataset: Dataset, repo_id: str, destination: Path) -> Path:
    """Fetch the data files of a hub repository; those in the hub's cache are not fetched again.

    Returns:
        The folder in the cache that holds them, with the repository's layout.

    Raises:
        InputError: the hub cannot be reached, has no such repository or does not give access.
    """
    # Only here: the import takes a second, and a dataset that is there needs no hub.
    import httpx2  # what huggingface_hub speaks HTTP with; it lets these errors through
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    endpoint = constants.ENDPOINT
    by_hand = dataset.by_hand.format(destination=destination)
    other = f"name another repository with --{dataset.name}_repo_id, or {by_hand}"
    try:
        # Asked for apart from the files: an error here is the hub's own, not "not in the cache".
        commit = HfApi().dataset_info(repo_id, timeout=HUB_TIMEOUT).sha
        folder = snapshot_download(
            repo_id, repo_type="dataset", revision=commit, allow_patterns=list(DATA_FILES)
        )
    except HFValidationError as error:
        raise InputError(f"--{dataset.name}_repo_id {repo_id!r}: {error}") from None
    except GatedRepoError:
        raise InputError(
            f"hub dataset {repo_id} at {endpoint} is gated: accept its terms there and log in "
            f"(`hf auth login`, or HF_TOKEN), {other}"
        ) from None
    except PermissionError:
        raise
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the hub's
            raise InputError(f"{error} (the hub's cache is {constants.HF_HUB_CACHE})") from None
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
            raise InputError(
                f"hub dataset {repo_id}: {endpoint} has no such dataset, or not for you (HTTP "
                f"{error.response.status_code}): check the id, log in if it is private, {other}"
            ) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"no download of {repo_id} from {endpoint}: {reason}\n"
            "Run the same command again (it goes on with what is missing), set HF_ENDPOINT to a "
            f"mirror of the hub that can be reached, or {by_hand}"
        ) from None
    return Path(folder)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the data files of a zip below `folder`; other members are left out.

    Raises:
        InputError: not a zip, a member that points out of the folder or is a link, an encrypted
            member, or more than `UNPACKED_LIMIT` bytes. Nothing is unpacked then.
    """
    suffixes = {Path(pattern).suffix for pattern in DATA_FILES} - {".zip"}
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.is_dir()]
            for member in packed.infolist():
                name = member.filename.replace("\\", "/")
                parts = PurePosixPath(name).parts
                outside = not parts or name.startswith("/") or ".." in parts or ":" in parts[0]
                if outside or stat.S_ISLNK(member.external_attr >> 16):
                    raise InputError(
                        f"{archive}: refused, its member {member.filename!r} points out of the "
                        "archive's own folder. Do not use this repository"
                    )
            size = sum(member.file_size for member in members)
            if size > UNPACKED_LIMIT:
                raise InputError(
                    f"{archive}: refused, it unpacks to {size:,} bytes, "
                    f"more than the {UNPACKED_LIMIT:,} allowed"
                )
            for member in members:
                target = folder / member.filename.replace("\\", "/")
                if target.suffix in suffixes:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(packed.read(member))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{archive}: no zip that can be read ({error}); delete it and run again"
        ) from None


def gather(dataset: Dataset, folders: Iterable[Path]) -> Files:
    """Find the files of `dataset` below `folders`, however deep they lie.

    Raises:
        InputError: two different files claim one name.
    """
    files: Files = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            relative = PurePosixPath(path.relative_to(folder).as_posix())
            # macOS's zips carry a "._name" beside each name
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in relative.parts)
            name = None if hidden else dataset.place(relative)
            if name is None or not path.is_file():
                continue
            if name in files and not filecmp.cmp(files[name], path, shallow=False):
                raise InputError(f"two different files for {name}: {files[name]} and {path}")
            files.setdefault(name, path)
    return files


def files_in_place(dataset: Dataset, destination: Path) -> Files:
    """The files of `dataset` that are at their place below `destination`."""
    files: Files = {}
    for folder in dataset.folders:
        if not (destination / folder).is_dir():
            continue
        for path in sorted((destination / folder).iterdir()):
            name = str(PurePosixPath(folder, path.name))
            if path.is_file() and dataset.place(PurePosixPath(name)) == name:
                files[name] = path
    return files


def put_in_place(files: Files, present: Files, destination: Path, force: bool) -> int:
    """Copy `files` below `destination`: all of them or none; identical ones are left alone.

    Returns:
        How many files were written.

    Raises:
        InputError: a file of `present` differs (unless `force`), or is not of the dataset.
    """
    extra = sorted(present.keys() - files.keys())
    if extra:
        raise InputError(
            f"{destination / extra[0]}: not a file of the dataset, but it would be read as one; "
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


def count_lines(path: Path) -> int:
    """Lines that are not blank."""
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip())


def read_table(path: Path) -> list[list[str]]:
    """The rows of a CSV file, its header first, blank lines left out.

    Raises:
        InputError: not UTF-8, or not CSV.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); remove it") from None


def _doit_place(path: PurePosixPath) -> str | None:
    name, tail = path.name, "/".join(path.parts[-3:])
    for split in ("1000", "full", "valid", "test"):
        known = {f"{ability}_{split}.json" for ability in ABILITY_NAMES}
        ceval = split in ("valid", "test") and path.match("ceval_*.json")
        if tail == f"curated/{split}/{name}" and (name in known or ceval):
            return tail
    return tail if path.match("synthetic/40960/*.json") else None


def _doit_problems(files: Files) -> list[str]:
    lines = {name: count_lines(path) for name, path in files.items()}
    problems = []
    for ability in ABILITY_NAMES:
        for split, expected in (("1000", DOIT_THOUSAND), ("full", DOIT_FULL[ability])):
            name = f"curated/{split}/{ability}_{split}.json"
            if lines.get(name) != expected:
                problems.append(_mismatch(name, lines.get(name), "lines", f"{expected:,}"))
        for split in ("valid", "test"):
            name = f"curated/{split}/{ability}_{split}.json"
            if lines.get(name, 0) < DOIT_EVALUATED:
                expected = f"{DOIT_EVALUATED} or more"
                problems.append(_mismatch(name, lines.get(name), "lines", expected))
    for pattern, files_expected, lines_expected in (
        ("curated/test/ceval_*.json", DOIT_CEVAL_FILES, DOIT_CEVAL_LINES),
        ("synthetic/40960/*.json", 1, DOIT_SYNTHETIC),
    ):
        found = [name for name in sorted(lines) if PurePosixPath(name).match(pattern)]
        if len(found) != files_expected:
            problems.append(_mismatch(pattern, len(found), "files", f"{files_expected}"))
        problems += [
            _mismatch(name, lines[name], "lines", f"{lines_expected:,}")
            for name in found
            if lines[name] != lines_expected
        ]
    return problems


def _cmmlu_place(path: PurePosixPath) -> str | None:
    tail = path.parts[-2:]
    return "/".join(tail) if tail[0] in ("dev", "test") and path.suffix == ".csv" else None


def _cmmlu_problems(files: Files) -> list[str]:
    questions = {name: max(len(read_table(path)) - 1, 0) for name, path in files.items()}
    subjects = {
        split: {PurePosixPath(name).name for name in questions if name.startswith(f"{split}/")}
        for split in ("dev", "test")
    }
    problems = [
        _mismatch(f"{split}/*.csv", len(found), "files", f"{CMMLU_SUBJECTS}")
        for split, found in subjects.items()
        if len(found) != CMMLU_SUBJECTS
    ]
    for name in sorted(subjects["dev"] ^ subjects["test"]):
        split = "test" if name in subjects["dev"] else "dev"
        problems.append(f"{split}/{name}: missing, though the other folder has this subject")
    for name in sorted(subjects["dev"]):
        if questions[f"dev/{name}"] != CMMLU_SHOTS:
            found = questions[f"dev/{name}"]
            problems.append(_mismatch(f"dev/{name}", found, "questions", f"{CMMLU_SHOTS}"))
    total = sum(questions[f"test/{name}"] for name in subjects["test"])
    if total != CMMLU_QUESTIONS:
        expected = f"{CMMLU_QUESTIONS:,}"
        problems.append(_mismatch("test/*.csv together", total, "questions", expected))
    return problems


def _agieval_place(path: PurePosixPath) -> str | None:
    if path.name == AGIEVAL_SHOTS:
        return AGIEVAL_SHOTS
    if path.suffix == ".jsonl" and path.stem in AGIEVAL_SETS and "v1_1" not in path.parts:
        return f"v1/{path.name}"
    return None


def _agieval_problems(files: Files) -> list[str]:
    problems = []
    for set_name, expected in AGIEVAL_SETS.items():
        name = f"v1/{set_name}.jsonl"
        counts = _agieval_counts(files[name]) if name in files else (None, None)
        if counts[0] != expected[0]:
            problems.append(_mismatch(name, counts[0], "lines", f"{expected[0]:,}"))
        elif counts[1] != expected[1]:
            what = "items with one answer among four"
            problems.append(_mismatch(name, counts[1], what, f"{expected[1]:,}"))
    if AGIEVAL_SHOTS not in files:
        return [*problems, _mismatch(AGIEVAL_SHOTS, None, "", "")]
    header = [*read_table(files[AGIEVAL_SHOTS]), []][0]
    missing = [set_name for set_name in AGIEVAL_SETS if set_name not in header]
    if missing:
        problems.append(f"{AGIEVAL_SHOTS}: no column {', '.join(missing)}")
    return problems


def _agieval_counts(path: Path) -> tuple[int, int]:
    """Lines, and those with four options of which one is right."""
    lines = single = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line.decode("utf-8-sig"))
                # a label is a letter, several letters, or a list of letters
                single += len(item["options"]) == 4 and len(item["label"]) == 1
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}:{number}: not an AGIEval item ({error!r}); remove the file"
                ) from None
            lines += 1
    return lines, single


def _mismatch(name: str, found: int | None, what: str, expected: str) -> str:
    if found is None:
        return f"{name}: missing"
    return f"{name}: {found:,} {what}, expected {expected}"


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "doit",
            "DoIT",
            "ChiyuSONG/dynamics-of-instruction-tuning",
            (
                *(f"curated/{split}" for split in ("1000", "full", "valid", "test")),
                "synthetic/40960",
            ),
            _doit_place,
            _doit_problems,
            "get https://huggingface.co/datasets/ChiyuSONG/dynamics-of-instruction-tuning by hand "
            "and put its curated/ and synthetic/ in {destination}/",
        ),
        Dataset(
            "cmmlu",
            "CMMLU",
            "haonan-li/cmmlu",
            ("dev", "test"),
            _cmmlu_place,
            _cmmlu_problems,
            "get cmmlu_v1_0_1.zip of https://huggingface.co/datasets/haonan-li/cmmlu by hand (or "
            "data/ of https://github.com/haonan-li/CMMLU) and put its dev/ and test/ in "
            "{destination}/",
        ),
        Dataset(
            "agieval",
            "AGIEval",
            # A mirror: the official publication is the GitHub repository named below.
            "opencompass/agieval",
            ("v1", ""),
            _agieval_place,
            _agieval_problems,
            "get https://github.com/ruixiangcui/AGIEval by hand (the official publication) and put "
            "its data/v1 and data/few_shot_prompts.csv in {destination}/",
        ),
    )
}
