"""Fine-tune a foundation model on one setting: <output_dir>/checkpoint-<step>, metrics.jsonl.

    python train/finetune.py --model_name_or_path MODEL --train_dir data/curated-160 \\
        --valid_dir data/curated/valid --output_dir runs/runs-7b/curated-160/my-run

`bash scripts/run_train.sh` sets the folders. Full fine-tuning as in the paper (section 4.1): AdamW,
64 samples an optimizer step, the learning rate falling linearly, an evaluation and a checkpoint
after each epoch. --lora_rank trains adapters instead. Precision and what is computed at once are
chosen for the machine; one line says how. Started by torchrun, the processes share each step's
samples. --dump_examples writes what the model would be trained on and stops.
"""

import argparse
import dataclasses
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.command_line import (
    InputError,
    add_model_flags,
    argument_parser,
    positive_float,
    positive_int,
    run_script,
)
from growth.files import check_writable, read_json, write_json_lines
from growth.processes import processes
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
        help="tokens a process computes at once, the bound on memory; default: what fits, at most "
        "8192 on a GPU and 1024 on a CPU, which gain nothing from more",
    )
    group.add_argument(
        "--learning_rate",
        type=positive_float,
        help="at the start; default: 1e-5, for LoRA 1e-4",
    )
    group.add_argument(
        "--end_learning_rate",
        type=positive_float,
        help="at the last step, linearly; default: a tenth of --learning_rate",
    )
    group.add_argument("--weight_decay", type=float, default=0.1, help="of AdamW")
    group.add_argument("--max_grad_norm", type=positive_float, default=1.0, help="gradient clip")
    group.add_argument(
        "--max_length", type=positive_int, default=2048, help="tokens; longer lines are cut"
    )
    group.add_argument("--seed", type=int, default=0, help="of the data order and of new weights")
    group = parser.add_argument_group("LoRA")
    group.add_argument(
        "--lora_rank",
        type=positive_int,
        metavar="N",
        help="train adapters of this rank, and the control tokens' rows, instead of all weights",
    )
    group.add_argument(
        "--lora_alpha", type=positive_float, help="adapters count alpha / rank; default: 2 x rank"
    )
    group.add_argument("--lora_dropout", type=float, help="on the adapters' input; default: 0.05")
    group.add_argument(
        "--lora_target_modules",
        nargs="+",
        metavar="NAME",
        help="linear layers to adapt, such as q_proj v_proj; default: all but the output layer",
    )
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of matmuls"
    )
    group.add_argument(
        "--gradient_checkpointing",
        choices=("auto", "on", "off"),
        nargs="?",
        const="on",
        default="auto",
        help="less memory, a third more time; auto: where it doesn't fit otherwise",
    )
    group.add_argument(
        "--attn_implementation",
        choices=("varlen", "per_sample"),
        default="varlen",
        help="varlen: one kernel for all samples where the GPU has it; per_sample: SDPA for each",
    )
    group.add_argument(
        "--fsdp_config",
        type=Path,
        metavar="FILE",
        help="split the model over the processes, such as train/configs/fsdp2.json",
    )
    group.add_argument(
        "--deepspeed",
        type=Path,
        metavar="FILE",
        help="train with DeepSpeed, such as train/configs/zero3.json (pip install deepspeed)",
    )
    group.add_argument(
        "--report_to",
        choices=("none", "tensorboard", "wandb"),
        default="none",
        help="where curves go besides metrics.jsonl (pip install it)",
    )
    group.add_argument(
        "--save_total_limit", type=positive_int, help="keep the newest N checkpoints; default: all"
    )
    args = parser.parse_args(argv)
    if args.dump_examples is None and (args.valid_dir is None or args.output_dir is None):
        parser.error("--valid_dir and --output_dir are needed to train (not for --dump_examples)")
    check_together(args, parser)
    return args


def check_together(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Flags that need another flag, a file or a library; raises SystemExit(2) or InputError."""
    for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
        if getattr(args, name) is not None and args.lora_rank is None:
            parser.error(f"--{name} needs --lora_rank")
    if args.lora_dropout is not None and not 0 <= args.lora_dropout < 1:
        parser.error(f"--lora_dropout {args.lora_dropout}: expected a number from 0, below 1")
    if args.fsdp_config and args.deepspeed:
        parser.error("--fsdp_config and --deepspeed exclude each other")
    if args.lora_rank and (args.fsdp_config or args.deepspeed):
        parser.error(
            "--lora_rank goes without --fsdp_config and --deepspeed: each process holds all frozen "
            "weights, 2 bytes a parameter"
        )
    if args.fsdp_config and processes().count == 1:
        parser.error("--fsdp_config needs several processes: torchrun --nproc_per_node N ...")
    for flag in ("fsdp_config", "deepspeed"):
        path = getattr(args, flag)
        if path is not None:
            read_json(path)
    needed = {args.report_to, "deepspeed" if args.deepspeed else "none"} - {"none"}
    for library in needed:
        if importlib.util.find_spec(library) is None:
            parser.error(f"{library} is not installed: pip install {library}")


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

    from accelerate import PartialState
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    from growth.batches import tokenised_files
    from growth.devices import choose_compute
    from growth.layout import now, read_run, write_run
    from growth.models import bounded_length, find_model, load_tokenizer
    from growth.runs import data_record, new_record
    from growth.training import InstructionTrainer

    transformers_logging.set_verbosity_error()
    level = logging.INFO if processes().is_first else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    logging.getLogger("accelerate").setLevel(logging.WARNING)

    source = find_model(args.model_name_or_path, args.base_model, args.trust_remote_code)
    chat = load_tokenizer(source)
    max_length = bounded_length(source, args.max_length)
    examples = {part: tokenised_files(files[part], chat, max_length) for part in files}
    data = {part: data_record(folders[part], files[part], examples[part]) for part in files}
    compute = choose_compute(args.precision)
    logging.info(compute.describe())
    if args.deepspeed and compute.device.type == "cpu":
        # accelerate would leave it out without a word.
        raise InputError(f"--deepspeed {args.deepspeed}: needs GPUs; on CPUs take --fsdp_config")
    set_seed(args.seed)
    model, lora = load_for_training(args, source, chat, compute)
    transformers_logging.disable_progress_bar()  # from here on our own bar speaks
    earlier = read_run(args.output_dir)
    hyperparameters = resolve(args, earlier, model, compute, examples, max_length, lora)
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
    last, finished = open_run(args, earlier, run, compute)
    if finished:
        return
    trainer = InstructionTrainer(
        model,
        chat,
        examples["train"],
        examples["valid"],
        hyperparameters,
        compute,
        args.output_dir,
        **engine(args),
    )
    trainer.train(resume_from_checkpoint=last)
    if processes().is_first:
        write_run(args.output_dir, read_run(args.output_dir) | {"ended": now()})
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


def open_run(
    args: argparse.Namespace, earlier: Any, run: Any, compute: Any
) -> tuple[str | None, bool]:
    """Begin the run, or go on with `earlier`: its last complete checkpoint, and whether it is done.

    Every process looks at the folder before the first one writes to it.
    """
    from accelerate import PartialState

    from growth.layout import checkpoint_step, checkpoints, now, write_run
    from growth.runs import check_same_run
    from growth.training import check_resumable, forget_metrics_after

    last = checkpoints(args.output_dir)[-1:] if earlier else []
    PartialState(cpu=compute.device.type == "cpu").wait_for_everyone()
    if earlier:
        check_same_run(earlier, run, args.output_dir, args.resume)
        run |= {"started": earlier["started"], "resumed": now()}
    logging.info(
        "%s samples a step, %s steps an epoch, %s epochs; %s of %s tokens supervised",
        *(run["hyperparameters"]["total_batch_size"], run["steps_per_epoch"]),
        run["hyperparameters"]["epochs"],
        *(f"{run['train'][name]:,}" for name in ("supervised_tokens", "tokens")),
    )
    step = checkpoint_step(last[0]) if last else 0
    if last and step >= run["steps"]:
        logging.info("%s is finished: %s steps of %s", args.output_dir, step, run["steps"])
        return None, True
    if last:
        check_resumable(last[0])
    if processes().is_first:
        write_run(args.output_dir, run)
        forget_metrics_after(args.output_dir, step)
    return (str(last[0]) if last else None), False


def load_for_training(
    args: argparse.Namespace, source: Any, chat: Any, compute: Any
) -> tuple[Any, Any]:
    """The model, its weights in fp32 to train; for LoRA frozen in the precision of computing."""
    import torch

    from growth.adapters import ALL_LINEAR, DEFAULT_DROPOUT, Lora, add_lora
    from growth.models import load_model

    if args.lora_rank is None:
        return load_model(source, torch.float32, chat), None
    lora = Lora(
        rank=args.lora_rank,
        alpha=args.lora_alpha or 2 * args.lora_rank,
        dropout=DEFAULT_DROPOUT if args.lora_dropout is None else args.lora_dropout,
        target_modules=tuple(args.lora_target_modules or ()) or ALL_LINEAR,
    )
    model = load_model(source, compute.dtype, chat)
    return add_lora(model, lora, chat, args.model_name_or_path), lora


def engine(args: argparse.Namespace) -> dict[str, Any]:
    """What the Trainer is told besides the hyper-parameters."""
    options = {"save_total_limit": args.save_total_limit, "report_to": args.report_to}
    if args.fsdp_config is not None:
        options |= {"fsdp": True, "fsdp_config": str(args.fsdp_config)}
    if args.deepspeed is not None:
        options["deepspeed"] = str(args.deepspeed)
    if args.report_to == "tensorboard":
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(args.output_dir / "tensorboard"))
    return options


def resolve(
    args: argparse.Namespace,
    earlier: Any,
    model: Any,
    compute: Any,
    examples: dict[str, list[Any]],
    max_length: int,
    lora: Any,
) -> Any:
    """The hyper-parameters with what was left open filled in, partly as in the `earlier` run."""
    from growth.adapters import DEFAULT_LEARNING_RATE
    from growth.memory import plan_memory
    from growth.training import Hyperparameters

    asked = (args.batch_size or args.total_batch_size) * (args.gradient_accumulation or 1)
    if args.gradient_accumulation and asked * processes().count != args.total_batch_size:
        logging.info(
            "--batch_size x --gradient_accumulation x processes is %s samples a step; the study's "
            "%s are taken (--total_batch_size changes that)",
            *(asked * processes().count, args.total_batch_size),
        )
    # Another micro-batch would round other sums, and resuming is exact.
    before = earlier["hyperparameters"] if earlier else {}
    plan = plan_memory(
        model,
        compute,
        max(len(example["input_ids"]) for part in examples.values() for example in part),
        tokens_per_micro_batch=args.tokens_per_micro_batch or before.get("tokens_per_micro_batch"),
        gradient_checkpointing=args.gradient_checkpointing,
        shards=processes().count if args.fsdp_config or args.deepspeed else 1,
    )
    logging.info(plan.describe())
    learning_rate = args.learning_rate or (DEFAULT_LEARNING_RATE if lora else 1e-5)
    names = {field.name for field in dataclasses.fields(Hyperparameters)}
    given = {name: value for name, value in vars(args).items() if name in names}
    given |= {
        "epochs": args.epochs or default_epochs(len(examples["train"])),
        "max_length": max_length,
        "precision": compute.precision,
        "learning_rate": learning_rate,
        # The paper's goes down to a tenth.
        "end_learning_rate": args.end_learning_rate or learning_rate / 10,
        "tokens_per_micro_batch": plan.tokens_per_micro_batch,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "lora": lora,
    }
    return Hyperparameters(**given)


if __name__ == "__main__":
    run_script(main)
