"""The chain, end to end, with a model of a few thousand parameters: the exact files it leaves."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import copy_scripts, read_lines, run

from growth.data.abilities import ABILITIES, OUT_OF_DOMAIN

EPOCHS = 6
NAMES = [ability.name for ability in ABILITIES + OUT_OF_DOMAIN]
CHECKPOINT_FILES = {
    "README.md",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "trainer_state.json",
}


def files_below(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


HYPERPARAMETERS = (
    *("--total_batch_size", "32", "--batch_size", "8", "--epochs", str(EPOCHS)),
    *("--learning_rate", "1e-2", "--end_learning_rate", "1e-3"),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model, tiny_data):
    """A copy of the scripts after: build, train to the end, evaluate, plot; and the run in it."""
    root = copy_scripts(tmp_path_factory.mktemp("study"))
    shutil.copytree(tiny_data / "curated", root / "data/curated")
    run("data/build.py", "--data_type", "curated-40", cwd=root)
    run(
        *("scripts/run_train.sh", "--data_type", "curated-40", "--model_size", "tiny"),
        *("--model_name_or_path", tiny_model, "--gradient_accumulation", "1", *HYPERPARAMETERS),
        cwd=root,
    )
    (run_dir,) = [p for p in (root / "runs/runs-tiny/curated-40").iterdir() if p.is_dir()]
    evaluate = ("scripts/run_evaluate.sh", "--run_dir", run_dir.relative_to(root))
    run(*evaluate, "--max_new_tokens", "8", cwd=root)
    run("evaluate/plot.py", "--plot_type", "all", cwd=root)
    return root, run_dir


def test_training_leaves_exactly_these_files(study):
    _, run_dir = study
    expected = {"run.json", "metrics.jsonl"}
    for step in range(2, 2 * EPOCHS + 1, 2):
        extra = {"optimizer.pt"} if step == 2 * EPOCHS else set()  # kept in the newest only
        expected |= {f"checkpoint-{step}/{name}" for name in CHECKPOINT_FILES | extra}
    assert files_below(run_dir) == expected
    assert (run_dir.parent / f"{run_dir.name}.log").stat().st_size > 0


def test_the_run_record_says_what_was_run(study):
    _, run_dir = study
    record = json.loads((run_dir / "run.json").read_text())
    assert record["model_size"] == "tiny"
    assert record["data_type"] == "curated-40"
    assert record["timestamp"] == run_dir.name
    assert record["hyperparameters"]["epochs"] == EPOCHS
    assert record["hyperparameters"]["total_batch_size"] == 32
    assert record["steps_per_epoch"] == 2
    assert record["train"]["samples"] == 40
    assert record["valid"]["samples"] == 39
    assert record["ended"] >= record["started"]
    assert {"git", "versions", "device", "seed"} <= record.keys()


def test_metrics_hold_loss_perplexity_tokens_and_speed(study):
    _, run_dir = study
    metrics = read_lines(run_dir / "metrics.jsonl")
    steps = [m for m in metrics if "loss" in m]
    evaluations = [m for m in metrics if "eval_loss" in m]
    assert [m["step"] for m in steps] == list(range(1, 2 * EPOCHS + 1))
    assert [m["step"] for m in evaluations] == list(range(2, 2 * EPOCHS + 1, 2))
    assert steps[0]["learning_rate"] == pytest.approx(1e-2)
    assert steps[-1]["learning_rate"] == pytest.approx(1e-3)
    rates = [m["learning_rate"] for m in steps]
    drops = [a - b for a, b in itertools.pairwise(rates)]
    assert drops == pytest.approx([drops[0]] * len(drops))  # linear
    assert all(m["supervised_tokens"] < m["tokens"] for m in steps)
    assert all(m["tokens_per_second"] > 0 for m in steps)
    assert evaluations[-1]["eval_perplexity"] < evaluations[0]["eval_perplexity"]
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_predictions_results_choice_and_plots(study):
    root, run_dir = study
    stamp = run_dir.name
    base = f"tiny/curated-40/{stamp}"
    # from the fifth epoch on: steps 10 and 12
    for part, steps in (("valid", (10, 12)), ("test", None)):
        predictions = files_below(root / f"evaluate/pred-data/{part}/{base}")
        results = files_below(root / f"evaluate/results/{part}/{base}")
        if part == "test":
            choice = json.loads(
                (root / f"evaluate/results/valid/{base}/selected-checkpoint.json").read_text()
            )
            steps = (choice["step"],)
        assert predictions == {
            f"checkpoint-{step}/{name}"
            for step in steps
            for name in ["run.json", *(f"pred_{n}_{part}.json" for n in NAMES)]
        }
        assert results == {
            *(f"checkpoint-{step}-results.json" for step in steps),
            *(f"checkpoint-{s}-details/{n}_{part}.jsonl" for s in steps for n in NAMES),
            *(["selected-checkpoint.json"] if part == "valid" else []),
        }
    assert choice["checkpoint"] in ("checkpoint-10", "checkpoint-12")
    assert "epoch 5" in choice["reason"]
    assert (root / "evaluate/plots/all/overview.png").stat().st_size > 10_000
    assert (root / "evaluate/plots/all/overview.csv").is_file()
    assert (root / "evaluate/plots/overall/biology.png").is_file()


def test_two_processes_evaluate_a_run_to_the_same_and_a_limit_keeps_apart(study, tmp_path):
    root, run_dir = study
    copy = shutil.copytree(root, tmp_path / "copy", symlinks=True)
    for part in ("pred-data", "results"):
        shutil.rmtree(copy / "evaluate" / part)
    evaluate = ("scripts/run_evaluate.sh", run_dir.relative_to(root), "--max_new_tokens", "8")
    run(*evaluate, "--num_processes", "2", cwd=copy)

    def evaluated(place):
        pred_data = place / "evaluate/pred-data"
        found = {p.relative_to(pred_data): p.read_bytes() for p in pred_data.rglob("pred_*.json")}
        (choice,) = (place / "evaluate/results/valid").rglob("selected-checkpoint.json")
        return found, json.loads(choice.read_text())

    assert evaluated(copy) == evaluated(root)
    limited = run(*evaluate, "--limit", "1", cwd=copy)
    (choice,) = (copy / "evaluate/results/valid").rglob("selected-checkpoint-limit1.json")
    checkpoint = json.loads(choice.read_text())["checkpoint"]
    assert f"chosen: tiny/curated-40/{run_dir.name}/{checkpoint}\t" in limited.stdout
    (tested,) = (copy / "evaluate/results/test").rglob("*-limit1-results.json")
    assert tested.name == f"{checkpoint}-limit1-results.json"


def test_a_rerun_does_only_what_is_missing_and_gives_the_same_bytes(study):
    root, run_dir = study
    base = root / f"evaluate/pred-data/valid/tiny/curated-40/{run_dir.name}/checkpoint-10"
    files = sorted(base.glob("pred_*.json"))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    files[3].unlink()
    predict = ("evaluate/predict.py", "--model_name_or_path", run_dir / "checkpoint-10")
    flags = ("--eval_data_path", "data/curated/valid", "--max_new_tokens", "8")
    done = run(*predict, *flags, cwd=root)
    assert "1 files predicted" in done.stdout
    for path in files:
        data, time = before[path]
        assert path.read_bytes() == data
        assert (path.stat().st_mtime_ns == time) == (path != files[3])
    assert "all 13 files are there" in run(*predict, *flags, cwd=root).stdout


def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(study, tiny_model):
    root, whole = study
    killed = root / "runs/runs-tiny/curated-40/killed"
    command = [
        *(sys.executable, "train/finetune.py", "--model_name_or_path", str(tiny_model)),
        *("--train_dir", "data/curated-40", "--valid_dir", "data/curated/valid"),
        *("--output_dir", str(killed), "--data_type", "curated-40", "--model_size", "tiny"),
        *HYPERPARAMETERS,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = killed / "checkpoint-4/trainer_state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    # What a kill amid a checkpoint and amid a line of metrics leaves behind.
    half = killed / "checkpoint-10"
    half.mkdir(exist_ok=True)
    (half / "model.safetensors").write_bytes(b"half")
    (half / "trainer_state.json").unlink(missing_ok=True)
    with open(killed / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "loss": 1.')

    resumed = subprocess.run(
        [*command, "--resume"], cwd=root, env=environment, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    for name in ("model.safetensors", "optimizer.pt"):
        assert (killed / f"checkpoint-12/{name}").read_bytes() == (
            whole / f"checkpoint-12/{name}"
        ).read_bytes()

    def numbers(folder):
        timed = ("time", "tokens_per_second", "eval_runtime")
        lines = read_lines(folder / "metrics.jsonl")
        return [{k: v for k, v in m.items() if k not in timed} for m in lines]

    assert numbers(killed) == numbers(whole)
    again = subprocess.run(
        [*command, "--resume"], cwd=root, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0
    assert "is finished" in again.stderr
