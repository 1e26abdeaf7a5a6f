"""Runs of a sweep on this machine, some at the same time."""

from collections.abc import Callable, Sequence
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
    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = {pool.submit(_try, plan, run, launcher): run for run in plan.runs}
            for future in as_completed(waiting):
                ended(waiting[future], future.result())
        except BaseException:  # interrupted: nothing is left running
            launcher.stop()
            pool.shutdown(cancel_futures=True)
            raise


def run_together(launcher: Launcher, stages: Sequence[Stage]) -> list[int]:
    """Carry out stages that need nothing of each other, all at once; their exit codes."""
    with ThreadPoolExecutor(len(stages)) as pool:
        try:
            return list(pool.map(lambda stage: launcher.run(stage, {}), stages))
        except BaseException:  # interrupted: nothing is left running
            launcher.stop()
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
