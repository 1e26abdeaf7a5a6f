"""Merge LoRA adapters into their base model: an ordinary model folder.

    python train/merge_lora.py --model_name_or_path RUN/checkpoint-33 --output_dir MERGED

Predicting and the benchmarks load adapters as they are; merge for tools that don't, or to drop the
base model.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from growth.command_line import InputError, argument_parser, run_script
from growth.files import check_writable


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, load, merge, save."""
    args = parse_args(argv)
    check_writable(args.output_dir, "--output_dir")
    if args.output_dir.exists() and any(args.output_dir.iterdir()):
        raise InputError(f"--output_dir {args.output_dir}: not empty; choose another folder")
    from transformers.utils import logging as transformers_logging

    from growth.devices import DTYPES
    from growth.models import find_model, load_model, load_tokenizer, save_model

    transformers_logging.set_verbosity_error()
    if find_model(args.model_name_or_path).adapter is None:
        raise InputError(
            f"--model_name_or_path {args.model_name_or_path}: has no adapters to merge; expected a "
            "checkpoint of a run with --lora_rank"
        )
    chat = load_tokenizer(args.model_name_or_path)
    model = load_model(args.model_name_or_path, DTYPES[args.precision], chat)
    save_model(model, chat, args.output_dir)
    print(f"{args.output_dir}: {model.num_parameters():,} parameters in {args.precision}")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True, help="folder of the adapters")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the merged model")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of what is saved"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_script(main)
