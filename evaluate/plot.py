"""Draw growth curves: <plots_path>/<plot_type>/<ability>.png, and .csv with the numbers drawn.

    python evaluate/plot.py --plot_type all

Plot types: `overall` (curated data, one curve per model size), `curated_vs_synthetic-<size>` (such
as -7b), `ood` (the out-of-domain sets), and `all`: each of these that has data, and
<plots_path>/all/overview.png, all abilities on one page.

Reads every *-results.json below --results_path, as score.py wrote them. Where a run has several
checkpoints scored, the one that select_checkpoint.py chose is drawn. Figures show raw scores with
their 95 % interval; --smooth gives the look of the published figures and says so on each. --laws
draws each curve's fitted law (docs/laws.md), --value what has less noise than the score, --format
writes SVG or PDF.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

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
from growth.core.options import FigureOptions, OutputOptions, ResultsOptions, StudyOptions
from growth.core.workers import worker_pool
from growth.data.study import published_study, read_study
from growth.report.plot_types import SIGMA, check_plot_type, formats_of, plot_types
from growth.report.values import SCORE, VALUES
from growth.runs.layout import PLOTS, results_folders

if TYPE_CHECKING:
    from growth.report.axes import Join


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, read the results, draw, print each path written."""
    # A notebook's, which need not be there: matplotlib refuses it. Figures are drawn by Agg.
    os.environ["MPLBACKEND"] = "agg"
    args = _parser().parse_args(argv)
    join = _join(args.smooth, args.laws, args.value)
    formats = formats_of(args.format)
    plots_path = args.plots_path or (PLOTS / read_study(args.study).name if args.study else PLOTS)
    check_writable(plots_path, "--plots_path")
    with locked(plots_path, "--plots_path", args.wait):
        draw(
            args.plot_type,
            *results_folders(options_from(args, ResultsOptions)),
            plots_path,
            join,
            args.value,
            args.study,
            formats,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--plot_type",
        required=True,
        help=f"one of {', '.join(plot_types(published_study()))} (other studies compare their own "
        "series); the size may be any that was scored",
    )
    add_options(parser, ResultsOptions)
    parser.add_argument(
        "--plots_path",
        type=Path,
        help=f"where figures are written; default: {PLOTS}, with --study {PLOTS}/<its name>",
    )
    parser.add_argument(
        "--smooth",
        action="store_true",
        help=f"as published: Gaussian filter of sigma {SIGMA} points, a smooth curve; default: raw",
    )
    parser.add_argument(
        "--laws",
        action="store_true",
        help="the growth law of each curve with its 90 %% interval, to four times the largest size",
    )
    parser.add_argument(
        "--value",
        choices=tuple(VALUES),
        default=SCORE,
        help="what is drawn: the score; the loss of each ability's validation lines, nats per "
        "token; or the probability of the gold answer, per cent (docs/evaluation.md)",
    )
    add_options(parser, FigureOptions)
    add_options(parser, StudyOptions)
    add_options(parser, OutputOptions)
    return parser


def _join(smooth: bool, laws: bool, value: str) -> "Join":
    """How the flags say that points are joined.

    Raises:
        InputError: they contradict one another.
    """
    if smooth and laws:
        raise InputError("--smooth and --laws: points are joined in one way; leave one of them out")
    if smooth and value != SCORE:
        raise InputError(
            f"--smooth and --value {value}: published figures are of scores; leave one of them out"
        )
    if laws and value != SCORE:
        raise InputError(
            f"--laws and --value {value}: the laws of curves are of scores; leave one of them out "
            "(docs/laws.md says what became of losses)"
        )
    return "smooth" if smooth else "law" if laws else "raw"


def draw(
    plot_type: str,
    results_path: Path,
    selection_path: Path,
    plots_path: Path,
    join: "Join" = "raw",
    value: str = SCORE,
    flag: Path | None = None,
    formats: Sequence[str] = ("png",),
) -> None:
    """Read, then draw and write the figures and their numbers, all processors together.

    Raises:
        InputError: there is nothing to plot.
    """
    # Imported here: files are read before pandas is, and their table before matplotlib is.
    from growth.report.results_rows import read_rows

    read = read_rows(results_path, flag, value)
    from growth.report.results_table import results_of

    results = results_of(read, results_path, selection_path)
    check_plot_type(plot_type, results.study)
    from growth.report.curves import growth_points, sizes_of
    from growth.report.plots import Drawing, drawings, fonts_of

    points = growth_points(results.rows)
    fonts = fonts_of(points, results.study)
    for note in [*results.notes, *fonts.notes()]:
        print(f"note: {note}", file=sys.stderr)
    planned = drawings(points, plot_type, results.study, join, fonts)
    if not planned:
        there = ", ".join(
            f"{size} {source}"
            for size in sizes_of(points)
            for source in dict.fromkeys(points.loc[points["model_size"] == size, "source"])
        )
        raise InputError(
            f"--plot_type {plot_type}: nothing to plot, no such results in --results_path "
            f"{results_path}, only: {there}. Predict and score what is missing "
            "(`bash scripts/run_evaluate.sh`), or choose --plot_type all, which draws what there is"
        )
    with worker_pool() as pool:
        alike = map(repeat, (plots_path, join, formats))
        for paths in pool.map(Drawing.write, planned, *alike):
            print(*paths, sep="\n", flush=True)


if __name__ == "__main__":
    run_script(main)
