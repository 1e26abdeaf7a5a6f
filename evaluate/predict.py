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

from growth.command_line import add_model_flags, argument_parser, positive_int, run_script
from growth.files import check_writable, write_json
from growth.layout import PREDICTIONS, RUN_RECORD, provenance
from growth.processes import Processes, processes
from growth.records import Record, check_evaluation, data_files, read_records


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, predict what is missing."""
    predict(parse_args(argv))
    processes().leave()


def predict(args: argparse.Namespace) -> None:
    """Check all input, predict what is missing."""
    files = {
        path.stem: read_records(path, check_evaluation)[: args.limit]
        for path in data_files(args.eval_data_path, "--eval_data_path")
    }
    check_writable(args.pred_data_path, "--pred_data_path")
    # Imported here and below: flags and data files are checked before torch takes its seconds.
    from growth.engines import check_engine
    from growth.pred_data import models_named

    check_engine(args.engine)
    named = [models_named(n, args.model_size, args.tag) for n in args.model_name_or_path]
    me = processes()
    for name, run in itertools.chain(*named):
        predict_model(name, run, files, args, me)


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
    add_model_flags(parser)
    parser.add_argument(
        "--max_length", type=positive_int, default=2048, help="tokens of prompt and answer together"
    )
    parser.add_argument(
        "--max_new_tokens", type=positive_int, default=1024, help="tokens of an answer, at most"
    )
    parser.add_argument(
        "--full_responses",
        action="store_true",
        help="let answers end by themselves even where the score only reads a letter; by default "
        "those stop once they can't be a single letter any more",
    )
    parser.add_argument(
        "--engine",
        choices=("batched", "continuous", "vllm"),
        default="batched",
        help="what generates answers: our batches; transformers' continuous batching, for GPUs and "
        "long answers; or vLLM, if it is installed",
    )
    parser.add_argument(
        "--batch_size", type=positive_int, default=64, help="answers generated at once, at most"
    )
    parser.add_argument(
        "--tokens_per_batch",
        type=positive_int,
        default=2048,
        help="tokens of prompts and choices computed at once",
    )
    parser.add_argument(
        "--cache_tokens",
        type=positive_int,
        help="tokens of prompts and answers whose keys and values are held at once; default: as "
        "many as the device's memory has room for",
    )
    parser.add_argument(
        "--limit", type=positive_int, help="only the first N lines a file; marks the output's name"
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the model"
    )
    return parser.parse_args(argv)


def predict_model(
    name: str,
    run: dict[str, Any],
    files: dict[str, list[Record]],
    args: argparse.Namespace,
    me: Processes,
) -> None:
    """Write the predictions of one model that are not there yet."""
    from growth.models import find_model, fingerprint
    from growth.pred_data import missing_files, predict_files, prediction_folder, record_cuts
    from growth.prediction import Decoding

    given = {k: v for k, v in vars(args).items() if k in Decoding.__dataclass_fields__}
    decoding = Decoding(**given)
    source = find_model(name, args.base_model, args.trust_remote_code)
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
        if me.is_first:
            print(f"{folder}: all {len(files)} files are there")
        return
    predictor, compute = load_predictor(source, decoding, args.precision)
    if me.is_first:
        print(compute.describe(), file=sys.stderr)
        if not (folder / RUN_RECORD).exists():
            write_json(folder / RUN_RECORD, run | {"device": compute.describe()} | provenance())
        cut = record_cuts(folder, predictor, missing)
    # Its unit is work, not lines: these differ a thousandfold.
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(
        desc=run["checkpoint"], bar_format=layout, smoothing=0, disable=not me.is_first
    ) as bar:
        predict_files(predictor, folder, missing, me, bar)
    if me.is_first:
        total = sum(map(len, missing.values()))
        print(f"{folder}: {len(missing)} files predicted, {total:,} lines, {cut:,} prompts cut")


def load_predictor(source: Any, decoding: Any, precision: str) -> tuple[Any, Any]:
    """The model, ready to predict, and what it computes on."""
    from transformers.utils import logging as transformers_logging

    from growth.devices import choose_compute
    from growth.engines import generator_of
    from growth.models import load_model, load_tokenizer
    from growth.prediction import Predictor

    transformers_logging.set_verbosity_error()
    compute = choose_compute(precision)
    chat = load_tokenizer(source)
    model = load_model(source, compute.dtype, chat).to(compute.device)
    generate = generator_of(decoding.engine, model, chat, source.name, decoding.max_length)
    return Predictor(model, chat, decoding, generate), compute


if __name__ == "__main__":
    run_script(main)
