"""The Unicode normal form NFKC: full width to ASCII, compositions made, in linear time."""

import functools
import re
import sys
import unicodedata

LONG_RUN = 500  # combining marks, sorted in 0.1 ms
# Characters of 3 bytes that become up to 6 (U+3316), 8 or 18 (U+FDFA) characters; of all others a
# megabyte becomes at most 1.5 million.
_WORDS = r"\u3300-\u33ff\ufdf0-\ufdfc"
WORDS, NO_WORDS = re.compile(f"[{_WORDS}]"), re.compile(f"[^{_WORDS}]+")
MOST_WORDS = 1000  # of them in a text; a person writes few
_NO_MARK = r"\x00-\u02ff\u3400-\u9fff\uff00-\uffef"  # ASCII, Latin, ideographs, full width
_SPACES = re.compile(r"\s+")
MAY_BE_MARKS = re.compile(f"(?<![^{_NO_MARK}])[^{_NO_MARK}]{{{LONG_RUN}}}")


def nfkc(text: str) -> str:
    """`text` in the normal form NFKC, in linear time.

    `unicodedata.normalize` sorts a run of combining marks by insertion: a long one takes minutes.
    Where there is one, characters are decomposed and marks sorted before, which changes nothing of
    the result. Source: Unicode Standard Annex 15, "Normalization Forms".

    Where a text has more than MOST_WORDS characters that each stand for words, they stay as they
    are, or it would become up to six times as long.
    """
    if len(WORDS.findall(text)) > MOST_WORDS:
        return NO_WORDS.sub(lambda part: nfkc(part[0]), text)
    if MAY_BE_MARKS.search(text) and any(
        len(run[0]) >= LONG_RUN for run in _marks().finditer(text)
    ):
        text = "".join(unicodedata.normalize("NFKD", character) for character in text)
        text = _marks().sub(_sorted_marks, text)
    return unicodedata.normalize("NFKC", text)


def fold(text: str) -> str:
    """Full width to ASCII, case to lower, runs of white space to one space, none outside."""
    return _SPACES.sub(" ", nfkc(text).casefold()).strip()


@functools.cache
def _marks() -> re.Pattern[str]:
    """A run of combining marks, or of what decomposes to them; made if needed: it takes 0.3 s."""
    every = map(chr, range(sys.maxunicode + 1))
    marks = [c for c in every if unicodedata.combining(unicodedata.normalize("NFKD", c)[0])]
    return re.compile(f"[{''.join(marks)}]+")


def _sorted_marks(run: re.Match[str]) -> str:
    return "".join(sorted(run[0], key=unicodedata.combining))
