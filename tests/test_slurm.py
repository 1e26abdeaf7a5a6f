"""A SLURM that tests start and stop on this machine, and a sweep on it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import line, run, write_lines
from slurm import one_node_slurm, why_not
from test_sweep import MODEL, PREDICT, make_study, results, states

from growth.core.files import read_json

pytestmark = pytest.mark.slow

if reason := why_not():
    pytest.skip(f"SLURM can't be started here: {reason}", allow_module_level=True)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment in which its commands find it."""
    with one_node_slurm(tmp_path_factory.mktemp("slurm") / "node") as environment:
        yield environment


def ask(slurm, *command):
    """What a command of SLURM prints."""
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wait_for(condition, seconds=60):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_jobs_run_and_are_cancelled_with_all_that_they_started(slurm, tmp_path):
    def submit(command):
        log = ("--output", tmp_path / "log")
        return ask(slurm, "sbatch", "--parsable", *log, "--chdir", tmp_path, "--wrap", command)

    def state(job):
        return ask(slurm, "squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    whole = submit("touch whole")
    wait_for(lambda: state(whole) == "COMPLETED")
    assert (tmp_path / "whole").exists()
    job = submit("sleep 1000 & echo $! > child; wait")
    wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    child = (tmp_path / "child").read_text().strip()
    ask(slurm, "scancel", job)
    wait_for(lambda: state(job) == "CANCELLED")
    wait_for(lambda: subprocess.run(["kill", "-0", child], capture_output=True).returncode)


# Three settings with two seeds each.
SETTINGS = ("--data_types", "curated-10,curated-40,synthetic-10", "--seeds", "0,1")
# Many steps, and few checkpoints to predict with.
TRAIN = "--total_batch_size 2 --precision fp32 --epochs 6"
FLAGS = ("--train_flags", TRAIN, "--predict_flags", PREDICT)
SWEEP = ("scripts/run_sweep.sh", *MODEL, *FLAGS, *SETTINGS)
PLACES = [
    f"{setting}/sweep{end}"
    for setting in ("curated-10", "curated-40", "synthetic-10")
    for end in ("", "-seed-1")
]
PROFILE = """
default-resources:
  runtime: 30
  cpus_per_task: 1
  mem_mb: 1000
slurm-status-command: squeue   # there is no accounting
slurm-no-account: true
slurm-init-seconds-before-status-checks: 5
latency-wait: 20
seconds-between-status-checks: 2
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_data, tiny_model):
    """What a sweep reads, in a folder."""
    pytest.importorskip("snakemake", reason="requirements-sweep.txt is not installed")
    root = make_study(tmp_path_factory.mktemp("inputs"), tiny_data, tiny_model)
    made = [line("biology", "ABCD"[i % 4] * (1 + i), idx=i) for i in range(20)]
    write_lines(root / "data/synthetic/40960/synthetic.json", made)
    (root / "profile.yaml").write_text(PROFILE)
    return root


def test_a_sweep_by_jobs_one_of_them_cancelled_is_that_of_one_machine(slurm, study, tmp_path):
    local, cluster = (
        shutil.copytree(study, tmp_path / name, symlinks=True) for name in ("local", "cluster")
    )
    run(*SWEEP, "--jobs", "2", cwd=local)
    process = begin_by_jobs(slurm, cluster)

    def being_trained():
        assert process.poll() is None, process.communicate()
        saved = (cluster / "runs").glob("*/*/*/checkpoint-*/trainer_state.json")
        return [
            path.parents[1]
            for path in saved
            if not read_json(path.parents[1] / "run.json")["ended"]
        ]

    wait_for(being_trained, 300)
    folder, *_ = being_trained()
    place = f"{folder.parent.name}/{folder.name}"
    ((cancelled, _),) = jobs_of(slurm, place, "RUNNING")
    ask(slurm, "scancel", cancelled)
    printed, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert printed.count("chosen: ") == len(PLACES)
    # Each run was a job, and the one that was cancelled went on in another.
    for each in PLACES:
        jobs = [state for _, state in jobs_of(slurm, each, "all")]
        assert jobs == (["CANCELLED", "COMPLETED"] if each == place else ["COMPLETED"])
    assert "resumes from" in folder.with_name(f"{folder.name}.log").read_text()
    assert results(cluster) == results(local)
    # On this machine itself there is nothing left to do.
    before = states(cluster)
    run(*SWEEP, cwd=cluster)
    assert states(cluster) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_ended_takes_its_jobs_along(slurm, study, tmp_path, number):
    cluster = shutil.copytree(study, tmp_path / "cluster", symlinks=True)
    process = begin_by_jobs(slurm, cluster)

    def at_work():
        assert process.poll() is None, process.communicate()
        return ask(slurm, "squeue", "--noheader", "--states=RUNNING")

    wait_for(at_work, 300)
    process.send_signal(number)
    process.communicate(timeout=120)
    wait_for(lambda: not ask(slurm, "squeue", "--noheader"))


def begin_by_jobs(slurm, root):
    """A sweep whose runs are jobs, just started."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{slurm['PATH']}"
    by_jobs = ("--executor", "slurm", "--jobs", "2", "--profile", "profile.yaml")
    return subprocess.Popen(
        ["bash", *SWEEP, *by_jobs],
        cwd=root,
        env=slurm | {"PATH": path, "VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, it would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def jobs_of(slurm, place, which):
    """Number and state of a run's jobs, by number; Snakemake says in a comment whose they are."""
    comment = f"rule_run_wildcards_tiny_{place.replace('/', '_')}"
    printed = ask(slurm, "squeue", "--noheader", f"--states={which}", "--format=%i %T %k")
    listed = [words.split() for words in printed.splitlines()]
    return sorted((job, state) for job, state, whose in listed if whose == comment)
