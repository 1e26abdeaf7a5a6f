"""A study of seconds: the stages that faults are tried on, each in a process forked from this one.

Starting Python and importing torch takes longer than such a stage's work. So the campaign imports
everything, computes nothing itself, and forks.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent)]

from conftest import ABILITY_NAMES, line, make_tiny_model, write_lines  # noqa: E402
from in_process import exit_code, load_script  # noqa: E402

RUN = "runs/runs-tiny/curated-10/one"
RESULTS = "evaluate/results/valid"
# What differs from launch to launch, by name in JSON files.
_VOLATILE = {
    "time",
    "started",
    "ended",
    "resumed",
    "tokens_per_second",
    "eval_runtime",
    "peak_memory_bytes",
}
_BOUND = 120  # seconds that a stage may take
_MEASURED = "measured.json"


@dataclass(frozen=True)
class Stage:
    """A command of the study; `again` is what is added to run it again in the same folder."""

    name: str
    script: str
    flags: str
    again: str = ""

    def argv(self) -> list[str]:
        """Its command line, for the first time and for every other."""
        return [*self.flags.split(), *self.again.split()]


STAGES = (
    Stage("build", "data/build.py", "--data_type curated-10 --data_dir . --output_dir data"),
    Stage(
        "train",
        "train/finetune.py",
        "--model_name_or_path model --model_size tiny --train_dir data/curated-10 --valid_dir "
        f"curated/valid --output_dir {RUN} --total_batch_size 4 --epochs 2 --learning_rate 1e-2 "
        "--precision fp32",
        "--resume",
    ),
    Stage(
        "predict",
        "evaluate/predict.py",
        f"--model_name_or_path {RUN} --eval_data_path curated/valid --max_new_tokens 4 "
        "--batch_size 2 --precision fp32",
    ),
    Stage(
        "score",
        "evaluate/score.py",
        f"--pred_data_path evaluate/pred-data/valid --results_path {RESULTS} --details",
    ),
    Stage("select", "evaluate/select_checkpoint.py", f"--results_path {RESULTS}"),
    Stage(
        "plot",
        "evaluate/plot.py",
        f"--plot_type overall --results_path {RESULTS} --selection_path {RESULTS}",
    ),
    Stage(
        "export",
        "evaluate/export.py",
        f"--model_name_or_path {RUN}/checkpoint-6 --output_dir exported --gguf exported.gguf",
    ),
    Stage(
        "benchmark",
        "evaluate/cmmlu/run.py",
        "--model_name_or_path model --tag tiny --data_dir cmmlu --output_dir answers "
        "--precision fp32 --tokens_per_batch 64",
    ),
)


def make_inputs(folder: Path) -> None:
    """A model of a few thousand parameters, and a few lines for each stage."""
    for ability in ("biology", "math", "code"):
        gold = "解：1+2=3\n答案\n$3$" if ability == "math" else "A"
        fields = {"answer": "3"} if ability == "math" else {}
        if ability == "code":
            fields = {"choices": [gold, "甲乙", "丙丁"], "question_format": 1}
        lines = [line(ability, gold, idx=i, **fields) for i in range(5)]
        write_lines(folder / f"curated/valid/{ability}_valid.json", lines)
    for ability in ABILITY_NAMES:
        lines = [line(ability, "A", idx=i) for i in range(3)]
        write_lines(folder / f"curated/1000/{ability}_1000.json", lines)
    for subject in ("arts", "virology"):
        for split in ("dev", "test"):
            path = folder / f"cmmlu/{split}/{subject}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", encoding="utf-8", newline="") as file:
                rows = [[i, f"{subject}第{i}题", *"甲乙丙丁", "ABCD"[i % 4]] for i in range(5)]
                csv.writer(file).writerows([["", "Question", *"ABCD", "Answer"], *rows])
    make_tiny_model(folder / "model")


def import_all() -> None:
    """Import the scripts, and what they import once they work."""
    for stage in STAGES:
        load_script(ROOT / stage.script)
    import growth.export.whole_model
    import growth.tasks.benchmark_run
    import growth.tasks.prediction_run
    import growth.training.run  # noqa: F401


def forked(work: Callable[[], int], output: Path) -> int:
    """Call `work` in a process of its own session, its output in a file; returns the process."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # the fault of a trial
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def begin(
    stage: Stage,
    folder: Path,
    output: Path,
    before: Callable[[], Any] = lambda: None,
    more: Sequence[str] = (),
) -> int:
    """Start a stage in `folder`; returns its process. `before` is called in it first."""

    def work() -> int:
        os.chdir(folder)
        sys.argv = [stage.script, *stage.argv(), *more]
        before()
        return exit_code(ROOT / stage.script)

    return forked(work, output)


def finish(process: int) -> int:
    """Wait for a process; its exit code, negative for a signal.

    Raises:
        AssertionError: it takes too long.
    """
    deadline = time.monotonic() + _BOUND
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, 9)
            os.waitpid(process, 0)
            raise AssertionError(f"not done within {_BOUND} s")
        time.sleep(0.003)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below `folder`, without what differs from launch to launch; links included."""
    return {
        str(path.relative_to(folder)): _canonical(path)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def _canonical(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "README.md":  # a checkpoint's card
        return re.sub(rb"\| started \|.*", b"", content)
    if path.name not in ("run.json", "trainer_state.json", "metrics.jsonl"):
        return content
    try:
        values = [json.loads(text) for text in content.splitlines()]
    except ValueError:
        try:
            values = [json.loads(content)]
        except ValueError:
            return content
    return json.dumps([_without_volatile(value) for value in values]).encode()


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_volatile(v) for k, v in value.items() if k not in _VOLATILE}
    return [_without_volatile(each) for each in value] if isinstance(value, list) else value


@dataclass
class Quiet:
    """What an undisturbed study left.

    Attributes:
        folder: `folder/<i>` is the study before stage `i`, `folder/<number of stages>` at its end.
        seconds: that each stage took; `operations`: on files that it made.
    """

    folder: Path
    seconds: list[float]
    operations: list[int]

    @classmethod
    def read(cls, folder: Path) -> "Quiet":
        """One that was made in `folder`."""
        return cls(folder, **json.loads((folder / _MEASURED).read_text()))

    def before(self, index: int) -> Path:
        """The study before a stage."""
        return self.folder / str(index)

    def made_by(self, index: int) -> list[str]:
        """The files that a stage made."""
        return sorted(contents(self.before(index + 1)).keys() - contents(self.before(index)).keys())


def quiet_study(folder: Path, count: Callable[[Path], Any]) -> Quiet:
    """Run the study undisturbed; `count` is called in each stage with a file for its operations."""
    folder.mkdir()
    log = folder / "log.txt"
    quiet = Quiet(folder, [], [])

    def inputs() -> int:
        make_inputs(quiet.before(0))
        return 0

    assert finish(forked(inputs, log)) == 0, log.read_text()
    for index, stage in enumerate(STAGES):
        after = quiet.before(index + 1)
        shutil.copytree(quiet.before(index), after)
        number = folder / f"operations-{index}"
        began = time.monotonic()
        code = finish(begin(stage, after, log, lambda number=number: count(number)))
        quiet.seconds.append(time.monotonic() - began)
        assert code == 0, f"{stage.name}: {log.read_text()}"
        quiet.operations.append(int(number.read_text()))
    measured = {"seconds": quiet.seconds, "operations": quiet.operations}
    (folder / _MEASURED).write_text(json.dumps(measured))
    return quiet
