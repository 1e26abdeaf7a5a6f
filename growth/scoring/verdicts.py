"""A prediction -> its verdict. The published rules; ties are wrong.

Beside each published verdict on a generated answer stands a second one, of what a person would read
(`growth.scoring.extracted_answers`).

Source: the published scorer (README, "Scoring"), its defects mended (README, table of differences).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from growth.data.abilities import LETTERS, Kind, checked_ability
from growth.data.records import FALSE_WORDS, TRUE_WORDS, Record, ethics_letters, gold_text
from growth.scoring.extracted_answers import Reading, extract, is_same, plain_number
from growth.scoring.math_answers import published_verdict
from growth.scoring.second_opinion import second_opinion

THREE_OPTIONS_CHANCE = 0.33  # as published, not 1/3
# published quirk: four options are seen only as lines that begin "A.", "B.", "C.", "D." with a full
# stop, one right after the other; "A．" or "A、" give the chance of three.
FOUR_OPTIONS = re.compile(r"\nA\..*\nB\..*\nC\..*\nD\.")


@dataclass(frozen=True)
class Verdict:
    """How one line was judged.

    Attributes:
        score: 1 right, 0 wrong.
        expected: the score of chance (a random answer), 0 to 1.
        parsed: what was read as the answer; None where there was none.
        gold: what it was compared with.
        math_verify: the second opinion on a math line; None for others, and over its bound.
        extracted: 1 if a person would read the right answer, 0 if not; None for choices, and where
            only the second opinion could tell.
        extracted_answer: what a person would read; None where there is nothing.
        over_bound: the second opinion took more time or memory than it may.
    """

    score: int
    expected: float
    parsed: str | bool | int | None
    gold: str | bool | int | None
    math_verify: int | None = None
    extracted: int | None = None
    extracted_answer: Reading = None
    over_bound: bool = False


def judge(record: Record) -> Verdict:
    """Judge one prediction record that `check_prediction` let pass."""
    kind = checked_ability(record["type"]).kind
    if kind is Kind.CHOICE:
        return _judge_choice(record)
    verdict = _published_verdict(record, kind)
    response, gold = record["generated_response"], gold_text(record)
    if kind is Kind.MATH:
        how, gold = "number", record["answer"]
    elif kind is Kind.LETTER_SET:
        how, gold = "letter_set", str(verdict.gold)
    elif gold in LETTERS:
        how = "letter"
    else:
        how = "truth" if kind is Kind.LETTER_OR_TRUTH else "blank"
    reading = extract(how, response)
    same = is_same(how, reading, gold)
    if how == "number" and plain_number(gold) is None:
        # an expression: only a computer algebra can tell, if it has an opinion
        return replace(verdict, extracted=verdict.math_verify, extracted_answer=reading)
    return replace(verdict, extracted=int(same), extracted_answer=reading)


def _published_verdict(record: Record, kind: Kind) -> Verdict:
    response, gold = record["generated_response"], gold_text(record)
    if kind is Kind.MATH:
        right, parsed = published_verdict(response, record["answer"])
        second = second_opinion(response, record["answer"])
        opinion = None if second is None else int(second)
        return Verdict(int(right), 0, parsed, record["answer"], opinion, over_bound=second is None)
    if kind is Kind.LETTER_SET:
        letters, answered = ethics_letters(gold), ethics_letters(response)
        return Verdict(
            int(answered == letters),
            letter_set_chance(len(letters)),
            "".join(sorted(answered)),
            "".join(sorted(letters)),
        )
    if gold in LETTERS:
        parsed = read_letter(response, record["choice_logits"])
        return Verdict(int(parsed == gold), _letter_chance(record), parsed, gold)
    if kind is Kind.LETTER_OR_TRUTH:
        truth, said = read_truth(gold), read_truth(response)
        return Verdict(int(said is truth), 0.5, said, truth)
    blank = read_blank(response)
    return Verdict(int(blank == gold), 0, blank, gold)


def _judge_choice(record: Record) -> Verdict:
    gold, *others = record["generated_ppl"]
    right = all(gold < other for other in others)
    best = min(range(len(others) + 1), key=record["generated_ppl"].__getitem__)
    return Verdict(int(right), 1 / (len(others) + 1), best, 0)


def letter_set_chance(size: int) -> float:
    """The chance, 0 to 1, of guessing a set of `size` letters.

    As published, it assumes a guesser who knows `size` and takes each set of that size to be
    equally likely: of four options, A to D, or of all six where more than four are right. One who
    does not know it scores less, 1/15 over all sets of one to four letters of A to D.
    """
    return 1 / math.comb(4 if size <= 4 else 6, size)


def _letter_chance(record: Record) -> float:
    if record["type"] == "understanding":
        question = record["messages"][-2]["content"]
        if not FOUR_OPTIONS.search(question):
            return THREE_OPTIONS_CHANCE
    return 1 / len(LETTERS)


# The published rule: marks that directly follow belong to the run; white space ends it.
CHINESE_RUN = re.compile(r"[\u4e00-\u9fff]+[^\w\s]*")


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
    return run.group() if run else text


def read_truth(text: str) -> bool | None:
    """True or false, where the text holds words of only one kind."""
    said_true = any(word in text for word in TRUE_WORDS)
    said_false = any(word in text for word in FALSE_WORDS)
    return said_true if said_true != said_false else None
