"""Pretrain the pocket foundation model from nothing but this repository's sample world.

    python train/pretrain_pocket.py --output_dir runs/pocket

A LLaMA of 2.4 million parameters with a sentencepiece tokenizer of its own reads statements,
dialogues and exercises of the sample world (`growth/sample/corpus.py`), in other wordings and
layouts than the instruction data: 25 to 30 minutes on two cores. The same seed gives the same
weights on one kind of machine. train/pocket, which the demo tunes, was made by this command. Run
again, it goes on where it stopped.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from growth.core.cli import argument_parser, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable

STEPS = 1800


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, make the tokenizer and the first weights, pretrain, save."""
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/pocket"), help="of the model")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0, help="of weights and documents")
    parser.add_argument(
        "--num_processes",
        type=int,
        choices=(1, 2),
        default=2,
        help="processes that share a step on a CPU; the weights come out the same. With a GPU, 1",
    )
    args = parser.parse_args(argv)
    if args.steps < 1:
        raise InputError(f"--steps {args.steps}: expected at least 1")
    check_writable(args.output_dir, "--output_dir")
    # torch takes its seconds only once the input is known to be good
    import torch

    from growth.sample.corpus import lexicon, tokenizer_texts
    from growth.sample.pocket import make_pocket
    from growth.sample.pretraining import Plan, pretrain

    folder = args.output_dir
    work = folder.with_name(f"{folder.name}-pretraining")
    plan = Plan(args.steps, seed=args.seed)
    if not (work / "first").is_dir():
        work.mkdir(parents=True, exist_ok=True)
        parameters = make_pocket(
            work / "first",
            tokenizer_texts(plan.world_seed),
            args.seed,
            lexicon=lexicon(),
        )
        print(f"{work / 'first'}: tokenizer and first weights, {parameters:,} parameters")
    processes = 1 if torch.cuda.is_available() else args.num_processes
    with tempfile.TemporaryDirectory() as meeting:
        if processes == 1:
            pretrain(0, 1, meeting, plan, work, folder)
        else:
            torch.multiprocessing.spawn(
                pretrain, (processes, meeting, plan, work, folder), nprocs=processes
            )
    print(f"{folder}: the pocket model")


if __name__ == "__main__":
    run_script(main)
