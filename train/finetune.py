"""Fine-tune a foundation model on one setting: <output_dir>/checkpoint-<step>, metrics.jsonl.

    python train/finetune.py --model_name_or_path MODEL --train_dir data/curated-160 \\
        --valid_dir data/curated/valid --output_dir runs/runs-7b/curated-160/my-run

`bash scripts/run_train.sh` sets the folders. Full fine-tuning as in the paper (section 4.1): AdamW,
64 samples an optimizer step, the learning rate falling linearly, an evaluation and a checkpoint
after each epoch. --dump_examples writes what the model would be trained on and stops.
"""

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.command_line import (
    add_model_flags,
    argument_parser,
    positive_float,
    positive_int,
    run_script,
)
from growth.files import check_writable, write_json_lines
from growth.records import read_training_files
from growth.settings import default_epochs, recipe_of


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags; dump the examples, or train."""
    args = parse_args(argv)
    if args.data_type is not None:
        recipe_of(args.data_type)
    if args.dump_examples is not None:
        dump_examples(args)
    else:
        train(args)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags, checked one by one; raises SystemExit(2) with what is wrong."""
    parser = argument_parser(__doc__)
    group = parser.add_argument_group("what to train, on what, where to")
    group.add_argument(
        "--model_name_or_path", required=True, help="folder of a causal LM, a hub id or a .gguf"
    )
    add_model_flags(group)
    group.add_argument(
        "--train_dir", type=Path, required=True, help="folder of *.json training lines"
    )
    group.add_argument("--valid_dir", type=Path, help="folder of *.json validation lines")
    group.add_argument("--output_dir", type=Path, help="folder of the run")
    group.add_argument("--data_type", help="the setting, for the record; default: train_dir's name")
    group.add_argument(
        "--model_size", help="such as 7b, for the record and the curves; default: counted"
    )
    group.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    group.add_argument(
        "--dump_examples", type=Path, metavar="FILE", help="write the tokenised lines and exit"
    )
    group = parser.add_argument_group("hyper-parameters (paper section 4.1)")
    group.add_argument(
        "--epochs", type=positive_int, help="default: 25, 20, 18 for 10, 40, 160 lines, else 15"
    )
    group.add_argument(
        "--total_batch_size",
        type=positive_int,
        default=64,
        help="samples an optimizer step, over all processes",
    )
    group.add_argument(
        "--batch_size",
        type=positive_int,
        help="at most this many samples at once in a process; default: as --tokens_per_micro_batch",
    )
    group.add_argument(
        "--gradient_accumulation",
        type=positive_int,
        help="as in the published command; micro-batches a step follow from --total_batch_size",
    )
    group.add_argument(
        "--tokens_per_micro_batch",
        type=positive_int,
        help="tokens a process computes at once, the bound on memory; default: 8192 on a GPU, "
        "1024 on a CPU, whose cores gain nothing from more",
    )
    group.add_argument("--learning_rate", type=positive_float, default=1e-5, help="at the start")
    group.add_argument(
        "--end_learning_rate", type=positive_float, default=1e-6, help="at the last step, linearly"
    )
    group.add_argument("--weight_decay", type=float, default=0.1, help="of AdamW")
    group.add_argument("--max_grad_norm", type=positive_float, default=1.0, help="gradient clip")
    group.add_argument(
        "--max_length", type=positive_int, default=2048, help="tokens; longer lines are cut"
    )
    group.add_argument("--seed", type=int, default=0, help="of the data order and of new weights")
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of matmuls"
    )
    group.add_argument(
        "--gradient_checkpointing", action="store_true", help="less memory, a third more time"
    )
    group.add_argument(
        "--save_total_limit", type=positive_int, help="keep the newest N checkpoints; default: all"
    )
    args = parser.parse_args(argv)
    if args.dump_examples is None and (args.valid_dir is None or args.output_dir is None):
        parser.error("--valid_dir and --output_dir are needed to train (not for --dump_examples)")
    return args


def dump_examples(args: argparse.Namespace) -> None:
    """Write messages, input_ids and labels of each training line; no weights are needed."""
    files = read_training_files(args.train_dir, "--train_dir")
    # Imported here and below: flags and data files are checked before torch takes its seconds.
    from growth.batches import tokenised
    from growth.models import bounded_length, find_model, load_tokenizer

    source = find_model(args.model_name_or_path, args.base_model, args.trust_remote_code)
    chat = load_tokenizer(source)
    max_length = bounded_length(source, args.max_length)
    lines = []
    for record in (record for records in files.values() for record in records):
        example = tokenised(record["messages"], chat, max_length)
        lines.append(
            {"messages": record["messages"]}
            | {name: tensor.tolist() for name, tensor in example.items()}
        )
    write_json_lines(args.dump_examples, lines)
    print(f"{args.dump_examples}: {len(lines):,} examples")


def train(args: argparse.Namespace) -> None:
    """Check everything, write run.json, train, close run.json."""
    folders = {"train": args.train_dir, "valid": args.valid_dir}
    files = {part: read_training_files(folders[part], f"--{part}_dir") for part in folders}
    check_writable(args.output_dir, "--output_dir")

    import torch
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    from growth.batches import tokenised_files
    from growth.devices import choose_compute
    from growth.layout import checkpoint_step, checkpoints, now, read_run, write_run
    from growth.models import bounded_length, find_model, load_model, load_tokenizer
    from growth.runs import check_same_run, data_record, new_record
    from growth.training import InstructionTrainer, forget_metrics_after

    transformers_logging.set_verbosity_error()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    source = find_model(args.model_name_or_path, args.base_model, args.trust_remote_code)
    chat = load_tokenizer(source)
    max_length = bounded_length(source, args.max_length)
    examples = {part: tokenised_files(files[part], chat, max_length) for part in files}
    data = {part: data_record(folders[part], files[part], examples[part]) for part in files}
    compute = choose_compute(args.precision)
    hyperparameters = resolve(args, len(examples["train"]), max_length, compute)
    set_seed(args.seed)
    model = load_model(source, torch.float32, chat)
    transformers_logging.disable_progress_bar()  # from here on our own bar speaks
    run = new_record(
        args.output_dir,
        args.model_name_or_path,
        model.num_parameters(),
        data,
        hyperparameters,
        model_size=args.model_size,
        data_type=args.data_type,
        device=compute.describe(),
    )
    earlier = read_run(args.output_dir)
    last = checkpoints(args.output_dir)[-1:] if earlier else []
    if earlier:
        check_same_run(earlier, run, args.output_dir, args.resume)
        run |= {"started": earlier["started"], "resumed": now()}
    logging.info(compute.describe())
    logging.info(
        "%s samples a step, %s steps an epoch, %s epochs; %s of %s tokens supervised",
        hyperparameters.total_batch_size,
        *(run["steps_per_epoch"], hyperparameters.epochs),
        *(f"{data['train'][name]:,}" for name in ("supervised_tokens", "tokens")),
    )
    step = checkpoint_step(last[0]) if last else 0
    if last and step >= run["steps"]:
        logging.info("%s is finished: %s steps of %s", args.output_dir, step, run["steps"])
        return
    write_run(args.output_dir, run)
    forget_metrics_after(args.output_dir, step)
    trainer = InstructionTrainer(
        model,
        chat,
        examples["train"],
        examples["valid"],
        hyperparameters,
        compute,
        args.output_dir,
        save_total_limit=args.save_total_limit,
    )
    trainer.train(resume_from_checkpoint=str(last[0]) if last else None)
    write_run(args.output_dir, run | {"ended": now()})


def resolve(args: argparse.Namespace, samples: int, max_length: int, compute: Any) -> Any:
    """The hyper-parameters with what was left open filled in."""
    from growth.training import Hyperparameters

    names = {field.name for field in dataclasses.fields(Hyperparameters)}
    given = {name: value for name, value in vars(args).items() if name in names}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    asked = (args.batch_size or args.total_batch_size) * (args.gradient_accumulation or 1)
    if args.gradient_accumulation and asked * processes != args.total_batch_size:
        logging.info(
            "--batch_size x --gradient_accumulation x processes is %s samples a step; the study's "
            "%s are taken (--total_batch_size changes that)",
            *(asked * processes, args.total_batch_size),
        )
    given |= {
        "epochs": args.epochs or default_epochs(samples),
        "max_length": max_length,
        "precision": compute.precision,
        "tokens_per_micro_batch": args.tokens_per_micro_batch
        or (1024 if compute.device.type == "cpu" else 8192),
    }
    return Hyperparameters(**given)


if __name__ == "__main__":
    run_script(main)
