"""Predict the valid or test lines: evaluate/pred-data/<split>/.../<checkpoint>/pred_<file>.json.

    python evaluate/predict.py --model_name_or_path RUN/checkpoint-33 \\
        --eval_data_path data/curated/valid

Questions are answered greedily; of open-ended lines the perplexity of each choice is taken. A
checkpoint of ours says by itself where its predictions go; any other model needs --model_size and
--tag. Given a run's folder, all its checkpoints that selection considers are predicted. What is
there already is kept, so the same command goes on after an interruption, be it amid a file. On
several GPUs, `torchrun --nproc_per_node N evaluate/predict.py ...` spreads the lines over N
processes and writes the same files.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from growth.core.cli import (
    add_options,
    argument_parser,
    options_from,
    positive_int,
    run_script,
)
from growth.core.distributed import DistributedState, distributed_state
from growth.core.files import check_writable, write_json
from growth.core.options import PRECISIONS, DecodingOptions, ModelOptions
from growth.data.records import Record, check_evaluation, data_files, read_records
from growth.runs.layout import PREDICTIONS, RUN_RECORD
from growth.runs.record import provenance


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, predict what is missing."""
    predict(parse_args(argv))
    distributed_state().leave()


def predict(args: argparse.Namespace) -> None:
    """Check all input, predict what is missing."""
    files = {
        path.stem: read_records(path, check_evaluation)[: args.limit]
        for path in data_files(args.eval_data_path, "--eval_data_path")
    }
    check_writable(args.pred_data_path, "--pred_data_path")
    # Imported here and below: flags and data files are checked before torch takes its seconds.
    from growth.inference.backends import check_backend
    from growth.inference.prediction_store import resolve_models

    check_backend(args.backend)
    named = [resolve_models(n, args.model_size, args.tag) for n in args.model_name_or_path]
    state = distributed_state()
    for name, run in itertools.chain(*named):
        predict_model(name, run, files, args, state)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--model_name_or_path",
        nargs="+",
        required=True,
        help="checkpoints, runs, or other models (folder, hub id or .gguf)",
    )
    parser.add_argument(
        "--eval_data_path", type=Path, required=True, help="folder of the *.json lines to predict"
    )
    parser.add_argument("--split", help="such as valid; default: the name of that folder")
    parser.add_argument(
        "--pred_data_path", type=Path, default=PREDICTIONS, help="where predictions are written"
    )
    parser.add_argument("--model_size", help="of a model that is not one of our runs, such as 7b")
    parser.add_argument("--tag", help="a name for a model that is not one of our runs")
    add_options(parser, ModelOptions)
    add_options(parser, DecodingOptions)
    parser.add_argument(
        "--limit", type=positive_int, help="only the first N lines a file; marks the output's name"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the model")
    return parser.parse_args(argv)


def predict_model(
    name: str,
    run: dict[str, Any],
    files: dict[str, list[Record]],
    args: argparse.Namespace,
    state: DistributedState,
) -> None:
    """Write the predictions of one model that are not there yet."""
    from growth.inference.prediction_store import (
        missing_files,
        predict_files,
        prediction_folder,
        record_cuts,
    )
    from growth.inference.predictor import Decoding
    from growth.model.source import find_model, fingerprint

    given = {k: v for k, v in vars(args).items() if k in Decoding.__dataclass_fields__}
    decoding = Decoding(**given)
    source = find_model(name, options_from(args, ModelOptions))
    run = run | {
        "limit": args.limit,
        "split": args.split or args.eval_data_path.resolve().name,
        "model_name_or_path": name,
        "fingerprint": fingerprint(source),
        "decoding": decoding.identity() | {"precision": args.precision},
    }
    folder = prediction_folder(args.pred_data_path, run)
    missing = missing_files(folder, run, files)
    if not missing:
        if state.is_main_process:
            print(f"{folder}: all {len(files)} files are there")
        return
    predictor, compute = load_predictor(source, decoding, args.precision)
    if state.is_main_process:
        print(compute.describe(), file=sys.stderr)
        if not (folder / RUN_RECORD).exists():
            write_json(folder / RUN_RECORD, run | {"device": compute.describe()} | provenance())
        cut = record_cuts(folder, predictor, missing)
    # Its unit is work, not lines: these differ a thousandfold.
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(
        desc=run["checkpoint"], bar_format=layout, smoothing=0, disable=not state.is_main_process
    ) as bar:
        predict_files(predictor, folder, missing, state, bar)
    if state.is_main_process:
        total = sum(map(len, missing.values()))
        print(f"{folder}: {len(missing)} files predicted, {total:,} lines, {cut:,} prompts cut")


def load_predictor(source: Any, decoding: Any, precision: str) -> tuple[Any, Any]:
    """The model, ready to predict, and what it computes on."""
    from transformers.utils import logging as transformers_logging

    from growth.core.device import choose_compute
    from growth.inference.backends import generator_of
    from growth.inference.predictor import Predictor
    from growth.model.loading import load_model, load_tokenizer

    transformers_logging.set_verbosity_error()
    compute = choose_compute(precision)
    chat = load_tokenizer(source)
    model = load_model(source, compute.dtype, chat).to(compute.device)
    generate = generator_of(decoding.backend, model, chat, source.name, decoding.max_length)
    return Predictor(model, chat, decoding, generate), compute


if __name__ == "__main__":
    run_script(main)
