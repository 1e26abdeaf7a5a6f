"""Runs of a sweep scheduled by Snakemake: on this machine, or each a job of SLURM.

The Snakefile is short and only calls `scripts/sweep_run.py`. It declares one output per run, the
record that all its stages have ended well: Snakemake removes the outputs of a job that fails, and
what a run has so far must stay. A lock of ours stands in for Snakemake's, which outlives a kill.
"""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from growth.core.errors import InputError
from growth.core.files import open_file, write_text
from growth.core.locks import locked
from growth.core.options import SLURM
from growth.sweep.job import JobFailed, is_done, last_failure
from growth.sweep.plan import Plan, SweepRun, write_plan

SNAKEFILE = Path("scripts/Snakefile")
PROFILE = Path("scripts/slurm.yaml")
_POLL = 1  # seconds between looks for what has ended


def run_by_snakemake(
    plan: Plan,
    jobs: int,
    executor: str,
    profile: Path,
    ended: Callable[[SweepRun, JobFailed | None], None],
    wait: bool = False,
) -> None:
    """Carry out all runs, `jobs` at a time; one that fails is tried once more.

    Args:
        plan: of the sweep.
        jobs: runs at the same time.
        executor: `growth.core.options.SNAKEMAKE` for this machine, or SLURM.
        profile: of Snakemake, read for SLURM.
        ended: called as runs end, with what went wrong if anything did.
        wait: where the same sweep is under way, for it to end.

    Raises:
        InputError: the same sweep is under way.
    """
    content = msgspec.json.encode(plan, enc_hook=str)
    folder = Path("runs/sweeps", hashlib.sha256(content).hexdigest()[:12])
    with locked(folder, "--run_name", wait, make=True):
        write_plan(folder / "plan.json", plan)
        left = list(plan.runs)
        for run in left:
            if not is_done(plan, run):
                run.record.unlink(missing_ok=True)
        with open(folder / "snakemake.log", "ab") as log:
            command = _command(folder, jobs, executor, profile)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            while left:
                code = _ended(process)
                left = _report(left, ended)
                if code is not None:
                    break
        except BaseException as error:
            # On SIGTERM Snakemake would wait for the jobs under way; on SIGINT it cancels them.
            if not isinstance(error, KeyboardInterrupt):  # Ctrl-C has reached it already
                process.send_signal(signal.SIGINT)
            process.wait()
            raise
        for run in left:
            what = last_failure(run) or f"ended in {process.returncode}, see {log.name}"
            ended(run, JobFailed(what))
        process.wait()


def _ended(process: "subprocess.Popen[bytes]") -> int | None:
    """The exit code, None where it runs after a second."""
    try:
        return process.wait(_POLL)
    except subprocess.TimeoutExpired:
        return None


def _report(
    left: list[SweepRun], ended: Callable[[SweepRun, JobFailed | None], None]
) -> list[SweepRun]:
    """Report the runs whose record is there; those without."""
    for run in left:
        if run.record.is_file():
            ended(run, None)
    return [run for run in left if not run.record.is_file()]


def read_profile(profile: Path) -> str:
    """The text of --profile.

    Raises:
        InputError: it can't be read, or is no YAML of options.
    """
    import yaml  # Snakemake's own reader

    try:
        with open_file(profile) as file:
            text = file.read().decode("utf-8")
        options = yaml.safe_load(text)
    except (OSError, InputError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"--profile {profile}: can't be read ({why}); give YAML") from None
    if not isinstance(options, dict):
        raise InputError(f"--profile {profile}: expected options of Snakemake, such as jobs: 4")
    return text


def _command(folder: Path, jobs: int, executor: str, profile: Path) -> list[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--config", f"plan={folder / 'plan.json'}", "--directory", "."]
    command += ["--keep-going", "--retries", "1", "--nolock", "--rerun-incomplete"]
    # An edited comment is no reason to train again; what is out of date has no record any more.
    command += ["--rerun-triggers", "mtime"]
    if executor != SLURM:
        return [*command, "--cores", str(jobs)]
    # Snakemake takes a folder, in which the file has this name.
    write_text(folder / "profile/config.yaml", read_profile(profile))
    return [*command, "--executor", "slurm", "--jobs", str(jobs), "--profile", f"{folder}/profile"]
