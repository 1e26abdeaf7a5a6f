"""How fast an optimizer step is: this repository's loop, the published one, TRL's packing.

    pip install -r benchmarks/requirements-training.txt     # for the loop "trl"
    python benchmarks/training.py --data_dir data/curated/1000 --tokenizer MODEL --threads 1 2

All loops train the same LLaMA from the same random weights on the same random batches. They take
turns (A B C A B C), each in a process of its own, so that time and memory are its own; a machine
whose speed wanders slows all of them, so ratios are taken pair by pair. A first small step warms up
and compares the losses from equal weights; it is not timed.

Prints, for each precision and number of threads: non-padding tokens per CPU second (per second on
a GPU), how many times faster ours is (median, range), peak memory, the losses, and the arithmetic
that the samples need as a share of the fastest matrix product of the model's layers, which is
measured in the same process just before each step.
"""

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import platform
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from growth.core.cli import argument_parser, positive_int, run_script
from growth.core.errors import InputError
from growth.core.files import write_json
from growth.core.options import (
    MAX_LENGTH,
    MICRO_BATCH_TOKENS,
    WEIGHT_PRECISIONS,
    Hyperparameters,
)
from growth.data.records import read_training_files
from growth.runs.layout import now

LOOPS = ("ours", "per_sample", "published", "trl")
SAMPLES = Hyperparameters.total_batch_size
WARM_UP_SAMPLES = 8

Step = dict[str, Any]  # what a worker answers


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, measure, print the tables."""
    args = parse_args(argv)
    if "trl" in args.loops and importlib.util.find_spec("trl") is None:
        raise InputError(
            "--loops trl: TRL is not installed; pip install -r "
            "benchmarks/requirements-training.txt, or leave it out: --loops ours published"
        )
    files = read_training_files(args.data_dir, "--data_dir")
    batches = step_batches(sum(map(len, files.values())), args.samples, args.steps, args.seed)
    measured = []
    for precision in args.precision:
        for threads in args.threads:
            table = measure(args, precision, threads, batches)
            measured.append(table)
            print(report(table, args.device), flush=True)
            if args.output:
                write_json(args.output, {"settings": settings(args), "measured": measured})


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    group = parser.add_argument_group("what to measure")
    group.add_argument(
        "--loops",
        nargs="+",
        choices=LOOPS,
        default=["ours", "published", "trl"],
        help="in turns; per_sample: ours with --attn_implementation per_sample, for a GPU",
    )
    group.add_argument("--steps", type=positive_int, default=3, help="timed steps of each loop")
    group.add_argument("--samples", type=positive_int, default=SAMPLES, help="of an optimizer step")
    group.add_argument(
        "--data_dir",
        type=Path,
        default=Path("../shared/data/doit-proxy/curated/1000"),
        help="folder of *.json training lines",
    )
    group.add_argument(
        "--max_length", type=positive_int, default=MAX_LENGTH, help="tokens of a sample"
    )
    group.add_argument("--seed", type=int, default=0, help="of batches and weights")
    group.add_argument("--output", type=Path, help="write every step's numbers here, as JSON")
    group = parser.add_argument_group("the model, a LLaMA with random weights")
    group.add_argument(
        "--tokenizer", default="../shared/golden/tiny-llama", help="folder of the tokenizer's model"
    )
    group.add_argument("--layers", type=positive_int, default=12)
    group.add_argument("--hidden", type=positive_int, default=768, help="width")
    group.add_argument("--heads", type=positive_int, default=12)
    group.add_argument("--kv_heads", type=positive_int, help="default: as --heads")
    group.add_argument("--intermediate", type=positive_int, default=2048, help="width of the MLP")
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    group.add_argument("--threads", type=positive_int, nargs="+", default=[1], help="of a loop")
    group.add_argument(
        "--precision",
        nargs="+",
        choices=WEIGHT_PRECISIONS,
        default=["fp32"],
        help="of all loops; 16 bits are autocast over weights in fp32",
    )
    group.add_argument(
        "--tokens_per_micro_batch",
        type=positive_int,
        help="ours; default: {cuda} on a GPU, {cpu} on a CPU".format(**MICRO_BATCH_TOKENS),
    )
    group.add_argument(
        "--trl_checkpointing",
        action="store_true",
        help="gradient checkpointing in TRL's loop, its own default; less memory, more time",
    )
    args = parser.parse_args(argv)
    args.tokens_per_micro_batch = args.tokens_per_micro_batch or MICRO_BATCH_TOKENS[args.device]
    return args


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The flags, the machine and the libraries, for the record."""
    from importlib.metadata import PackageNotFoundError, version

    libraries = {}
    for name in ("torch", "transformers", "trl"):
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    return flags | {"libraries": libraries, "machine": platform.machine(), "time": now()}


def step_batches(lines: int, samples: int, steps: int, seed: int) -> list[list[int]]:
    """Line numbers of each optimizer step: one small to warm up, then `steps` of `samples`.

    Raises:
        InputError: there are fewer lines.
    """
    warm_up = min(WARM_UP_SAMPLES, samples)
    needed = warm_up + steps * samples
    if lines < needed:
        raise InputError(
            f"--data_dir has {lines:,} lines; {steps} steps of {samples} and a warm-up need "
            f"{needed:,}: lower --steps or --samples"
        )
    order = random.Random(seed).sample(range(lines), needed)
    starts = range(warm_up, needed, samples)
    return [order[:warm_up], *(order[start : start + samples] for start in starts)]


def measure(
    args: argparse.Namespace, precision: str, threads: int, batches: list[list[int]]
) -> dict[str, Any]:
    """Every step of every loop in turns; the first is the warm-up."""
    with workers(args, precision, threads) as (pipes, parameters):
        steps: dict[str, list[Step]] = {loop: [] for loop in pipes}
        for number, batch in enumerate(batches):
            for loop, pipe in pipes.items():
                pipe.send(batch)
                steps[loop].append(answer(loop, pipe))
                print(progress(number, loop, steps[loop][-1]), file=sys.stderr, flush=True)
    return {
        "precision": precision,
        "threads": threads,
        "parameters": parameters,
        "samples": args.samples,
        "steps": steps,
    }


@contextlib.contextmanager
def workers(
    args: argparse.Namespace, precision: str, threads: int
) -> Iterator[tuple[dict[str, Connection], int]]:
    """A process per loop, model built; yields their pipes and the number of parameters."""
    spawn = multiprocessing.get_context("spawn")
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # TRL's, of its own flag
    }
    if args.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(environment)  # the workers inherit it
    started, pipes, parameters = [], {}, 0
    try:
        for loop in args.loops:
            pipes[loop], theirs = spawn.Pipe()
            process = spawn.Process(
                target=work, args=(loop, vars(args), precision, threads, theirs), daemon=True
            )
            process.start()
            theirs.close()
            started.append(process)
            parameters = answer(loop, pipes[loop])["parameters"]
        yield pipes, parameters
        for pipe in pipes.values():
            pipe.send(None)
        for process in started:
            process.join()
    finally:
        for process in started:
            process.kill()


def work(loop: str, args: dict[str, Any], precision: str, threads: int, pipe: Connection) -> None:
    """Run a worker."""
    # Imported here: the parent needs no torch.
    from training_loops import Options
    from training_loops import work as run

    shape = {
        "hidden_size": args["hidden"],
        "intermediate_size": args["intermediate"],
        "num_hidden_layers": args["layers"],
        "num_attention_heads": args["heads"],
        "num_key_value_heads": args["kv_heads"] or args["heads"],
    }
    names = [*("data_dir", "tokenizer", "max_length", "samples", "seed")]
    names += ["tokens_per_micro_batch", "trl_checkpointing"]
    given = {name: args[name] for name in names}
    run(loop, Options(shape=shape, threads=threads, precision=precision, **given), pipe)


def answer(loop: str, pipe: Connection) -> Step:
    """What a worker answers.

    Raises:
        InputError: it has died; its own message is on stderr.
    """
    try:
        return pipe.recv()
    except EOFError:
        raise InputError(f"the loop {loop} has ended early; the reason is above") from None


def progress(number: int, loop: str, step: Step) -> str:
    """One line for the terminal."""
    name = f"step {number}" if number else "warm-up"
    return (
        f"{name} {loop}: {step['tokens']:,} tokens, {step['cpu_s']:.1f} CPU s, "
        f"{step['wall_s']:.1f} s, loss {step['loss']:.6f}"
    )


def report(table: dict[str, Any], device: str) -> str:
    """The tables of one precision and number of threads, as Markdown."""
    clock, unit = ("cpu_s", "CPU second") if device == "cpu" else ("wall_s", "second")
    precision, steps = table["precision"], table["steps"]
    timed = {loop: of_loop[1:] for loop, of_loop in steps.items()}
    first = next(iter(timed.values()))
    lines = [
        f"\n### {precision}, {table['threads']} thread(s), {device}: "
        f"{table['parameters'] / 1e6:.0f}M parameters, {len(first)} steps of {table['samples']} "
        f"samples, {sum(s['tokens'] for s in first):,} tokens, "
        f"{sum(s['supervised_tokens'] for s in first):,} of them supervised",
        "",
        f"| loop | tokens per {unit} | {next(iter(timed))} is faster by | peak memory, GiB "
        f"| useful share of GEMM peak | GEMM peak, GFLOP/s |",
        "|---|---|---|---|---|---|",
    ]
    for loop, of_loop in timed.items():
        ratios = [theirs[clock] / s[clock] for theirs, s in zip(of_loop, first, strict=True)]
        speed = statistics.median(s["tokens"] / s[clock] for s in of_loop)
        share = statistics.median(
            s["useful_flop"] / s[clock] / s["gemm_flop_s"][precision] for s in of_loop
        )
        peak = statistics.median(s["gemm_flop_s"][precision] for s in of_loop)
        lines.append(
            f"| {loop} | {speed:,.1f} | {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f}-{max(ratios):.2f}) | {of_loop[-1]['peak_memory_gib']:.2f} "
            f"| {share:.1%} | {peak / 1e9:,.0f} |"
        )
    lines += ["", f"| step | tokens | {' | '.join(f'loss, {loop}' for loop in steps)} |"]
    lines.append("|---|---|" + "---|" * len(steps))
    for number, row in enumerate(zip(*steps.values(), strict=True)):
        ours = row[0]["loss"]
        losses = [f"{ours:.6f}"]
        losses += [f"{s['loss']:.6f} ({s['loss'] / ours - 1:+.1e})" for s in row[1:]]
        lines.append(f"| {number or 'first'} | {row[0]['tokens']:,} | {' | '.join(losses)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
