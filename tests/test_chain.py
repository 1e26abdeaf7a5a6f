"""The chain, end to end, with a model of a few thousand parameters: the exact files it leaves."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ABILITIES, OUT_OF_DOMAIN, copy_scripts, read_lines, run
from matplotlib import image

EPOCHS = 6
NAMES = [ability.name for ability in ABILITIES + OUT_OF_DOMAIN]
CHECKPOINT_FILES = {
    "README.md",
    "added_tokens.json",
    "config.json",
    "digests.json",
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
STAMP = "20260101-000000"
BASE = f"tiny/curated-40/{STAMP}"


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model, tiny_data):
    """A copy of the scripts after: build, train to the end, evaluate, plot; and the run in it."""
    root = copy_scripts(tmp_path_factory.mktemp("study"))
    shutil.copytree(tiny_data / "curated", root / "data/curated")
    run("data/build.py", "--data_type", "curated-40", cwd=root)
    run_dir = root / f"runs/runs-{BASE}"
    run(*finetune(tiny_model, run_dir), cwd=root)
    evaluate = ("evaluate/run.py", "--run_dir", run_dir.relative_to(root))
    run(*evaluate, "--max_new_tokens", "8", cwd=root)
    run("evaluate/plot.py", "--plot_type", "all", cwd=root)
    return root, run_dir


def finetune(model, run_dir):
    """The command that trains the study's run in a folder."""
    return (
        *("train/finetune.py", "--model_name_or_path", str(model), "--model_size", "tiny"),
        *("--train_dir", "data/curated-40", "--valid_dir", "data/curated/valid"),
        *("--data_type", "curated-40", "--output_dir", str(run_dir), *HYPERPARAMETERS),
    )


def test_training_leaves_exactly_these_files(study):
    _, run_dir = study
    expected = {"run.json", "metrics.jsonl"}
    for step in range(2, 2 * EPOCHS + 1, 2):
        extra = {"optimizer.pt"} if step == 2 * EPOCHS else set()  # kept in the newest only
        expected |= {f"checkpoint-{step}/{name}" for name in CHECKPOINT_FILES | extra}
    assert files_below(run_dir) == expected


def test_the_run_record_says_what_was_run(study):
    _, run_dir = study
    record = json.loads((run_dir / "run.json").read_text())
    assert record["model_size"] == "tiny"
    assert record["data_type"] == "curated-40"
    assert record["train"]["build"]["setting"] == "curated-40"
    assert record["train"]["build"]["seed"] == 0
    assert record["timestamp"] == run_dir.name
    assert record["hyperparameters"]["epochs"] == EPOCHS
    assert record["hyperparameters"]["total_batch_size"] == 32
    assert record["steps_per_epoch"] == 2
    assert record["train"]["samples"] == 40
    assert record["valid"]["samples"] == 39
    assert record["ended"] >= record["started"]
    assert record["peak_memory_bytes"] > 2**20
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


def test_predictions_results_and_choice(study):
    root, _ = study
    choice = json.loads(
        (root / f"evaluate/results/valid/{BASE}/selected-checkpoint.json").read_text()
    )
    # from the fifth epoch on: steps 10 and 12
    for part, steps in (("valid", (10, 12)), ("test", (choice["step"],))):
        predictions = files_below(root / f"evaluate/pred-data/{part}/{BASE}")
        results = files_below(root / f"evaluate/results/{part}/{BASE}")
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
    assert choice["checkpoint"] == f"checkpoint-{choice['step']}"
    assert "epoch 5" in choice["reason"]


def results_of(root, part, step):
    path = root / f"evaluate/results/{part}/{BASE}/checkpoint-{step}-results.json"
    return json.loads(path.read_text())


def test_the_chosen_checkpoint_is_the_best_on_valid(study):
    root, _ = study
    path = root / f"evaluate/results/valid/{BASE}/selected-checkpoint.json"
    averages = {step: results_of(root, "valid", step)["average"] for step in (10, 12)}
    assert averages[json.loads(path.read_text())["step"]] == max(averages.values())


def test_the_plots_show_the_results_of_the_chosen_checkpoint(study):
    root, _ = study
    plots = root / "evaluate/plots"
    drawn = {str(p.relative_to(plots)) for p in plots.rglob("*.csv")}
    assert {"all/overview.csv", *(f"overall/{a.name}.csv" for a in ABILITIES)} <= drawn
    for name in drawn:
        height, width, _ = image.imread(plots / name.replace(".csv", ".png")).shape
        assert min(height, width) > 200, name
    (path,) = (root / f"evaluate/results/test/{BASE}").glob("*-results.json")
    files = json.loads(path.read_text())["files"]
    for ability in ABILITIES:
        (row,) = pd.read_csv(plots / f"overall/{ability.name}.csv").to_dict("records")
        assert row["score"] == files[f"{ability.name}_test"]["score"]


def evaluated(root):
    """The predictions, byte for byte, and the checkpoint that was selected."""
    pred_data = root / "evaluate/pred-data"
    found = {p.relative_to(pred_data): p.read_bytes() for p in pred_data.rglob("pred_*.json")}
    (choice,) = (root / "evaluate/results/valid").rglob("selected-checkpoint.json")
    return found, json.loads(choice.read_text())


def test_the_stages_one_by_one_give_the_same_bytes(study, tmp_path):
    """What evaluate/run.py does in one go, by the scripts that it stands for."""
    root, run_dir = study
    copy = copy_scripts(tmp_path)
    shutil.copytree(root / "data/curated", copy / "data/curated")
    place = run_dir.relative_to(root)
    shutil.copytree(run_dir, copy / place)

    def predict_and_score(model, split):
        predict = ("evaluate/predict.py", "--model_name_or_path", model, "--max_new_tokens", "8")
        run(*predict, "--eval_data_path", f"data/curated/{split}", cwd=copy)
        pred_data = ("--pred_data_path", f"evaluate/pred-data/{split}")
        run("evaluate/score.py", *pred_data, "--details", cwd=copy)

    predict_and_score(place, "valid")
    select = ("evaluate/select_checkpoint.py", "--results_path", "evaluate/results/valid")
    run(*select, cwd=copy)
    predict_and_score(place / evaluated(copy)[1]["checkpoint"], "test")
    assert evaluated(copy) == evaluated(root)
    results = files_below(root / "evaluate/results")
    assert files_below(copy / "evaluate/results") == results
    for name in results:
        ours, expected = ((at / "evaluate/results" / name).read_text() for at in (copy, root))
        assert without_times(ours) == without_times(expected), name


def without_times(text):
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:]+", "", text)


def test_the_wrappers_give_the_same_bytes_in_processes_of_their_own(
    study, tiny_model, tmp_path, monkeypatch
):
    """Trained by run_train.sh, evaluated by run_evaluate.sh in two processes."""
    root, run_dir = study
    copy = copy_scripts(tmp_path)
    for folder in ("curated", "curated-40"):
        shutil.copytree(root / "data" / folder, copy / "data" / folder)
    monkeypatch.setenv("RUN_TIMESTAMP", STAMP)
    train = ("scripts/run_train.sh", "--data_type", "curated-40", "--model_size", "tiny")
    flags = ("--model_name_or_path", tiny_model, "--gradient_accumulation", "1", *HYPERPARAMETERS)
    trained = run(*train, *flags, cwd=copy)
    place = run_dir.relative_to(root)
    assert trained.stdout.splitlines()[-1] == str(place)
    assert "tokens" in (copy / place).with_suffix(".log").read_text()
    assert files_below(copy / place) == files_below(run_dir)
    for step in range(2, 2 * EPOCHS + 1, 2):
        weights = f"checkpoint-{step}/model.safetensors"
        assert (copy / place / weights).read_bytes() == (run_dir / weights).read_bytes()

    evaluate = ("scripts/run_evaluate.sh", place, "--max_new_tokens", "8", "--num_processes", "2")
    run(*evaluate, cwd=copy)
    assert evaluated(copy) == evaluated(root)


def test_a_limit_keeps_its_files_apart(study, tmp_path):
    root, run_dir = study
    copy = shutil.copytree(root, tmp_path / "copy", symlinks=True)
    place = run_dir.relative_to(root)
    evaluate = ("evaluate/run.py", "--run_dir", place, "--max_new_tokens", "8")
    limited = run(*evaluate, "--limit", "1", cwd=copy)
    found, expected = evaluated(copy), evaluated(root)
    assert found[1] == expected[1]
    assert {p: data for p, data in found[0].items() if "limit" not in str(p)} == expected[0]
    (choice,) = (copy / "evaluate/results/valid").rglob("selected-checkpoint-limit1.json")
    checkpoint = json.loads(choice.read_text())["checkpoint"]
    assert f"chosen: {BASE}/{checkpoint}\t" in limited.stdout
    (tested,) = (copy / "evaluate/results/test").rglob("*-limit1-results.json")
    assert tested.name == f"{checkpoint}-limit1-results.json"


def test_a_rerun_does_only_what_is_missing_and_gives_the_same_bytes(study):
    root, run_dir = study
    base = root / f"evaluate/pred-data/valid/{BASE}/checkpoint-10"
    files = sorted(base.glob("pred_*.json"))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    files[3].unlink()
    predict = ("evaluate/predict.py", "--model_name_or_path", run_dir / "checkpoint-10")
    flags = ("--eval_data_path", "data/curated/valid", "--max_new_tokens", "8")
    done = run(*predict, *flags, cwd=root)
    assert "1 files predicted" in done.stdout
    for path in files:
        data, written = before[path]
        assert path.read_bytes() == data
        assert (path.stat().st_mtime_ns == written) == (path != files[3])
    assert "all 13 files are there" in run(*predict, *flags, cwd=root).stdout


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(study, tiny_model, tmp_path):
    root, whole = study
    killed = tmp_path / "killed"
    command = finetune(tiny_model, killed)
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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

    run(*command, "--resume", cwd=root)
    for name in ("model.safetensors", "optimizer.pt"):
        assert (killed / f"checkpoint-12/{name}").read_bytes() == (
            whole / f"checkpoint-12/{name}"
        ).read_bytes()

    def numbers(folder):
        timed = ("time", "tokens_per_second", "eval_runtime")
        lines = read_lines(folder / "metrics.jsonl")
        return [{k: v for k, v in m.items() if k not in timed} for m in lines]

    assert numbers(killed) == numbers(whole)
    assert "is finished" in run(*command, "--resume", cwd=root).stderr
