"""What a sweep costs besides its stages: its wall clock against their own time over the cores used.

    python benchmarks/sweep_overhead.py
    python benchmarks/sweep_overhead.py --jobs 1 --data_types curated-10,curated-40 --epochs 1

The pocket model goes through a sweep of the sample data, in a temporary folder, one thread a run. A
stage's own time is from its start to its end, the report and the figures included. The wall clock
is that of `scripts/sweep.py` from the start of Python on: checks, imports, locks, digests, and
cores that are idle as the last runs end. Prints both and their ratio, whose goal is at most 1.1.
Takes three minutes on two free cores.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("data", "train", "evaluate", "evaluate/cmmlu", "evaluate/agieval", "scripts")
SETTINGS = "curated-10,curated-40,curated-160,curated-640"
GOAL = 1.1


def main() -> None:
    """Run the sweep in a process of its own, print the table; or be that process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time; default: 2")
    parser.add_argument("--data_types", default=SETTINGS, help=f"settings; default: {SETTINGS}")
    parser.add_argument("--seeds", default="0,1", help="default: 0,1")
    parser.add_argument("--epochs", type=int, default=3, help="of each run; default: 3")
    parser.add_argument("--data_dir", type=Path, help="data; default: the sample set, made first")
    pocket = ROOT / "train/pocket"
    parser.add_argument(
        "--model_name_or_path", type=Path, default=pocket, help="default: train/pocket"
    )
    parser.add_argument("--recorded", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.recorded:
        record_sweep(Path(args.recorded[0]), args.recorded[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        link_scripts(root)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

        def python(*words: str) -> None:
            subprocess.run(
                [sys.executable, *words],
                cwd=root,
                env=environment,
                check=True,
                stdout=sys.stderr,
            )

        if args.data_dir is None:
            args.data_dir = root / "data/sample"
            python("data/make_sample.py", "--output_dir", str(args.data_dir))
        began = time.perf_counter()
        python(__file__, "--recorded", "stages.json", *sweep_flags(args))
        seconds = time.perf_counter() - began
        stages = json.loads((root / "stages.json").read_text())
    print(table(stages, seconds, args.jobs))


def link_scripts(root: Path) -> None:
    """A folder to run the scripts in, whose outputs lie there."""
    for name in SCRIPTS:
        (root / name).mkdir()
        for path in (ROOT / name).iterdir():
            if path.is_file():
                (root / name / path.name).symlink_to(path)


def sweep_flags(args: argparse.Namespace) -> list[str]:
    """What is swept: by default as in the demo, but for settings, seeds and epochs."""
    train = "--total_batch_size 16 --learning_rate 1e-3 --end_learning_rate 1e-4"
    return [
        *("--model_size", "pocket", "--model_name_or_path", str(args.model_name_or_path.resolve())),
        *("--data_types", args.data_types, "--seeds", args.seeds, "--jobs", str(args.jobs)),
        *("--data_dir", str(args.data_dir.resolve())),
        *("--train_flags", f"{train} --epochs {args.epochs}"),
        *("--predict_flags", "--max_new_tokens 48 --batch_size 128"),
    ]


def record_sweep(output: Path, argv: Sequence[str]) -> None:
    """Carry out a sweep, and write the name and the seconds of each stage."""
    script = load_script(ROOT / "scripts/sweep.py")
    stages: list[tuple[str, float]] = []

    class Timed(script.Launcher):  # type: ignore[name-defined, misc] # of a script
        def run(self, stage: object, environment: Mapping[str, str]) -> int:
            began = time.perf_counter()
            code: int = super().run(stage, environment)
            stages.append((stage.name, time.perf_counter() - began))  # type: ignore[attr-defined]
            return code

    script.Launcher = Timed  # type: ignore[attr-defined]
    script.main(list(argv))
    output.write_text(json.dumps(stages))


def load_script(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # it is a Python file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(stages: Sequence[tuple[str, float]], seconds: float, jobs: int) -> str:
    """The stages' seconds by name, in Markdown, and the ratio."""
    rows = ["| stage | times | seconds |", "|---|---|---|"]
    for name in dict.fromkeys(name for name, _ in stages):
        own = [time for other, time in stages if other == name]
        rows.append(f"| {name} | {len(own)} | {sum(own):.1f} |")
    total = sum(time for _, time in stages)
    rows.append(f"| all | {len(stages)} | {total:.1f} |")
    shared = total / jobs
    ratio = seconds / shared
    word = "within" if ratio <= GOAL else "beyond"
    rows.append(
        f"\nwall clock {seconds:.1f} s, the stages' own time over {jobs} cores {shared:.1f} s: "
        f"{ratio:.2f} times, {word} the goal of {GOAL}"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
