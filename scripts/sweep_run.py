"""Carry out one run of a sweep: build, train, evaluate, and the public benchmarks.

    python scripts/sweep_run.py --plan runs/sweeps/0123456789ab/plan.json --run 7b/curated-40/sweep

Snakemake starts it for each run (scripts/run_sweep.sh with --executor snakemake or slurm). What is
finished stays; a run that fails says which log to read.
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

from growth.core.cli import argument_parser, run_script
from growth.core.errors import InputError
from growth.sweep.job import JobFailed, run_job
from growth.sweep.launcher import Launcher, ends_by_signal
from growth.sweep.plan import read_plan


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, run."""
    parser = argument_parser(__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="of the sweep, as it wrote it")
    parser.add_argument("--run", required=True, help="<model_size>/<data_type>/<name of the run>")
    args = parser.parse_args(argv)
    plan = read_plan(args.plan)
    launcher = Launcher()
    with ends_by_signal(launcher):
        try:
            run_job(plan, plan.run_at(args.run), launcher)
        except JobFailed as failure:
            raise InputError(f"{args.run}: {failure}") from None


if __name__ == "__main__":
    run_script(main)
