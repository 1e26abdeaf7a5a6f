"""Functions over texts of strangers, in a process of their own with a bound of time and memory.

What a library does with a hostile text can't be interrupted from within: a regular expression or a
power of integers runs in C, and a text of 10 GB is asked for at once. A process can be ended, so
such functions run in one, which lives from call to call and is started anew after a death.

    >>> with BoundedWorker("operator:pow", warm_up=(1, 1)) as worker:
    ...     worker.call(2, 10)
    1024
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

CPU_SECONDS = 2.0
MEMORY_BYTES = 512 * 2**20
# Of wall clock for one call, as the machine may be busy with other work; and for a start.
WALL_SECONDS = 120.0
START_SECONDS = 300.0
_LIBRARY = str(Path(__file__).resolve().parents[2])  # where the package growth lies


class OverBoundError(Exception):
    """A call took more time or memory than it may, or ended its process."""


class BoundedWorker:
    """A process that calls one function, again and again. Threads may share it."""

    def __init__(
        self,
        function: str,
        *,
        warm_up: tuple[Any, ...],
        cpu_seconds: float = CPU_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Nothing is started before the first call.

        Args:
            function: `module:name`; its arguments and what it returns are values of JSON.
            warm_up: arguments of a first call, which makes what the library makes once; it is
                outside the bounds.
            cpu_seconds: of a call.
            memory_bytes: of address space that a call may add to what the process had.
        """
        self._command = [sys.executable, "-P", "-m", "growth.core.bounded", function]
        self._command += [json.dumps(warm_up), str(cpu_seconds), str(memory_bytes)]
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._calls = 0  # of the process that is alive
        self._end: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next call starts another."""
        self._end()
        self._connection, self._calls = None, 0

    def call(self, *arguments: Any) -> Any:
        """What the function returns.

        A process that dies after other calls may have died of what they left in its memory, so such
        a call is tried once more in a new one.

        Raises:
            OverBoundError: the call took more CPU time or memory than it may.
            RuntimeError: the function raised something else, or the process can't be started.
        """
        with self._lock:
            used = self._calls > 0
            try:
                return self._call(arguments)
            except OverBoundError as error:
                if not used or error.args[0] is _CPU:
                    raise
                return self._call(arguments)

    def _call(self, arguments: tuple[Any, ...]) -> Any:
        connection = self._connection or self._start()
        self._calls += 1
        try:
            connection.send_bytes(json.dumps(arguments).encode())
            if not connection.poll(WALL_SECONDS):
                self.close()
                raise OverBoundError(_CPU)
            answer = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise OverBoundError(self._cause_of_death()) from None
        except BaseException:  # interrupted: an answer that comes later is no answer to the next
            self.close()
            raise
        if "out_of_memory" in answer:
            self.close()
            raise OverBoundError(_MEMORY)
        if "error" in answer:
            raise RuntimeError(f"in a bounded process: {answer['error']}")
        return answer["returned"]

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        # One thread: others take address space, and the main process has the cores.
        path = os.pathsep.join(filter(None, [_LIBRARY, os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self._connection = ours
        self._end = weakref.finalize(self, _end, self._process, ours)
        started = False
        try:
            started = ours.poll(START_SECONDS) and ours.recv_bytes() == _READY
        except (EOFError, ConnectionError):
            pass  # it said why on stderr
        finally:
            if not started:
                self.close()
        if not started:
            raise RuntimeError(f"{' '.join(self._command)}: the process could not be started")
        return ours

    def _cause_of_death(self) -> str:
        by_time = self._process.wait() == -signal.SIGPROF
        self.close()
        return _CPU if by_time else _MEMORY


_CPU, _MEMORY = "CPU time", "memory"
_READY = b"ready"


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()


def _serve(function: Callable[..., Any], cpu_seconds: float, connection: Connection) -> None:
    """Answer calls until the other side closes. Whoever takes too long is ended by SIGPROF."""
    while True:
        try:
            arguments = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            answer = {"returned": function(*arguments)}
            reply = json.dumps(answer).encode()
        except MemoryError:
            reply = b'{"out_of_memory": true}'
        except Exception:  # to be raised on the other side
            reply = json.dumps({"error": traceback.format_exc()}).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(reply)


def main(argv: list[str]) -> None:
    """The process: `<module:name> <warm-up arguments> <seconds> <bytes> <descriptor>`."""
    name, warm_up, cpu_seconds, memory_bytes, descriptor = argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends us
    connection = Connection(int(descriptor))
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    function(*json.loads(warm_up))
    limit = psutil.Process().memory_info().vms + int(memory_bytes)
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries warn of what they are given
    connection.send_bytes(_READY)
    _serve(function, float(cpu_seconds), connection)


if __name__ == "__main__":
    main(sys.argv[1:])
