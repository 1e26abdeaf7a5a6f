"""Verdicts -> the entries and averages of a results file."""

from collections.abc import Sequence
from typing import Any

from growth.data.abilities import ability_of
from growth.data.records import Record, common_type
from growth.scoring.intervals import mean_score, percentages, rounded
from growth.scoring.verdicts import Verdict

MIXED = "mixed"  # the `type` of a file whose lines are of several types


def score_file(records: Sequence[Record], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One file's entry of a results file: type, n, score, expected, low, high; per cent."""
    n = len(verdicts)
    entry = {
        "type": common_type(records) or MIXED,
        "n": n,
        **percentages(sum(verdict.score for verdict in verdicts), n),
        "expected": rounded(100 * sum(verdict.expected for verdict in verdicts) / n),
    }
    second = [verdict.math_verify for verdict in verdicts if verdict.math_verify is not None]
    if second:
        for name, value in percentages(sum(second), len(second)).items():
            entry["math_verify" if name == "score" else f"math_verify_{name}"] = value
    return entry


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
