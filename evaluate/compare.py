"""Compare two settings, runs or results on the same questions: which differences are real.

    python evaluate/compare.py 7b/curated-640 7b/curated-160

A and B are a setting (all its runs: seeds are repeats), a run (7b/curated-640/<timestamp>, or its
folder) or a results file. Per ability: both scores, A less B with its 95 % interval, p, Holm's p
over the abilities, and the smallest difference that so many questions could have shown; then the
mean over the abilities, and apart from it what is out of domain. Needs the verdict on each question
(score.py --details; evaluate/run.py writes them). docs/compare.md says what is computed and how.
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
from growth.core.errors import InputError
from growth.core.files import check_writable
from growth.core.locks import locked
from growth.core.options import CompareOptions, FigureOptions, OutputOptions, StudyOptions
from growth.report.plot_types import formats_of
from growth.runs.layout import COMPARISONS, results_folders


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, find both sides, compare, print and write."""
    parser = argument_parser(__doc__)
    parser.add_argument("a", metavar="A", help="a setting, a run or a results file")
    parser.add_argument("b", metavar="B", help="another one; differences are A less B")
    for group in (CompareOptions, FigureOptions, StudyOptions, OutputOptions):
        add_options(parser, group)
    args = parser.parse_args(argv)
    options = options_from(args, CompareOptions)
    if args.a == args.b:
        raise InputError(f"A and B are both {args.a}; give two different ones")
    formats = formats_of(args.format)
    # Imported here: Ctrl-C is answered from now on.
    from growth.report.comparison import Finder, compare, folder_name
    from growth.report.comparison_output import (
        comparison_table,
        fonts_of_comparison,
        write_comparison,
    )

    finder = Finder(*results_folders(options), args.study)
    a, b = finder.side(args.a, "A"), finder.side(args.b, "B")
    notes = finder.notes(a, b)
    comparison = compare(a, b, options.seed, args.study, notes, value=options.value)
    output_dir = options.output_dir or COMPARISONS / folder_name(comparison)
    check_writable(output_dir, "--output_dir")
    fonts = fonts_of_comparison(comparison)
    for note in [*comparison.notes, *fonts.notes()]:
        print(f"note: {note}", file=sys.stderr)
    with locked(output_dir, "--output_dir", args.wait):
        print(comparison_table(comparison))
        print(*write_comparison(output_dir, comparison, formats, fonts), sep="\n")


if __name__ == "__main__":
    run_script(main)
