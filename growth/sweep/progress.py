"""How long a sweep will still take, by what its runs so far have taken."""

from collections.abc import Collection, Iterable

from growth.sweep.plan import SweepRun

# What predicting, scoring and starting cost a run, about, in lines of its training.
_BESIDES = 500


class Progress:
    """Estimates the time left; the longest runs come first, so that they don't count alike.

    Args:
        runs: of the sweep.
        done: those that were finished before it began, which are passed over in a moment.
    """

    def __init__(self, runs: Iterable[SweepRun], done: Collection[SweepRun]) -> None:
        self._left = {run: _work(run) for run in runs if run not in done}
        self._made = 0

    def ended(self, run: SweepRun, seconds: float, *, failed: bool = False) -> float | None:
        """Take note that a run has ended.

        Args:
            run: that ended.
            seconds: since the sweep began.
            failed: whether it broke off, so that its time says nothing.

        Returns:
            The seconds left; None where nothing is left, or no run has told.
        """
        work = self._left.pop(run, 0)
        self._made += 0 if failed else work
        if not self._made or not self._left:
            return None
        return seconds / self._made * sum(self._left.values())


def _work(run: SweepRun) -> int:
    return run.setting.samples + _BESIDES
