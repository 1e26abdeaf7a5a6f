"""Instruction data of people's own, converted into the one format and split.

A line that can't be used is refused and counted, so that one bad line in a million stops nothing.
Memory holds under a kilobyte a line, however long it is: the converted lines wait in a temporary
file.
"""

import contextlib
import dataclasses
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from growth.core.errors import InputError
from growth.core.files import check_writable, json_line, parse_json, replacing, sha256, write_json
from growth.core.names import fault_of_name, name_key
from growth.core.options import MESSAGES, NEAR, NONE, ImportOptions, ReadingOptions
from growth.core.schemas import ImportRecord, read_record
from growth.data.conversations import Messages, Reading, converted, parse_columns, recognised_format
from growth.data.overlap import Overlap, QuestionIndex
from growth.data.raw_files import Fields, Refusal, Row, find_files, read_rows
from growth.data.similarity import (
    Fingerprints,
    Frame,
    digest,
    question_of,
    shared_frame,
    without_frame,
)
from growth.data.splitting import SPLITS, Sizes, split, unserved

SUMMARY = "import.json"
SHOWN = 5  # refused lines of a kind that are named
_LOOKED_AT = 1000  # lines of an ability, in which a shared frame is looked for
_RECOGNISED_WITHIN = 1000  # lines; in which a line of a known format must come
_MOST_TYPES = 1000  # a field with more values names no ability


@dataclass
class Refusals:
    """The lines that could not be used, counted by reason, with the first few of each."""

    strict: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    abilities: dict[str, int] = field(default_factory=dict)

    def add(self, path: Path, number: int, refusal: Refusal) -> None:
        """Note one line.

        Raises:
            InputError: no line may be refused.
        """
        message = f"{path}:{number}: {refusal}"
        if self.strict:
            raise InputError(f"{message} (--strict; without it the line is left out)")
        self.counts[refusal.reason] = self.counts.get(refusal.reason, 0) + 1
        named = self.first.setdefault(refusal.reason, [])
        if len(named) < SHOWN:
            named.append(message)

    def add_ability(self, name: str) -> None:
        """Note that a line of this ability was refused."""
        if name in self.abilities or len(self.abilities) < _MOST_TYPES:
            self.abilities[name] = self.abilities.get(name, 0) + 1

    def abilities_but(self, used: Iterable[str]) -> dict[str, int]:
        """The abilities with refused lines that are not among `used`, and how many lines."""
        known = set(map(name_key, used))
        return {
            name: count
            for name, count in sorted(self.abilities.items())
            if name_key(name) not in known
        }


@dataclass
class Source:
    """One file, as it was read; its format is empty as long as no line has shown one."""

    path: Path
    format: str = ""
    lines: int = 0
    refused: int = 0
    unknown: InputError | None = None  # about its first line of no known format


@dataclass(frozen=True)
class Conversation:
    """One line that can be used."""

    source: Source
    number: int
    messages: Messages
    others: Fields


def reading_of(options: ReadingOptions) -> Reading:
    """How to read lines, as the flags say it; raises as `parse_columns`."""
    return Reading(options.format, options.system, parse_columns(options.columns))


def read_conversations(
    paths: Sequence[Path],
    reading: Reading,
    refusals: Refusals,
    sources: list[Source],
    description: str = "read",
    refused_of: Callable[[Source, Fields], None] | None = None,
) -> Iterator[Conversation]:
    """The lines of `paths` that can be used, with a progress bar.

    Args:
        paths: files, of any of the formats.
        reading: how to read them.
        refusals: where lines that can't be used are noted.
        sources: where each file is noted once it is opened.
        description: of the bar.
        refused_of: told of each line that can't be used, with its fields as far as there are any.

    Raises:
        InputError: a file can't be read or its format not be recognised.
    """
    total = sum(path.stat().st_size for path in paths)
    with tqdm(total=total, desc=description, unit="B", unit_scale=True, delay=1) as bar:
        before = 0
        for path in paths:
            source = Source(path)
            sources.append(source)
            for row in read_rows(path):
                bar.update(before + row.position - bar.n)
                source.lines += 1
                try:
                    messages, others = _converted_row(row, source, reading)
                    yield Conversation(source, row.number, messages, others)
                except Refusal as refusal:
                    source.refused += 1
                    refusals.add(path, row.number, refusal)
                    if refused_of is not None:
                        refused_of(source, row.content if isinstance(row.content, dict) else {})
            if not source.format and source.unknown:
                raise source.unknown
            before += path.stat().st_size


def _converted_row(row: Row, source: Source, reading: Reading) -> tuple[Messages, Fields]:
    """The turns and the other fields of a row; the first row that says it gives the file's format.

    Raises:
        Refusal: training can't use it.
        InputError: none of the first many rows has a known format.
    """
    fields = row.content
    if isinstance(fields, Refusal):
        raise fields
    if not source.format:
        source.format = recognised_format(fields, reading) or ""
    if not source.format:
        source.unknown = source.unknown or InputError(
            f"{source.path}:{row.number}: unknown format, with the fields "
            f"{', '.join(list(fields)[:10]) or 'none'}; expected `messages`, `conversations`, "
            "`instruction` and `output`, or `prompt` and `completion`. Name the columns (--columns "
            "instruction=question output=answer), or leave the file out"
        )
        if source.lines == _RECOGNISED_WITHIN:
            raise source.unknown
        raise Refusal("unknown format", "has none of the fields of a format")
    return converted(fields, source.format, reading)


class Pool:
    """Lines in a temporary file, with their abilities.

    Args:
        file: where they are; it is this pool's alone.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._offsets, self._types, self._keys = array("q", [0]), array("q"), array("Q")
        self.names: list[str] = []
        self._places: dict[str, int] = {}
        self._counts: list[int] = []

    def __len__(self) -> int:
        return len(self._types)

    def add(self, conversation: Conversation, type_: str) -> None:
        """Store one line; it gets a number if it has none."""
        messages, others = conversation.messages, conversation.others
        place = self._place(type_)
        others = {key: value for key, value in others.items() if key != "type"}
        record = {"messages": messages, "type": type_, **others}
        self._keys.append(digest(json_line(record)))
        record = {"messages": messages, "type": type_, "idx": self._counts[place], **others}
        self._file.write(line := json_line(record).encode())
        self._offsets.append(self._offsets[-1] + len(line))
        self._types.append(place)
        self._counts[place] += 1

    def _place(self, type_: str) -> int:
        place = self._places.get(name_key(type_))
        if place is None:
            if len(self.names) == _MOST_TYPES:
                raise InputError(
                    f"more than {_MOST_TYPES:,} abilities, {type_!r} the last: a field that "
                    "differs so much names none; choose another --type_field"
                )
            place = self._places[name_key(type_)] = len(self.names)
            self.names.append(type_)
            self._counts.append(0)
        elif self.names[place] != type_:
            known = self.names[place]
            same = known.casefold() == type_.casefold()
            raise InputError(
                f"the abilities {known!r} and {type_!r} differ in "
                f"{'case' if same else 'how letters are composed'} only, and some file systems "
                "would make one file of them; spell them alike"
            )
        return place

    def line(self, place: int) -> bytes:
        """One line as it was stored."""
        self._file.seek(self._offsets[place])
        return self._file.read(self._offsets[place + 1] - self._offsets[place])

    def turns(self, place: int) -> list[str]:
        """The texts of a line's turns."""
        return [turn["content"] for turn in parse_json(self.line(place).decode())["messages"]]

    def types(self) -> npt.NDArray[np.int64]:
        """Of each line the place of its ability in `names`."""
        return np.array(self._types, np.int64)

    def keys(self) -> npt.NDArray[np.uint64]:
        """Of each line a digest of what it says."""
        return np.array(self._keys, np.uint64)

    def groups(self, split_by: str, similarity: float) -> npt.NDArray[np.int64]:
        """A number for each line, the same for lines that must stay on one side."""
        if split_by == NONE:
            return np.arange(len(self))
        near = split_by == NEAR
        types = self.types()
        frames = [
            self._frame(types == place) if near else Frame() for place in range(len(self.names))
        ]
        fingerprints = Fingerprints(near, similarity)
        for place in tqdm(range(len(self)), desc="look", unit="line", delay=1):
            fingerprints.add(self.turns(place), frames[types[place]])
        return fingerprints.groups(
            lambda place: without_frame(question_of(self.turns(place)), frames[types[place]])
        )

    def _frame(self, is_of: npt.NDArray[np.bool_]) -> Frame:
        """What many questions of one ability begin and end with, by those of its lines with the
        smallest digests, so that neither the order of the lines nor their number costs anything."""
        places = np.flatnonzero(is_of)
        places = places[np.argsort(self.keys()[places], kind="stable")][:_LOOKED_AT]
        return shared_frame(question_of(self.turns(place)) for place in places.tolist())


def type_of(fields: Fields, source: Source, options: ImportOptions) -> str:
    """The ability of a line, fit to name a file.

    Args:
        fields: of the line; those of its turns play no part.
        source: the file that it stands in.
        options: what names the ability.

    Raises:
        Refusal: the line names none, or one that names no file.
    """
    if options.type is not None:
        name: object = options.type
    elif options.type_field is not None:
        if fields.get(options.type_field) is None:
            raise Refusal("no ability", f"has no `{options.type_field}`")
        name = fields[options.type_field]
    else:
        own = fields.get("type") if source.format == MESSAGES else None
        name = own if own is not None else source.path.stem
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    fault = "it is no text" if not isinstance(name, str) else fault_of_name(name)
    if fault:
        message = f"the ability {str(name)[:60]!r}: {fault}; --type gives another"
        raise Refusal("ability names no file", message)
    return cast(str, name)


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Args:
        sources: the files that were read.
        refusals: what could not be used.
        counts: the lines of each ability in train, valid and test.
        empty: the abilities of which every line was refused, and how many lines that were.
        alike: how many lines have a near-duplicate, which is on the same side.
        largest: how many lines the largest group of near-duplicates has.
        short: which shares of valid and test are smaller than was asked for, a sentence each.
        overlaps: questions of valid and test that stand in a training line.
    """

    sources: list[Source]
    refusals: Refusals
    counts: dict[str, tuple[int, ...]]
    empty: dict[str, int]
    alike: int
    largest: int
    short: list[str]
    overlaps: list[Overlap]


def import_files(options: ImportOptions, reading: Reading) -> Imported:
    """Convert, split and write what `options` say; see data/import.py.

    Raises:
        InputError: nothing can be used, a size can't be served, or a flag makes no sense.
    """
    sizes = Sizes(options.valid, options.test)
    if options.type is not None and options.type_field is not None:
        raise InputError("--type and --type_field both name the ability; leave one of them out")
    if options.type is not None and (fault := fault_of_name(options.type)):
        raise InputError(f"--type {options.type!r}: {fault}")
    paths = find_files([Path(name) for name in options.input], "--input")
    _check_folder(options.output_dir, paths)
    if not options.replace:
        _check_inputs(options.output_dir, paths)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    sources: list[Source] = []
    refusals = Refusals(options.strict)
    with tempfile.TemporaryFile(dir=options.output_dir) as file:
        pool = Pool(file)

        def refused_of(source: Source, fields: Fields) -> None:
            with contextlib.suppress(Refusal):  # it has an ability's name or none
                refusals.add_ability(type_of(fields, source, options))

        for conversation in read_conversations(
            paths, reading, refusals, sources, refused_of=refused_of
        ):
            try:
                pool.add(conversation, type_of(conversation.others, conversation.source, options))
            except Refusal as refusal:
                conversation.source.refused += 1
                refusals.add(conversation.source.path, conversation.number, refusal)
        if not len(pool):
            first = next(
                (messages[0] for messages in refusals.first.values()), "no file has a line"
            )
            raise InputError(f"--input: nothing can be used; the first of the reasons: {first}")
        groups = pool.groups(options.split_by, options.similarity)
        sides = split(groups, pool.types(), pool.names, pool.keys(), sizes, options.seed)
        short = unserved(sides, groups, pool.types(), pool.names, sizes, options.split_by)
        members = np.bincount(groups)
        alike, largest = int((members[groups] > 1).sum()), int(members.max())
        # Nothing is replaced before all is written; what is entered last is replaced first.
        with contextlib.ExitStack() as stack:
            summary = stack.enter_context(replacing(options.output_dir / SUMMARY))
            temporary = dict.fromkeys(SPLITS, Path())
            for name in reversed(SPLITS):
                temporary[name] = stack.enter_context(replacing(options.output_dir / name))
                temporary[name].mkdir()
            counts = _write(pool, sides, temporary)
            empty = refusals.abilities_but(counts)
            overlaps = _overlaps(options.output_dir, temporary, counts)
            made = Imported(sources, refusals, counts, empty, alike, largest, short, overlaps)
            write_json(summary, _summary(made, options, reading, temporary))
            # A kill amid the renames leaves no old test questions beside new training lines.
            for name in SPLITS[1:]:
                stack.callback(_remove_folder, options.output_dir / name)
    return made


def _remove_folder(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _check_folder(folder: Path, paths: Iterable[Path]) -> None:
    """Nothing is read from where something is written, and nobody's data is replaced."""
    check_writable(folder, "--output_dir")
    for path in paths:
        for name in SPLITS:
            if path.resolve().is_relative_to((folder / name).resolve()):
                raise InputError(
                    f"--output_dir {folder}: {path} would be replaced; choose another folder"
                )
    for name in SPLITS:
        if (folder / name).exists() and not (folder / SUMMARY).is_file():
            raise InputError(
                f"--output_dir {folder}: {folder / name} is not of an import and would be "
                "replaced; choose another folder"
            )


def _check_inputs(folder: Path, paths: Sequence[Path]) -> None:
    """An import of fewer files would remove what the others gave, and deal the rest out anew."""
    if not (folder / SUMMARY).is_file():
        return
    remedy = "choose another folder, or --replace"
    given = {path.resolve() for path in paths}
    missing = [
        file
        for file in read_record(folder / SUMMARY, ImportRecord, remedy)["inputs"]
        if Path(file["path"]).resolve() not in given
    ]
    if missing:  # a file that was moved is the same one
        digests = set(map(sha256, paths))
        missing = [file for file in missing if file["sha256"] not in digests]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise InputError(
            f"--output_dir {folder}: holds an import of {missing[0]['path']}{more} too, which "
            "--input leaves out; give all files together, or --replace to drop what it gave"
        )


def _write(
    pool: Pool, sides: npt.NDArray[np.int8], folders: dict[str, Path]
) -> dict[str, tuple[int, ...]]:
    """Write each ability's lines of each split, in the order they were read; returns the counts."""
    types = pool.types()
    counts: dict[str, tuple[int, ...]] = {}
    with tqdm(total=len(pool), desc="write", unit="line", delay=1) as bar:
        for name in sorted(pool.names):
            sizes = []
            for side, folder in enumerate(folders.values()):
                is_here = (types == pool.names.index(name)) & (sides == side)
                places = np.flatnonzero(is_here).tolist()
                sizes.append(len(places))
                if places:
                    with open(folder / f"{name}.json", "wb") as file:
                        file.writelines(map(pool.line, places))
                bar.update(len(places))
            counts[name] = tuple(sizes)
    return counts


def _overlaps(
    folder: Path, written: dict[str, Path], counts: dict[str, tuple[int, ...]]
) -> list[Overlap]:
    """Questions of valid and test that stand in a training line, placed where the files will be."""
    files: dict[str, list[Path]] = {
        split_name: [written[split_name] / f"{name}.json" for name in counts if counts[name][side]]
        for side, split_name in enumerate(SPLITS)
    }
    overlaps = find_overlaps(files["train"], files["valid"] + files["test"], Reading(MESSAGES))[0]
    final = {str(temporary): str(folder / name) for name, temporary in written.items()}

    def moved(place: str) -> str:
        at, slash, rest = place.rpartition("/")
        return f"{final[at]}{slash}{rest}"

    return [
        dataclasses.replace(own, test=moved(own.test), train=moved(own.train)) for own in overlaps
    ]


def find_overlaps(
    train: Sequence[Path], tests: Sequence[Path], reading: Reading
) -> tuple[list[Overlap], int, Refusals]:
    """Questions of `tests` that stand in a line of `train`, the first such line for each.

    Args:
        train: the files that a model is trained on, of any of the formats.
        tests: the files whose questions it is asked.
        reading: how both are read.

    Returns:
        The questions, how many there are in all, and the lines that could not be used.

    Raises:
        InputError: as `read_conversations`.
    """
    refusals = Refusals()
    index = QuestionIndex(
        (_place(asked), asked.messages)
        for asked in read_conversations(tests, reading, refusals, [])
    )
    found: dict[str, Overlap] = {}
    if len(index):
        for taught in read_conversations(train, reading, refusals, [], "check"):
            for overlap in index.found_in(_place(taught), taught.messages):
                found.setdefault(overlap.test, overlap)
    return sorted(found.values(), key=lambda own: own.order), len(index), refusals


def _place(conversation: Conversation) -> str:
    return f"{conversation.source.path}:{conversation.number}"


def _summary(
    made: Imported, options: ImportOptions, reading: Reading, folders: dict[str, Path]
) -> dict[str, Any]:
    """What import.json holds."""
    files = [file for folder in folders.values() for file in sorted(folder.iterdir())]
    names = {folder: name for name, folder in folders.items()}
    return {
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in (dataclasses.asdict(options) | dataclasses.asdict(reading)).items()
        },
        "inputs": [
            {
                "path": str(source.path),
                "sha256": sha256(source.path),
                "format": source.format,
                "lines": source.lines,
                "refused": source.refused,
            }
            for source in made.sources
        ],
        "refused": {
            reason: {"lines": made.refusals.counts[reason], "first": first}
            for reason, first in made.refusals.first.items()
        },
        "abilities": {
            name: dict(zip(SPLITS, sizes, strict=True)) for name, sizes in made.counts.items()
        },
        "refused_whole": made.empty,
        "near_duplicates": made.alike,
        "largest_group": made.largest,
        "overlaps": [dataclasses.asdict(own) for own in made.overlaps],
        "files": {f"{names[file.parent]}/{file.name}": sha256(file) for file in files},
    }


def warn_of_overlaps(overlaps: Sequence[Overlap], questions: int) -> None:
    """One warning on stderr where test questions stand in training lines, with the first few."""
    if overlaps:
        first = "; ".join(f"{own.test} in {own.train}" for own in overlaps[:SHOWN])
        print(
            f"warning: {len(overlaps):,} of {questions:,} valid and test questions stand in "
            f"training lines: {first}",
            file=sys.stderr,
        )
