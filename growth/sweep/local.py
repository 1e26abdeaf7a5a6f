"""Stages and runs of a sweep on this machine, some at the same time."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from growth.sweep.job import JobFailed, run_job
from growth.sweep.launcher import Launcher
from growth.sweep.plan import Plan, SweepRun
from growth.sweep.stages import Stage

TRIES = 2


def run_locally(
    plan: Plan,
    jobs: int,
    launcher: Launcher,
    ended: Callable[[SweepRun, JobFailed | None], None],
) -> None:
    """Carry out all runs, `jobs` at a time; one that fails is tried once more, after no other.

    Args:
        plan: of the sweep.
        jobs: runs at the same time.
        launcher: of the stages; it is stopped when this is interrupted.
        ended: called in this thread as runs end, with what went wrong if anything did.
    """
    with _threads(jobs, launcher) as pool:
        waiting = {pool.submit(_try, plan, run, launcher): run for run in plan.runs}
        for future in as_completed(waiting):
            ended(waiting[future], future.result())


def run_beside(stages: Sequence[Stage], jobs: int, launcher: Launcher) -> Iterator[int]:
    """Run stages that do not need one another, `jobs` at a time.

    Yields:
        The exit code of each, in their order, as soon as it is known.
    """
    with _threads(jobs, launcher) as pool:
        yield from pool.map(lambda stage: launcher.run(stage, {}), stages)


@contextlib.contextmanager
def _threads(jobs: int, launcher: Launcher) -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for stages; interrupted, nothing is left running."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield pool
        except BaseException:
            launcher.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _try(plan: Plan, run: SweepRun, launcher: Launcher) -> JobFailed | None:
    failure = None
    for _ in range(TRIES):
        try:
            run_job(plan, run, launcher)
            return None
        except JobFailed as error:
            failure = error
        if launcher.stopped:
            break
    return failure
