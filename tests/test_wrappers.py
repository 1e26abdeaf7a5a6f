"""The bash wrappers: folders of their own, signals that reach the Python they started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, copy_scripts, line, processes_of, run, write_lines

from growth.core.errors import InputError
from growth.core.locks import locked

TRAIN = (
    *("scripts/run_train.sh", "--data_type", "curated-40", "--model_size", "tiny"),
    *("--total_batch_size", "8", "--precision", "fp32"),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_data):
    """The scripts, and a setting that is built."""
    root = copy_scripts(tmp_path_factory.mktemp("wrappers"))
    shutil.copytree(tiny_data / "curated", root / "data/curated")
    run("data/build.py", "--data_type", "curated-40", cwd=root)
    return root


def heed_signals():
    """In the background or under nohup this process ignores some, and so would all it starts."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def begin(root, *command, **environment):
    """Start a wrapper in a session of its own."""
    path = f"{environment.pop('first', '')}{Path(sys.executable).parent}{os.pathsep}"
    return subprocess.Popen(
        ["bash", *map(str, command)],
        cwd=root,
        env=os.environ
        | {"PATH": path + os.environ["PATH"], "OMP_NUM_THREADS": "1", "VIRTUAL_ENV": sys.prefix},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )


def wait_for(path, process):
    """Wait until training has written a file."""
    deadline = time.monotonic() + 200
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists(), process.stdout.read()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_killing_the_training_wrapper_ends_its_python(study, tiny_model, number):
    run_dir = study / f"runs/killed-{number.name}"
    flags = ("--model_name_or_path", tiny_model, "--output_dir", run_dir, "--epochs", "5000")
    process = begin(study, *TRAIN, *flags)
    wait_for(run_dir / "metrics.jsonl", process)
    if number == signal.SIGTERM:
        # A second launch beside the live one is refused, and names it.
        again = run(*TRAIN, *flags, "--resume", cwd=study, check=False)
        assert again.returncode == 2
        owner = json.loads((run_dir.parent / f".{run_dir.name}.lock").read_text())
        assert f"process {owner['pid']} on {owner['host']}, since {owner['since']}" in again.stdout
        assert owner["pid"] in processes_of(process.pid)
    os.kill(process.pid, number)  # the wrapper alone
    output = process.communicate(timeout=60)[0]
    assert process.returncode not in (0, None)
    assert processes_of(process.pid) == []
    if number == signal.SIGINT:
        assert "interrupted: what was finished is kept" in output
    with locked(run_dir, "--output_dir"):
        pass


def test_killing_a_sweep_ends_what_it_started(study, tiny_model):
    flags = ("--data_types", "curated-10 curated-40", "--jobs", "2", "--train_flags")
    process = begin(
        *(study, "scripts/run_sweep.sh", "--model_size", "swept"),
        *("--model_name_or_path", tiny_model, *flags, "--epochs 5000 --precision fp32"),
    )
    for data_type in ("curated-10", "curated-40"):
        wait_for(study / f"runs/runs-swept/{data_type}/sweep/metrics.jsonl", process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert processes_of(process.pid) == []


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_two_runs_of_one_second_have_a_folder_each(study, tiny_model, tmp_path):
    executable(
        tmp_path / "bin/date",
        f"#!/bin/bash\necho >>{tmp_path}/calls\n"
        f"echo 20260101-00000$(($(wc -l <{tmp_path}/calls) > 1))\n",
    )
    setting = study / "runs/runs-tiny/curated-40"
    (setting / "20260101-000000").mkdir(parents=True)  # the other's, which has just begun
    flags = ("--model_name_or_path", tiny_model, "--epochs", "1")
    process = begin(study, *TRAIN, *flags, first=f"{tmp_path}/bin{os.pathsep}")
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "runs/runs-tiny/curated-40/20260101-000001"
    assert (setting / "20260101-000001/run.json").is_file()
    assert list((setting / "20260101-000000").iterdir()) == []


def test_a_run_that_never_started_leaves_nothing(study):
    flags = ("--model_name_or_path", "nowhere", "--model_size", "never")
    done = run(*TRAIN, *flags, cwd=study, check=False)
    assert done.returncode == 2
    assert not (study / "runs/runs-never").exists()


OWN = """
name = "own"
[[abilities]]
name = "biology"
kind = "letter"
[pools.p]
path = "train"
"""
LONE_SETTING = """
[[settings]]
name = "lone"
samples = 1
take = [{ pool = "p", lines = { biology = 1 } }]
"""
# Only what is written in a script itself, or plans, is run; of other calls a line is kept.
PYTHON_THAT_NOTES = f"""#!/bin/bash
[[ $1 != -c && $1 != - && $1 != scripts/sweep.py ]] || exec {sys.executable} "$@"
printf '%s\\n' "$*" >>calls
"""


FREE = ("--model_size", "--run_name", "--train_flags", "--predict_flags")
FREE += ("--data_dir", "--build_dir", "--model_name_or_path")


@pytest.mark.parametrize("flags", [FREE, ("--data_types",), ("--jobs",), ("--seed",)])
@pytest.mark.parametrize("value", ["x;touch${IFS}P", "a[$(touch P)]`touch P`"])
def test_no_value_of_a_sweep_is_run(tmp_path, flags, value):
    """Neither by this shell, nor by those that it starts for each setting."""
    root = copy_scripts(tmp_path)
    executable(root / "bin/python", PYTHON_THAT_NOTES)
    given = {"--model_size": "s", "--model_name_or_path": "m", "--data_types": "curated-10"}
    words = [word for pair in (given | dict.fromkeys(flags, value)).items() for word in pair]
    process = begin(root, "scripts/run_sweep.sh", *words, first=f"{root}/bin{os.pathsep}")
    output = process.communicate(timeout=60)[0]
    assert not list(root.rglob("P")), output
    assert process.returncode == 2
    assert any("error: " in text and value.split()[0] in text for text in output.splitlines())


def test_predictions_of_two_launches_do_not_mix(study, tiny_model, tmp_path):
    predict = (
        *("evaluate/predict.py", "--model_name_or_path", tiny_model, "--model_size", "x"),
        *("--tag", "t", "--eval_data_path", "data/curated/valid", "--max_new_tokens", "2"),
        *("--pred_data_path", tmp_path),
    )
    folder = tmp_path / "valid/x/untuned/t/checkpoint-0"
    with locked(folder, "test"):
        done = run(*predict, cwd=study, check=False)
    assert done.returncode == 2
    assert f"--pred_data_path {folder}: process {os.getpid()} on" in done.stderr
    assert not folder.exists()
    run(*predict, cwd=study)
    with pytest.raises(InputError), locked(folder, "test"), locked(folder, "again"):
        pass


@pytest.mark.parametrize("seed", ["08", "4294967296", "9" * 30])
def test_a_seed_that_no_stage_takes_is_refused_by_the_sweep(tmp_path, seed):
    sweep = ("scripts/run_sweep.sh", "--model_size", "s", "--model_name_or_path", "m")
    done = run(*sweep, "--seed", seed, cwd=copy_scripts(tmp_path), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--seeds '{seed}': '{seed}': expected a whole number" in done.stderr


@pytest.mark.parametrize("settings", ["", LONE_SETTING])
def test_a_sweep_of_a_study_without_series_names_what_there_is(tmp_path, settings):
    root = copy_scripts(tmp_path)
    (root / "own.toml").write_text(OWN + settings, encoding="utf-8")
    for split in ("valid", "test"):
        write_lines(root / f"data/{split}/biology.json", [line()])
    sweep = ("scripts/run_sweep.sh", "--model_size", "s", "--model_name_or_path", "m")
    done = run(*sweep, "--study", "own.toml", cwd=root, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --data_types: the study ")
    assert ("(lone)" if settings else "(none; give it [[series]]") in done.stderr
    assert not (root / "runs").exists()


PYTHON = """#!/bin/sh
case "$*" in
    *"config get global.find-links"*) echo "/a /b" ;;
    *"config get"*) exit 1 ;;
    *) echo "$UV_FIND_LINKS $UV_DEFAULT_INDEX $*" >> "$0.log" ;;
esac
case "$*" in "-m uv "*) exit STATUS ;; esac
"""


@pytest.mark.parametrize("status", [0, 1])
def test_where_uv_fails_pip_installs(tmp_path, status):
    python = tmp_path / "python"
    python.write_text(PYTHON.replace("STATUS", str(status)))
    python.chmod(0o755)
    install = f"source scripts/common.sh; install_packages {python} -r some.txt"
    environment = {"PATH": os.environ["PATH"], "PIP_INDEX_URL": "https://mirror/simple"}
    subprocess.run(["bash", "-ec", install], cwd=ROOT, env=environment, check=True)
    pip, given = "-m pip --quiet --disable-pip-version-check", "/a,/b https://mirror/simple"
    expected = [
        f"{given} {pip} install uv==0.13.9",
        f"{given} -m uv pip install --quiet --compile-bytecode --python {python} -r some.txt",
        f"  {pip} install -r some.txt",
    ]
    assert python.with_name("python.log").read_text().splitlines() == expected[: 2 + status]
