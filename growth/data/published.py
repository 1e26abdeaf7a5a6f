"""What DoIT, CMMLU and AGIEval hold as published: a manifest of their files, counts and digests.

Source: the cards of the three data sets. `problems` compares files with it.
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath

from growth.core.errors import InputError
from growth.core.files import open_file, parse_json, sha256

# The files of a data set: path below its destination -> where the bytes are.
Files = Mapping[str, Path]

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
CMMLU_SHOTS = 5  # questions of each subject in dev
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
class Count:
    """A published number: of `unit` in each file, as `of` counts them, or in all files together."""

    unit: str
    of: Callable[[Path], int]
    each: int | None = None
    together: int | None = None
    or_more: bool = False

    def mismatch(self, name: str, number: int, expected: int | None) -> list[str]:
        """A line that says so where `number` is not what is `expected`; None expects nothing."""
        if expected is None or number == expected or (self.or_more and number > expected):
            return []
        more = " or more" if self.or_more else ""
        return [f"{name}: {number:,} {self.unit}, expected {expected:,}{more}"]


@dataclass(frozen=True)
class Part:
    """Files of a data set that are published alike.

    Attributes:
        pattern: their paths below the destination; `*` stands in names, not in folders.
        files: how many there are; None for any number.
        counts: what they hold.
        any_folder: a repository may keep them in any folder; otherwise in the folder of `pattern`,
            whatever lies above it.
        sha256: the digest of the one file, where it is known.
    """

    pattern: str
    files: int | None = 1
    counts: tuple[Count, ...] = ()
    any_folder: bool = False
    sha256: str | None = None

    @property
    def folder(self) -> PurePosixPath:
        """The files' folder below the destination."""
        return PurePosixPath(self.pattern).parent

    def destination(self, path: PurePosixPath) -> str | None:
        """Where a file at `path` in a repository belongs, or None where it is not of this part."""
        pattern = PurePosixPath(self.pattern)
        wanted = pattern.name if self.any_folder else self.pattern
        return str(self.folder / path.name) if path.match(wanted) else None

    def problems(self, files: Files) -> list[str]:
        """What is wrong with the files of this part among `files`, a line each."""
        own = {name: path for name, path in files.items() if fnmatch(name, self.pattern)}
        if self.files == 1 and not own:
            return [f"{self.pattern}: missing"]
        found = []
        if self.files is not None and len(own) != self.files:
            found.append(f"{self.pattern}: {len(own)} files, expected {self.files}")
        for count in self.counts:
            numbers = {name: count.of(path) for name, path in own.items()}
            for name, number in sorted(numbers.items()):
                found += count.mismatch(name, number, count.each)
            found += count.mismatch(
                f"{self.pattern} together", sum(numbers.values()), count.together
            )
        return found


@dataclass(frozen=True)
class Dataset:
    """One data set as published.

    Attributes:
        name: as flags call it; `title` is its name in messages.
        repo_id: the hub's dataset repository.
        parts: all its files.
        by_hand: how to get it without the hub, an imperative with a place for {destination}.
        paired: folders that hold files of the same names.
        ignored: patterns of paths in a repository that are not of this data set.
    """

    name: str
    title: str
    repo_id: str
    parts: tuple[Part, ...]
    by_hand: str
    paired: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def destination(self, path: PurePosixPath) -> str | None:
        """Where a file at `path` in a repository belongs, or None where it is not of the set."""
        places = (part.destination(path) for part in self.parts)
        return next((place for place in places if place is not None), None)

    def problems(self, files: Files) -> list[str]:
        """How `files` differ from what was published, a line each; empty where they do not.

        Raises:
            InputError: a file can't be read at all.
        """
        found = [problem for part in self.parts for problem in part.problems(files)]
        names = sorted({PurePosixPath(path).name for path in files})
        return found + [
            f"{folder}/{name}: missing, though the other folder has one"
            for folder in self.paired
            for name in names
            if f"{folder}/{name}" not in files
        ]

    def changed(self, files: Files) -> list[str]:
        """The files whose digest is known and another."""
        return [
            part.pattern
            for part in self.parts
            if part.sha256 and sha256(files[part.pattern]) != part.sha256
        ]


def count_lines(path: Path) -> int:
    """Lines that are not blank."""
    with open_file(path) as file:
        return sum(1 for line in file if line.strip())


def read_table(path: Path) -> list[list[str]]:
    """The rows of a CSV file, its header first, blank lines left out.

    Raises:
        InputError: not UTF-8, or not CSV.
    """
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); remove it") from None


def count_rows(path: Path) -> int:
    """Rows of a CSV file below its header."""
    return max(len(read_table(path)) - 1, 0)


def count_shot_columns(path: Path) -> int:
    """Columns of AGIEval's table of shots that are of the ten sets."""
    header = [*read_table(path), []][0]
    return len(AGIEVAL_SETS.keys() & set(header))


def count_single_answers(path: Path) -> int:
    """Items of an AGIEval set with four options of which one is right.

    Raises:
        InputError: a line is no item.
    """
    single = 0
    with open_file(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = parse_json(line.decode("utf-8-sig"))
                # A label is a letter, several letters, or a list of letters.
                single += len(item["options"]) == 4 and len(item["label"]) == 1
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path}:{number}: not an AGIEval item ({repr(error)[:200]}); remove the file"
                ) from None
    return single


_lines = partial(Count, "lines", count_lines)
_questions = partial(Count, "questions", count_rows)
_THOUSAND, _EVALUATED = (
    (_lines(1000),),
    (_lines(100, or_more=True),),
)  # history, chinese: a few more

DOIT = Dataset(
    "doit",
    "DoIT",
    "ChiyuSONG/dynamics-of-instruction-tuning",
    (
        *(
            Part(
                f"curated/1000/{ability}_1000.json",
                counts=_THOUSAND,
                # recorded by a third party who had the file
                sha256="9eed74db9e9fc758104739fa5f5133499606a50485ba11aa6caa01cf5adcec92"
                if ability == "creative_writing"
                else None,
            )
            for ability in DOIT_FULL
        ),
        *(
            Part(f"curated/full/{ability}_full.json", counts=(_lines(DOIT_FULL[ability]),))
            for ability in DOIT_FULL
        ),
        *(
            Part(f"curated/{split}/{ability}_{split}.json", counts=_EVALUATED)
            for ability in DOIT_FULL
            for split in ("valid", "test")
        ),
        Part("curated/valid/ceval_*.json", files=None),
        Part("curated/test/ceval_*.json", files=3, counts=(_lines(40),)),
        Part("synthetic/40960/*.json", counts=(_lines(40960),)),
    ),
    "get https://huggingface.co/datasets/ChiyuSONG/dynamics-of-instruction-tuning by hand and put "
    "its curated/ and synthetic/ in {destination}/",
)
CMMLU = Dataset(
    "cmmlu",
    "CMMLU",
    "haonan-li/cmmlu",
    (
        Part("dev/*.csv", files=67, counts=(_questions(CMMLU_SHOTS),)),
        Part("test/*.csv", files=67, counts=(_questions(together=11582),)),
    ),
    "get cmmlu_v1_0_1.zip of https://huggingface.co/datasets/haonan-li/cmmlu by hand (or data/ of "
    "https://github.com/haonan-li/CMMLU) and put its dev/ and test/ in {destination}/",
    paired=("dev", "test"),
)
AGIEVAL = Dataset(
    "agieval",
    "AGIEval",
    "opencompass/agieval",  # a mirror: the official publication is the GitHub repository below
    (
        *(
            Part(
                f"v1/{name}.jsonl",
                counts=(
                    _lines(lines),
                    Count("items with one answer among four", count_single_answers, single),
                ),
                any_folder=True,
            )
            for name, (lines, single) in AGIEVAL_SETS.items()
        ),
        Part(
            AGIEVAL_SHOTS,
            counts=(Count("columns of the ten sets", count_shot_columns, len(AGIEVAL_SETS)),),
            any_folder=True,
        ),
    ),
    "get https://github.com/ruixiangcui/AGIEval by hand (the official publication) and put its "
    "data/v1 and data/few_shot_prompts.csv in {destination}/",
    ignored=("*v1_1/*",),
)
DATASETS = {dataset.name: dataset for dataset in (DOIT, CMMLU, AGIEVAL)}
