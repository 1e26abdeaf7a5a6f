"""A study: its abilities, where their lines come from, its settings, and the defaults of a run.

A study is one TOML file (docs/study.md). The published one, `data/doit.toml`, is what everything
falls back on; one of your own is another file of the same form.
"""

import copy
import dataclasses
import difflib
import fnmatch
import functools
import hashlib
import itertools
import re
import sysconfig
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from growth.core.errors import InputError
from growth.core.files import json_line, open_file
from growth.core.names import fault_in_study, name_key
from growth.core.options import (
    LARGEST,
    MAX_LENGTH,
    MAX_NEW_TOKENS,
    MOST_LINES,
    Hyperparameters,
)
from growth.data.abilities import NORMALISATIONS, Ability, Kind
from growth.data.copies import UNCOMPARED

T = TypeVar("T", bound=msgspec.Struct)
PUBLISHED = "doit"
EQUAL, ALL = "equal", "all"
LINES = ("solid", "dashed", "dotted", "dashdot")
_MARKERS = tuple(".,ov^<>12348spP*hH+xXDd|_")  # of matplotlib, which is not imported here
OTHER = "other"  # in place of a series' name: settings that are on no curve
_LARGEST = 1 << 20  # bytes of a study file; the published one has 6,000
_KEY_PARTS = 50
# tomllib's time grows with the square of the parts
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_DEEP_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*+(?:{_PART}\.[ \t]*+){{{_KEY_PARTS}}}", re.MULTILINE)
AVERAGE, OOD_AVERAGE = "average", "ood_average"  # scores over several files, beside abilities
_NO_GOLD = (*UNCOMPARED, "messages", "type", "question_format", "choices")
# Of results files and figures, where no ability may go by them.
_RESERVED_NAMES = {AVERAGE, OOD_AVERAGE, "overall", "mixed"}
# What may stand where a value is one of a few, by the end of its key; msgspec doesn't name them.
_ALLOWED: Mapping[str, Sequence[str]] = {
    ".kind": [kind.value for kind in Kind],
    ".normalise": NORMALISATIONS,
    ".line": LINES,
    ".told_apart_by": ("type", "file"),
    ".lines": (EQUAL, ALL),
}


class RunDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run takes where no flag says otherwise.

    Attributes:
        epochs: passes over the data.
        epochs_by_lines: for training sets of just so many lines.
        samples_per_step: the study's variable of control.
        max_length: of a conversation, in tokens.
        max_new_tokens: of an answer.
    """

    epochs: int = Hyperparameters.epochs
    epochs_by_lines: dict[int, int] = {}
    samples_per_step: int = Hyperparameters.total_batch_size
    max_length: int = MAX_LENGTH
    max_new_tokens: int = MAX_NEW_TOKENS

    def hyperparameters(self) -> dict[str, int]:
        """Of `growth.core.options.Hyperparameters`, but for the epochs."""
        return {"total_batch_size": self.samples_per_step, "max_length": self.max_length}

    def decoding(self) -> dict[str, int]:
        """Of `growth.core.options.DecodingOptions`."""
        return {"max_length": self.max_length, "max_new_tokens": self.max_new_tokens}

    def epochs_for(self, lines: int) -> int:
        """Epochs of a training set of `lines` lines."""
        return self.epochs_by_lines.get(lines, self.epochs)


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder (or file) of lines that settings take from.

    Attributes:
        path: below the data folder.
        told_apart_by: what says of which ability a line is: its "type", or else its file's name; or
            the name of its "file" alone.
        gathered_as: one name for all lines, whatever they are of; "" tells abilities apart.
    """

    path: str
    told_apart_by: Literal["type", "file"] = "type"
    gathered_as: str = ""


class Take(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines that a setting takes from a pool.

    Attributes:
        pool: the pool's name.
        lines: by ability how many, or "all"; "equal" for equal shares of a series' size among all
            abilities that are not out of domain; or, of a gathered pool, a number. A series' size
            where left out.
        sampled: a seeded sample; otherwise the first lines there are.
        distinct: by name how many different lines there are among them, where they repeat.
    """

    pool: str
    lines: dict[str, int | Literal["all"]] | int | Literal["equal", "all"] | None = None
    sampled: bool = True
    distinct: dict[str, int] = {}


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one recipe and several sizes: a growth curve.

    Attributes:
        name: of the series; its settings are `<name>-<size>`.
        sizes: samples in all.
        take: where the lines come from.
        line: how its curves are drawn; by its place in the file where left out.
    """

    name: str
    sizes: list[int]
    take: list[Take]
    line: Literal["", "solid", "dashed", "dotted", "dashdot"] = ""


class Lone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A setting of its own, on no curve.

    Attributes:
        name: of the setting.
        samples: lines in all.
        take: where the lines come from.
        same_as: another setting that holds the same lines: runs of both are repeats of each other.
        extends: another setting, all of whose lines it holds besides.
        marker: matplotlib's name of the mark that it is drawn with.
    """

    name: str
    samples: int = 0
    take: list[Take] = []
    same_as: str = ""
    extends: str = ""
    marker: str = ""


class _Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A study file as it is written; `valid` and `test` are folders below the data folder."""

    name: str
    abilities: list[Ability]
    title: str = ""
    valid: str = "valid"
    test: str = "test"
    run: RunDefaults = RunDefaults()
    pools: dict[str, Pool] = {}
    series: list[Series] = []
    settings: list[Lone] = []


# For complaints of unknown keys: what stands below which key.
_TABLES: Mapping[str, type[msgspec.Struct]] = {
    "abilities": Ability,
    "run": RunDefaults,
    "pools": Pool,
    "series": Series,
    "settings": Lone,
}


@dataclass(frozen=True)
class Share:
    """Lines of one name that a recipe takes from one pool.

    Attributes:
        pool: where from.
        name: of an ability, or of a gathered pool's lines; the stem of the file built.
        quota: how many; None for all there are.
        sampled: a seeded sample; otherwise the first lines there are.
        distinct: how many of them are different, the others repeat these; None for all.
    """

    pool: Pool
    name: str
    quota: int | None
    sampled: bool
    distinct: int | None = None


@dataclass(frozen=True)
class Recipe:
    """What one setting holds.

    Attributes:
        name: of the setting.
        series: that it belongs to; "" for a lone setting.
        samples: lines in all; in a series its place on the axis of a figure.
        shares: what is taken from where.
        same_as: the setting whose lines it repeats, or its own name.
        marker: of a lone setting.
        listed: whether the study has it; otherwise a file of its own does (`read_recipe`).
    """

    name: str
    series: str
    samples: int
    shares: tuple[Share, ...]
    same_as: str
    marker: str = ""
    listed: bool = True

    def record(self) -> dict[str, Any]:
        """What is kept of a recipe that no study lists, so that later stages know it."""
        distinct = {share.name: share.distinct for share in self.shares if share.distinct}
        return {
            "samples": self.samples,
            "lines": {share.name: share.quota for share in self.shares},
            "pools": {share.name: share.pool.path for share in self.shares},
        } | ({"distinct": distinct} if distinct else {})


class Study:
    """A study that has been read and checked.

    Attributes:
        name, title: of the study; `source`: the file.
        splits: the folders of lines to evaluate on, "valid" and "test", below the data folder.
        abilities: all, those out of domain included, in the order of the file.
        run: defaults of a run.
        series: by name; `pools` likewise.
        recipes: every setting by name, in the order of the file.
        digest: of what a score means: names, kinds and rules of the abilities. Titles, looks, sizes
            and pools may change within one study.
        asked: a digest of what a prediction means, the part of it that says how questions are put.
    """

    def __init__(self, written: _Study, source: Path) -> None:
        self.name, self.title, self.source = written.name, written.title or written.name, source
        self.abilities = tuple(written.abilities)
        self.run = written.run
        self.splits = {"valid": written.valid, "test": written.test}
        self.series = {
            series.name: msgspec.structs.replace(series, line=series.line or line)
            for series, line in zip(written.series, itertools.cycle(LINES), strict=False)
        }
        self.pools = written.pools
        self.recipes = _recipes(written, source)
        self.digest = _digest(self.name, [ability.rules() for ability in self.abilities])
        self.asked = _digest(self.name, [ability.asked() for ability in self.abilities])
        self._by_type = {
            name: ability for ability in self.abilities for name in (ability.name, *ability.aliases)
        }

    @property
    def is_published(self) -> bool:
        """Whether it is the published study, whose lines all have a `question_format`."""
        return self.name == PUBLISHED

    @property
    def in_domain(self) -> tuple[Ability, ...]:
        """The abilities that are averaged."""
        return tuple(ability for ability in self.abilities if not ability.out_of_domain)

    @property
    def out_of_domain(self) -> tuple[Ability, ...]:
        """Those that no training data is of; they have an average of their own."""
        return tuple(ability for ability in self.abilities if ability.out_of_domain)

    @property
    def types(self) -> tuple[str, ...]:
        """What the `type` of a line may be."""
        return tuple(self._by_type)

    def ability_of(self, type_name: object) -> Ability | None:
        """The ability that a line's `type` names; None where there is no such ability."""
        return self._by_type.get(type_name) if isinstance(type_name, str) else None

    def ability(self, record: Mapping[str, Any]) -> Ability:
        """The ability of a line whose type was checked when it was read."""
        return self._by_type[record["type"]]

    def recipe(self, setting: str, flag: str = "--data_type") -> Recipe:
        """The recipe of a setting.

        Raises:
            InputError: there is no such setting; the nearest ones are named first.
        """
        if setting in self.recipes:
            return self.recipes[setting]
        if not self.recipes:
            raise InputError(
                f"{flag} {setting}: the study {self.source} has no settings; give it [[series]] "
                "or [[settings]]"
            )
        near = difflib.get_close_matches(setting, self.recipes, n=len(self.recipes), cutoff=0)
        raise InputError(
            f"{flag} {setting}: no such setting. The {len(self.recipes)} settings of "
            f"{self.source.name}, nearest first: {', '.join(near)}"
            + (". For those of your own study add --study FILE" if self.is_published else "")
        )

    def pool_of_lines(self, name: str | None, flag: str = "--pool") -> str:
        """The pool that lines are taken from by ability: the one named, or else the first series'.

        Raises:
            InputError: there is no such pool, or its lines are not told apart.
        """
        apart = [pool for pool, about in self.pools.items() if not about.gathered_as]
        of_series = [take.pool for series in self.series.values() for take in series.take]
        found = name or next((pool for pool in (*of_series, *apart) if pool in apart), None)
        if found not in apart:
            raise InputError(
                f"{flag} {name or ''}: expected a pool of {self.source} whose lines are told apart "
                f"by ability: {', '.join(apart) or 'it has none'}"
            )
        return found

    def with_recipe(self, recipe: Recipe) -> "Study":
        """The same study, with one more setting on no curve."""
        study = copy.copy(self)
        study.recipes = self.recipes | {recipe.name: recipe}
        return study

    def matching(self, patterns: Sequence[str], flag: str = "--data_types") -> list[str]:
        """The settings that any of the names or patterns (`curated-*`) names; all series for none.

        Raises:
            InputError: there is no such setting.
        """
        if not patterns:
            return [name for name, r in self.recipes.items() if r.series and r.same_as == name]
        found: dict[str, None] = {}
        for pattern in patterns:
            named = fnmatch.filter(self.recipes, pattern)
            found |= dict.fromkeys(named or [self.recipe(pattern, flag).name])
        return list(found)

    def record(self) -> dict[str, str]:
        """What run.json keeps of a study; the published one is found by its name anywhere."""
        file = "data/doit.toml" if self.is_published else str(self.source)
        named = {"name": self.name, "file": file}
        return named | {"digest": self.digest, "asked": self.asked}


def _digest(*values: object) -> str:
    return hashlib.sha256(json_line(values).encode()).hexdigest()[:16]


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        InputError: no such file, no TOML (file:line), or not a study (the key is named).
    """
    written = _read_toml(path, "--study", _Study)
    _check(written, path)
    study = Study(written, path)
    is_own_file = path.resolve() != _published_path().resolve()
    if study.is_published and is_own_file and study.digest != published_study().digest:
        raise InputError(
            f"--study {path}: name: {PUBLISHED!r} is the published study, whose abilities or rules "
            "are others; give yours another name"
        )
    return study


def read_recipe(path: Path, study: Study) -> Recipe:
    """Read and check a recipe: a setting, as a study file has them, in a file of its own.

    Args:
        path: of a TOML file with the keys of one table of `[[settings]]`, but same_as; samples may
            be left out where all numbers of lines are given.
        study: that has its pools and abilities; it can't have a setting of this name.

    Raises:
        InputError: as `read_study`.
    """
    where = f"--recipe {path}"

    def fail(key: str, problem: str) -> None:
        raise InputError(f"{where}: {key}: {problem}")

    written = _read_toml(path, "--recipe", Lone)
    _check_recipe_name("name", written.name, study, fail)
    if written.same_as:
        fail("same_as", "only a setting of a study has other names; give take")
    names = [ability.name for ability in study.in_domain]
    for i, take in enumerate(written.take):
        _check_take(study.pools, names, take, False, f"take[{i}]", fail)
    if written.extends:
        study.recipe(written.extends, f"{where}: extends:")
    recipe = _lone_recipe(written, study.recipes, study.pools, names, where)
    _check_lone(msgspec.structs.replace(written, samples=recipe.samples), written.name, fail)
    _check_names_once(recipe, where)
    return dataclasses.replace(recipe, listed=False)


def check_recipe_name(name: str, study: Study, flag: str) -> None:
    """Check the name of a recipe that is to be written as `read_recipe` would.

    Raises:
        InputError: no recipe of the study can have it; `flag` says where it came from.
    """

    def fail(key: str, problem: str) -> None:
        raise InputError(f"{key}: {problem}")

    _check_recipe_name(flag, name, study, fail)


def _check_recipe_name(key: str, name: str, study: Study, fail: Any) -> None:
    _check_plain(key, name, fail)
    if name in study.recipes:
        fail(key, f"{name!r} is the name of a setting already; rename the recipe")


def recipe_text(
    name: str, pool: str, lines: Mapping[str, int], distinct: Mapping[str, int], about: str
) -> str:
    """A recipe as `read_recipe` reads it; abilities without lines are left out.

    Args:
        name: of the setting.
        pool: all lines are from.
        lines: of each ability.
        distinct: of those whose lines repeat, how many are different.
        about: a line on what it is for.
    """

    def quoted(text: str) -> str:
        return json_line(text).rstrip()  # a JSON string is a TOML string

    def table(counts: Mapping[str, int]) -> str:
        return "".join(f"{quoted(ability)} = {n}\n" for ability, n in counts.items() if n)

    repeated = f"\n[take.distinct]\n{table(distinct)}" if distinct else ""
    return (
        f"# {about}\n\nname = {quoted(name)}\n\n[[take]]\npool = {quoted(pool)}\n\n"
        f"[take.lines]\n{table(lines)}{repeated}"
    )


def recorded_recipe(name: str, record: Mapping[str, Any]) -> Recipe:
    """A recipe that no study lists, of what `Recipe.record` kept of it."""
    pools, distinct = record["pools"], record.get("distinct", {})
    shares = tuple(
        Share(Pool(pools[share]), share, lines, True, distinct.get(share))
        for share, lines in record["lines"].items()
    )
    return Recipe(name, "", record["samples"], shares, name, listed=False)


def _read_toml(path: Path, flag: str, kind: type[T]) -> T:
    """What a TOML file holds, as `kind`.

    Raises:
        InputError: no such file, no TOML (file:line), or not of that kind (the key is named).
    """
    try:
        with open_file(path) as file:
            text = file.read(_LARGEST + 1).decode("utf-8-sig")
    except (OSError, InputError, UnicodeDecodeError) as error:
        raise InputError(f"{flag} {path}: can't be read ({error}); give a TOML file") from None
    if len(text.encode()) > _LARGEST:
        raise InputError(f"{flag} {path}: expected a TOML file of at most {_LARGEST:,} bytes")
    if deep := _DEEP_KEY.search(text):
        number = text.count("\n", 0, deep.start()) + 1
        raise InputError(f"{flag} {path}:{number}: a key of over {_KEY_PARTS} parts")
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{flag} {path}: not TOML: {error}") from None
    try:
        return msgspec.convert(content, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise InputError(f"{flag} {path}: {_explained(error, kind)}") from None


@functools.cache
def published_study() -> Study:
    """The published study, `data/doit.toml`."""
    return read_study(_published_path())


def named_study(flag: Path | None) -> Study:
    """The study that `--study` names, or the published one where the flag is not given."""
    return read_study(flag) if flag is not None else published_study()


def _published_path() -> Path:
    """In a checkout, or where `pip install .` puts it."""
    installed = Path(sysconfig.get_path("data")) / "share/growth/doit.toml"
    checkout = Path(__file__).resolve().parents[2] / "data/doit.toml"
    return checkout if checkout.is_file() else installed


def recorded(run: Mapping[str, Any]) -> dict[str, str]:
    """What the record of a run says of its study; those of before are of the published one."""
    found = run.get("study")
    return found if isinstance(found, dict) else published_study().record()


# What must be as it was in a study file, for a run, its predictions or their scores to be of it.
OF_RUNS, OF_PREDICTIONS, OF_SCORES = "name", "asked", "digest"
_CHANGED = {
    OF_RUNS: "of the study {!r}, and --study {} is {!r}; give the study file of the run",
    OF_PREDICTIONS: "predictions of the study {!r}, in which {} ({!r}) now asks otherwise (kinds, "
    "options); predict again in another folder, or give the study file as it was",
    OF_SCORES: "scores of the study {!r}, in which {} ({!r}) now has other abilities or rules; "
    "score again with evaluate/score.py, or give the study file as it was",
}


def study_of(
    run: Mapping[str, Any], flag: Path | None, where: object, same: str = OF_SCORES
) -> Study:
    """The study of a run: what `--study` names, held against the run's record, or what it keeps.

    Args:
        run: the record of a run, or what predictions and results repeat of it.
        flag: the value of --study; None if it is not given.
        where: of the record, for complaints.
        same: what must be as it was: one of OF_RUNS, OF_PREDICTIONS, OF_SCORES. Training depends on
            no rule, so a run is of its study whatever has been changed there since.

    Raises:
        InputError: --study is another study than the run's, or the run's is not to be found.
    """
    record = recorded(run)
    name, file = (str(record.get(key, "")) for key in ("name", "file"))
    if flag is None and name == PUBLISHED:
        study = published_study()
    else:
        path = flag or Path(file)
        if flag is None and not path.is_file():
            raise InputError(
                f"{where}: of the study {name!r}, "
                + (f"whose file {file} is no longer there" if file else "which names no file")
                + "; give it with --study FILE"
            )
        study = read_study(path)
    for level in (OF_RUNS, same):
        if study.record()[level] != record.get(level):
            raise InputError(f"{where}: " + _CHANGED[level].format(name, study.source, study.name))
    return study


def _explained(error: msgspec.ValidationError, whole: type[msgspec.Struct]) -> str:
    """msgspec's message with the key as TOML has it."""
    message, _, key = str(error).replace(" - at `key` in `$", " - at `$").partition(" - at `$")
    key = key.removesuffix("`").removeprefix(".")
    message = message.replace("`", "'").replace("Object", "the table").replace("object", "table")
    where = re.sub(r"\[[^]]*\]$", "", key)
    for end, allowed in _ALLOWED.items():
        if where.endswith(end) and "enum" in message:
            message += f"; expected {', '.join(allowed)}"
    if unknown := re.search("unknown field '(.*)'", message):
        first = re.split(r"[.\[]", key)[0]
        table = Take if "take[" in key else _TABLES.get(first, whole)
        message += f"; expected {', '.join(table.__struct_fields__)}"
        if key and unknown[1] in whole.__struct_fields__:
            message += f". {unknown[1]} is of the whole file: put it above the first [table]"
    return f"{key}: {message}" if key else message


def _check(written: _Study, path: Path) -> None:
    """What the types alone don't say.

    Raises:
        InputError: the key is named.
    """

    def fail(key: str, problem: str) -> None:
        raise InputError(f"--study {path}: {key}: {problem}")

    _check_names(written, fail)
    if not written.title.isprintable():
        fail("title", f"{written.title!r}: expected one line without control characters")
    for i, ability in enumerate(written.abilities):
        problem = ability.problem()
        if ability.gold in _NO_GOLD:
            problem = f"gold is {ability.gold!r}, a field of every line or prediction that is no "
            problem += "gold answer; name another one, or leave gold out for the last message"
        if problem:
            fail(f"abilities[{i}] ({ability.name})", problem)
    if all(ability.out_of_domain for ability in written.abilities):
        fail("abilities", "expected at least one that is not out_of_domain")
    for name, value in msgspec.structs.asdict(written.run).items():
        numbers = [*value, *value.values()] if isinstance(value, dict) else [value]
        if any(number < 1 for number in numbers):
            fail(f"run.{name}", f"expected whole numbers above 0, found {value}")
        if any(number > LARGEST for number in numbers):
            fail(f"run.{name}", f"expected at most {LARGEST:,}, found {value}")
    for i, series in enumerate(written.series):
        if not series.sizes or min(series.sizes) < 1 or len(set(series.sizes)) < len(series.sizes):
            fail(f"series[{i}].sizes", f"expected different numbers above 0, found {series.sizes}")
        if not series.take:
            fail(f"series[{i}].take", "expected at least one pool to take lines from")
    takes = [(f"series[{i}]", series.take) for i, series in enumerate(written.series)]
    takes += [(f"settings[{i}]", lone.take) for i, lone in enumerate(written.settings)]
    names = [ability.name for ability in written.abilities if not ability.out_of_domain]
    for key, taken in takes:
        for j, take in enumerate(taken):
            in_series = key.startswith("series")
            _check_take(written.pools, names, take, in_series, f"{key}.take[{j}]", fail)
    for i, lone in enumerate(written.settings):
        _check_lone(lone, f"settings[{i}] ({lone.name})", fail)


def _check_names(written: _Study, fail: Any) -> None:
    """Names are plain, so that files and folders can have them, and there once."""
    in_use: dict[str, tuple[str, str]] = {}
    named = [("name", written.name)]
    for i, ability in enumerate(written.abilities):
        for name in (ability.name, *ability.aliases):
            key = f"abilities[{i}].name"
            if name in _RESERVED_NAMES:
                fail(key, f"{name!r} is what results call a score over several files; rename it")
            _check_new(key, name, in_use, fail)
            named.append((key, name))
    settings = [(f"series[{i}].name", series.name) for i, series in enumerate(written.series)]
    settings += [(f"settings[{i}].name", lone.name) for i, lone in enumerate(written.settings)]
    seen = {OTHER: (OTHER, "settings on no curve")}
    for key, name in settings:
        _check_new(key, name, seen, fail)
    gathered = [(f"pools.{name}.gathered_as", p.gathered_as) for name, p in written.pools.items()]
    named += settings + [(key, name) for key, name in gathered if name]
    for key, name in named:
        _check_plain(key, name, fail)
    folders = [("valid", written.valid), ("test", written.test)]
    folders += [(f"pools.{name}.path", pool.path) for name, pool in written.pools.items()]
    for key, folder in folders:
        if not folder.isprintable():
            fail(key, f"{folder!r}: expected a folder's name without control characters")
    if not written.abilities:
        fail("abilities", "expected at least one")


def _check_new(key: str, name: str, in_use: dict[str, tuple[str, str]], fail: Any) -> None:
    """No two names are those of one file; `in_use` gets the name, and whose it is."""
    if name_key(name) in in_use:
        same, whose = in_use[name_key(name)]
        but = "" if same == name else f", but for case or how letters are composed ({same!r})"
        fail(key, f"{name!r} is the name of {whose} already{but}")
    in_use[name_key(name)] = name, key.removesuffix(".name")


def _check_plain(key: str, name: str, fail: Any) -> None:
    if fault := fault_in_study(name):
        fail(key, fault)


def _check_take(
    pools: Mapping[str, Pool], names: list[str], take: Take, in_series: bool, key: str, fail: Any
) -> None:
    """A take of a series or a lone setting; `names` are the abilities that may be taken."""
    if take.pool not in pools:
        known = ", ".join(pools) or "none"
        fail(f"{key}.pool", f"{take.pool!r}: no such pool; pools: {known}")
    gathered = bool(pools[take.pool].gathered_as)
    if isinstance(take.lines, dict):
        unknown = [name for name in take.lines if name not in names]
        if unknown or gathered:
            fail(
                f"{key}.lines",
                f"{', '.join(unknown) or take.pool}: expected abilities of the study that are not "
                f"out of domain: {', '.join(names)}",
            )
        wrong = {name: n for name, n in take.lines.items() if isinstance(n, int) and n < 1}
        if wrong:
            fail(f"{key}.lines", f"expected numbers above 0 or 'all', found {wrong}")
    elif isinstance(take.lines, int) and (take.lines < 1 or not gathered):
        fail(f"{key}.lines", f"found {take.lines}; expected a table of lines by ability")
    elif take.lines in (EQUAL, None) and not in_series:
        fail(f"{key}.lines", "only a series has a size to share; expected numbers")


def _check_lone(lone: Lone, key: str, fail: Any) -> None:
    if bool(lone.same_as) == bool(lone.take or lone.extends):
        fail(key, "expected either same_as, or take (with extends, if it holds another one's)")
    if not lone.same_as and lone.samples < 1:
        fail(f"{key}.samples", "expected how many lines it has in all")
    if lone.marker and lone.marker not in _MARKERS:
        fail(
            f"{key}.marker", f"{lone.marker!r}: expected one of matplotlib's: {' '.join(_MARKERS)}"
        )


def _recipes(written: _Study, path: Path) -> dict[str, Recipe]:
    """Every setting's recipe.

    Raises:
        InputError: a name is taken twice, an equal share is no whole number, or settings refer to
            each other in a circle or to none.
    """
    recipes: dict[str, Recipe] = {}
    names = [ability.name for ability in written.abilities if not ability.out_of_domain]
    for i, series in enumerate(written.series):
        for size in series.sizes:
            name = f"{series.name}-{size}"
            where = f"--study {path}: series[{i}].sizes: {size}"
            shares = _shares(written.pools, series.take, names, size, where)
            _check_total(shares, size, where)
            recipes[name] = Recipe(name, series.name, size, shares, name)
            _check_names_once(recipes[name], f"--study {path}")
    lone = {setting.name: setting for setting in written.settings}
    twice = [name for name in lone if name in recipes]
    if twice:
        raise InputError(f"--study {path}: settings: {twice[0]!r} is a setting of a series already")
    for last in lone:
        for name in _chain(last, lone, recipes, path):
            where = f"--study {path}: settings ({name})"
            recipes[name] = _lone_recipe(lone[name], recipes, written.pools, names, where)
            _check_names_once(recipes[name], f"--study {path}")
    return recipes


def _chain(
    name: str, lone: Mapping[str, Lone], recipes: Mapping[str, Recipe], path: Path
) -> list[str]:
    """A lone setting and those that it is made of, the first to make first.

    Raises:
        InputError: it is made of itself, or of a setting that there isn't.
    """
    chain: dict[str, None] = {}
    while name and name not in recipes:
        if name not in lone or name in chain:
            how = "is made of itself" if name in chain else "is no setting"
            shown = [*chain, name] if len(chain) < 10 else [next(iter(chain)), "...", name]
            raise InputError(f"--study {path}: settings ({' -> '.join(shown)}): {name!r} {how}")
        chain[name] = None
        name = lone[name].same_as or lone[name].extends
    return list(chain)[::-1]


def _lone_recipe(
    own: Lone,
    recipes: Mapping[str, Recipe],
    pools: Mapping[str, Pool],
    names: list[str],
    where: str,
) -> Recipe:
    other = recipes.get(own.same_as or own.extends)
    if other is not None and own.same_as:
        if own.samples not in (0, other.samples):
            raise InputError(
                f"{where}: samples is {own.samples:,}, but {other.name} has {other.samples:,}; "
                "leave samples out, as same_as says it"
            )
        return dataclasses.replace(other, name=own.name)
    shares = (*(other.shares if other else ()), *_shares(pools, own.take, names, 0, where))
    quotas = [share.quota for share in shares if share.quota is not None]
    samples = own.samples or (sum(quotas) if len(quotas) == len(shares) else 0)
    _check_total(shares, samples, where)
    return Recipe(own.name, "", samples, shares, own.name, own.marker)


def _check_total(shares: Sequence[Share], samples: int, where: str) -> None:
    """A setting holds as many lines as its place on the axis says, where that is known.

    Raises:
        InputError: it does not.
    """
    quotas = [share.quota for share in shares if share.quota is not None]
    total, known = sum(quotas), len(quotas) == len(shares)
    if max(total, samples) > MOST_LINES:
        raise InputError(f"{where}: a setting of more than {MOST_LINES:,} lines; give fewer")
    if total > samples or (known and total < samples):
        raise InputError(
            f"{where}: takes {total:,} lines{'' if known else ' or more'} but stands at "
            f"{samples:,} on the axis; expected the same number"
        )


def _shares(
    pools: Mapping[str, Pool], takes: Iterable[Take], names: list[str], size: int, where: str
) -> tuple[Share, ...]:
    shares = []
    for take in takes:
        pool = pools[take.pool]
        if pool.gathered_as:
            lines = take.lines if isinstance(take.lines, int) else size
            quotas: dict[str, int | None] = {pool.gathered_as: None if take.lines == ALL else lines}
        elif isinstance(take.lines, dict):
            quotas = {name: None if n == ALL else int(n) for name, n in take.lines.items()}
        elif take.lines == ALL:
            quotas = dict.fromkeys(names)
        else:
            if size < len(names):
                raise InputError(
                    f"{where}: below one line for each of the {len(names)} abilities; expected "
                    f"{len(names)} or more"
                )
            # The first ones have one more where the size is no multiple; larger sizes hold smaller.
            least, more = divmod(size, len(names))
            quotas = {name: least + (place < more) for place, name in enumerate(names)}
        _check_distinct(take, quotas, where)
        shares += [
            Share(pool, name, n, take.sampled, take.distinct.get(name))
            for name, n in sorted(quotas.items())
        ]
    return tuple(shares)


def _check_distinct(take: Take, quotas: Mapping[str, int | None], where: str) -> None:
    for name, distinct in take.distinct.items():
        lines = quotas.get(name)
        if lines is None or not 1 <= distinct <= lines:
            raise InputError(
                f"{where}: distinct: {name} = {distinct}: expected a name with a number of lines "
                f"in the same take, and 1 to that number of different ones, found {lines or 'none'}"
            )


def _check_names_once(recipe: Recipe, where: str) -> None:
    names = Counter(share.name for share in recipe.shares)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(
            f"{where}: the setting {recipe.name} takes {twice[0]} twice; take it from one pool"
        )
