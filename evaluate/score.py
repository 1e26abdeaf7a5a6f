"""Score predictions: evaluate/results/<split>/.../<checkpoint>-results.json.

    python evaluate/score.py --pred_data_path evaluate/pred-data/valid --details

Every folder below --pred_data_path that holds pred_*.json is scored, by nothing but those files.
Scores are per cent, each with the score of chance and a 95 % Wilson interval. In columns of their
own: what a person would read (extracted), and math by the math-verify library (verify). --details
writes the verdict on each line.
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
from growth.core.options import OutputOptions, StudyOptions
from growth.scoring.results import results_table, score_predictions


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, score each folder, print the scores."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--pred_data_path", type=Path, required=True, help="folder of predictions, at any depth"
    )
    parser.add_argument(
        "--results_path",
        type=Path,
        help="where results are written; default: the same place below evaluate/results",
    )
    parser.add_argument(
        "--details", action="store_true", help="write score, expected, parsed, gold of each line"
    )
    add_options(parser, StudyOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)
    scored = score_predictions(
        args.pred_data_path,
        args.results_path,
        details=args.details,
        study=args.study,
        wait=args.wait,
    )
    if len(scored) == 1:
        print(results_table(scored[0]))


if __name__ == "__main__":
    run_script(main)
