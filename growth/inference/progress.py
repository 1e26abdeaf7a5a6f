"""How much of a prediction is done, in work rather than lines, so that the time left is honest.

Lines differ a thousandfold: a letter takes its prompt and two steps, a rambling solution a thousand
steps. The longest go first, so a bar that counts lines would promise too much time at the start.
"""

from dataclasses import dataclass

from tqdm import tqdm

STEP_COST = 10  # a generated token costs about this many prompt tokens, on CPUs and GPUs


@dataclass(frozen=True)
class Cost:
    """Of one line: its `prompt` tokens (with the choices), and the most `room` its answer takes."""

    prompt: int
    room: int = 0

    @property
    def most(self) -> int:
        """What the line takes at most, in prompt tokens."""
        return self.prompt + STEP_COST * self.room


class Progress:
    """A bar whose unit is the work of one prompt token.

    Cost to come is estimated: answers still to be given take the share of their room that the
    finished ones took, all of it as long as none has finished.
    """

    def __init__(self, bar: tqdm, works: list[Cost]) -> None:
        self._bar = bar
        self._prompts = sum(work.prompt for work in works)  # of unfinished lines
        self._rooms = sum(work.room for work in works)
        self._finished_work = 0
        self._used, self._offered = 0, 0  # tokens of finished answers, and the room they had

    def computed(self, prompt_tokens: int = 0, steps: int = 0) -> None:
        """Some tokens were read, some generated."""
        self._bar.n += prompt_tokens + STEP_COST * steps
        self._estimate()

    def finished(self, work: Cost, used: int = 0) -> None:
        """A line is done; its answer has `used` tokens."""
        self._prompts -= work.prompt
        self._rooms -= work.room
        self._used += used
        self._offered += work.room
        self._finished_work += work.prompt + STEP_COST * used
        self._estimate()

    def _estimate(self) -> None:
        share = self._used / self._offered if self._offered else 1.0
        expected = self._prompts + STEP_COST * share * self._rooms
        self._bar.total = max(round(self._finished_work + expected), self._bar.n)
        self._bar.update(0)
