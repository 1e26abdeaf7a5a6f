"""Copy a study's results for others to <output_dir>: no texts of data or answers, no weights.

    python evaluate/publish.py --output_dir results/my-study

What is copied suffices for the figures, the report, comparisons and growth laws: results files,
choices of checkpoints, the verdict on each question (without the answer that was read and the right
one), records and metrics of runs, results of benchmarks, the study file. Give `--results_path
<output_dir>/test` to those scripts, of a study of your own `--study <output_dir>/<its name>.toml`,
and to report.py `--runs_dir <output_dir>/runs --benchmarks_dir <output_dir>/benchmarks`, too.
predictions.sha256 has a digest of each file of predictions: who repeats the study runs `sha256sum
--check <output_dir>/predictions.sha256`. Prints how many files of each kind were copied, and which
of them name absolute paths.
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

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable
from growth.core.locks import locked
from growth.core.options import OutputOptions, ReportInputs, ResultsOptions, StudyOptions
from growth.report.publication import DIGESTS, publish
from growth.runs.layout import PREDICTIONS, results_folders


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, copy, say what."""
    parser = argument_parser(__doc__)
    for options in (ResultsOptions, ReportInputs, StudyOptions, OutputOptions):
        add_options(parser, options)
    parser.add_argument("--output_dir", type=Path, required=True, help="where the copies go")
    parser.add_argument(
        "--pred_data_path",
        type=Path,
        help=f"folder of the predictions to list digests of (default: {PREDICTIONS})",
    )
    args = parser.parse_args(argv)
    output_dir: Path = args.output_dir
    check_writable(output_dir, "--output_dir")
    for flag in ("selection_path", "pred_data_path"):  # those of the defaults need not be there
        folder = getattr(args, flag)
        if folder is not None and not folder.is_dir():
            raise InputError(f"--{flag} {folder}: no such folder; give the one they are in")
    test, valid = results_folders(options_from(args, ResultsOptions))
    inputs = options_from(args, ReportInputs)
    with locked(output_dir, "--output_dir", args.wait):
        found = publish(
            *(test, valid, inputs.runs_dir, inputs.benchmarks_dir, output_dir),
            args.pred_data_path or PREDICTIONS,
            options_from(args, StudyOptions).study,
        )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for path, places in found.places.items():
        print(f"{path}: names {', '.join(places)}, of this machine", file=sys.stderr)
    for part, files in found.files.items():
        print(f"{output_dir / part}: {len(files):,} files")
    if found.digests:
        print(f"{output_dir / DIGESTS}: digests of {found.digests:,} files of predictions")
    for study in found.studies:
        print(f"{study}: give it with --study to what reads these results")


if __name__ == "__main__":
    run_script(main)
