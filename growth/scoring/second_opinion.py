r"""What the math-verify library says of an answer: it compares values, where the published rule
compares strings.

    >>> second_opinion("答案：10.0", "10")
    True

It is reported in addition to the published verdict, never instead. The library takes hours and
gigabytes for some texts, so it runs in a bounded process.
"""

import functools
import logging
import re
from types import ModuleType

from growth.core.bounded import BoundedWorker, OverBoundError
from growth.scoring.math_answers import ANSWER_WORD, after_answer_word

# Ideographs, their punctuation and full-width forms.
CHINESE_RUN = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+")


def second_opinion(response: str, gold: str) -> bool | None:
    """Whether math-verify finds the value of `gold` in a response; errors of the library are no.

    Returns:
        None where it takes more than `growth.core.bounded` allows: 2 s of CPU or 512 MB.

    Raises:
        RuntimeError: the process can't be started; math-verify may not be installed.
    """
    try:
        return bool(_worker().call(response, gold))
    except OverBoundError:
        return None


@functools.cache
def _worker() -> BoundedWorker:
    return BoundedWorker(f"{__name__}:is_equal_in_value", warm_up=("答案：$1/2$", "0.5"))


def is_equal_in_value(response: str, gold: str) -> bool:
    """As `second_opinion`, in this process and without a bound.

    Only what follows the last 答案 is read, unless nothing in it parses; then the whole response.
    Chinese text is set off by spaces first, as the library sees no number that touches it.

    Raises:
        MemoryError: memory ran out, which the library would take for a difference.
    """
    library, errors = _library()
    errors.out_of_memory = False
    try:
        gold_parsed = _parse(f"${gold}$", [library.LatexExtractionConfig()])
        equal = bool(library.verify(gold_parsed, _read(response), timeout_seconds=None))
    except MemoryError:
        raise
    except Exception:  # of a library that is given anything; what it can't read is not equal
        equal = False
    if errors.out_of_memory:
        raise MemoryError
    return equal


class _Errors(logging.Handler):
    """The library logs the errors that it swallows; this notes whether memory ran out."""

    out_of_memory = False

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if record.exc_info and isinstance(record.exc_info[1], MemoryError):
            self.out_of_memory = True


@functools.cache
def _library() -> tuple[ModuleType, _Errors]:
    """The library, imported on first use as it brings sympy, and the errors that it swallows."""
    import math_verify

    logger, errors = logging.getLogger("math_verify"), _Errors()
    logger.addHandler(errors)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return math_verify, errors


def _parse(text: str, extraction: list[object]) -> list[object]:
    """Sympy expressions found in `text`, and the text of each."""
    # Its own limits of time rest on SIGALRM, and each is for one expression of many.
    return _library()[0].parse(text, extraction, parsing_timeout=None)


def _read(response: str) -> list[object]:
    library, _ = _library()
    extraction = [library.LatexExtractionConfig(), library.ExprExtractionConfig()]
    if ANSWER_WORD in response:
        found = _parse(_space_out_chinese(after_answer_word(response)), extraction)
        if any(not isinstance(item, str) for item in found):
            return found
    return _parse(_space_out_chinese(response), extraction)


def _space_out_chinese(text: str) -> str:
    """Spaces around Chinese: made for English, the library finds no number in "：10"."""
    return CHINESE_RUN.sub(r" \g<0> ", text)
