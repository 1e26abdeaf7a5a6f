"""A SLURM that tests start and stop on this machine."""

import subprocess
import time

import pytest
from slurm import one_node_slurm, why_not

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
