"""The settings of a study: which lines they hold, and the sampling behind them.

Source: paper section 4.1 and the published data script. What differs: the subsets are nested, and
they depend on the seed and the lines alone, not on the order or number of files in a folder.
"""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import Object, is_file, sha256, write_json
from growth.core.schemas import BuildRecord, read_record
from growth.data.copies import check_no_copies, find_repeats, warn_of_repeats
from growth.data.lines import Lines, checked_lines
from growth.data.records import ability_name, check_training, data_files
from growth.data.study import Pool, Recipe, Share, Study, recorded_recipe

logger = logging.getLogger(__name__)
# No *.json, which are lines to whoever reads the folder.
BUILD_RECORD = "build.record"


Pools = dict[Pool, dict[str, Lines]]  # the lines of each pool that has been read, by name


def build_setting(study: Study, recipe: Recipe, data_dir: Path, seed: int) -> dict[str, Lines]:
    """As `take_lines`; lines that it repeats without being told to are named in a warning."""
    built = take_lines(study, recipe, data_dir, seed, {})
    different = {share.name: built[share.name][: share.distinct] for share in recipe.shares}
    where = f"--data_type {recipe.name}, from --data_dir {data_dir}"
    warn_of_repeats(find_repeats(different), where, "the setting holds fewer different lines")
    return built


def take_lines(
    study: Study, recipe: Recipe, data_dir: Path, seed: int, pools: Pools
) -> dict[str, Lines]:
    """The lines of a setting, by the stem of the file that holds them.

    For one seed curated-10 is the beginning of curated-40, and so on; the same for every series.
    All lines are checked; they stay in their files, and only their places are held.

    Args:
        study: whose abilities they are of.
        recipe: of the setting.
        data_dir: that the pools' folders are in.
        seed: of the sampling.
        pools: those read before, for the same study and folder; gets what is read now.

    Raises:
        InputError: a file or enough lines are missing.
    """
    built: dict[str, Lines] = {}
    for share in recipe.shares:
        folder = data_dir / share.pool.path
        if share.pool not in pools:
            pools[share.pool] = _lines_of(share.pool, folder, study)
        lines = pools[share.pool].get(share.name, Lines([]))
        if share.sampled:
            lines = _permuted(lines, f"{seed}/{share.name}")
        built[share.name] = _first(lines, share, recipe, folder)
        if share.distinct is not None:
            built[share.name] = _repeated(built[share.name], share.quota or 0)
    return built


def _lines_of(pool: Pool, folder: Path, study: Study) -> dict[str, Lines]:
    """The lines of a pool by ability, or under the one name that they are gathered as.

    Raises:
        InputError: two files are copies of each other, so that a sample could repeat a line.
    """
    lines: dict[str, Lines] = {}
    paths = [folder] if folder.is_file() else data_files(folder, "--data_dir")
    files = {path.name: Lines([path]) for path in paths}
    for number, path in enumerate(paths):
        for offset, record in checked_lines(path, check_training):
            files[path.name].append(0, offset)
            name = pool.gathered_as or ability_name(
                record, path, study, by_file=pool.told_apart_by == "file"
            )
            lines.setdefault(name, Lines(paths)).append(number, offset)
    check_no_copies(files, f"--data_dir {folder}")
    return lines


def pool_sizes(study: Study, pool: str, data_dir: Path) -> dict[str, int]:
    """How many lines a pool holds of each ability that is trained on.

    Args:
        study: whose.
        pool: its name.
        data_dir: that the pools' folders are in.

    Raises:
        InputError: a file can't be read.
    """
    own = study.pools[pool]
    lines = _lines_of(own, data_dir / own.path, study)
    return {ability.name: len(lines.get(ability.name, ())) for ability in study.in_domain}


def _permuted(lines: Lines, seed: str) -> Lines:
    """A seeded permutation: its prefixes are nested samples without replacement."""
    order = list(range(len(lines)))
    # A string seed is hashed by `random` itself, the same on every machine and Python version.
    random.Random(seed).shuffle(order)
    return lines.take(order)


def _repeated(lines: Lines, count: int) -> Lines:
    """`count` lines: all of them in turn, again and again."""
    return lines.take(place % len(lines) for place in range(count))


def _first(lines: Lines, share: Share, recipe: Recipe, folder: Path) -> Lines:
    wanted = share.distinct or share.quota or 1
    if len(lines) < wanted:
        raise InputError(
            f"--data_type {recipe.name} asks for {wanted:,} lines of {share.name}, but {folder} "
            f"holds {len(lines):,}: add lines of {share.name} there, choose a smaller setting, "
            "repeat lines (`distinct` in the study file or recipe), or point --data_dir at "
            "complete data (`python data/download.py` downloads the published)"
        )
    return lines if share.quota is None else lines[:wanted]


def check_replaceable(folder: Path, study: Study, data_dir: Path) -> None:
    """Check that a setting may be built in `folder`: all that is there was built, too.

    Args:
        folder: to be replaced; it need not exist.
        study: whose pools, valid and test lines stay.
        data_dir: that those are in.

    Raises:
        InputError: it holds lines to take from or to evaluate on, or what data/build.py never
            wrote. Builds of before there was a record are known by holding nothing but lines; they
            are of the published study.
    """
    pools = {share.pool.path for r in study.recipes.values() for share in r.shares}
    for place in sorted(pools | set(study.splits.values())):
        path = (data_dir / place).resolve()
        if folder.resolve() in (path, *path.parents):
            raise InputError(
                f"--output_dir {folder.parent}: {folder} would be replaced, and it holds the lines "
                f"of {data_dir / place}; choose another --output_dir, or rename the setting"
            )
    if not is_file(folder, or_folder=True):
        return
    if not folder.is_dir():
        raise InputError(f"--output_dir {folder.parent}: {folder} is a file; expected a folder")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if name != BUILD_RECORD and not name.endswith(".json")]
    if names and not study.is_published and BUILD_RECORD not in names:
        foreign = foreign or names
    if foreign:
        raise InputError(
            f"--output_dir {folder.parent}: {folder} would be replaced, and it holds "
            f"{', '.join(foreign[:3])}, not built by data/build.py; choose another --output_dir, "
            "or move this elsewhere"
        )


def file_digests(folder: Path) -> dict[str, str]:
    """The digest of each `*.json` of a folder, which need not exist."""
    return {path.name: sha256(path) for path in sorted(folder.glob("*.json"))}


def write_build(
    folder: Path, study: Study, recipe: Recipe, seed: int, lines: Mapping[str, int]
) -> None:
    """Record, in a folder of files just built, which setting they are.

    Args:
        folder: of the files.
        study: with `recipe` and `seed`, what they were built of.
        recipe: of the setting.
        seed: of the sampling.
        lines: of each file, by its stem.
    """
    files = {
        name: {"lines": lines[Path(name).stem], "sha256": digest}
        for name, digest in file_digests(folder).items()
    }
    record = {"study": study.name, "setting": recipe.name, "seed": seed, "files": files}
    if not recipe.listed:
        record["recipe"] = recipe.record() | {"lines": dict(lines)}
    write_json(folder / BUILD_RECORD, record)


def read_build(folder: Path) -> Object | None:
    """What `write_build` wrote; None where the files are not built, or by an earlier version.

    Raises:
        InputError: the record is damaged.
    """
    path = folder / BUILD_RECORD
    if not is_file(path):
        return None
    return read_record(path, BuildRecord, "build the setting again with data/build.py")


def setting_of(study: Study, name: str, train_dir: Path) -> Recipe:
    """The setting that a run is to be recorded as: of the study, or of a recipe built for it.

    Args:
        study: of the run.
        name: of the setting.
        train_dir: the lines to train on.

    Raises:
        InputError: there is no such setting, and none was built in `train_dir`.
    """
    build = read_build(train_dir) if name not in study.recipes else None
    if build is not None and build["setting"] == name and "recipe" in build:
        return recorded_recipe(name, build["recipe"])
    return study.recipe(name)


def check_build(
    folder: Path, files: Mapping[str, Any], study: Study, setting: str, seed: int
) -> Object | None:
    """Check that lines to train on are those of the setting that they are recorded as.

    Args:
        folder: of the lines.
        files: lines and digest of each, by name.
        study: with `setting` and `seed`, what the run is recorded as.
        setting: a name of the study's, or any other.
        seed: of the run.

    Returns:
        What the folder was built as; None where nothing says so.

    Raises:
        InputError: it was built as something else, or its files have changed since.
    """
    recipe, build = study.recipes.get(setting), read_build(folder)
    if build is None:
        _warn_of_other_size(folder, files, recipe)
        return None
    where = f"--train_dir {folder}: by its {BUILD_RECORD}"
    if build["study"] != study.name:
        raise InputError(
            f"{where} it was built for the study {build['study']}, and this run is of "
            f"{study.name}; give the study's file with --study, or train on lines of this study"
        )
    built = study.recipes.get(build["setting"])
    if recipe is not None and (built.same_as if built else build["setting"]) != recipe.same_as:
        raise InputError(
            f"{where} it holds {build['setting']}, and the run would be recorded as {setting}; "
            f"give --data_type {build['setting']}, or the --train_dir of {setting}"
        )
    if changed := sorted(
        name for name in {*files, *build["files"]} if files.get(name) != build["files"].get(name)
    ):
        raise InputError(
            f"{where} it held other lines when it was built (changed: {', '.join(changed[:3])}); "
            f"build it again with data/build.py, or, if they are meant, remove its {BUILD_RECORD}"
        )
    if build["seed"] != seed:
        logger.warning(
            "%s its lines are those of seed %s, and the run has --seed %s; run.json records both",
            *(where, build["seed"], seed),
        )
    return build


def _warn_of_other_size(folder: Path, files: Mapping[str, Any], recipe: Recipe | None) -> None:
    """Say so where a folder that nothing is known of can't be the setting it is recorded as."""
    quotas = [share.quota for share in recipe.shares] if recipe else [None]
    found, expected = sum(file["lines"] for file in files.values()), sum(q or 0 for q in quotas)
    if recipe is not None and None not in quotas and found != expected:
        logger.warning(
            "--train_dir %s: %s lines, recorded as %s, which has %s: the curves draw it there; "
            "data/build.py builds the setting",
            *(folder, f"{found:,}", recipe.name, f"{expected:,}"),
        )
