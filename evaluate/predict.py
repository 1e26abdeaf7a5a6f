"""Predict the valid or test lines: evaluate/pred-data/<split>/.../<checkpoint>/pred_<file>.json.

    python evaluate/predict.py --model_name_or_path RUN/checkpoint-33 \\
        --eval_data_path data/curated/valid

Questions are answered greedily; of open-ended lines the perplexity of each choice is taken. A
checkpoint of ours says by itself where its predictions go; any other model needs --model_size and
--tag. Given a run's folder, all its checkpoints that selection considers are predicted. What is
there already is kept, so the same command goes on after an interruption.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from growth.command_line import InputError, argument_parser, positive_int, run_script
from growth.files import check_writable, read_json, write_json, write_json_lines
from growth.layout import (
    PREDICTION_PREFIX,
    PREDICTIONS,
    RUN_RECORD,
    limit_mark,
    provenance,
    read_run,
    run_folder,
    trainer_state,
)
from growth.records import Record, check_evaluation, data_files, read_records

UNTUNED = "untuned"  # the data_type of a model that is not one of our runs
SAME = ("model_size", "data_type", "timestamp", "checkpoint", "fingerprint", "decoding", "limit")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, check all input, predict what is missing."""
    args = parse_args(argv)
    files = {
        path.stem: read_records(path, check_evaluation)[: args.limit]
        for path in data_files(args.eval_data_path, "--eval_data_path")
    }
    check_writable(args.pred_data_path, "--pred_data_path")
    models = [m for name in args.model_name_or_path for m in expand(name, args)]
    for name, run in models:
        predict_model(name, run, files, args)


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
        "--batch_size", type=positive_int, default=32, help="answers generated at once"
    )
    parser.add_argument(
        "--tokens_per_batch", type=positive_int, default=2048, help="tokens of choices at once"
    )
    parser.add_argument(
        "--limit", type=positive_int, help="only the first N lines a file; marks the output's name"
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the model"
    )
    return parser.parse_args(argv)


def expand(name: str, args: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """The models that one value of --model_name_or_path stands for, with what is known of each.

    Raises:
        InputError: a model that is not one of our runs, without a name for it.
    """
    from growth.models import find_model
    from growth.selection import candidates, epoch_of

    path = Path(name)
    run = read_run(path)
    if run is not None:
        paths = candidates(path, run["hyperparameters"]["epochs"])
    else:
        find_model(name)
        run = read_run(path.resolve().parent) if path.is_dir() else None
        paths = [path]
    if run is None:
        if args.model_size is None or args.tag is None:
            raise InputError(
                f"--model_name_or_path {name}: not a checkpoint of one of our runs (there is no "
                f"{RUN_RECORD} beside it); say what to call it with --model_size and --tag"
            )
        known = {"model_size": args.model_size, "data_type": UNTUNED, "timestamp": args.tag}
        return [(name, known | {"checkpoint": "checkpoint-0", "step": 0, "epoch": 0, "epochs": 0})]
    known = {k: run[k] for k in ("model_size", "data_type", "timestamp", "seed")}
    known |= {"epochs": run["hyperparameters"]["epochs"], "samples": run["train"]["samples"]}
    for checkpoint in paths:
        find_model(str(checkpoint))
        trainer_state(checkpoint)  # an incomplete checkpoint is told before anything is loaded
    return [
        (
            str(checkpoint),
            known
            | {"checkpoint": checkpoint.resolve().name, "epoch": epoch_of(checkpoint)}
            | {"step": trainer_state(checkpoint)["global_step"]},
        )
        for checkpoint in paths
    ]


def predict_model(
    name: str, run: dict[str, Any], files: dict[str, list[Record]], args: argparse.Namespace
) -> None:
    """Write the predictions of one model that are not there yet."""
    from growth.models import fingerprint
    from growth.prediction import Decoding

    given = {k: v for k, v in vars(args).items() if k in Decoding.__dataclass_fields__}
    decoding = Decoding(**given)
    split = args.split or args.eval_data_path.resolve().name
    folder = args.pred_data_path / split / run_folder(run)
    folder /= run["checkpoint"] + limit_mark(args.limit)
    settings = {
        k: v for k, v in asdict(decoding).items() if k not in ("batch_size", "tokens_per_batch")
    }
    run = run | {
        "limit": args.limit,
        "split": split,
        "model_name_or_path": name,
        "fingerprint": fingerprint(name),
        "decoding": settings | {"precision": args.precision},
    }
    check_same_model(folder, run)
    missing = {
        stem: records for stem, records in files.items() if not is_there(folder, stem, records)
    }
    if not missing:
        print(f"{folder}: all {len(files)} files are there")
        return
    predictor, compute = load_predictor(name, decoding, args.precision)
    print(compute.describe(), file=sys.stderr)
    if not (folder / RUN_RECORD).exists():
        write_json(folder / RUN_RECORD, run | {"device": compute.describe()} | provenance())
    total = sum(map(len, missing.values()))
    with tqdm(total=total, desc=run["checkpoint"], unit="line", smoothing=0) as bar:
        for stem, records in missing.items():
            bar.set_postfix_str(stem)
            path = folder / f"{PREDICTION_PREFIX}{stem}.json"
            write_json_lines(path, predictor.predict(records, bar.update))
    print(f"{folder}: {len(missing)} files predicted, {total:,} lines")


def load_predictor(name: str, decoding: Any, precision: str) -> tuple[Any, Any]:
    """The model, ready to predict, and what it computes on."""
    from transformers.utils import logging as transformers_logging

    from growth.devices import choose_compute
    from growth.models import load_model, load_tokenizer
    from growth.prediction import Predictor

    transformers_logging.set_verbosity_error()
    compute = choose_compute(precision)
    chat = load_tokenizer(name)
    model = load_model(name, compute.dtype, chat).to(compute.device)
    return Predictor(model, chat, decoding), compute


def check_same_model(folder: Path, run: dict[str, Any]) -> None:
    """Predictions of two models, or of two ways to predict, never mix.

    Raises:
        InputError: `folder` holds predictions of another.
    """
    record = folder / RUN_RECORD
    if not record.is_file():
        if any(folder.glob(f"{PREDICTION_PREFIX}*.json")):
            raise InputError(
                f"{folder}: holds predictions without a {RUN_RECORD} that says which model made "
                "them; remove them or choose another --pred_data_path"
            )
        return
    earlier = read_json(record)
    different = [key for key in SAME if earlier.get(key) != run.get(key)]
    if different:
        raise InputError(
            f"{folder}: holds predictions of another model or way to predict (different: "
            f"{', '.join(different)}); remove the folder or choose another --pred_data_path"
        )


def is_there(folder: Path, stem: str, records: list[Record]) -> bool:
    """Whether the predictions of a file are there, of these very lines.

    Raises:
        InputError: they are of other lines.
    """
    from growth.prediction import PREDICTED_FIELDS

    path = folder / f"{PREDICTION_PREFIX}{stem}.json"
    if not path.is_file():
        return False

    def asked(record: Record) -> Record:
        return {key: value for key, value in record.items() if key not in PREDICTED_FIELDS}

    if list(map(asked, read_records(path))) != list(map(asked, records)):
        raise InputError(
            f"{path}: predictions of other lines than --eval_data_path has now; remove the file to "
            "predict it again"
        )
    return True


if __name__ == "__main__":
    run_script(main)
