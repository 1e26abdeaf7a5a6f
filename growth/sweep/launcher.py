"""Starts the stages of runs, each in a process of its own, without paying for imports each time.

Importing torch and transformers takes seconds, as long as a small model's stage. So one process,
the standard library's fork server, imports everything and computes nothing, and each stage of one
process is forked from it: as good as a new Python, with the imports done. Stages of several
processes are torchrun's.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import ParamSpec, TypeVar

from growth.core.workers import end_with_parent
from growth.sweep.stages import Stage

P = ParamSpec("P")
T = TypeVar("T")
Started = ForkServerProcess | subprocess.Popen[bytes]


class Launcher:
    """Starts stages, from any thread, and ends them all at once.

    Attributes:
        stopped: whether nothing is started any more.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["growth.sweep.imports"])
        self._live: list[Started] = []
        self._lock = threading.Lock()
        self.stopped = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of the library in a process that has the imports; its errors are ours."""
        with ProcessPoolExecutor(1, self._context, end_with_parent) as pool:
            return pool.submit(function, *args, **kwargs).result()

    def run(self, stage: Stage, environment: Mapping[str, str]) -> int:
        """Run a stage to its end, what it prints appended to its log.

        Returns:
            Its exit code, negative for the signal that ended it.

        Raises:
            OSError: the log can't be written.
        """
        stage.log.parent.mkdir(parents=True, exist_ok=True)
        with open(stage.log, "ab"):
            pass  # on a full disk, say; the stage itself could tell nobody
        start: Callable[[Stage, Mapping[str, str]], Started]
        start = self._forked if stage.processes == 1 else _launched
        with self._lock:
            if self.stopped:
                return -signal.SIGTERM
            process = start(stage, environment)
            self._live.append(process)
        try:
            return _wait(process)
        except BaseException:  # interrupted: nothing is left running
            process.terminate()
            _wait(process)
            raise
        finally:
            with self._lock:
                self._live.remove(process)

    def stop(self) -> None:
        """End what runs, and start nothing any more."""
        with self._lock:
            self.stopped = True
            for process in self._live:
                process.terminate()

    def _forked(self, stage: Stage, environment: Mapping[str, str]) -> ForkServerProcess:
        # All of it: the fork server has that of when it began.
        what = stage.script, stage.argv, stage.log, os.environ | dict(environment)
        process = self._context.Process(target=_run_script, args=what)
        process.start()
        return process


@contextlib.contextmanager
def ends_by_signal(launcher: Launcher) -> Iterator[None]:
    """Turn signals that ask this process to end into its orderly end: with all that it started."""
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup
    ]
    before = {number: signal.signal(number, _exit) for number in numbers}
    try:
        yield
    finally:
        launcher.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _: object) -> None:
    sys.exit(128 + number)


def _wait(process: "Started") -> int:
    if isinstance(process, subprocess.Popen):
        return process.wait()
    process.join()
    return process.exitcode or 0


def _run_script(
    script: str, argv: Sequence[str], log: Path, environment: Mapping[str, str]
) -> None:
    """Become `python script argv`, with its output appended to a log."""
    end_with_parent()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, *argv]
    runpy.run_path(script, run_name="__main__")


def _launched(stage: Stage, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """A launch of several processes on this machine."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
    with open(stage.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, *torchrun, str(stage.processes), stage.script, *stage.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment),
        )
