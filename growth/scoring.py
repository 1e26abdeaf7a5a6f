"""Predictions -> verdicts -> scores with intervals. The published rules; ties are wrong.

Source: the published scorer (README, "Scoring"), its defects mended (README, table of differences).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from growth.abilities import LETTERS, Kind, ability_of
from growth.answers import read_blank, read_letter, read_truth
from growth.mathematics import math_verify_verdict, published_verdict
from growth.records import Record, common_type, ethics_letters, gold_text

Z_95 = 1.959963984540054  # the two-sided 95 % point of the normal distribution
THREE_OPTIONS_CHANCE = 0.33  # as published, not 1/3
MIXED = "mixed"  # the `type` of a file whose lines are of several types


@dataclass(frozen=True)
class Verdict:
    """How one line was judged.

    Attributes:
        score: 1 right, 0 wrong.
        expected: the score of random guessing, 0 to 1.
        parsed: what was read as the answer; None where there was none.
        gold: what it was compared with.
        math_verify: the second opinion on a math line, None for others.
    """

    score: int
    expected: float
    parsed: Any
    gold: Any
    math_verify: int | None = None


def judge(record: Record) -> Verdict:
    """Judge one prediction record that `check_prediction` let pass."""
    kind = ability_of(record["type"]).kind
    if kind is Kind.CHOICE:
        return _judge_choice(record)
    response, gold = record["generated_response"], gold_text(record)
    if kind is Kind.MATH:
        right, parsed = published_verdict(response, record["answer"])
        second = math_verify_verdict(response, record["answer"])
        return Verdict(int(right), 0, parsed, record["answer"], int(second))
    if kind is Kind.LETTER_SET:
        letters, answered = ethics_letters(gold), ethics_letters(response)
        expected = 1 / math.comb(4 if len(letters) <= 4 else 6, len(letters))
        return Verdict(
            int(answered == letters), expected, "".join(sorted(answered)), "".join(sorted(letters))
        )
    if gold in LETTERS:
        parsed = read_letter(response, record["choice_logits"])
        return Verdict(int(parsed == gold), _letter_chance(record), parsed, gold)
    if kind is Kind.LETTER_OR_TRUTH:
        truth, answered = read_truth(gold), read_truth(response)
        return Verdict(int(answered is truth), 0.5, answered, truth)
    blank = read_blank(response)
    return Verdict(int(blank == gold), 0, blank, gold)


def _judge_choice(record: Record) -> Verdict:
    gold, *others = record["generated_ppl"]
    right = all(gold < other for other in others)
    best = min(range(len(others) + 1), key=record["generated_ppl"].__getitem__)
    return Verdict(int(right), 1 / (len(others) + 1), best, 0)


def _letter_chance(record: Record) -> float:
    if record["type"] == "understanding":
        question = record["messages"][-2]["content"]
        if "\nD" not in question:
            return THREE_OPTIONS_CHANCE
    return 1 / len(LETTERS)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion, 0 to 1 (Wilson 1927).

    ((p + z^2/2n) +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    p, z2 = successes / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def score_file(records: Sequence[Record], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One file's entry of a results file: type, n, score, expected, low, high; per cent."""
    n = len(verdicts)
    entry = {
        "type": common_type(records) or MIXED,
        "n": n,
        **percentages(sum(verdict.score for verdict in verdicts), n),
        "expected": _rounded(100 * sum(verdict.expected for verdict in verdicts) / n),
    }
    second = [verdict.math_verify for verdict in verdicts if verdict.math_verify is not None]
    if second:
        for name, value in percentages(sum(second), len(second)).items():
            entry["math_verify" if name == "score" else f"math_verify_{name}"] = value
    return entry


def percentages(successes: int, n: int) -> dict[str, float]:
    """A proportion as `score`, with its 95 % Wilson interval as `low` and `high`; per cent."""
    low, high = wilson(successes, n)
    return {
        "score": _rounded(100 * successes / n),
        "low": _rounded(100 * low),
        "high": _rounded(100 * high),
    }


def _rounded(value: float) -> float:
    return round(value, 2)


def summarise(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The averages of a results file: the ten abilities, the OOD sets, all files as published."""
    abilities = {name: ability_of(entry["type"]) for name, entry in files.items()}
    inside = [
        f for name, f in files.items() if abilities[name] and not abilities[name].out_of_domain
    ]
    outside = [f for name, f in files.items() if abilities[name] and abilities[name].out_of_domain]
    summary: dict[str, Any] = {}
    for name, entries in (
        ("average", inside),
        ("ood_average", outside),
        ("overall", files.values()),
    ):
        if entries:
            summary |= mean_score(name, list(entries))
    return summary


def mean_score(name: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of the scores of at least one entry, as `name`.

    With the interval of a mean of proportions (MOVER, Zou & Donner 2008):

    low = mean - sqrt(sum (score_i - low_i)^2) / k, and high likewise.
    """
    k = len(entries)
    mean = sum(entry["score"] for entry in entries) / k
    below = math.sqrt(sum((entry["score"] - entry["low"]) ** 2 for entry in entries)) / k
    above = math.sqrt(sum((entry["high"] - entry["score"]) ** 2 for entry in entries)) / k
    return {
        name: _rounded(mean),
        f"{name}_low": _rounded(mean - below),
        f"{name}_high": _rounded(mean + above),
        f"expected_{name}": _rounded(sum(entry["expected"] for entry in entries) / k),
    }
