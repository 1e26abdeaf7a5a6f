"""Memory and time of the stages against the size of the data: neither may grow faster than it.

    python benchmarks/scale.py
    python benchmarks/scale.py --lines 10000 100000 --checkpoints 20 200

Made-up lines, about 1 kB and 200 tokens each, go through `data/build.py`, through what
`train/finetune.py` does before the first step and the reading of an epoch, and, with predictions,
through `evaluate/score.py --details`. Made-up results go through `evaluate/select_checkpoint.py`
and `evaluate/plot.py`, ten checkpoints a run. Each stage runs in a process of its own; its peak of
resident memory is counted above that of its imports. Prints a table in Markdown. The largest sizes
take 20 minutes and 3 GB of disk.
"""

import argparse
import contextlib
import importlib.util
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from growth.core.files import write_json, write_json_lines
from growth.core.options import Hyperparameters
from growth.core.workers import peak_resident_memory
from growth.data.abilities import Kind
from growth.data.lines import Record
from growth.data.study import published_study

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "train/pocket"
ANSWER_CHARACTERS = 180  # a line has about 200 tokens of train/pocket then
LINE_STAGES, RESULT_STAGES = ("build", "tokenise", "score"), ("select", "plot")
CHECKPOINTS = 10  # of a run
CURATED_FULL = "curated/full"  # where the setting takes its lines from


def main() -> None:
    """Print the table; or, in a process of its own, one stage's measures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--work_dir", type=Path, help="for the data; default: a temporary folder")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measured(STAGES[args.stage], args.work_dir)))
        return
    print(
        "| stage | size | peak above imports, MiB | seconds | CPU seconds |\n|---|---|---|---|---|"
    )
    for sizes, make, stages, unit in (
        (args.lines, make_lines, LINE_STAGES, "lines"),
        (args.checkpoints, make_results, RESULT_STAGES, "checkpoints"),
    ):
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
                make(Path(folder), size)
                for stage in stages:
                    found = in_own_process(stage, Path(folder))
                    print(
                        f"| {stage} | {size:,} {unit} | {found['mebibytes']:,.0f} | "
                        f"{found['seconds']:,.1f} | {found['cpu_seconds']:,.1f} |",
                        flush=True,
                    )


def in_own_process(stage: str, folder: Path) -> dict[str, float]:
    """The measures of a stage on what `folder` holds."""
    command = [sys.executable, __file__, "--stage", stage, "--work_dir", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(prepare: Callable[[Path], Callable[[], None]], folder: Path) -> dict[str, float]:
    """Import what a stage needs, run it, and measure what it took on top."""
    run = prepare(folder)
    before, began, worked = peak_resident_memory(), time.perf_counter(), cpu_seconds()
    run()
    return {
        "mebibytes": (peak_resident_memory() - before) / 2**20,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": cpu_seconds() - worked,
    }


def cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def script(path: str, *flags: str, late: Sequence[str] = ()) -> Callable[[], None]:
    """A script's `main` with these flags, imported but not run; what it prints goes to stderr.

    Args:
        path: of the script.
        flags: its arguments.
        late: modules that it imports only as it runs.
    """
    for module_name in late:
        importlib.import_module(module_name)
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["script"] = module
    spec.loader.exec_module(module)

    def run() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            module.main(flags)

    return run


def build(folder: Path) -> Callable[[], None]:
    """`data/build.py` of the setting that takes nearly all lines."""
    built = ("--data_type", "maximum", "--data_dir", str(folder), "--output_dir", str(folder))
    return script("data/build.py", *built, late=["numpy"])


def score(folder: Path) -> Callable[[], None]:
    """`evaluate/score.py` of predictions of all lines."""
    flags = ("--pred_data_path", str(folder / "predictions"), "--details")
    results = ("--results_path", str(folder / "results"))
    return script("evaluate/score.py", *flags, *results, late=["numpy", "scipy.stats"])


def tokenise(folder: Path) -> Callable[[], None]:
    """What training does before its first step, and the reading of the lines of an epoch."""
    from growth.core.options import ModelOptions
    from growth.data.records import read_training_files
    from growth.model.loading import load_tokenizer
    from growth.model.source import find_model
    from growth.packing.batches import token_lengths, tokenised_files
    from growth.runs.record import data_record
    from growth.training.sampler import StepSampler

    chat = load_tokenizer(find_model(str(MODEL), ModelOptions()))
    h = Hyperparameters()

    def run() -> None:
        files = read_training_files(folder / CURATED_FULL, "--train_dir")
        examples = tokenised_files(files, chat, h.max_length)
        record = data_record(folder / CURATED_FULL, files, examples)
        sampler = StepSampler(token_lengths(examples), h.total_batch_size, h.seed, 0, 1)
        read = sum(len(examples[place]["labels"]) for step in sampler for place in step)
        assert read == record["tokens"]
        print(f"{read / len(examples):.0f} tokens per line", file=sys.stderr)

    return run


def select(folder: Path) -> Callable[[], None]:
    """`evaluate/select_checkpoint.py` of all results."""
    return script("evaluate/select_checkpoint.py", "--results_path", str(folder / "valid"))


def plot(folder: Path) -> Callable[[], None]:
    """All figures of all results."""
    flags = ("--results_path", str(folder / "test"), "--plots_path", str(folder / "plots"))
    late = ["growth.report.plots", "growth.report.results_table"]
    return script("evaluate/plot.py", "--plot_type", "all", *flags, late=late)


STAGES = {"build": build, "tokenise": tokenise, "score": score, "select": select, "plot": plot}


def make_lines(folder: Path, count: int) -> None:
    """`count` lines of curated/full, shared out among the abilities, and their predictions.

    The setting needs 1,000 lines of some. A hundredth of all is math, whose second opinion takes a
    hundred times as long as a letter.
    """
    shares = {ability.name: count // 10 for ability in published_study().in_domain}
    shares["math"] = max(1, count // 100)
    shares["biology"] += count - sum(shares.values())
    for ability in published_study().in_domain:
        name, share = ability.name, shares[ability.name]
        write_json_lines(
            folder / CURATED_FULL / f"{name}_full.json",
            (made_line(name, ability.kind, place) for place in range(max(share, 1000))),
        )
        write_json_lines(
            folder / f"predictions/pred_{name}_valid.json",
            (predicted(made_line(name, ability.kind, place), place) for place in range(share)),
        )


def made_line(name: str, kind: Kind, place: int) -> Record:
    """A line with a text of its own."""
    draw = random.Random(f"{name}/{place}")
    text = "".join(map(chr, draw.choices(range(0x4E00, 0x5E00), k=ANSWER_CHARACTERS)))
    gold = "解：1+2=3\n答案\n$3$" if kind is Kind.DOIT_MATH else "A"
    answer = text[:20] if kind is Kind.CHOICES else gold
    fields: Record = {"idx": place, "type": name, "question_format": int(kind is Kind.CHOICES)}
    if kind is Kind.DOIT_MATH:
        fields["answer"] = "3"
    if kind is Kind.CHOICES:
        fields["choices"] = [answer, text[20:40], text[40:60]]
    question = f"{text}\nA. 甲\nB. 乙\nC. 丙\nD. 丁"
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns} | fields


def predicted(line: Record, place: int) -> Record:
    """A line with what a model might say."""
    if line["question_format"]:
        return line | {"generated_ppl": [1.5, 2.5, 3.5 + place % 7]}
    said = "答案\n$3$" if line["type"] == "math" else "答案是：A"
    return line | {
        "generated_response": said,
        "choice_logits": {"A": 2.0, "B": 1.0, "C": 0.0, "D": 0.0},
    }


def make_results(folder: Path, count: int) -> None:
    """Results of `count` checkpoints on valid and on test, and the choices among them."""
    recipes = published_study().recipes
    settings = [name for name in recipes if name.startswith(("curated-", "synthetic-"))]
    draw = random.Random(0)
    for number in range(max(1, count // CHECKPOINTS)):
        data_type = settings[number % len(settings)]
        size, seed = ("7b", "13b")[number // len(settings) % 2], number // len(settings) // 2
        run = {"model_size": size, "data_type": data_type, "timestamp": f"run-{seed}", "seed": seed}
        for step in range(1, CHECKPOINTS + 1):
            place = {"checkpoint": f"checkpoint-{step}", "step": step, "epoch": step}
            for split in ("valid", "test"):
                results = made_results(run | place | {"epochs": CHECKPOINTS}, draw)
                path = folder / split / size / data_type / f"run-{seed}"
                write_json(path / f"checkpoint-{step}-results.json", results)
    subprocess.run(
        [sys.executable, "evaluate/select_checkpoint.py", "--results_path", folder / "valid"],
        **{"cwd": ROOT, "check": True, "stdout": subprocess.DEVNULL},
    )


def made_results(run: Record, draw: random.Random) -> Record:
    """A results file as score.py writes it."""
    files = {}
    for ability in published_study().in_domain:
        score = round(draw.uniform(20, 80), 2)
        files[f"{ability.name}_valid"] = {
            **{"type": ability.name, "n": 100, "score": score, "low": score - 9},
            **{"high": score + 9, "expected": 25.0, "digest": f"{len(files):016x}"},
        }
    mean = round(sum(entry["score"] for entry in files.values()) / len(files), 2)
    averages = {"average": mean, "average_low": mean - 3, "average_high": mean + 3}
    return {"run": run} | averages | {"expected_average": 25.0, "files": files}


if __name__ == "__main__":
    main()
