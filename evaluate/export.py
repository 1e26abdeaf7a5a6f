"""Write a model as a folder that other tools use, or as a GGUF file, with a model card.

    python evaluate/export.py --model_name_or_path RUN/checkpoint-33 --output_dir exported
    python evaluate/export.py --model_name_or_path RUN/checkpoint-33 --gguf model.gguf

A checkpoint of ours is such a folder already. This is for what is not: LoRA patches (merged into
their base), Baichuan's folders (converted), GGUF; and for a card that tells the scores, which are
known only later: --results_path evaluate/results adds those of this checkpoint.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable, read_json, replacing
from growth.core.options import ModelOptions
from growth.runs.checkpoints import is_complete, trainer_state
from growth.runs.layout import RESULTS, RESULTS_SUFFIX, run_folder
from growth.runs.record import read_run


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, load, write."""
    args = parse_args(argv)
    for path, flag in ((args.output_dir, "--output_dir"), (args.gguf, "--gguf")):
        if path is not None:
            check_writable(path.parent, flag)
    if args.output_dir is not None and args.output_dir.exists():
        raise InputError(f"--output_dir {args.output_dir}: is there already; choose another folder")
    folder = Path(args.model_name_or_path)
    results = results_of(folder, args.results_path) if args.results_path else {}
    if args.output_dir is not None or args.gguf is not None:
        export(args, results)
    elif read_run(folder.resolve().parent) is None:
        raise InputError(
            f"--model_name_or_path {folder}: not a checkpoint of one of our runs, so there is no "
            "card to write; give --output_dir or --gguf"
        )
    else:
        write_card_of(folder, folder, results)
        print(f"{folder}/README.md: {len(results)} results files")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--model_name_or_path", required=True, help="checkpoint, folder, LoRA patch or hub id"
    )
    add_options(parser, ModelOptions)
    parser.add_argument("--output_dir", type=Path, help="a new folder for weights and all else")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="a file for llama.cpp")
    parser.add_argument(
        "--gguf_type", choices=("f32", "f16"), default="f16", help="of the matrices in it"
    )
    parser.add_argument(
        "--results_path",
        type=Path,
        nargs="?",
        const=RESULTS,
        help="folder of results, whose scores the card tells",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of the weights written",
    )
    return parser.parse_args(argv)


def results_of(checkpoint: Path, results_path: Path) -> dict[str, Any]:
    """The results files of a checkpoint of ours, by split.

    Raises:
        InputError: it is none of ours, or there are none.
    """
    run = read_run(checkpoint.resolve().parent)
    if run is None or not is_complete(checkpoint):
        raise InputError(f"--results_path: {checkpoint} is not a checkpoint of one of our runs")
    name = f"{run_folder(run)}/{checkpoint.resolve().name}{RESULTS_SUFFIX}"
    found = {
        read_json(path)["run"]["split"]: read_json(path) for path in results_path.glob(f"*/{name}")
    }
    if not found:
        raise InputError(f"--results_path {results_path}: no */{name} below it")
    return dict(sorted(found.items()))


def export(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Load the model, write the folder and the file asked for."""
    from transformers.utils import logging as transformers_logging

    from growth.core.device import DTYPES
    from growth.export.chat_template import fitting_template
    from growth.export.checkpoint_files import portable_form, save_tokenizer
    from growth.export.gguf import write_gguf
    from growth.model.loading import load_model, load_tokenizer
    from growth.model.source import find_model

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = find_model(args.model_name_or_path, options_from(args, ModelOptions))
    chat = load_tokenizer(source)
    model = load_model(source, DTYPES[args.precision], chat)
    if args.output_dir is not None:
        with replacing(args.output_dir) as folder:
            model.save_pretrained(folder)
            save_tokenizer(chat.tokenizer, folder)
            if (path := Path(args.model_name_or_path)).is_dir():
                write_card_of(path, folder, results)
        print(f"{args.output_dir}: {model.num_parameters():,} parameters, {args.precision}")
    if args.gguf is not None:
        template = fitting_template(chat, portable_form(chat.tokenizer))
        write_gguf(model, chat, template, args.gguf, args.gguf_type)
        print(f"{args.gguf}: {args.gguf.stat().st_size:,} bytes", file=sys.stdout)


def write_card_of(checkpoint: Path, folder: Path, results: dict[str, Any]) -> None:
    """The card of a checkpoint of ours, to `folder`; nothing for any other model."""
    from growth.export.checkpoint_files import last_evaluation
    from growth.export.model_card import write_card

    run = read_run(checkpoint.resolve().parent)
    if run is not None and is_complete(checkpoint):
        step = trainer_state(checkpoint)["global_step"]
        write_card(folder, run, step, last_evaluation(checkpoint.resolve().parent, step), results)


if __name__ == "__main__":
    run_script(main)
