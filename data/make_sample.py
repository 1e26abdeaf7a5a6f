"""Make a sample data set in DoIT's format: data/sample/{curated,synthetic}, ten abilities, Chinese.

    python data/make_sample.py --output_dir data/sample --seed 0

Everything is made from small hand-written tables and rules (`growth/sample/`), in a quarter of a
minute on two cores; the same seed gives the same bytes. Then `python data/build.py --data_type
curated-160 --data_dir data/sample` builds a setting from it. It is a toy: it shows that the
pipeline runs and that abilities can grow, and its numbers are not comparable with the paper's.
"""

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
from growth.core.files import check_writable
from growth.core.locks import locked
from growth.core.options import OutputOptions, SeedOptions
from growth.sample.world import write_sample


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, write the files, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("data/sample"),
        help="folder that gets curated/ and synthetic/; files of the same names are replaced",
    )
    add_options(parser, SeedOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)

    check_writable(args.output_dir, "--output_dir")
    with locked(args.output_dir, "--output_dir", args.wait):
        counts = write_sample(args.output_dir, args.seed)
    print(f"{args.output_dir}\n{'file':<64}{'lines':>8}")
    for path, lines in counts.items():
        print(f"{path:<64}{lines:>8,}")
    print(f"{'total':<64}{sum(counts.values()):>8,}")


if __name__ == "__main__":
    run_script(main)
