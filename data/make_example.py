"""Make raw English data to try a study of one's own on: <output_dir>/<ability>.json.

    python data/make_example.py --output_dir data/example/raw

Three Alpaca files (`instruction`, `input`, `output`): sorting (one letter of five), mood (yes or
no) and sums (a number), 400 lines each. docs/tutorial.md goes on from there.
"""

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, run_script
from growth.core.files import check_writable, write_text
from growth.core.locks import locked
from growth.core.options import OutputOptions, SeedOptions
from growth.sample.english import example_lines


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, write the files, print their paths."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--output_dir", type=Path, default=Path("data/example/raw"), help="where files are written"
    )
    add_options(parser, SeedOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)
    check_writable(args.output_dir, "--output_dir")
    with locked(args.output_dir, "--output_dir", args.wait):
        for name, lines in example_lines(args.seed).items():
            path = args.output_dir / f"{name}.json"
            write_text(path, json.dumps(lines, indent=1) + "\n")
            print(f"{path}: {len(lines):,} lines")


if __name__ == "__main__":
    run_script(main)
