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

from growth.core.cli import argument_parser, run_script
from growth.core.errors import InputError
from growth.core.files import read_json, write_json
from growth.runs.layout import RESULTS, RESULTS_SUFFIX, run_folder, selection_name
from growth.scoring.checkpoint_selection import select

NEEDED = ("model_size", "data_type", "timestamp", "checkpoint", "step", "epoch", "epochs")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, choose, print."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--results_path",
        type=Path,
        default=RESULTS / "valid",
        help="folder of valid results, at any depth",
    )
    for choice in choose(parser.parse_args(argv).results_path):
        print(description(choice))


def choose(results_path: Path) -> list[dict[str, Any]]:
    """Write and return the choice of each run, and of each limit of lines, below `results_path`.

    Raises:
        InputError: there is nothing to choose among.
    """
    runs: dict[tuple[Path, int | None], list[dict[str, Any]]] = {}
    for path in sorted(results_path.rglob(f"*{RESULTS_SUFFIX}")):
        results = read_json(path)
        run = results.get("run", {})
        if all(name in run for name in NEEDED) and run["epochs"] > 0:
            runs.setdefault((path.parent, run.get("limit")), []).append(results)
        else:
            print(f"{path}: not a checkpoint of one of our runs, left out", file=sys.stderr)
    if not runs:
        raise InputError(
            f"--results_path {results_path}: no results of checkpoints below it; "
            "evaluate/score.py writes them"
        )
    choices = []
    for (folder, limit), results in runs.items():
        choice = select(results, folder)
        write_json(folder / selection_name(limit), choice)
        choices.append(choice)
    return choices


def description(choice: dict[str, Any]) -> str:
    """A choice on one line: what was chosen, a tab, why."""
    return f"{run_folder(choice) / choice['checkpoint']}\t{choice['reason']}"


if __name__ == "__main__":
    run_script(main)
