"""Look for test questions inside training data, which a score should not count.

    python data/check_overlap.py --train data/curated-160 --test data/curated/test

A question counts as found if a training line asks the same, but for case, width, spaces and
punctuation, or holds most of its text. Reads the formats that data/import.py reads.
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

from pathlib import Path

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.options import ReadingOptions
from growth.data.importing import find_overlaps, reading_of, warn_of_overlaps
from growth.data.raw_files import find_files


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, look, print what was found."""
    parser = argument_parser(__doc__)
    for flag, about in (
        ("--train", "files or folders that a model is trained on"),
        ("--test", "files or folders whose questions it is asked"),
    ):
        parser.add_argument(flag, type=Path, nargs="+", required=True, metavar="PATH", help=about)
    add_options(parser, ReadingOptions)
    args = parser.parse_args(argv)
    overlaps, questions, refusals = find_overlaps(
        find_files(args.train, "--train"),
        find_files(args.test, "--test"),
        reading_of(options_from(args, ReadingOptions)),
    )
    for reason, first in refusals.first.items():
        print(f"not looked at, {reason}: {refusals.counts[reason]:,}, such as {first[0]}")
    print(f"{len(overlaps):,} of {questions:,} questions stand in training lines")
    warn_of_overlaps(overlaps, questions)


if __name__ == "__main__":
    run_script(main)
