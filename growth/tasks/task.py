"""What a task is: questions that become requests, and responses that become per-sample results.

    Task -> Request -> Predictor -> Response -> per-sample result -> score

A task is the questions of one file of results: an ability's lines, an out-of-domain set, a subject
of CMMLU under one setting. `growth.tasks.runner` runs any list of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth.inference.prompting import PromptFormat
from growth.inference.requests import Request, Response

Result = dict[str, Any]  # a line of a file of per-sample results


@dataclass(frozen=True)
class Prompting:
    """How questions become requests for one model.

    Attributes:
        format: conversation -> token ids.
        max_length: tokens of prompt and answer together.
        max_new_tokens: of a generated answer.
        full_responses: whether an answer is generated to its end even where only a letter counts.
    """

    format: PromptFormat
    max_length: int
    max_new_tokens: int = 0
    full_responses: bool = False


class Task(ABC):
    """The questions of one file of per-sample results.

    Attributes:
        file: of the results, relative to the folder of a model's results.
        label: for the progress bar.
        turn: tasks of a lower turn are computed first, so that their results are there earlier.
    """

    file: Path
    label: str
    turn: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """How many questions there are."""

    @abstractmethod
    def digest(self, index: int) -> str:
        """Changes when a question does."""

    @abstractmethod
    def request(self, index: int, prompting: Prompting) -> Request:
        """What the model is asked; the only place where a question is tokenised."""

    @abstractmethod
    def result(self, index: int, request: Request, response: Response) -> Result:
        """The line of the file of results."""

    @abstractmethod
    def check_results(self, path: Path) -> None:
        """Check that a file of results answers these questions.

        Raises:
            InputError: it is damaged, or of other questions.
        """
