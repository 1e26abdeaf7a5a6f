"""Write a model as a folder that other tools use, or as a GGUF file, with a model card.

    python evaluate/export.py --model_name_or_path RUN/checkpoint-33 --output_dir exported
    python evaluate/export.py --model_name_or_path RUN/checkpoint-33 --gguf model.gguf

A checkpoint of ours is such a folder already. This is for LoRA adapters (merged into their base),
Baichuan's folders (converted) and GGUF; and for a card with the scores, which are known only later:
--results_path evaluate/results adds those of this checkpoint.

    python evaluate/export.py --model_name_or_path M --init_control_tokens text --output_dir BASE

BASE is the foundation model, to be tuned in its place: its control tokens begin as its own tokens
for the bounds of a text (docs/training.md).
"""

import argparse
import contextlib
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
from growth.core.options import (
    AS_TEXT,
    CONTROL_ROWS,
    GGUF_TYPES,
    NEAR_MEAN,
    WEIGHT_PRECISIONS,
    ModelOptions,
    OutputOptions,
)
from growth.runs.layout import RESULTS


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, keep others out, load, write."""
    args = parse_args(argv)
    # Imported here and below: Ctrl-C is answered from now on.
    from growth.export.model_card import CARD

    outputs = [(args.output_dir, "--output_dir"), (args.gguf, "--gguf")]
    with contextlib.ExitStack() as locks:
        for path, flag in outputs:
            if path is not None:
                check_writable(path.parent, flag)
                locks.enter_context(locked(path, flag, args.wait))
        if args.output_dir is None and args.gguf is None:
            folder = Path(args.model_name_or_path)
            locks.enter_context(locked(folder / CARD, "--model_name_or_path", args.wait))
        export(args)


def export(args: argparse.Namespace) -> None:
    """Load and write, or write a card alone.

    Raises:
        InputError: the model can't be loaded, or the folder is there already.
    """
    from growth.export.model_card import CARD, checkpoint_results, write_checkpoint_card
    from growth.runs.layout import read_run
    from growth.runs.retention import refuse_removed

    if args.output_dir is not None and args.output_dir.exists():
        raise InputError(f"--output_dir {args.output_dir}: is there already; choose another folder")
    refuse_removed(args.model_name_or_path)
    folder = Path(args.model_name_or_path)
    results = checkpoint_results(folder, args.results_path) if args.results_path else {}
    if args.output_dir is None and args.gguf is None:
        if args.init_control_tokens == AS_TEXT:
            raise InputError(
                "--init_control_tokens text: no weights are written; give --output_dir or --gguf"
            )
        if read_run(folder.resolve().parent) is None:
            raise InputError(
                f"--model_name_or_path {folder}: not a checkpoint of one of our runs, so there is "
                "no card to write; give --output_dir or --gguf"
            )
        write_checkpoint_card(folder, folder, results)
        print(f"{folder / CARD}: {len(results)} results files")
        return
    # Imported here: flags are checked before transformers takes its seconds.
    from growth.export.whole_model import WholeModel
    from growth.model.source import find_model

    options = options_from(args, ModelOptions)
    source = find_model(args.model_name_or_path, options)
    model = WholeModel(source, args.precision, args.init_control_tokens)
    # The folder last: where it is there, the same command would be refused after an interruption.
    if args.gguf is not None:
        model.write_gguf(args.gguf, args.gguf_type)
        print(f"{args.gguf}: {args.gguf.stat().st_size:,} bytes")
    if args.output_dir is not None:
        model.write_folder(args.output_dir, results)
        parameters = model.model.num_parameters()
        print(f"{args.output_dir}: {parameters:,} parameters, {args.precision}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--model_name_or_path", required=True, help="checkpoint, folder, LoRA adapter or hub id"
    )
    add_options(parser, ModelOptions)
    parser.add_argument("--output_dir", type=Path, help="a new folder for weights and all else")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="a file for llama.cpp")
    parser.add_argument(
        "--gguf_type", choices=GGUF_TYPES, default="f16", help="of the matrices in it"
    )
    parser.add_argument(
        "--results_path",
        type=Path,
        nargs="?",
        const=RESULTS,
        help="folder of results, whose scores go into the card",
    )
    parser.add_argument(
        "--precision",
        choices=WEIGHT_PRECISIONS,
        default="fp32",
        help="of the weights written",
    )
    parser.add_argument(
        "--init_control_tokens",
        choices=CONTROL_ROWS,
        default=NEAR_MEAN,
        help="what the rows of <user>, <assistant> and <eot> begin as where the model does not "
        "have them yet: near the mean of all rows, as training begins with them; or as the tokens "
        "that open and close a text (BOS, EOS)",
    )
    add_options(parser, OutputOptions)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
