"""The sweep: its plan, its checks, its runs by both engines, stopped and started again."""

import csv
import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import ROOT, copy_scripts, processes_of, read_lines, run, write_lines
from in_process import load_script
from study import contents
from test_wrappers import begin, wait_for

from growth.core.cli import add_options, argument_parser, options_from
from growth.core.errors import InputError
from growth.core.files import write_json
from growth.core.locks import locked
from growth.core.options import SLURM, SweepOptions
from growth.data.study import published_study
from growth.scoring.checkpoint_selection import description
from growth.sweep import checks, job
from growth.sweep.launcher import Launcher
from growth.sweep.local import run_locally
from growth.sweep.plan import (
    Exam,
    Model,
    Plan,
    Setting,
    SweepRun,
    make_runs,
    read_plan,
    run_names,
    write_plan,
)
from growth.sweep.progress import Progress
from growth.sweep.snakemake import _command, read_profile
from growth.sweep.stages import Stage, chosen_checkpoint, stages

MODEL = ("--model_size", "tiny", "--model_name_or_path", "model")
SETTINGS = ("--data_types", "curated-10,curated-40", "--seeds", "0,1")
TRAIN = "--total_batch_size 8 --precision fp32 --epochs 2"
PREDICT = "--max_new_tokens 2 --precision fp32"
FLAGS = ("--train_flags", TRAIN, "--predict_flags", PREDICT)
EXAM = ("--benchmarks", "cmmlu", "--cmmlu_dir", "cmmlu", "--benchmark_limit", "2")
SWEEP = ("scripts/sweep.py", *MODEL, *FLAGS)
PAGE = 4096  # bytes, of a tmpfs
RESULTS = ("evaluate/pred-data", "evaluate/results", "evaluate/cmmlu/outputs")
PLACES = [f"curated-{n}/sweep{end}" for n in (40, 10) for end in ("", "-seed-1")]


def make_study(root, data, model):
    """The scripts, lines, questions and a model in a folder."""
    copy_scripts(root)
    shutil.copytree(data / "curated", root / "data/curated")
    shutil.copytree(model, root / "model")
    for split in ("dev", "test"):
        path = root / f"cmmlu/{split}/arts.csv"
        path.parent.mkdir(parents=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            rows = [[i, f"第{i}题", *"甲乙丙丁", "ABCD"[i % 4]] for i in range(5)]
            csv.writer(file).writerows([["", "Question", *"ABCD", "Answer"], *rows])
    return root


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_data, tiny_model):
    return make_study(tmp_path_factory.mktemp("inputs"), tiny_data, tiny_model)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, inputs):
    """A study that a sweep has carried out, and what it printed."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    shutil.copytree(inputs, root, symlinks=True)
    return root, run(*SWEEP, *SETTINGS, *EXAM, "--jobs", "2", cwd=root)


def results(root):
    """What a study is made for: weights, records, predictions, scores, answers."""
    kept = {}
    for place in (*RESULTS, "runs/runs-tiny"):
        for name, content in contents(root / place).items():
            if not name.endswith((".log", ".sweep.json")) and "optimizer" not in name:
                # builds are named by where their lines lie; commits go on while tests run
                content = re.sub(rb"builds/seed-(\d+)-\d+", rb"\1", content)
                kept[f"{place}/{name}"] = re.sub(rb'"git": {[^}]*}', b"", content)
    assert any(name.endswith("model.safetensors") for name in kept)
    return kept


def states(root):
    """When each file was written."""
    return {
        path: path.stat().st_mtime_ns
        for folder in (*RESULTS, "runs")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def test_every_setting_and_seed_is_a_run(undisturbed):
    root, done = undisturbed
    for place in PLACES:
        assert f"] tiny/{place}: chosen: tiny/{place}/checkpoint-" in done.stdout
        record = json.loads((root / f"runs/runs-tiny/{place}/run.json").read_text())
        assert record["seed"] == record["train"]["build"]["seed"] == int("seed-1" in place)
        assert (root / f"runs/runs-tiny/{place}.log").stat().st_size
        (answers,) = (root / f"evaluate/cmmlu/outputs/tiny/{place}").glob("*/results-limit2.json")
        chosen = root / f"evaluate/results/valid/tiny/{place}/selected-checkpoint.json"
        assert answers.parent.name == json.loads(chosen.read_text())["checkpoint"]
    assert done.stdout.splitlines()[-2:] == [
        "evaluate/report/report.html",
        "evaluate/plots/all/overview.png",
    ]


def test_the_stages_are_those_of_the_scripts(undisturbed, inputs, tmp_path):
    """Forked from a process with the imports done, they give the bytes of separate scripts."""
    root, _ = undisturbed
    shutil.copytree(inputs, tmp_path / "root", symlinks=True)
    plan = Plan(
        runs=make_runs([Model("tiny", "model")], [Setting("curated-40")], {1: "sweep-seed-1"}),
        study=None,
        data_dir=Path("data"),
        valid="curated/valid",
        build_dir=Path("data/builds"),
        train_flags=tuple(TRAIN.split()),
        predict_flags=tuple(PREDICT.split()),
        benchmarks=(Exam("cmmlu", Path("cmmlu")),),
        benchmark_limit=2,
        benchmark_flags=("--precision", "fp32"),
        keep_checkpoints="chosen",
    )
    before = os.getcwd()
    os.chdir(tmp_path / "root")
    try:
        for stage in stages(plan, plan.runs[0]):
            run(stage.script, *stage.argv, cwd=tmp_path / "root")
    finally:
        os.chdir(before)
    alone, swept = results(tmp_path / "root"), results(root)
    assert len(alone) > 20
    assert [name for name, content in alone.items() if content != swept[name]] == []


@pytest.mark.slow  # what is done is known to the plan, too, which a fast test reads
def test_a_finished_sweep_is_not_done_again(undisturbed):
    root, _ = undisturbed
    before = states(root)
    done = run(*SWEEP, *SETTINGS, *EXAM, cwd=root)
    assert done.stdout.count("chosen: ") == len(PLACES)
    assert states(root) == before


def test_the_plan_says_what_is_done(undisturbed):
    root, _ = undisturbed
    before = states(root)
    more = ("--data_types", "curated-10,curated-160", "--seeds", "0 1")
    done = run(*SWEEP, *EXAM, *more, "--dry_run", cwd=root, check=False)
    assert done.returncode == 1  # as curated-160 can't be built
    assert states(root) == before
    first, *lines = done.stdout.splitlines()
    assert first == "runs: 4, 2 of them done"
    assert lines[:2] == [f"done: tiny/curated-10/sweep{end}" for end in ("", "-seed-1")]
    for end in ("", "-seed-1"):  # there are not that many lines
        assert any(line.startswith(f"tiny/curated-160/sweep{end}: its lines") for line in lines)
    fewer = run(*SWEEP, "--data_types", "curated-40", "--run_name", "x", "--dry_run", cwd=root)
    record = json.loads((root / f"runs/runs-tiny/{PLACES[0]}/run.json").read_text())
    (row,) = [line for line in fewer.stdout.splitlines() if "tiny/curated-40/x" in line]
    assert row.split()[1:5] == ["40", f"{record['train']['tokens']:,}", "2", str(record["steps"])]


# Stopped, and started again


@pytest.fixture
def fresh(inputs, tmp_path):
    shutil.copytree(inputs, tmp_path / "root", symlinks=True)
    return tmp_path / "root"


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_undisturbed(undisturbed, fresh):
    """kill -9 of the whole tree, while one run is finished and the next is being trained."""
    command = ("scripts/run_sweep.sh", *SWEEP[1:], *SETTINGS, *EXAM)
    process = begin(fresh, *command)
    wait_for(fresh / f"runs/runs-tiny/{PLACES[1]}/metrics.jsonl", process)
    for number in processes_of(process.pid):
        os.kill(number, signal.SIGKILL)
    process.communicate()
    finished = {
        path: state for path, state in states(fresh).items() if f"{PLACES[0]}/" in str(path)
    }
    assert (fresh / f"runs/runs-tiny/{PLACES[0]}.sweep.json").is_file()
    assert not (fresh / f"runs/runs-tiny/{PLACES[1]}.sweep.json").exists()
    run(*SWEEP, *SETTINGS, *EXAM, cwd=fresh)
    assert finished.items() <= states(fresh).items()
    assert results(fresh) == results(undisturbed[0])


@pytest.mark.slow
def test_snakemake_makes_the_same_runs(undisturbed, fresh):
    pytest.importorskip("snakemake", reason="requirements-sweep.txt is not installed")
    setting = ("--data_types", "curated-10", "--seeds", "0,1")  # each run imports everything anew
    sweep = (*SWEEP, *setting, *EXAM, "--executor", "snakemake", "--jobs", "2")
    done = run(*sweep, cwd=fresh)
    assert done.stdout.count("chosen: ") == 2
    expected = {
        name: content for name, content in results(undisturbed[0]).items() if "curated-10/" in name
    }
    assert results(fresh) == expected
    before = states(fresh)
    run(*sweep, cwd=fresh)
    assert {p: s for p, s in states(fresh).items() if "runs/sweeps" not in str(p)} == {
        p: s for p, s in before.items() if "runs/sweeps" not in str(p)
    }


# In mounts of its own: the sweep on a disk that fills, then, after room is made, once more.
ON_A_SMALL_DISK = """
import shutil, subprocess, sys
from faults import faults
inputs, root, out, pages, *command = sys.argv[1:]
try:
    faults.own_mounts()
except OSError as error:
    sys.exit(f"no mounts: {error}")
faults.mount_small(root, int(pages))
shutil.copytree(inputs, root, symlinks=True, dirs_exist_ok=True)
full = subprocess.run(command, cwd=root, stderr=subprocess.PIPE, text=True)
faults.enlarge(root)
shutil.copytree(root, out + "/full", symlinks=True)
again = subprocess.run(command, cwd=root)
shutil.copytree(root, out + "/again", symlinks=True)
print(full.stderr, file=sys.stderr)
print(full.returncode, again.returncode)
"""


def pages(folder):
    """Pages of a tmpfs that the files of a folder take."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // PAGE) for path in files)


@pytest.mark.slow
def test_a_full_disk_stops_it_and_with_room_it_goes_on(undisturbed, inputs, tmp_path):
    root, _ = undisturbed
    room = pages(inputs) + sum(pages(root / place) for place in ("runs", *RESULTS)) // 2
    (tmp_path / "root").mkdir()
    where = (inputs, tmp_path / "root", tmp_path, room)
    command = (sys.executable, ROOT / SWEEP[0], *SWEEP[1:], *SETTINGS, *EXAM)
    done = subprocess.run(
        [sys.executable, "-c", ON_A_SMALL_DISK, *map(str, (*where, *command))],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.stderr.startswith("no mounts: "):
        pytest.skip(done.stderr)
    assert done.stdout.splitlines()[-1] == "1 0", done.stderr
    assert "No space left on device" in done.stderr
    full, again = tmp_path / "full", tmp_path / "again"
    whole = [place for place in PLACES if (full / f"runs/runs-tiny/{place}.sweep.json").is_file()]
    assert 0 < len(whole) < len(PLACES)
    assert results(again) == results(root)


# Failing runs


def test_a_run_that_fails_keeps_no_other_from_its_turn(fresh):
    """A setting that can't be built, and a folder that holds a run of other hyper-parameters."""
    flags = ("--model_name_or_path", "model", "--train_dir", "data/other", "--epochs", "1")
    write_lines(fresh / "data/other/biology.json", read_lines(fresh / BIOLOGY)[:2])
    folder = "runs/runs-tiny/curated-10/sweep"
    run(
        "train/finetune.py",
        *flags,
        "--valid_dir",
        "data/curated/valid",
        "--output_dir",
        folder,
        cwd=fresh,
    )
    of_other = contents(fresh / folder)
    more = ("--data_types", "curated-10,curated-40,curated-160", "--jobs", "2")
    done = run(*SWEEP, *more, cwd=fresh, check=False)
    assert done.returncode == 1
    assert "curated-40: chosen: tiny/curated-40/sweep/" in done.stdout
    log = "runs/runs-tiny/curated-{}/sweep{}.log"
    build = (
        f"build ended in exit code 2, see {log.format(160, '.sweep')}: --data_type curated-160 asks"
    )
    train = f"train ended in exit code 2, see {log.format(10, '')}: --output_dir {folder}: holds a"
    # the sweep has no --output_dir
    assert re.search(
        r"curated-10/sweep: train .*; in a sweep that is another --run_name", done.stdout
    )
    assert "2 of 3 runs failed; the same command tries them again:" in done.stdout
    for name, words in {"curated-160": build, "curated-10": train}.items():
        assert f"] {name}: failed: {words}" in done.stderr
        assert f"  tiny/{name}/sweep: {words}" in done.stdout
    # each was tried twice, and what is another run's stays
    assert (fresh / log.format(160, ".sweep")).read_text().count("failed: build") == 2
    assert contents(fresh / folder) == of_other
    assert done.stdout.splitlines()[-1] == "evaluate/plots/all/overview.png"


BIOLOGY = "data/curated/1000/biology_1000.json"


# Bad input


def refused(root, *flags, says):
    """One line, before anything is made."""
    done = run("scripts/sweep.py", *flags, cwd=root, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if "error: " in text]
    for words in says:
        assert words in line
    assert "Traceback" not in done.stderr
    for folder in ("runs", "data/builds", "evaluate/results"):
        assert not (root / folder).exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--data_types", "curatd-*"), ["--data_types curatd-*: no such setting", "curated-"]),
        (("--seeds", "0,x"), ["--seeds '0,x': 'x': expected a whole number"]),
        (("--seeds", "1,1"), ["--seeds '1,1': a seed twice"]),
        (("--seeds", ""), ["--seeds '': '': expected"]),
        (("--gpus", "7"), ["--gpus 7: no GPU 7; this machine has none"]),
        (("--executor", "slurm"), ["--executor slurm: there is no sbatch on the PATH"]),
        (("--profile", "x.yaml"), ["--profile x.yaml: needs --executor slurm"]),
        (("--benchmarks", "mmlu"), ["--benchmarks mmlu: expected cmmlu or agieval"]),
        (("--benchmarks", "agieval"), ["evaluate/agieval/data"]),
        (("--benchmark_limit", "2"), ["--benchmark_limit needs --benchmarks"]),
        (("--train_flags", "--epocs 3"), ["--train_flags: error:", "--epocs"]),
        (("--train_flags", "--seed 3"), ["--train_flags: error:", "--seed"]),
        (("--train_flags", "'"), ["--train_flags ''': No closing quotation"]),
        (("--predict_flags", "--batch_size 0"), ["--predict_flags: error: argument --batch_size"]),
        (("--data_dir", "model"), ["--data_dir model/curated/valid"]),
        (("--models", "7b=model"), ["--models: beside --model_size"]),
        (("--jobs", "0"), ["--jobs: '0' is not a whole number"]),
        (("--model_name_or_path", "nowhere"), ["nowhere: no such folder"]),
        (("--recipes", "model"), ["--recipes model: no *.toml in this folder"]),
        (("--recipes", "x.toml"), ["--recipe x.toml: can't be read"]),
        (("--recipes", ""), ["--recipes: an empty name; expected a file, or a folder of *.toml"]),
        (("--run_name", "x.log"), ["--run_name x.log: ends as the logs and records of runs do"]),
        (("--run_name", "é" * 130), ["--run_name 'ééé", "longer than 200 bytes"]),
        (
            ("--executor", "snakemake", "--profile", "x.yaml"),
            ["--profile x.yaml: needs --executor slurm"],
        ),
        (
            ("--data_types", "x", "--seeds", "x", "--benchmarks", "x"),
            ["3 things to mend: (1) --seeds", "(2) --data_types x", "(3) --benchmarks x"],
        ),
    ],
)
def test_bad_input_is_refused_at_once(inputs, monkeypatch, flags, says):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    refused(inputs, *MODEL, *flags, says=says)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "--model_size is missing"),
        (("--model_size", "7b"), "--model_name_or_path is missing"),
        (("--models", "model"), "--models model: expected SIZE=MODEL"),
        (("--models", ""), "--models: is empty; expected SIZE=MODEL"),
        (("--models", "7b=model 7b=model"), "--models: 7b twice"),
        (("--models", "7b=model,13b=model"), "several models go between spaces"),
    ],
)
def test_models_that_are_none(inputs, flags, says):
    refused(inputs, *flags, says=[says])


def test_a_second_sweep_is_told_of_the_first(inputs):
    log = inputs / "runs/runs-tiny/curated-10/sweep.sweep.log"
    with locked(log, "test"):
        done = run(*SWEEP, "--data_types", "curated-10", cwd=inputs, check=False)
    assert done.returncode == 2
    assert f"error: --run_name {log.relative_to(inputs)}: process {os.getpid()} on" in done.stderr
    assert not (inputs / "data/builds").exists()


def test_the_wrapper_names_every_flag():
    text = (ROOT / "scripts/run_sweep.sh").read_text(encoding="utf-8")
    header = text[: text.index("set -euo pipefail")]
    names = {f"--{field.name}" for field in dataclasses.fields(SweepOptions)}
    assert {name for name in names if not re.search(rf"{name}\b", header)} == set()


def test_several_models_are_one_study():
    options = SweepOptions(models=("7b=a", "13b=b/c 70b=org/name"))
    assert checks.models_of(options) == [
        Model("7b", "a"),
        Model("13b", "b/c"),
        Model("70b", "org/name"),
    ]
    settings = checks.settings_of(
        published_study(), SweepOptions(data_types=("curated-?0,", "synthetic-10 curated-160"))
    )
    names = [setting.name for setting in settings]
    assert names == ["curated-10", "curated-40", "synthetic-10", "curated-160"]
    assert run_names(None, [0, 1]) == {0: "sweep", 1: "sweep-seed-1"}
    assert run_names("demo-3", [3]) == {3: "demo-3"}
    runs = make_runs(checks.models_of(options), settings, run_names("x", [0, 7]))
    assert [run.setting.samples for run in runs] == [160] * 6 + [40] * 6 + [10] * 12
    assert len({run.place for run in runs}) == len(runs)


def test_the_time_left_is_by_what_runs_have_taken():
    """Those that were done before tell nothing, nor those that fail; large ones take longer."""
    small, large = Setting("curated-10", 10), Setting("curated-10000", 10_000)
    runs = make_runs([Model("s", "m")], [small, large], run_names(None, range(3)))
    assert [run.setting for run in runs] == [large] * 3 + [small] * 3
    progress = Progress(runs, done={runs[0]})
    assert progress.ended(runs[0], 1.0) is None
    assert progress.ended(runs[1], 2.0, failed=True) is None
    left = progress.ended(runs[2], 1001.0)
    assert left is not None
    assert 3 * 1 < left < 3 * 1000 / 2  # three small ones, each much less than a large one
    assert progress.ended(runs[3], 1100.0) == pytest.approx(
        2 * progress.ended(runs[4], 1100.0), rel=0.1
    )
    assert progress.ended(runs[5], 1200.0) is None


def test_seeds_and_data_have_builds_of_their_own():
    plan = Plan((), None, Path("data"), "curated/valid", Path("data/builds"))
    other = dataclasses.replace(plan, data_dir=Path("other"))
    of_study = dataclasses.replace(plan, study=Path("own.toml"))
    builds = {plan.builds(0), plan.builds(1), other.builds(0), of_study.builds(0)}
    assert len(builds) == 4
    run = SweepRun(Model("s", "m"), Setting("curated-10"), 1, "sweep")
    build, train = itertools.islice(stages(plan, run), 2)
    assert build.argv[build.argv.index("--output_dir") + 1] == str(plan.builds(1))
    assert train.argv[train.argv.index("--train_dir") + 1] == f"{plan.builds(1)}/curated-10"
    assert train.argv[train.argv.index("--seed") + 1] == "1"


def test_a_recipe_is_a_setting(inputs):
    recipe = inputs / "blend.toml"
    recipe.write_text(
        'name = "blend"\n[[take]]\npool = "curated"\nlines = { biology = 3, math = 2 }\n'
    )
    options = SweepOptions(recipes=(str(inputs),))
    (setting,) = checks.settings_of(published_study(), options)
    assert setting == Setting("blend", 5, recipe)
    plan = Plan((), None, Path("data"), "curated/valid", Path("data/builds"))
    build = next(stages(plan, SweepRun(Model("s", "m"), setting, 0, "sweep")))
    assert build.argv[:2] == ("--recipe", str(recipe))
    recipe.unlink()


def test_relative_paths_are_the_callers(inputs, tmp_path):
    """Of the wrapper, from a folder elsewhere, and not those of the repository."""
    shutil.copytree(inputs / "data", tmp_path / "mine")
    shutil.copytree(inputs / "model", tmp_path / "my-model")
    command = ("bash", inputs / "scripts/run_sweep.sh", "--dry_run", "--data_dir", "mine")
    done = run(*command, "--models", "7b=my-model", "--data_types", "curated-10", cwd=tmp_path)
    assert "7b/curated-10/sweep " in done.stdout
    refused(inputs, "--dry_run", "--models", "7b=my-model", says=["my-model: no such folder"])


def test_what_stages_are_forked_from_has_begun_nothing():
    """No thread of Python's, no use of the GPU: neither would survive a fork."""
    program = (
        "import growth.sweep.imports, threading, torch\n"
        "print(threading.active_count(), torch.cuda.is_initialized())"
    )
    assert run(sys.executable, "-c", program, cwd=ROOT).stdout.split() == ["1", "False"]


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A plan of one run, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (run,) = make_runs([Model("s", "m")], [Setting("curated-10")], {0: "a"})
    plan = Plan((run,), None, Path("data"), "curated/valid", Path("data/builds"))
    write_plan(Path("plan.json"), plan)
    assert read_plan(Path("plan.json")) == plan
    return plan, run


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-9],
        lambda text: "[]",
        lambda text: '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        lambda text: text.replace('"seed":0', '"seed":"0"'),
        lambda text: text.replace('"seed":0', '"seed":1e400'),
        lambda text: text.replace('"data"', '"\\ud800"', 1),
    ],
)
def test_a_damaged_plan_is_refused(planned, change):
    path = Path("plan.json")
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(InputError, match=r"plan\.json: .*; start the sweep again") as caught:
        read_plan(path)
    assert str(caught.value).isprintable()


def test_a_profile_that_is_no_file(planned):
    os.mkfifo("fifo")
    Path("folder").mkdir()
    for name in ("fifo", "folder", "nothing", "\0"):
        with pytest.raises(InputError, match=r"--profile .*can't be read"):
            _command(Path("x"), 1, SLURM, Path(name))
    for text, says in (("a: [", "can't be read"), ("- jobs", "expected options of Snakemake")):
        Path("profile.yaml").write_text(text)
        with pytest.raises(InputError, match=f"--profile profile.yaml: {says}"):
            read_profile(Path("profile.yaml"))


def test_flags_of_the_stages_are_listed_by_the_wrapper():
    for flag, script in (("--train_flags", "--epochs"), ("--predict_flags", "--max_new_tokens")):
        done = run("scripts/run_sweep.sh", flag, "--help", cwd=ROOT)
        assert f"  {script}" in done.stdout


@pytest.mark.parametrize("choice", [{}, [], {"checkpoint": 3}, {"checkpoint": "../../x"}])
def test_a_finished_run_with_a_damaged_choice_is_evaluated_again(planned, monkeypatch, choice):
    plan, run = planned
    monkeypatch.setattr(job, "job_digest", lambda *_: "same")
    whole = {"model_size": "s", "data_type": "curated-10", "timestamp": "a", "checkpoint": "c"}
    write_json(run.selection(None), whole)
    write_json(run.record, {"digest": "same", "outputs": [str(run.selection(None))]})
    assert job.is_done(plan, run)
    assert description(whole) == "s/curated-10/a/c\t"
    write_json(run.selection(None), choice)
    assert not job.is_done(plan, run)
    with pytest.raises(InputError, match=r"selected-checkpoint\.json: .*evaluate the run again"):
        chosen_checkpoint(plan, run)


def test_a_log_that_cannot_be_made_is_said(tmp_path):
    """As on a full disk: the stage itself would end in exit code 1 and no word."""
    (tmp_path / "log").mkdir()
    with pytest.raises(IsADirectoryError):
        Launcher().run(Stage("build", "data/build.py", (), tmp_path / "log"), {})


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_log_that_is_no_file_fails_the_run_alone(planned, make):
    plan, run = planned
    run.log.parent.mkdir(parents=True)
    make(run.log)
    with pytest.raises(job.JobFailed, match=r"sweep\.log: is a (FIFO|folder)"):
        job.run_job(plan, run, Noting())


class Noting:
    """A launcher whose stages fail, with what they were to be told noted."""

    stopped = False

    def __init__(self):
        self.environments = []
        self.both = threading.Barrier(2)

    def run(self, stage, environment):
        self.environments.append(environment)
        self.both.wait(30)  # until the other run has its GPUs as well
        return 1


def test_runs_at_the_same_time_have_gpus_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = make_runs([Model("s", "m")], [Setting("curated-10")], {0: "a", 1: "b"})
    lines = (Path("data"), "curated/valid", Path("data/builds"))
    plan = Plan(runs, None, *lines, num_processes=2, gpus=("0", "1", "4", "5"))
    launcher, failed = Noting(), []
    run_locally(plan, 2, launcher, lambda run, failure: failed.append((run, str(failure))))
    assert {run for run, _ in failed} == set(runs)
    assert all("build ended in exit code 1" in words for _, words in failed)
    assert len(launcher.environments) == 4  # each run is tried twice
    seen = {environment["CUDA_VISIBLE_DEVICES"] for environment in launcher.environments[:2]}
    assert len(seen) == 2
    assert sorted(",".join(seen).split(",")) == ["0", "1", "4", "5"]


@pytest.mark.parametrize(
    ("flags", "given", "threads"),
    [
        (["--jobs", "3"], None, "2"),
        (["--jobs", "64"], None, "1"),
        (["--jobs", "2", "--num_processes", "2"], None, "2"),
        (["--gpus", "0,1,2,3", "--num_processes", "2"], None, "2"),
        (["--jobs", "3"], "5", "5"),
        ([], None, None),
        (["--jobs", "8", "--executor", "slurm"], None, None),
    ],
)
def test_runs_at_the_same_time_share_the_cores(monkeypatch, flags, given, threads):
    """Two runs of two threads on two cores took five times as long as with one thread each."""
    script = load_script(ROOT / "scripts/sweep.py")
    monkeypatch.setattr(script, "available_cores", lambda: 8)
    parser = argument_parser("")
    add_options(parser, SweepOptions)
    flags = ["--model_size", "x", "--model_name_or_path", "y", *flags]
    with patch.dict(os.environ):
        os.environ.pop("OMP_NUM_THREADS", None)
        if given:
            os.environ["OMP_NUM_THREADS"] = given
        script.share_cores(options_from(parser.parse_args(flags), SweepOptions))
        assert os.environ.get("OMP_NUM_THREADS") == threads
