"""Processes that share the work of this one, and never outlive it."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


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
