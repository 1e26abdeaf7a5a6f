"""Fine-tune a foundation model on one setting: <output_dir>/checkpoint-<step>, metrics.jsonl.

    python train/finetune.py --model_name_or_path MODEL --train_dir data/curated-160 \\
        --valid_dir data/curated/valid --output_dir runs/runs-7b/curated-160/my-run

`bash scripts/run_train.sh` sets the folders. Full fine-tuning as in the paper (section 4.1): AdamW,
64 samples per optimizer step, the learning rate falling linearly, an evaluation and a checkpoint
after each epoch. --lora_rank trains adapters instead. Precision and the size of micro-batches are
selected automatically; one line says how. Started by torchrun, the processes share each step's
samples. --dump_examples writes what the model would be trained on and exits.
"""

import argparse
import importlib.util
import netrc
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import (
    add_options,
    argument_parser,
    given_options,
    options_from,
    plain_name,
    run_script,
)
from growth.core.distributed import distributed_state
from growth.core.files import read_json
from growth.core.options import (
    EngineOptions,
    Hyperparameters,
    LoraOptions,
    ModelOptions,
    StudyOptions,
)
from growth.data.records import read_training_files
from growth.data.settings import setting_of
from growth.data.study import named_study
from growth.runs.recorded_study import study_of_models

# Hyper-parameters that depend on the machine; their flags are shown in its group.
_MACHINE = ("precision", "attn_implementation")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags; dump the examples, or train."""
    parser = make_parser()
    args = parser.parse_args(argv)
    check_flags(parser, args)
    if args.resume and args.output_dir is not None:
        study = study_of_models([str(args.output_dir)], args.study)
    else:
        study = named_study(args.study)
    if args.data_type is not None:
        setting_of(study, args.data_type, args.train_dir)
    parts = ("train",) if args.dump_examples is not None else ("train", "valid")
    folders = {part: getattr(args, f"{part}_dir") for part in parts}
    files = {part: read_training_files(folders[part], f"--{part}_dir") for part in parts}
    # Imported here: flags and lines are checked before torch takes its seconds.
    from growth.training.run import TrainingRun, dump_examples, train

    model = options_from(args, ModelOptions)
    given = study.run.hyperparameters() | given_options(args, Hyperparameters)
    if args.dump_examples is not None:
        count = dump_examples(
            args.model_name_or_path,
            model,
            args.train_dir,
            files["train"],
            given["max_length"],
            args.dump_examples,
        )
        print(f"{args.dump_examples}: {count:,} examples")
        return
    lora = options_from(args, LoraOptions, prefix="lora_") if args.lora_rank else None
    train(
        TrainingRun(
            model_name_or_path=args.model_name_or_path,
            model=model,
            train_dir=args.train_dir,
            valid_dir=args.valid_dir,
            files=files,
            output_dir=args.output_dir,
            data_type=args.data_type,
            model_size=args.model_size,
            resume=args.resume,
            given=given,
            study=study,
            lora=lora,
            engine=options_from(args, EngineOptions),
        )
    )


def make_parser() -> argparse.ArgumentParser:
    """The flags, in groups."""
    parser = argument_parser(__doc__)
    group = parser.add_argument_group("what to train, on what, where to")
    group.add_argument(
        "--model_name_or_path", required=True, help="folder of a causal LM, a hub id or a .gguf"
    )
    add_options(group, ModelOptions)
    add_options(group, StudyOptions)
    group.add_argument(
        "--train_dir", type=Path, required=True, help="folder of *.json training lines"
    )
    group.add_argument("--valid_dir", type=Path, help="folder of *.json validation lines")
    group.add_argument("--output_dir", type=Path, help="folder of the run")
    group.add_argument("--data_type", help="the setting, for the record; default: train_dir's name")
    group.add_argument(
        "--model_size",
        type=plain_name,
        help="such as 7b, for the record and the curves; default: counted",
    )
    group.add_argument("--resume", action="store_true", help="resume from the last checkpoint")
    group.add_argument(
        "--dump_examples", type=Path, metavar="FILE", help="write the tokenised lines and exit"
    )
    group = parser.add_argument_group("hyper-parameters (paper section 4.1)")
    add_options(group, Hyperparameters, leave_out=_MACHINE)
    add_options(parser.add_argument_group("LoRA"), LoraOptions, prefix="lora_")
    group = parser.add_argument_group("machine")
    add_options(group, Hyperparameters, only=_MACHINE)
    add_options(group, EngineOptions)
    return parser


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Flags that need another flag, a file or a library; raises SystemExit(2)."""
    if args.dump_examples is None and (args.valid_dir is None or args.output_dir is None):
        parser.error("--valid_dir and --output_dir are needed to train (not for --dump_examples)")
    for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
        if getattr(args, name) is not None and args.lora_rank is None:
            parser.error(f"--{name} needs --lora_rank")
    for name in ("lora_rank", "end_learning_rate"):
        if args.as_published and getattr(args, name) is not None:
            parser.error(
                f"--as_published goes without --{name}: the published run tuned all weights, and "
                "its learning rate fell as its engine had it"
            )
    if args.fsdp_config and args.deepspeed:
        parser.error("--fsdp_config and --deepspeed exclude each other")
    if args.lora_rank and (args.fsdp_config or args.deepspeed):
        parser.error(
            "--lora_rank goes without --fsdp_config and --deepspeed: each process holds all frozen "
            "weights, 2 bytes a parameter"
        )
    if args.fsdp_config and distributed_state().world_size == 1:
        parser.error("--fsdp_config needs several processes: torchrun --nproc_per_node N ...")
    for path in (args.fsdp_config, args.deepspeed):
        if path is not None:
            read_json(path)
    needed = {args.report_to, "deepspeed" if args.deepspeed else "none"} - {"none"}
    for library in needed:
        if importlib.util.find_spec(library) is None:
            parser.error(f"{library} is not installed: pip install {library}")
    if args.report_to == "wandb" and not _wandb_has_login():
        parser.error(
            "--report_to wandb: no login here, and it would ask for one amid the run; run `wandb "
            "login` first, or set WANDB_API_KEY or WANDB_MODE=offline"
        )


def _wandb_has_login() -> bool:
    """Whether wandb needs no login, or has one where `wandb login` leaves it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return logins.authenticators(urlsplit(server).hostname or server) is not None


if __name__ == "__main__":
    run_script(main)
