"""Build the training data of one experimental setting: data/<data_type>/<ability>.json.

    python data/build.py --data_type curated-160 --data_dir data --seed 0

--data_dir holds the data set in DoIT's layout (`curated/1000`, `curated/full`,
`synthetic/40960`). For one seed the settings are nested: curated-10 is the beginning of curated-40,
and so on. `--data_type all` builds the 19 settings. --study FILE builds those of another study, and
--recipe FILE settings that no study lists (docs/study.md).
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable, replacing, write_json_lines
from growth.core.locks import locked
from growth.core.options import OutputOptions, SeedOptions, StudyOptions
from growth.data.lines import Record
from growth.data.settings import (
    build_setting,
    check_replaceable,
    file_digests,
    read_build,
    write_build,
)
from growth.data.study import Study, named_study, published_study, read_recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, build, write, print the table."""
    parser = argument_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data_type",
        help="the setting: all, or one of the study's; in the published one: "
        + ", ".join(published_study().recipes),
    )
    what.add_argument(
        "--recipe", type=Path, nargs="+", metavar="FILE", help="files of a recipe each (TOML)"
    )
    parser.add_argument(
        "--data_dir", type=Path, default=Path("data"), help="folder that the study's pools are in"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("data"), help="where <data_type>/ is written"
    )
    add_options(parser, SeedOptions)
    add_options(parser, StudyOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)

    check_writable(args.output_dir, "--output_dir")
    study = named_study(args.study)
    if args.recipe:
        study = with_recipes(study, args.recipe)
        recipes = [recipe for recipe in study.recipes.values() if not recipe.listed]
    elif args.data_type == "all":
        recipes = list(study.recipes.values())
    else:
        recipes = [study.recipe(args.data_type)]
    for recipe in recipes:
        check_replaceable(args.output_dir / recipe.name, study, args.data_dir)
    for recipe in recipes:
        built = build_setting(study, recipe, args.data_dir, args.seed)
        folder = args.output_dir / recipe.name
        characters = dict.fromkeys(built, 0)  # of all messages
        lines = {name: len(records) for name, records in built.items()}
        with locked(folder, "--output_dir", args.wait):
            check_replaceable(folder, study, args.data_dir)  # another process may have been at work
            before, of = file_digests(folder), origin_of(folder, study)
            with replacing(folder) as temporary:
                for name, records in built.items():
                    path = temporary / f"{name}.json"
                    write_json_lines(path, counted(records, characters, name))
                write_build(temporary, study, recipe, args.seed, lines)
            if before not in ({}, file_digests(folder)):
                print(f"{folder}: replaced other lines, of {of}", file=sys.stderr)
        print_table(folder, {name: (lines[name], characters[name]) for name in built})
        if (total := sum(lines.values())) != recipe.samples:  # of a share that takes all there are
            print(
                f"{folder}: {total:,} lines, while {study.source.name} gives {recipe.name} "
                f"{recipe.samples:,} samples, which is where figures draw it",
                file=sys.stderr,
            )


def with_recipes(study: Study, paths: Sequence[Path]) -> Study:
    """The study with the recipes of these files as settings."""
    for path in paths:
        study = study.with_recipe(read_recipe(path, study))
    return study


def origin_of(folder: Path, study: Study) -> str:
    """The seed of what was built in `folder`, and its study where that is not `study`, in words."""
    try:
        earlier = read_build(folder)
    except InputError:  # damaged; it is written again
        earlier = None
    if earlier is None:
        return "an unknown seed"
    other = "" if earlier["study"] == study.name else f" of the study {earlier['study']}"
    return f"seed {earlier['seed']}{other}"


def counted(records: Iterable[Record], characters: dict[str, int], name: str) -> Iterator[Record]:
    """Pass `records` on, and add the characters of their messages to `characters[name]`."""
    for record in records:
        characters[name] += sum(len(message["content"]) for message in record["messages"])
        yield record


def print_table(folder: Path, written: Mapping[str, tuple[int, int]]) -> None:
    """Lines and characters (of all messages) of each file that was written."""
    print(f"{folder}\n{'file':<24}{'lines':>8}{'characters':>14}")
    totals = [0, 0]
    for name, (lines, characters) in written.items():
        print(f"{name + '.json':<24}{lines:>8,}{characters:>14,}")
        totals[0] += lines
        totals[1] += characters
    print(f"{'total':<24}{totals[0]:>8,}{totals[1]:>14,}\n")


if __name__ == "__main__":
    run_script(main)
