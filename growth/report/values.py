"""What a curve can be of: the score of results files, or a signal in them that has less noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from growth.core.intervals import weighted_mean
from growth.data.study import AVERAGE, OOD_AVERAGE, Study

if TYPE_CHECKING:  # scripts read `VALUES` before their flags
    import pandas as pd

SCORE, LOSS, GOLD_PROBABILITY = "score", "loss", "gold_probability"


@dataclass(frozen=True)
class Value:
    """A field of the entries of results files.

    Attributes:
        title: on figures.
        axis: its label, with the unit.
        most: that it can be; the least is 0.
    """

    title: str
    axis: str
    most: float


VALUES: Mapping[str, Value] = {
    SCORE: Value("score", "score (%)", 100),
    LOSS: Value("loss of the validation lines", "loss (nats per token)", math.inf),
    GOLD_PROBABILITY: Value("probability of the gold answer", "p(gold answer) (%)", 100),
}


def value_of(points: "pd.DataFrame") -> str:
    """What these points, or rows, are of: one of `VALUES`."""
    return str(points["value"].iloc[0]) if len(points) else SCORE


def value_suffix(points: "pd.DataFrame") -> str:
    """What names of files carry: nothing for scores, else such as -loss."""
    value = value_of(points)
    return "" if value == SCORE else f"-{value}"


def with_value(results: dict[str, Any], value: str, study: Study) -> dict[str, Any]:
    """Results in which a value stands in place of the score.

    Files without it have the score None. The averages are over the abilities that have it.

    Args:
        results: the content of a results file.
        value: one of `VALUES`.
        study: whose results they are.
    """
    if value == SCORE:
        return results
    files = {name: _entry(entry, value) for name, entry in results["files"].items()}
    of_ability: dict[str, dict[str, list[Any]]] = {AVERAGE: {}, OOD_AVERAGE: {}}
    for entry in files.values():
        ability = study.ability_of(entry["type"])
        if ability is not None and entry["score"] is not None and entry["n"]:
            group = of_ability[OOD_AVERAGE if ability.out_of_domain else AVERAGE]
            group.setdefault(ability.name, []).append(entry)
    kept: dict[str, Any] = {
        name: results[name] for name in ("run", "missing_files") if name in results
    }
    for name, abilities in of_ability.items():
        if abilities:
            pooled = [
                weighted_mean(own, [entry["n"] for entry in own]) for own in abilities.values()
            ]
            mean = weighted_mean(pooled, [1] * len(pooled))
            kept |= {name: mean["score"], f"{name}_low": mean["low"], f"{name}_high": mean["high"]}
    return kept | {"files": files}


def _entry(entry: dict[str, Any], value: str) -> dict[str, Any]:
    """The entry of one file, of a value."""
    ends = {end: entry.get(f"{value}_{end}", math.nan) for end in ("low", "high")}
    own = {"type": entry["type"], "score": entry.get(value), "expected": None} | ends
    if value == LOSS:  # of other lines than the file's
        return own | {"n": entry["n"]}
    return own | {"n": entry.get(f"{value}_n", entry["n"]), "digest": entry.get("digest")}
