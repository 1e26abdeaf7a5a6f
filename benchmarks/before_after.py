"""What an earlier commit took and what this one takes: the demo, memory of training, arithmetic.

    python benchmarks/before_after.py --before 6aa2ea4 --gguf gemma.gguf
    python benchmarks/before_after.py --before 6aa2ea4 --measures demo quick --rounds 1

Each command runs in a fresh export of either commit, in turns (A B A B), so that a machine whose
speed varies slows both alike. The table at the end gives, of each command, its
wall clock, its CPU seconds and the peak memory of the largest of its processes. The commands' own
tables (tokens per CPU second, share of the matrix-product peak, ratios) are printed above it.
"""

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from startup import export

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
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, run each command on both commits in turns, print the table."""
    args = parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        names = {
            "lines": args.data_dir.resolve(),
            "questions": args.valid_dir.resolve(),
            "tokenizer": args.tokenizer.resolve(),
            "gguf": args.gguf and args.gguf.resolve(),
            "few": one_line_each(args.data_dir, place / "few"),
        }
        for measure in args.measures:
            for number in range(args.rounds):
                for commit in (args.before, "HEAD"):
                    print(f"\n## {measure} at {commit}, round {number + 1}", flush=True)
                    tree = export(commit, place / f"{measure}-{number}-{commit}")
                    output = tree / "output"
                    command = [word.format(**names, output=output) for word in MEASURES[measure]]
                    rows.append(f"| {measure} | {commit} | {measured(command, tree)} |")
    print("\n| measure | commit | wall clock, s | CPU s | peak, GiB |\n|---|---|---|---|---|")
    print("\n".join(rows))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=list(MEASURES),
        help="demo, quick: scripts/demo.sh; gemma: tuning the model of --gguf in fp32; memory, "
        "bf16, answers: benchmarks/training.py and prediction.py",
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
    return args


def one_line_each(lines: Path, folder: Path) -> Path:
    """A folder with the first line of each file of `lines`."""
    for name, records in read_training_files(lines, "--data_dir").items():
        write_json_lines(folder / name, records[:1])
    return folder


def measured(command: Sequence[str], tree: Path) -> str:
    """Cells of the table for a command that runs in `tree`.

    Raises:
        InputError: it ends with another exit code than 0.
    """
    # a process of its own: what its children take is what this command takes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (command, tree))


def _measured(command: Sequence[str], tree: Path) -> str:
    # what its processes leave behind (a server that forks others) is waited for here, and counted
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    environment = os.environ | {"PYTHONPATH": str(tree)}
    words = [sys.executable if word == "python" else word for word in command]
    began = time.perf_counter()
    code = subprocess.run(words, cwd=tree, env=environment).returncode
    seconds = time.perf_counter() - began
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    if code:
        raise InputError(f"{' '.join(command)}: ended with exit code {code}; the reason is above")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    return f"{seconds:.0f} | {cpu:.0f} | {used.ru_maxrss / 2**20:.2f}"


if __name__ == "__main__":
    run_script(main)
