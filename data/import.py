"""Import your own data: <output_dir>/{train,valid,test}/<ability>.json, in the one format.

    python data/import.py --input raw/law.jsonl raw/medicine.parquet --output_dir data/mine

Reads `messages` lines (OpenAI's and DoIT's), Alpaca, ShareGPT, and `prompt` with `completion`, as
.jsonl, .json or .parquet. Lines that can't be used are left out and counted. Questions that are
nearly the same stay on one side of the split. import.json beside the folders says what was done.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.locks import locked
from growth.core.names import fault_in_study
from growth.core.options import ImportOptions, OutputOptions, ReadingOptions
from growth.data.importing import Imported, import_files, reading_of, warn_of_overlaps
from growth.data.splitting import SPLITS


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, import, print what was read, refused and written."""
    parser = argument_parser(__doc__)
    add_options(parser, ImportOptions)
    add_options(parser, ReadingOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)
    options = options_from(args, ImportOptions)
    with locked(options.output_dir, "--output_dir", args.wait):
        made = import_files(options, reading_of(options_from(args, ReadingOptions)))
    print_tables(made)
    print(f"written to {options.output_dir}")
    for name, count in made.empty.items():
        print(
            f"warning: no line of {name} can be used: all {count:,} were refused, as said above",
            file=sys.stderr,
        )
    for fault in filter(None, map(fault_in_study, made.counts)):
        print(
            f"warning: the ability {fault}. A study file can't list it: --type gives another name",
            file=sys.stderr,
        )
    for message in made.short:
        print(f"warning: {message}", file=sys.stderr)
    warn_of_overlaps(made.overlaps, sum(sum(sizes[1:]) for sizes in made.counts.values()))


def print_tables(made: Imported) -> None:
    """What was read, what was refused and why, and how much of each ability is where."""
    for source in made.sources:
        refused = f", {source.refused:,} refused" if source.refused else ""
        print(
            f"{source.path}: {source.format or 'unknown format'}, {source.lines:,} lines{refused}"
        )
    for reason, first in made.refusals.first.items():
        print(f"\nrefused, {reason}: {made.refusals.counts[reason]:,}")
        print("\n".join(f"  {message}" for message in first))
        if (more := made.refusals.counts[reason] - len(first)) > 0:
            print(f"  ... and {more:,} more")
    counts = dict(sorted((made.counts | dict.fromkeys(made.empty, (0,) * len(SPLITS))).items()))
    width = max(len("ability"), *map(len, counts)) + 2
    print(f"\n{'ability':<{width}}" + "".join(f"{name:>12}" for name in SPLITS))
    for name, sizes in counts.items():
        print(f"{name:<{width}}" + "".join(f"{size:>12,}" for size in sizes))
    totals = [sum(sizes) for sizes in zip(*made.counts.values(), strict=True)]
    print(f"{'total':<{width}}" + "".join(f"{size:>12,}" for size in totals))
    largest = f" (the largest group: {made.largest:,} lines)" if made.alike else ""
    print(f"{made.alike:,} lines have a near-duplicate; each stays on its side{largest}")


if __name__ == "__main__":
    run_script(main)
