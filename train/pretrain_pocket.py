"""Pretrain the pocket foundation model from nothing but this repository's sample world.

    python train/pretrain_pocket.py --output_dir runs/pocket

A LLaMA of 2.4 million parameters with a sentencepiece tokenizer of its own reads statements,
dialogues and exercises of the sample world (`growth/sample/corpus.py`), in other wordings and
layouts than the instruction data: 25 to 30 minutes on two cores. The same seed gives the same
weights on one kind of machine. train/pocket, which the demo tunes, was made by this command. Run
again, it resumes where it stopped.
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
from growth.core.options import OutputOptions, PretrainingOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, pretrain."""
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/pocket"), help="of the model")
    add_options(parser, PretrainingOptions)
    parser.add_argument(
        "--num_processes",
        type=int,
        choices=(1, 2),
        default=2,
        help="processes that share a step on a CPU; the weights are the same. With a GPU, 1",
    )
    add_options(parser, OutputOptions)
    args = parser.parse_args(argv)
    check_writable(args.output_dir, "--output_dir")
    # Imported here: flags are checked before torch takes its seconds.
    from growth.sample.pretraining import Plan, pretrain_from_scratch

    plan = Plan(args.steps, seed=args.seed)
    with locked(args.output_dir, "--output_dir", args.wait):
        pretrain_from_scratch(plan, args.output_dir, args.num_processes)
    print(f"{args.output_dir}: the pocket model")


if __name__ == "__main__":
    run_script(main)
