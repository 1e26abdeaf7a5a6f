"""Choose the checkpoint of each run that is reported: <results>/.../selected-checkpoint.json.

    python evaluate/select_checkpoint.py --results_path evaluate/results/valid

Best mean valid score over the study's abilities, from the fifth epoch's checkpoint on (all of them
when a run is shorter), ties to the earlier. Prints
`<model_size>/<data_type>/<timestamp>/<checkpoint>`, a tab and the reason, a line a run. The valid
score of a chosen checkpoint is optimistic; report its test score. Runs without a candidate are
named at the end, with exit code 2; the others are written.
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
from growth.runs.layout import RESULTS


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, choose, print."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--results_path",
        type=Path,
        default=RESULTS / "valid",
        help="folder of valid results, at any depth",
    )
    add_options(parser, StudyOptions)
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)
    # Imported here: Ctrl-C is answered from now on.
    from growth.scoring.checkpoint_selection import choose_checkpoints, description

    choices = choose_checkpoints(args.results_path, args.wait, args.study)
    for choice in choices.chosen:
        print(description(choice))
    choices.check()


if __name__ == "__main__":
    run_script(main)
