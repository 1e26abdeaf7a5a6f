"""Processes that share the work of this one, and never outlive it."""

import multiprocessing
import os
import resource
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def worker_pool() -> ProcessPoolExecutor:
    """A pool of as many processes as there are processors; they end when this process is killed."""
    return ProcessPoolExecutor(initializer=end_with_parent)


def end_with_parent() -> None:
    """Watch the parent, and end this process with it: a pool's worker would wait for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def available_cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_resident_memory() -> int:
    """The most resident memory that this process has ever had, in bytes.

    On Linux of this process alone: getrusage's peak is also that of the one it was forked from.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
