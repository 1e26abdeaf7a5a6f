"""What an ability is: how its questions are asked, how an answer is read, what chance scores."""

import functools
import math
import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal

import msgspec

from growth.core.normal_form import fold

LETTERS = ("A", "B", "C", "D")
TRUE_WORDS = ("正确", "对", "T", "√", "V")
FALSE_WORDS = ("错误", "错", "F", "×", "X")
_MOST_OPTIONS = 10
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # but tab and line feed
Normalisation = Literal["width", "case", "punctuation", "spaces"]
NORMALISATIONS: tuple[Normalisation, ...] = ("width", "case", "punctuation", "spaces")


class Kind(Enum):
    """How an ability is asked and its answer read; "doit_": as the published scorer does."""

    LETTER = "letter"
    LETTER_SET = "letter_set"
    TRUTH = "truth"
    TEXT = "text"
    NUMBER = "number"
    CHOICES = "choices"
    REGEX = "regex"
    DOIT_DIALOGUE = "doit_dialogue"  # letter; the chance of three options where four are not seen
    DOIT_LETTER_OR_BLANK = "doit_letter_or_blank"
    DOIT_LETTER_OR_TRUTH = "doit_letter_or_truth"
    DOIT_LETTER_SET = "doit_letter_set"
    DOIT_MATH = "doit_math"


_WITH_OPTIONS = {Kind.LETTER, Kind.LETTER_SET, Kind.DOIT_DIALOGUE, Kind.DOIT_LETTER_SET}
# Of which an answer may end early, as it counts by its label's logit.
_READS_LABELS = {
    *(Kind.LETTER, Kind.DOIT_DIALOGUE, Kind.DOIT_LETTER_OR_BLANK, Kind.DOIT_LETTER_OR_TRUTH),
}
_NORMALISES = {Kind.TEXT, Kind.REGEX}
_A_TO_D = {Kind.DOIT_DIALOGUE, Kind.DOIT_LETTER_OR_BLANK, Kind.DOIT_LETTER_OR_TRUTH}


# Scripts whose words may touch: Thai, Lao, Burmese, Khmer, kana, ideographs; Hangul, for endings.
_TOUCHING = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"  # of letters, which \w lacks
_IN_WORD = rf"(?:[^\W_{_TOUCHING}]|[{_MARKS}])"


@functools.lru_cache(64)
def words_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any of `words`, the longest at a place; whole words where their script has spaces."""
    return re.compile("|".join(map(_whole, _longest_first(words))))


@functools.lru_cache(64)
def _labels_pattern(labels: tuple[str, ...], anywhere: bool) -> re.Pattern[str]:
    """Finds labels as `words_pattern` does, of one letter also side by side (`ABD`).

    With `anywhere` those of one letter count inside of words too, as published.
    """
    letters = "".join(re.escape(label) for label in labels if re.fullmatch(_IN_WORD, label))
    others = [label for label in labels if anywhere or not re.fullmatch(_IN_WORD, label)]
    found = [
        re.escape(label) if anywhere and len(label) == 1 else _whole(label)
        for label in _longest_first(others)
    ]
    if letters and not anywhere:
        found.append(f"(?<!{_IN_WORD})[{letters}]++(?!{_IN_WORD})")
    return re.compile("|".join(found))


def _longest_first(words: Iterable[str]) -> list[str]:
    return sorted(words, key=lambda word: (-len(word), word))


def _whole(word: str) -> str:
    before, after = (re.match(_IN_WORD, end) is not None for end in (word[:1], word[-1:]))
    return (
        (f"(?<!{_IN_WORD})" if before else "")
        + re.escape(word)
        + (f"(?!{_IN_WORD})" if after else "")
    )


class Ability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ability of a study.

    Attributes:
        name: the `type` of its lines; `aliases`: other names for it there.
        title: on figures.
        kind: of its questions.
        out_of_domain: not trained on, averaged apart.
        gold: the field of a line that holds the gold answer; the last message by default.
        options: the labels of a letter or a set of letters.
        choices: how many choices a line has, the gold one first; 0 for two or more.
        chance: what guessing scores, 0 to 1; by default what follows from the kind.
        true_words, false_words: of true/false answers.
        normalise: what does not distinguish two texts.
        pattern: of REGEX: a regular expression with a group `(?P<answer>...)`.
    """

    name: str
    kind: Kind
    title: str = ""
    aliases: tuple[str, ...] = ()
    out_of_domain: bool = False
    gold: str = ""
    options: tuple[str, ...] = LETTERS
    choices: int = 0
    chance: float | None = None
    true_words: tuple[str, ...] = ()
    false_words: tuple[str, ...] = ()
    normalise: tuple[Normalisation, ...] = NORMALISATIONS
    pattern: str = ""

    @property
    def is_choice(self) -> bool:
        """Whether choices are compared by perplexity; otherwise an answer is generated."""
        return self.kind is Kind.CHOICES

    @property
    def question_format(self) -> int:
        """The `question_format` of its valid and test lines: 1 for choices by perplexity."""
        return int(self.is_choice)

    @property
    def heading(self) -> str:
        """The title, or else the name."""
        return self.title.strip() or self.name

    def labels_in(self, text: str) -> frozenset[str]:
        """The options on the last line of `text` that is not empty.

        Whole words count, the longest at a place, and labels of one letter side by side (`ABD`). As
        published (DOIT_LETTER_SET), those of one letter count anywhere, the B of `Both` too.
        """
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            return frozenset()
        found = _labels_pattern(self.options, self.kind is Kind.DOIT_LETTER_SET).findall(lines[-1])
        return frozenset(
            label for part in found for label in ([part] if part in self.options else part)
        )

    def asked(self) -> dict[str, Any]:
        """All that a prediction depends on: how a question is put, which labels are read."""
        reads_labels = self.kind in _READS_LABELS
        return {
            "name": self.name,
            "aliases": self.aliases,
            "choices": self.choices if self.is_choice else None,
            "kind": self.kind.value if reads_labels else "",
            "options": self.options if reads_labels else (),
            "gold": self.gold if reads_labels else "",
        }

    def rules(self) -> dict[str, Any]:
        """All that a score depends on."""
        fields = msgspec.to_builtins(self)
        del fields["title"]
        return fields

    def chance_of_set(self, size: int) -> float:
        """The chance, 0 to 1, of guessing a set of `size` of the options.

        It assumes a guesser who knows `size` and takes each set of that size to be equally likely.
        As published (DOIT_LETTER_SET), such sets are of the first four options, or of all where
        more than four are right. One who does not know it scores less, 1/15 over all sets of one to
        four letters of A to D.
        """
        few = self.kind is Kind.DOIT_LETTER_SET and size <= len(LETTERS)
        return 1 / math.comb(len(LETTERS) if few else len(self.options), size)

    def problem(self) -> str:
        """What is wrong with it beyond the types of its fields; "" where nothing is."""
        labels = [label for label in self.options if label.strip() == label != ""]
        if self.chance is not None and not 0 <= self.chance <= 1:
            return f"chance is {self.chance}, expected 0 to 1 (0.25, say)"
        if len(set(labels)) < len(self.options) or not 2 <= len(labels) <= _MOST_OPTIONS:
            return (
                f"options are {list(self.options)}, expected 2 to {_MOST_OPTIONS} different labels "
                "without spaces around them"
            )
        if self.options != LETTERS and self.kind not in _WITH_OPTIONS:
            return f"options: the kind {self.kind.value} has none"
        if self.kind in _A_TO_D and self.options != LETTERS:
            return f"options are {list(self.options)}; {self.kind.value} has A, B, C, D"
        if self.choices and self.kind is not Kind.CHOICES:
            return f"choices: the kind {self.kind.value} has none"
        if self.choices and not 2 <= self.choices <= _MOST_OPTIONS:
            return f"choices is {self.choices}, expected 2 to {_MOST_OPTIONS}"
        if self.normalise != NORMALISATIONS and self.kind not in _NORMALISES:
            return f"normalise: the kind {self.kind.value} has none"
        if self.gold and self.is_choice:
            return "gold: of choices the first is the gold one; leave gold out"
        if unseen := next((text for text in self._written() if not text.isprintable()), None):
            return f"{unseen!r} holds a character that can't be seen, or ends a line; write it anew"
        return self._problem_of_words() or self._problem_of_pattern()

    def _written(self) -> Iterable[str]:
        """What a figure shows or an answer is held against."""
        return (self.title, *self.options, *self.true_words, *self.false_words)

    def _problem_of_words(self) -> str:
        words = (*self.true_words, *self.false_words)
        if self.kind is not Kind.TRUTH:
            return f"true_words: the kind {self.kind.value} has none" if words else ""
        if not self.true_words or not self.false_words or not all(map(str.strip, words)):
            return "true_words and false_words: expected at least one word each"
        if len(set(words)) < len(words):
            return "true_words and false_words: a word stands there twice"
        true, false = (
            {fold(word): word for word in of_one} for of_one in (self.true_words, self.false_words)
        )
        if both := true.keys() & false.keys():
            word = min(both)
            return (
                f"true_words has {true[word]!r} and false_words {false[word]!r}, which are read as "
                "one word, as case, width and spaces don't matter"
            )
        return ""

    def _problem_of_pattern(self) -> str:
        if self.kind is not Kind.REGEX:
            return f"pattern: the kind {self.kind.value} has none" if self.pattern else ""
        if unseen := _CONTROL.search(self.pattern):
            return (
                f"pattern {self.pattern!r}: holds {unseen[0]!r}, as TOML reads \\b and the like "
                "within double quotes; put the pattern in single quotes: '\\b(?P<answer>...)'"
            )
        import re2  # only such studies need it

        try:
            quiet = re2.Options()
            quiet.log_errors = False  # they are in the exception
            groups = re2.compile(self.pattern, options=quiet).groupindex
        except re2.error as error:
            reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
            return f"pattern {self.pattern!r}: no regular expression of RE2 ({reason})"
        if "answer" not in groups:
            return f"pattern {self.pattern!r}: expected a group named answer: (?P<answer>...)"
        return ""
