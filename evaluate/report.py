"""Write <output_dir>/report.html, the whole study on one page; report.json, its numbers; noise.csv.

    python evaluate/report.py

The page needs no network and no script: overview, growth curve and table of each ability, selected
checkpoints, public benchmarks, cost of each run, provenance, and what failed or is missing.
"""

import os
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

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.files import check_writable, write_json, write_text
from growth.core.locks import locked
from growth.core.options import OutputOptions, ReportInputs, ResultsOptions, StudyOptions
from growth.data.study import read_study
from growth.runs.layout import REPORT, results_folders


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, read, write, print each path written."""
    # A notebook's, which need not be there: matplotlib refuses it.
    os.environ["MPLBACKEND"] = "agg"
    parser = argument_parser(__doc__)
    add_options(parser, ResultsOptions)
    add_options(parser, ReportInputs)
    parser.add_argument(
        "--output_dir",
        type=Path,
        help=f"where the report is written; default: {REPORT}, with --study {REPORT}/<its name>",
    )
    parser.add_argument(
        "--laws",
        action="store_true",
        help="draw the growth law of each curve with its 90 %% interval (docs/laws.md)",
    )
    add_options(parser, StudyOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)
    # Imported here: Ctrl-C is answered from now on.
    from growth.report.laws import write_table
    from growth.report.noise import noise_floor
    from growth.report.page import render
    from growth.report.summary import Places, summarise

    output_dir = args.output_dir or (REPORT / read_study(args.study).name if args.study else REPORT)
    check_writable(output_dir, "--output_dir")
    folders = results_folders(options_from(args, ResultsOptions))
    inputs = options_from(args, ReportInputs)
    places = Places(*folders, inputs.runs_dir, inputs.benchmarks_dir)
    with locked(output_dir, "--output_dir", args.wait):
        summary = summarise(places, args.study)
        page, numbers = (output_dir / f"report.{end}" for end in ("html", "json"))
        write_json(numbers, summary.report)
        write_text(page, render(summary, "law" if args.laws else "raw"))
        noise = output_dir / "noise.csv"
        write_table(noise, noise_floor(summary.points))
        print(page, numbers, noise, sep="\n")


if __name__ == "__main__":
    run_script(main)
