"""What an earlier commit took and what this one takes: the demo, memory of training, arithmetic.

    python benchmarks/before_after.py --before 6aa2ea4 --gguf gemma.gguf
    python benchmarks/before_after.py --before 6aa2ea4 --measures demo quick --rounds 1

Each command runs in a fresh export of either commit, in turns (A B A B), so that a machine whose
speed varies slows both alike. The table at the end gives, of each command, its wall clock, its CPU
seconds and the peak memory of the largest of its processes. The commands' own tables (tokens per
CPU second, share of the matrix-product peak, ratios) are printed above it.
"""

import argparse
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from startup import ROOT, export

from growth.core.cli import argument_parser, positive_int, run_script
from growth.core.errors import InputError
from growth.core.files import write_json_lines
from growth.data.records import read_training_files

_STEP = (
    *("benchmarks/training.py", "--loops", "ours", "--samples", "8", "--data_dir", "{lines}"),
    *("--tokenizer", "{tokenizer}"),
)
MEASURES = {
    "demo": ("bash", "scripts/demo.sh"),
    "quick": ("bash", "scripts/demo.sh", "--quick"),
    "gemma": (
        *("python", "train/finetune.py", "--model_name_or_path", "{gguf}", "--train_dir", "{few}"),
        *("--valid_dir", "{few}", "--output_dir", "{output}"),
        *("--precision", "fp32", "--total_batch_size", "5", "--epochs", "1"),
    ),
    "memory": ("python", *_STEP, "--steps", "1", "--tokens_per_micro_batch", "1024"),
    "bf16": ("python", *_STEP, "--steps", "2", "--precision", "bf16"),
    "answers": (
        *("python", "benchmarks/prediction.py", "--data_dir", "{questions}"),
        *("--tokenizer", "{tokenizer}", "--tasks", "answers at once", "--rounds", "1"),
        *("--questions", "5"),
    ),
}
SHARED = Path("../shared")
# What a word of a command is, and the flag that says where it is.
FLAGS = {
    "{few}": "data_dir",
    "{lines}": "data_dir",
    "{questions}": "valid_dir",
    "{tokenizer}": "tokenizer",
}
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, run each command on both commits in turns, print the table."""
    args = parse_args(argv)
    commits = [commit_of(args.before), commit_of("HEAD")]
    # killed politely, it leaves neither folders nor processes
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    rows: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure_all(args, commits, Path(folder), rows)
    finally:
        print("\n| measure | commit | wall clock, s | CPU s | peak, GiB |\n|---|---|---|---|---|")
        print("\n".join(rows), flush=True)


def measure_all(
    args: argparse.Namespace, commits: Sequence[str], place: Path, rows: list[str]
) -> None:
    """Append a row of the table for each command, once it has run."""
    names = {
        "lines": args.data_dir.resolve(),
        "questions": args.valid_dir.resolve(),
        "tokenizer": args.tokenizer.resolve(),
        "gguf": args.gguf and args.gguf.resolve(),
        "few": place / "few",
    }
    if "gemma" in args.measures:
        one_line_each(args.data_dir, names["few"])
    turns = itertools.product(args.measures, range(1, args.rounds + 1), commits)
    for turn, (measure, number, commit) in enumerate(turns):
        print(f"\n## {measure} at {commit[:7]}, round {number}", flush=True)
        tree = export(commit, place / str(turn))
        command = [word.format(**names, output=tree / "output") for word in MEASURES[measure]]
        rows.append(f"| {measure} | {commit[:7]} | {measured(command, tree)} |")
        shutil.rmtree(tree)


def commit_of(name: str) -> str:
    """The digest of the commit that `name` means now.

    Raises:
        InputError: it means none.
    """
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"--before {name}: no such commit here; git log lists them")
    return done.stdout.strip()


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=list(MEASURES),
        metavar="MEASURE",
        help="%(choices)s; default: all. demo, quick: scripts/demo.sh; gemma: tuning the model of "
        "--gguf in fp32; memory, bf16, answers: benchmarks/training.py and prediction.py",
    )
    parser.add_argument("--rounds", type=positive_int, default=2, help="turns of each commit")
    parser.add_argument("--gguf", type=Path, help="the model that gemma tunes")
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=SHARED / "data/doit-proxy/curated/1000",
        help="folder of *.json training lines",
    )
    parser.add_argument(
        "--valid_dir",
        type=Path,
        default=SHARED / "data/doit-proxy/curated/valid",
        help="folder of valid lines",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=SHARED / "golden/tiny-llama",
        help="folder of the tokenizer's model",
    )
    args = parser.parse_args(argv)
    if "gemma" in args.measures and (args.gguf is None or not args.gguf.is_file()):
        raise InputError(
            f"--gguf {args.gguf}: no such file; the measure gemma needs one, or leave it out: "
            "--measures demo quick memory bf16 answers"
        )
    needed = {word for measure in args.measures for word in MEASURES[measure]}
    for word, flag in FLAGS.items():
        if word in needed and not getattr(args, flag).is_dir():
            raise InputError(f"--{flag} {getattr(args, flag)}: no such folder")
    return args


def one_line_each(lines: Path, folder: Path) -> None:
    """Write the first line of each file of `lines` to `folder`."""
    for name, records in read_training_files(lines, "--data_dir").items():
        write_json_lines(folder / name, records[:1])


def measured(command: Sequence[str], tree: Path) -> str:
    """Cells of the table for a command that runs in `tree`.

    Raises:
        InputError: it ends with another exit code than 0.
    """
    # what its processes leave behind (a server that forks others) becomes ours, and is counted
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    words = [sys.executable if word == "python" else word for word in command]
    began = time.perf_counter()
    process = subprocess.Popen(words, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)})
    seconds = cpu = peak = 0.0
    try:
        while True:
            number, status, used = os.wait4(-1, 0)
            cpu += used.ru_utime + used.ru_stime
            peak = max(peak, used.ru_maxrss / 2**20)
            if number == process.pid:
                seconds = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode:
                    raise InputError(
                        f"{' '.join(command)}: ended with exit code {process.returncode}; the "
                        "reason is above"
                    )
    except ChildProcessError:  # none is left
        return f"{seconds:.0f} | {cpu:.0f} | {peak:.2f}"
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


if __name__ == "__main__":
    run_script(main)
