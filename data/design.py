"""Write a design: recipes around equal shares, whose runs say which data helps which ability.

    python data/design.py --total 160 --runs 20 --output_dir data/design

Each recipe holds --total lines; each ability is left out, at a third of its equal share, at it,
and at three times it, about equally often, and no two move together. --target N says that the runs
stand for runs on N lines: only the same part of each pool is used then, so that with --repeats a
line is there as often as it would be in those. data/build.py --recipe builds them; docs/plan.md
goes on from there.
"""

import sys
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable, write_text
from growth.core.locks import locked
from growth.core.options import DesignOptions, OutputOptions, StudyOptions
from growth.data.settings import pool_sizes
from growth.data.study import Study, check_recipe_name, named_study, recipe_text


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, design, write, print the table."""
    parser = argument_parser(__doc__)
    for group in (DesignOptions, StudyOptions, OutputOptions):
        add_options(parser, group)
    args = parser.parse_args(argv)
    options = options_from(args, DesignOptions)
    study = named_study(args.study)
    check_writable(options.output_dir, "--output_dir")
    with locked(options.output_dir, "--output_dir", args.wait):
        write_design(study, options)


def write_design(study: Study, options: DesignOptions) -> None:
    """Write a file a recipe; print the table of their lines."""
    from growth.planning.shares import design, table

    pool, digits = study.pool_of_lines(options.pool), len(str(options.runs))
    names = [
        f"{options.name}-{options.total}-{number:0{digits}}"
        for number in range(1, options.runs + 1)
    ]
    for name in names:
        check_recipe_name(name, study, "--name")
    mixtures = design(
        pool_sizes(study, pool, options.data_dir),
        options.total,
        options.runs,
        options.seed,
        target=options.target or options.total,
        repeats=options.repeats,
    )
    named = dict(zip(names, mixtures, strict=True))
    check_replaceable(options.output_dir, named)
    for name, mixture in named.items():
        about = f"Of a design of {options.runs} recipes (data/design.py), seed {options.seed}."
        text = recipe_text(name, pool, mixture.lines, mixture.distinct, about)
        write_text(options.output_dir / f"{name}.toml", text)
    print(table([ability.name for ability in study.in_domain], named))
    print(options.output_dir)


def check_replaceable(folder: Path, names: Collection[str]) -> None:
    """Two designs never share a folder: a sweep takes all recipes of one.

    Raises:
        InputError: there are recipes in it that would stay.
    """
    others = sorted(path.name for path in folder.glob("*.toml") if path.stem not in names)
    if others:
        raise InputError(
            f"--output_dir {folder}: holds other recipes ({', '.join(others[:3])}); remove them or "
            "choose another folder"
        )


if __name__ == "__main__":
    run_script(main)
