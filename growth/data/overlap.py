"""Test questions that stand inside training data: a score on them says nothing.

As in the reports of large models (GPT-3, section 4 and appendix C of arXiv 2005.14165), but in runs
of characters, so that Chinese needs no words.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from growth.data.similarity import normalised, question_of

RUN = 20  # characters, once normalised; a shorter question is compared as a whole
SHARE = 0.8  # of a question's runs that one training line holds
_COMMON = 10  # questions; what more of them share is a template and says nothing
_FEW = 2  # the same where there are few questions: a fifth of them, but at least these


@dataclass(frozen=True)
class Overlap:
    """A test question that a training line holds.

    Args:
        order: of the question among all.
        test: where the question stands, file:line.
        train: where the training line stands, file:line.
        share: of the question's runs of characters, those in the line; 1 for all.
    """

    order: int
    test: str
    train: str
    share: float


class QuestionIndex:
    """The questions of test data, to be looked for in training lines.

    Args:
        asked: where each line stands, and its turns; what all user turns ask is the question.
    """

    def __init__(self, asked: Iterable[tuple[str, list[dict[str, str]]]]) -> None:
        self._places: list[str] = []
        self._same: dict[str, list[int]] = defaultdict(list)  # the questions of a text
        for place, messages in asked:
            self._same[question_of([turn["content"] for turn in messages])].append(
                len(self._places)
            )
            self._places.append(place)
        runs: dict[str, list[str]] = defaultdict(list)  # the texts that have a run
        for text in self._same:
            for run in _pieces(text):
                runs[run].append(text)
        common = min(_COMMON, max(_FEW, len(self._same) // 5))
        # Anywhere in them: behind questions of several lengths pieces are cut at several places.
        shared_by = Counter(
            run for text in self._same for run in set(_windows(text)) if run in runs
        )
        self._runs = {run: texts for run, texts in runs.items() if shared_by[run] <= common}
        self._sizes = Counter(text for texts in self._runs.values() for text in texts)

    def __len__(self) -> int:
        return len(self._places)

    def found_in(self, place: str, messages: list[dict[str, str]]) -> Iterator[Overlap]:
        """The questions that a training line holds, asked in it or anywhere in its text.

        Args:
            place: where the line stands, file:line.
            messages: its turns.
        """
        turns = [normalised(message["content"]) for message in messages]
        asked = (*turns[::2], question_of([message["content"] for message in messages]))
        shares = {text: 1.0 for text in asked if text in self._same}
        runs = self._runs
        found = {run for turn in turns for run in _windows(turn) if run in runs}
        hits = Counter(text for run in found for text in runs[run])
        for text, count in hits.items():
            if count >= SHARE * self._sizes[text]:
                shares.setdefault(text, count / self._sizes[text])
        for text, share in shares.items():
            for question in self._same[text]:
                yield Overlap(question, self._places[question], place, round(share, 3))


def _windows(text: str) -> Iterator[str]:
    """All runs of a text."""
    return (text[i : i + RUN] for i in range(len(text) - RUN + 1))


def _pieces(text: str) -> set[str]:
    """Runs side by side that cover each turn of `text`, as all would take gigabytes; none of a
    short one."""
    return {
        turn[i : i + RUN]
        for turn in text.split("\n")
        for i in (*range(0, len(turn) - RUN, RUN), len(turn) - RUN)
        if i >= 0
    }
