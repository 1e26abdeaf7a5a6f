"""The settings of a study: which lines they hold, and the sampling behind them.

Source: paper section 4.1 and the published data script. What differs: the subsets are nested, and
they depend on the seed and the lines alone, not on the order or number of files in a folder.
"""

import random
from pathlib import Path

from growth.core.errors import InputError
from growth.data.copies import check_no_copies, find_repeats, warn_of_repeats
from growth.data.lines import Lines, checked_lines
from growth.data.records import ability_name, check_training, data_files
from growth.data.study import Pool, Recipe, Share, Study


def build_setting(study: Study, recipe: Recipe, data_dir: Path, seed: int) -> dict[str, Lines]:
    """The lines of a setting, by the stem of the file that holds them.

    For one seed curated-10 is the beginning of curated-40, and so on; the same for every series.
    All lines are checked; they stay in their files, and only their places are held. Lines that the
    setting holds more than once, as the pool does, are named in a warning.

    Args:
        study: whose abilities they are of.
        recipe: of the setting.
        data_dir: that the pools' folders are in.
        seed: of the sampling.

    Raises:
        InputError: a file or enough lines are missing.
    """
    pools: dict[Pool, dict[str, Lines]] = {}
    built: dict[str, Lines] = {}
    for share in recipe.shares:
        folder = data_dir / share.pool.path
        if share.pool not in pools:
            pools[share.pool] = _lines_of(share.pool, folder, study)
        lines = pools[share.pool].get(share.name, Lines([]))
        if share.sampled:
            lines = _permuted(lines, f"{seed}/{share.name}")
        built[share.name] = _first(lines, share, recipe, folder)
    where = f"--data_type {recipe.name}, from --data_dir {data_dir}"
    warn_of_repeats(find_repeats(built), where, "the setting holds fewer different lines")
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


def _permuted(lines: Lines, seed: str) -> Lines:
    """A seeded permutation: its prefixes are nested samples without replacement."""
    order = list(range(len(lines)))
    # A string seed is hashed by `random` itself, the same on every machine and Python version.
    random.Random(seed).shuffle(order)
    return lines.take(order)


def _first(lines: Lines, share: Share, recipe: Recipe, folder: Path) -> Lines:
    wanted = share.quota or 1
    if len(lines) < wanted:
        raise InputError(
            f"--data_type {recipe.name} asks for {wanted:,} lines of {share.name}, but {folder} "
            f"holds {len(lines):,}: add lines of {share.name} there, choose a smaller setting, or "
            "point --data_dir at complete data (`python data/download.py` downloads it)"
        )
    return lines if share.quota is None else lines[: share.quota]
