"""A prediction -> its verdict, by the kind of its ability; ties are wrong.

Kinds called doit_ follow the published rules, the others those of `growth.scoring.short_answers`.

Beside each published verdict on a generated answer stands a second one, of what a person would read
(`growth.scoring.extracted_answers`).

Source: the published scorer (README, "Scoring"), its defects mended (README, table of differences).
"""

import math
import re
from dataclasses import dataclass, replace

from growth.core.softmax import softmax_at
from growth.data.abilities import FALSE_WORDS, LETTERS, TRUE_WORDS, Ability, Kind
from growth.data.records import Record, gold_of, reads_letter
from growth.scoring.extracted_answers import Reading, extract, is_same
from growth.scoring.math_answers import published_verdict
from growth.scoring.number_answers import (
    bare_gold,
    in_plain_signs,
    is_written_alike,
    plain_number,
    repeats,
    with_marked_formulas,
)
from growth.scoring.second_opinion import second_opinion
from growth.scoring.short_answers import (
    is_same_text,
    read_label,
    read_pattern,
)
from growth.scoring.short_answers import read_truth as read_words

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
        gold_probability: as `gold_probability` says, 0 to 1.
    """

    score: int
    expected: float
    parsed: str | bool | int | None
    gold: str | bool | int | None
    math_verify: int | None = None
    extracted: int | None = None
    extracted_answer: Reading = None
    over_bound: bool = False
    gold_probability: float | None = None


def judge(record: Record, ability: Ability) -> Verdict:
    """Judge one prediction record that `check_prediction` let pass; `ability` is that of its type.

    Where guessing scores otherwise than follows from the kind, the study says so.
    """
    verdict = _judge_choice(record) if ability.is_choice else _judge_answer(record, ability)
    verdict = replace(verdict, gold_probability=gold_probability(record, ability))
    return verdict if ability.chance is None else replace(verdict, expected=ability.chance)


def gold_probability(record: Record, ability: Ability) -> float | None:
    """The model's probability, 0 to 1, of the gold answer among those that it may choose from.

    Of a letter: the softmax over the logits of the options at the first answer position. Of one of
    several choices: the softmax over their mean log-likelihoods of a token, which are the negative
    logarithms of their perplexities.

    Returns:
        None for answers that are not one of several: sets of letters, true or false, texts,
        numbers, patterns. Their gold answers have a loss only (docs/evaluation.md).
    """
    if ability.is_choice:
        if min(record["generated_ppl"]) <= 0:  # no perplexity, whoever wrote it
            return None
        logs, gold = [-math.log(perplexity) for perplexity in record["generated_ppl"]], 0
    elif reads_letter(record, ability):
        logs = [record["choice_logits"][label] for label in ability.options]
        gold = ability.options.index(gold_of(record, ability))
    else:
        return None
    return softmax_at(logs, gold)


def _judge_answer(record: Record, ability: Ability) -> Verdict:
    verdict = _verdict(record, ability)
    response, gold = record["generated_response"], gold_of(record, ability)
    how = _second_reading(record, ability)
    if how is None:
        return verdict
    if how == "letter_set":
        gold = str(verdict.gold)
    reading = extract(how, response)
    if how == "number" and repeats(response, gold):
        return replace(verdict, extracted=1, extracted_answer=gold)
    same = is_same(how, reading, gold)
    if how == "number" and not same and plain_number(gold) is None:
        # another expression: only a computer algebra can tell, if it has an opinion
        return replace(verdict, extracted=verdict.math_verify, extracted_answer=reading)
    return replace(verdict, extracted=int(same), extracted_answer=reading)


def has_second_reading(ability: Ability) -> bool:
    """Whether an answer is also read as a person would."""
    return not ability.is_choice and (
        ability.kind.value.startswith("doit_")
        or (ability.kind is Kind.LETTER and ability.options == LETTERS)
    )


def _second_reading(record: Record, ability: Ability) -> str | None:
    """The kind of `growth.scoring.extracted_answers` that reads an answer as a person would."""
    kind = ability.kind
    if kind is Kind.DOIT_MATH:
        return "number"
    if kind is Kind.DOIT_LETTER_SET:
        return "letter_set"
    if reads_letter(record, ability):
        return "letter" if ability.options == LETTERS else None
    return {Kind.DOIT_LETTER_OR_TRUTH: "truth", Kind.DOIT_LETTER_OR_BLANK: "blank"}.get(kind)


def _verdict(record: Record, ability: Ability) -> Verdict:
    kind, gold, response = ability.kind, gold_of(record, ability), record["generated_response"]
    if kind is Kind.DOIT_MATH:
        right, parsed = published_verdict(response, gold)
        second = second_opinion(response, gold)
        opinion = None if second is None else int(second)
        return Verdict(int(right), 0, parsed, gold, opinion, over_bound=second is None)
    if kind in (Kind.LETTER_SET, Kind.DOIT_LETTER_SET):
        letters, answered = map(ability.labels_in, (gold, response))
        chance = ability.chance_of_set(len(letters))
        return Verdict(int(answered == letters), chance, _joined(answered), _joined(letters))
    if reads_letter(record, ability):
        parsed = read_label(response, ability.options, record["choice_logits"])
        return Verdict(int(parsed == gold), _letter_chance(record, ability), parsed, gold)
    if kind is Kind.DOIT_LETTER_OR_TRUTH:
        truth, said = read_truth(gold), read_truth(response)
        return Verdict(int(said is truth), 0.5, said, truth)
    if kind is Kind.DOIT_LETTER_OR_BLANK:
        blank = read_blank(response)
        return Verdict(int(blank == gold), 0, blank, gold)
    return _general_verdict(kind, gold, response, ability)


def _general_verdict(kind: Kind, gold: str, response: str, ability: Ability) -> Verdict:
    """See `growth.scoring.short_answers`."""
    if kind is Kind.TRUTH:
        words = ability.true_words, ability.false_words
        truth, said = read_words(gold, *words), read_words(response, *words)
        return Verdict(int(said is truth), 0.5, said, truth)
    if kind is Kind.NUMBER:
        right = _equals_number(response, gold)
        return Verdict(int(bool(right)), 0, None, gold, over_bound=right is None)
    parsed: str | None = response.strip()
    if kind is Kind.REGEX:
        parsed = read_pattern(response, ability.pattern)
        gold = read_pattern(gold, ability.pattern) or gold
    same = parsed is not None and is_same_text(parsed, gold, ability.normalise)
    return Verdict(int(same), 0, parsed, gold)


def _equals_number(response: str, gold: str) -> bool | None:
    """Whether an answer is the gold number, in writing or in value; None over the bound.

    math-verify reads formulas of the gold answer that it does not see in a bare response
    (`x^2+1`, `\\sqrt{2}`), and on neither side signs such as ½ and １２.
    """
    if is_written_alike(response, gold):
        return True
    right = second_opinion(response, gold)
    plain = in_plain_signs(response), bare_gold(gold)
    if right is False and plain != (response, gold):
        right = second_opinion(*plain)
    marked = with_marked_formulas(plain[0])
    if right is False and marked != plain[0]:
        right = second_opinion(marked, with_marked_formulas(plain[1]).strip(" $"))
    return right


def _joined(letters: frozenset[str]) -> str:
    return "".join(sorted(letters))


def _judge_choice(record: Record) -> Verdict:
    gold, *others = record["generated_ppl"]
    right = all(gold < other for other in others)
    best = min(range(len(others) + 1), key=record["generated_ppl"].__getitem__)
    return Verdict(int(right), 1 / (len(others) + 1), best, 0)


def _letter_chance(record: Record, ability: Ability) -> float:
    if ability.kind is Kind.DOIT_DIALOGUE:
        question = record["messages"][-2]["content"]
        if not FOUR_OPTIONS.search(question):
            return THREE_OPTIONS_CHANCE
    return 1 / len(ability.options)


# The published rule: marks that directly follow belong to the run; white space ends it.
CHINESE_RUN = re.compile(r"[\u4e00-\u9fff]+[^\w\s]*")


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
