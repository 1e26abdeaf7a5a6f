"""How the general kinds of a study read an answer: labels, words, short texts, patterns.

The published scorer's own rules are in `growth.scoring.verdicts`. Everything here is linear in the
length of an answer.
"""

import functools
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from growth.core.normal_form import fold, nfkc
from growth.data.abilities import words_pattern

_SPACES = re.compile(r"\s+")
_SUFFIXES = "#%‰＃％"  # punctuation by their category in Unicode, but no marks of a sentence
# Not punctuation by their category: the sign of Markdown's code, and what reads as a minus.
_AS_PUNCTUATION = str.maketrans(dict.fromkeys("‐‑‒–—−﹣－", "-") | {"`": None})
# Characters without width that no script needs: byte order mark, soft hyphen, places to break.
_UNSEEN = str.maketrans("", "", "\u00ad\u200b\u2060\ufeff")


def read_label(response: str, options: Sequence[str], logits: Mapping[str, float]) -> str | None:
    """The label answered: the response if it is one, else the likeliest as the next token.

    A response of one character that is no label is wrong where all labels have one, as published
    for A to D.
    """
    text = response.strip()
    if text in options:
        return text
    if len(text) == 1 and all(len(label) == 1 for label in options):
        return None
    return max(options, key=lambda label: logits[label])


def read_truth(text: str, true_words: Collection[str], false_words: Collection[str]) -> bool | None:
    """True or false, where the text holds words of only one kind; case and width don't matter.

    Where a script has spaces whole words count: there is no "true" in "untrue". Of two words at one
    place the longer one counts, so that "not true" may be a false word though "true" is a true one.
    """
    words = {fold(word): True for word in true_words} | {fold(word): False for word in false_words}
    found = words_pattern(tuple(words)).findall(fold(text))
    said = {words[word] for word in found}
    return said.pop() if len(said) == 1 else None


def normalised(text: str, steps: Collection[str]) -> str:
    """`text` without what does not count, by the `steps` of `growth.data.abilities`.

    width: full-width and compatibility forms are their plain ones (NFKC); case: none; spaces: none,
    with or without width; punctuation: none, in any script, but within and before numbers (3.5 is
    not 35, nor -3 3, whatever the dash) and signs that belong to what is before them (C# is not C,
    nor 50% 50).
    """
    if "width" in steps:
        text = nfkc(text)
    if "case" in steps:
        text = text.casefold()
    # before punctuation, so that spaces beside it say nothing: "50 %" is 50%, "1, 2" not 12
    text = _SPACES.sub("", text).translate(_UNSEEN) if "spaces" in steps else text.strip()
    if "punctuation" in steps:
        text = text.translate(_AS_PUNCTUATION)
        text = "".join(
            c
            for before, c, after in zip(" " + text, text, text[1:] + " ", strict=False)
            if not unicodedata.category(c).startswith("P")
            or (after.isdigit() and (before.isdigit() or c == "-"))
            or (c in _SUFFIXES and before.isalnum())
        )
    return text.strip()


def is_same_text(response: str, gold: str, steps: Collection[str]) -> bool:
    """Whether two texts are the same but for what does not count.

    Where nothing of one of them counts (`*` without punctuation), they are compared as they are.
    """
    one, other = normalised(response, steps), normalised(gold, steps)
    return one == other if one and other else response.strip() == gold.strip()


def read_pattern(response: str, pattern: str) -> str | None:
    """What the group `answer` holds where `pattern` first matches; None where it matches nowhere.

    RE2 takes time linear in the answer, whatever the pattern.
    """
    text = response.encode("utf-8", "replace").decode()  # RE2 reads UTF-8
    match = _compiled(pattern).search(text)
    return None if match is None else match.group("answer")


@functools.lru_cache(64)
def _compiled(pattern: str) -> Any:
    import re2  # only such studies need it

    return re2.compile(pattern)
