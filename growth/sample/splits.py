"""Which file of the sample world a question may go to.

A hash decides: of the facts that the question needs, or, where it needs none, of the question
itself. So train, valid, test and the synthetic file share no question, a fact behind a valid or
test question is behind no question of a training file, and every file can be drawn on its own.
"""

import hashlib

from growth.sample.rules import Draft

# Sixteenths of all questions that each group of files draws from; of the facts, more for valid and
# test, which would otherwise ask the same few again and again.
_SPLITS = ("curated",) * 6 + ("synthetic",) * 6 + ("valid",) * 2 + ("test",) * 2
_FACTS = ("train",) * 8 + ("valid",) * 4 + ("test",) * 4


def split_of(draft: Draft, seed: int) -> str | None:
    """The group of files that may ask it: `curated`, `synthetic`, `valid`, `test`, or None."""
    places = {_drawn(_FACTS, fact, seed) for fact in draft.facts}
    if len(places) > 1:
        return None
    if places and places != {"train"}:
        return places.pop()
    splits = _SPLITS if not places else ("curated", "synthetic")
    questions = {_drawn(splits, key, seed) for key in draft.keys}
    return questions.pop() if len(questions) == 1 else None


def _drawn(groups: tuple[str, ...], key: str, seed: int) -> str:
    return groups[hashlib.sha256(f"{seed}/{key}".encode()).digest()[0] % len(groups)]
