"""Choose the checkpoint of each run that is reported: <results>/.../selected-checkpoint.json.

    python evaluate/select_checkpoint.py --results_path evaluate/results/valid

Best mean valid score over the ten abilities, from the fifth epoch's checkpoint on (all of them when
a run is shorter), ties to the earlier. Prints `<model_size>/<data_type>/<timestamp>/<checkpoint>`,
a tab and the reason, a line a run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.command_line import InputError, argument_parser, run_script
from growth.files import read_json, write_json
from growth.layout import RESULTS, RESULTS_SUFFIX, run_folder, selection_name
from growth.selection import select

NEEDED = ("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, gather the results by run, choose, write and print."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--results_path",
        type=Path,
        default=RESULTS / "valid",
        help="folder of valid results, at any depth",
    )
    args = parser.parse_args(argv)

    runs: dict[tuple[Path, int | None], list[dict[str, Any]]] = {}
    for path in sorted(args.results_path.rglob(f"*{RESULTS_SUFFIX}")):
        results = read_json(path)
        run = results.get("run", {})
        if all(name in run for name in NEEDED) and run["epochs"] > 0:
            runs.setdefault((path.parent, run.get("limit")), []).append(results)
        else:
            print(f"{path}: not a checkpoint of one of our runs, left out", file=sys.stderr)
    if not runs:
        raise InputError(
            f"--results_path {args.results_path}: no results of checkpoints below it; "
            "evaluate/score.py writes them"
        )
    for (folder, limit), results in runs.items():
        choice = select(results, folder)
        write_json(folder / selection_name(limit), choice)
        print(f"{run_folder(choice) / choice['checkpoint']}\t{choice['reason']}")


if __name__ == "__main__":
    run_script(main)
