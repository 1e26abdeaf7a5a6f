"""What tells the questions of a file apart, and what some of them share: a passage, a dialogue.

Verdicts are noted with these keys, so that two runs' verdicts can be paired by question, and
questions that are no independent ones can be recognised.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

from growth.core.files import json_line
from growth.data.lines import Record

PASSAGE = 60  # characters of a paragraph that is more than a phrase; 20 words, or a long sentence
OPENING = 100  # characters of a prompt: a passage in short lines, such as a poem, shows there


def question_keys(record: Record) -> dict[str, Any]:
    """The keys of one line.

    Returns:
        `idx` as the line has it, if it does; `question`, a digest of what is asked: the turns
        before the answer and the choices; `passages`, digests of each paragraph of at least 60
        characters in those turns, and of the first 100 characters if there are as many.
    """
    turns = [message["content"] for message in record["messages"][:-1]]
    keys: dict[str, Any] = {"idx": record["idx"]} if "idx" in record else {}
    passages = list(dict.fromkeys(map(_digest, _passages("\n".join(turns)))))
    return keys | {"question": _digest([turns, record.get("choices")]), "passages": passages}


def _passages(prompt: str) -> Iterator[str]:
    if len(prompt) >= OPENING:
        yield prompt[:OPENING]
    for line in prompt.split("\n"):
        if len(paragraph := line.strip()) >= PASSAGE:
            yield paragraph


def _digest(asked: Any) -> str:
    return hashlib.sha256(json_line(asked).encode()).hexdigest()[:16]
