"""A SLURM of one node, this machine, in a folder of its own; nothing of the system's is touched.

    with one_node_slurm(folder) as environment:
        subprocess.run(["sbatch", ...], env=environment)

munged, slurmctld and slurmd run in the foreground with a key, a socket, ports and state of their
own, as the user who runs the tests. There is no accounting, so that the state of a job that has
ended is known by `squeue` and `scontrol` for some minutes only.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
_PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"  # of daemons, for others than root
_START = 60  # seconds that the node may take to be idle
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={megabytes} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no SLURM can be started here; None where it can."""
    missing = [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"no {missing[0]} on this machine (on Debian: apt-get install slurm-wlm munge)"
    return None


@contextlib.contextmanager
def one_node_slurm(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start a SLURM with so many processors, whatever this machine has; stop it at the end.

    Yields:
        The environment in which its commands find it.
    """
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    ports = {name: _free_port() for name in ("controller_port", "node_port")}
    megabytes = psutil.virtual_memory().total >> 20
    about = {"host": socket.gethostname().partition(".")[0], "user": getpass.getuser()}
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(folder=folder, cpus=cpus, megabytes=megabytes, **about, **ports)
    )
    path = f"{_srun_of(folder).parent}{os.pathsep}{_PATH}"
    environment = os.environ | {"SLURM_CONF": str(config), "PATH": path}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    with contextlib.ExitStack() as daemons:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
            ["slurmctld", "-D", "-c", "-f", str(config)],
            ["slurmd", "-D", "-c", "-f", str(config), "-N", about["host"]],
        ):
            daemons.enter_context(_running(command, folder, environment))
        _wait_until_idle(folder, environment)
        yield environment
        subprocess.run(["scancel", "--me", "--signal=KILL"], env=environment, check=False)


def _srun_of(folder: Path) -> Path:
    """An srun that knows this SLURM: Snakemake's plugin keeps SLURM_CONF from it."""
    srun = folder / "bin/srun"
    srun.parent.mkdir()
    real = shutil.which("srun", path=_PATH)
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
    srun.chmod(0o755)
    return srun


@contextlib.contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with open(folder / f"{command[0]}.out", "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(folder: Path, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + _START
    state = ""
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
        )
        state = done.stdout.strip() or done.stderr.strip()
        if state == "idle":
            return
        time.sleep(0.2)
    said = "\n".join(
        f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.out")
    )
    raise RuntimeError(f"the node of SLURM is {state!r} after {_START} s\n{said}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
