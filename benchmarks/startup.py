"""How long a user waits before anything happens: imports of each stage, flags, faulty lines.

    python benchmarks/startup.py --before 6aa2ea4

CPU seconds of whole processes, the median of several rounds; the commit to compare with is
exported to a temporary folder, and both take turns. First what a stage imports, as a multiple of
torch and one model class of transformers, which all stages with a model need. Then each script's
answer to --help, to a flag that it doesn't know, and to lines that are no JSON. With --model, only
how long a model takes to be ready after the imports, at its first start and at its second, when the
cache of converted weights (docs/models.md) has it.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from growth.core.cli import argument_parser, positive_int, run_script
from growth.core.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
MODEL = "import torch; from transformers import LlamaForCausalLM"
STAGES = {
    "torch and a model class": MODEL,
    "predict": f"import growth.tasks.prediction_run; {MODEL}",
    "cmmlu, agieval": f"import growth.tasks.benchmark_run; {MODEL}",
    "finetune": f"import growth.training.run; {MODEL}",
    "chat": f"import growth.inference.chat_session, growth.model.loading; {MODEL}",
    "score": "import growth.scoring.results",
    "plot": "import growth.report.plots",
    "report": "import growth.report.page, growth.report.summary",
}
_MODEL = "--model_name_or_path M"
FAULTS = {
    "evaluate/predict.py": f"{_MODEL} --model_size 7b --tag t --eval_data_path in",
    "evaluate/score.py": "--pred_data_path in",
    "evaluate/plot.py": "--plot_type all --results_path in",
    "evaluate/cmmlu/run.py": f"{_MODEL} --data_dir in",
    "evaluate/agieval/run.py": f"{_MODEL} --data_dir in",
    "train/finetune.py": f"{_MODEL} --train_dir in --valid_dir in --output_dir out",
    "data/build.py": "--data_type curated-160 --data_dir in",
}
LOAD = """
import sys, time, torch
from transformers import AutoModelForCausalLM
from growth.model.loading import bounded_length, load_model, load_tokenizer
from growth.model.source import find_model, fingerprint
began = time.process_time(), time.perf_counter()
source = find_model(sys.argv[1])
chat = load_tokenizer(source)
bounded_length(source, 2048)
fingerprint(source)
load_model(source, torch.float32, chat)
ended = time.process_time(), time.perf_counter()
print(f"{ended[0] - began[0]:.1f} CPU s, {ended[1] - began[1]:.1f} s")
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, measure, print both tables."""
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if args.model:
            print_starts(args.model, place)
            return
        trees = {"now": ROOT}
        if args.before:
            trees = {f"before ({args.before})": export(args.before, place / "before"), **trees}
        (place / "in").mkdir()
        for name in ("biology_1000.json", "pred_biology_valid.json", "x-results.json"):
            (place / "in" / name).write_text("{\n", encoding="utf-8")
        print_stages(trees, place, args.rounds)
        print_answers(trees, place, args.rounds)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--before", help="a commit to compare with; default: none")
    parser.add_argument("--model", type=Path, help="a .gguf file, or an adapter's folder")
    parser.add_argument("--rounds", type=positive_int, default=3, help="processes of each kind")
    return parser.parse_args(argv)


def print_starts(model: Path, place: Path) -> None:
    """Two starts of a model, with a cache that is empty at the first one."""
    environment = os.environ | {"GROWTH_CACHE": str(place), "PYTHONPATH": str(ROOT)}
    for start in ("first", "second"):
        command = [sys.executable, "-c", LOAD, str(model)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise InputError(f"--model {model}: can't be loaded; the reason is above")
        print(f"{start} start, without its imports: {done.stdout.strip()}", flush=True)


def export(commit: str, folder: Path) -> Path:
    """The files of a commit, in `folder`.

    Raises:
        InputError: there is no such commit here.
    """
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise InputError(f"--before {commit}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def print_stages(trees: dict[str, Path], place: Path, rounds: int) -> None:
    """What each stage imports."""
    names = list(trees)
    print(f"\n| imports | {', CPU s | '.join(names)}, CPU s | of torch and a model class |")
    print("|---|" + "---|" * (len(names) + 1))
    least = None
    for stage, code in STAGES.items():
        found = seconds(trees, place, lambda _, code=code: ["-c", code], rounds)
        least = least or found["now"]
        cells = " | ".join(f"{found[name]:.2f}" for name in names)
        print(f"| {stage} | {cells} | {found['now'] / least:.2f} |", flush=True)


def print_answers(trees: dict[str, Path], place: Path, rounds: int) -> None:
    """How soon each script answers."""
    asked = ("--help", "an unknown flag", "faulty lines")
    for name in trees:
        tree = {name: trees[name]}
        print(f"\n| {name}, CPU s | {' | '.join(asked)} |\n|---|" + "---|" * len(asked))
        for script in scripts(trees[name]):
            cells = []
            for words in ("--help", "--no_such_flag", FAULTS.get(script)):
                if words is None:
                    cells.append("")
                    continue
                command = [str(trees[name] / script), *words.split()]
                found = seconds(tree, place, lambda _, command=command: command, rounds)
                cells.append(f"{found[name]:.2f}")
            print(f"| {script} | {' | '.join(cells)} |", flush=True)


def scripts(tree: Path) -> list[str]:
    """The scripts of a checkout."""
    return [
        str(path.relative_to(tree))
        for folder in ("data", "train", "evaluate")
        for path in sorted((tree / folder).rglob("*.py"))
        if "run_script(main)" in path.read_text(encoding="utf-8")
    ]


def seconds(
    trees: dict[str, Path], place: Path, command_of: Callable[[Path], list[str]], rounds: int
) -> dict[str, float]:
    """Median CPU seconds of a process for each checkout, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(rounds):
        for name, tree in trees.items():
            process = subprocess.Popen(
                [sys.executable, *command_of(tree)],
                cwd=place,
                env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
            taken[name].append(used.ru_utime + used.ru_stime)
    return {name: statistics.median(of_tree) for name, of_tree in taken.items()}


if __name__ == "__main__":
    run_script(main)
