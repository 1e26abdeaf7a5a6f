"""Response -> what was answered. The published reading rules (README, "Scoring").

Each function returns None where the response holds no answer.
"""

import re
from collections.abc import Mapping

from growth.abilities import LETTERS
from growth.records import FALSE_WORDS, TRUE_WORDS

# The published rule: non-word characters that follow belong to the run, spaces at its end do not.
CHINESE_RUN = re.compile(r"[\u4e00-\u9fff]+\W*")


def read_letter(response: str, choice_logits: Mapping[str, float]) -> str | None:
    """The letter answered: the response if it is one character, else the likeliest of A-D."""
    text = response.strip()
    if len(text) == 1:
        return text if text in LETTERS else None
    return max(LETTERS, key=lambda letter: choice_logits[letter])


def read_blank(response: str) -> str:
    """What fills a blank: the first run of Chinese characters, or the whole response."""
    text = response.strip()
    run = CHINESE_RUN.search(text)
    return run.group().strip() if run else text


def read_truth(text: str) -> bool | None:
    """True or false, where the text holds words of only one kind."""
    said_true = any(word in text for word in TRUE_WORDS)
    said_false = any(word in text for word in FALSE_WORDS)
    return said_true if said_true != said_false else None
