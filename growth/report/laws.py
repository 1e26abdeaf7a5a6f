"""Growth curves read from files, their laws and predictions as tables.

The law itself is `growth.report.growth_law`.
"""

import csv
import functools
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from growth.core.errors import InputError
from growth.core.files import open_file, write_text
from growth.data.study import OTHER
from growth.report.curves import growth_points
from growth.report.growth_law import STEP, Array, Curve, Posterior, fit, interval
from growth.report.results_rows import first_of
from growth.report.results_table import read_results

FACTORS = (STEP, STEP**2)  # of the largest size, which are always predicted
REQUIRED = ("curve", "samples", "value")
COLUMNS = (*REQUIRED, "n", "repeat")
MOST = 200  # points of a curve: more make the grid larger than memory
LARGEST = 1e15  # number of samples or questions
Point = tuple[float, float, float | None]  # samples, value, questions


class Curves(NamedTuple):
    """Curves that have a law, and a sentence on each that has none."""

    curves: list[Curve]
    notes: list[str]


def curves_of_results(results_path: Path, selection_path: Path, flag: Path | None) -> Curves:
    """The curves below a results folder, `<ability>/<model size>/<source>`; each seed is a repeat.

    Args:
        results_path: as of `read_results`, as are the others.
        selection_path: of the choices of checkpoints.
        flag: the value of --study.

    Raises:
        InputError: as `read_results`, or no curve has two sizes.
    """
    results = read_results(results_path, selection_path, flag)
    points: dict[str, list[Point]] = {}
    chances: dict[str, float] = {}
    for place in growth_points(results.rows).to_dict("records"):
        if place["source"] == OTHER:
            continue
        # A smoke run can't pass for a result.
        limit = "" if pd.isna(place["limit"]) else f"-limit{int(place['limit'])}"
        name = f"{place['ability']}/{place['model_size']}/{place['source']}{limit}"
        points.setdefault(name, []).extend(_measured(place))
        if not pd.isna(place["chance"]):
            chances.setdefault(name, place["chance"])
    found = _with_laws(points, chances, f"--results_path {results_path}")
    return Curves(found.curves, results.notes + found.notes)


def _measured(place: Mapping[Any, Any]) -> list[Point]:
    """The scores at a place of a curve, one for each repeat."""
    return [(place["samples"], score, place["n"]) for score in place["run_scores"]]


def law_of(places: pd.DataFrame) -> Posterior | None:
    """The law of one curve; None of one that has a single size.

    Args:
        places: of one ability, model size and series, as `growth.report.curves.growth_points` gives
            them, of scores.
    """
    points = [point for place in places.to_dict("records") for point in _measured(place)]
    if len({samples for samples, *_ in points}) < 2 or len(points) > MOST:
        return None
    chance = places["chance"].iloc[0]
    return _law_of(tuple(points), None if pd.isna(chance) else float(chance))


@functools.lru_cache(maxsize=256)  # a figure is drawn after its numbers, and again in the overview
def _law_of(points: tuple[Point, ...], chance: float | None) -> Posterior:
    samples, values, questions = np.array(points, float).T
    return fit(Curve("", samples, values, questions, chance))


def law_lines(posterior: Posterior, samples: Array) -> dict[str, Array]:
    """The law at these sizes: `law`, the median, `law_low` and `law_high`, each (sizes,)."""
    found = np.array([interval(posterior.at(float(size))) for size in samples])
    return dict(zip(("law_low", "law", "law_high"), found.T, strict=True))


def curves_of_points(path: Path) -> Curves:
    """The curves of a CSV file with the columns curve, samples, value, and n and repeat if wanted.

    With n the values are per cents of n questions; without it they are losses.

    Raises:
        InputError: it is no such file (the line is named), or no curve has two sizes.
    """
    lines = read_csv(path, "--points", REQUIRED, "n and repeat if there are any")
    points: dict[str, list[Point]] = {}
    seen: dict[tuple[str, float, str], int] = {}
    for line, row in lines:
        where = f"--points {path}:{line}"
        name, point = _point(row, where)
        key = (name, point[0], row.get("repeat") or "")
        if key in seen:
            raise InputError(
                f"{where}: {name} has a value for {point[0]:g} samples in line {seen[key]} "
                "already; number repeats in a column named repeat, or remove one"
            )
        seen[key] = line
        others = points.setdefault(name, [])
        if others and (others[0][2] is None) != (point[2] is None):
            raise InputError(
                f"{where}: {name} has n in some of its lines only; give it in all (scores, per "
                "cent) or in none (losses)"
            )
        others.append(point)
    return _with_laws(points, {}, f"--points {path}")


def read_csv(
    path: Path, flag: str, required: Sequence[str], more: str
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, each with the number of its line.

    Args:
        path: of the file.
        flag: that named it.
        required: columns that it has to have.
        more: what else it may have, in words.

    Raises:
        InputError: it is no such file; the line is named.
    """
    try:
        with open_file(path) as file:
            content = file.read()
    except InputError as error:
        raise InputError(f"{flag} {error}; give a CSV file") from None
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        columns = rows.fieldnames or []
        lacking = [name for name in required if name not in columns]
        if lacking or len(set(columns)) < len(columns):
            raise InputError(
                f"{flag} {path}: lacks the column {', '.join(lacking) or 'names once each'}; "
                f"expected a header with {', '.join(required)}, and {more}"
            )
        lines = [(rows.line_num, row) for row in rows]
    except UnicodeDecodeError as error:
        raise InputError(f"{flag} {path}: not UTF-8 ({error}); save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{flag} {path}:{rows.line_num}: not CSV: {error}") from None
    for line, row in lines:
        if None in row.values() or None in row:
            raise InputError(
                f"{flag} {path}:{line}: has more or fewer fields than the header; mend the line"
            )
    return lines


def _point(row: dict[str, str], where: str) -> tuple[str, Point]:
    """One line of a CSV file, checked."""
    name = row["curve"].strip()
    if not name or not name.isprintable():
        raise InputError(f"{where}: curve is {name!r}; expected a name")
    samples = number_of(row["samples"], f"{where}: samples", 0, LARGEST, "0 for the untuned model")
    return name, (samples, *measurement(row, where))


def measurement(row: dict[str, str], where: str) -> tuple[float, float | None]:
    """The value of a row, and the number of questions if it is a score.

    Raises:
        InputError: it is no loss and no per cent of a number of questions.
    """
    if not row.get("n", "").strip():
        meaning = "a loss, or give n if a score"
        return number_of(row["value"], f"{where}: value", 1e-12, 1e12, meaning), None
    questions = number_of(row["n"], f"{where}: n", 1, LARGEST, "the number of questions")
    if questions != int(questions):
        raise InputError(f"{where}: n is {row['n']!r}; expected a whole number of questions")
    return number_of(row["value"], f"{where}: value", 0, 100, "per cent"), questions


def number_of(text: str, what: str, low: float, high: float, meaning: str) -> float:
    """A number in a text, of `what`; raises InputError where it is none from `low` to `high`."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise InputError(
            f"{what} is {text[:40]!r}; expected a number from {low:g} to {high:g} ({meaning})"
        )
    return number


def _with_laws(points: dict[str, list[Point]], chances: dict[str, float], where: str) -> Curves:
    """The curves that a law can be of; notes on the others, one for all of one kind."""
    curves: list[Curve] = []
    noted: defaultdict[str, list[str]] = defaultdict(list)
    for name, own in points.items():
        samples, values, questions = zip(*sorted(own, key=lambda point: point[0]), strict=True)
        if len(own) > MOST:
            raise InputError(
                f"{where}: {name} has {len(own):,} points; expected at most {MOST}, so give means"
            )
        sizes = len(set(samples))
        if sizes < 2:
            kind = f"left out, one size only ({samples[0]:g} samples); a law needs two or more"
            noted[kind].append(name)
            continue
        asked = None if questions[0] is None else np.array(questions, float)
        measured = np.array(samples, float), np.array(values, float)
        curves.append(Curve(name, *measured, asked, chances.get(name)))
        if sizes == 2:
            noted["two sizes only; intervals are mostly those of the priors"].append(name)
    notes = [f"{first_of(names)}: {kind}" for kind, names in noted.items()]
    if not curves:
        raise InputError(
            f"{where}: no curve has two sizes or more, so there is no law to fit; measure another "
            f"size. {first_of(notes) or 'There is none at all'}"
        )
    return Curves(curves, notes)


def sizes_asked(texts: Iterable[str]) -> tuple[float, ...]:
    """The values of --sizes.

    Raises:
        InputError: one of them is no number of samples.
    """
    return tuple(number_of(text, "--sizes: one", 1, LARGEST, "samples") for text in texts)


def laws_table(posteriors: Sequence[Posterior]) -> pd.DataFrame:
    """A row a curve: each parameter as a median with `_low` and `_high` of its 90 % interval."""
    rows = []
    for posterior in posteriors:
        curve = posterior.curve
        row: dict[str, Any] = {
            "curve": curve.name,
            "kind": "score" if curve.is_score else "loss",
            "sizes": len(curve.sizes),
            "points": len(curve.samples),
            "largest": curve.sizes[-1],
            "word": posterior.word(),
        }
        for name in ("start", "plateau", "half_way", "slope", "data_for_90", "noise"):
            found = interval(getattr(posterior, name))
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def predictions_table(posteriors: Sequence[Posterior], sizes: Sequence[float]) -> pd.DataFrame:
    """A row a curve and size: `low`, `high` of its value, `measured_*` of one new measurement."""
    rows = []
    for posterior in posteriors:
        largest = float(posterior.curve.sizes[-1])
        for samples in sorted({*(largest * factor for factor in FACTORS), *sizes}):
            law, new = (
                interval(draws) for draws in (posterior.at(samples), posterior.measured_at(samples))
            )
            rows.append(
                {"curve": posterior.curve.name, "samples": samples, "value": law.value}
                | {"low": law.low, "high": law.high}
                | {"measured_low": new.low, "measured_high": new.high}
            )
    return pd.DataFrame(rows)


SUMMARY = (  # what the lines of `summary` are in
    "scores in per cent, losses in their own unit; in brackets the 90 % interval of the curve, the "
    "mean of many runs on the same questions; docs/laws.md says what the words mean"
)


def summary(posterior: Posterior) -> str:
    """A line on a curve: the word that its intervals allow, and what four times the data gives."""
    samples = STEP * posterior.curve.sizes[-1]
    low, value, high = interval(posterior.at(samples))
    of_score = posterior.curve.is_score
    digits, unit = (".1f", " %") if of_score else (".4g", "")
    return (
        f"{posterior.curve.name}: {posterior.word()}; {samples:,.0f} samples would give "
        f"{value:{digits}}{unit} ({low:{digits}} to {high:{digits}})"
    )


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, numbers to six significant digits."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def line_in_log_samples(curve: Curve, samples: float) -> float:
    """What the usual line predicts: scores, or logs of losses, linear in log samples."""
    tuned = curve.samples > 0
    x = np.log(curve.samples[tuned])
    values = curve.values[tuned] if curve.is_score else np.log(curve.values[tuned])
    if len(set(x)) < 2:
        return curve.mean_at(curve.sizes[-1])
    slope, level = np.polyfit(x, values, 1)
    at = level + slope * np.log(samples)
    return float(np.clip(at, 0, 100) if curve.is_score else np.exp(at))


def held_out_points(curves: Sequence[Curve], held_out: int, seed: int) -> pd.DataFrame:
    """How the largest sizes of each curve are predicted from the others.

    Args:
        curves: those with fewer than `held_out` + 2 sizes do not count.
        held_out: how many sizes are left out.
        seed: of the draws.

    Returns:
        A row a measurement that is left out: `curve`, `kind`, `place` (1 is the first size that is
        left out), `samples`, `measured`, what the law says (`value`), and the 90 % interval of a
        new measurement (`low`, `high`); whether that is `covered`; and the errors of the law, of
        "as it is" and of the line in logs, points for scores and per cent for losses.

    Raises:
        InputError: no curve has enough sizes.
    """
    rows = [row for curve in curves for row in _held_out(curve, held_out, seed)]
    if not rows:
        raise InputError(
            f"--hold_out {held_out}: no curve has {held_out + 2} sizes or more, two of them to "
            "fit; leave out fewer"
        )
    return pd.DataFrame(rows)


def held_out_lines(points: pd.DataFrame) -> list[str]:
    """A line a curve and size that is left out: what was predicted, and what was measured."""
    lines = []
    for (curve, samples), own in points.groupby(["curve", "samples"], sort=False):
        first = own.iloc[0]
        measured = ", ".join(
            f"{row.measured:.4g}{'' if row.covered else ' (outside)'}" for row in own.itertuples()
        )
        lines.append(
            f"{curve}, {samples:g} samples: {first['value']:.4g} ({first['low']:.4g} to "
            f"{first['high']:.4g}); measured {measured}"
        )
    return lines


def held_out_table(points: pd.DataFrame) -> pd.DataFrame:
    """Errors and coverage of the rows of `held_out_points`, a row a kind and place."""
    table = []
    for (kind, place), group in points.groupby(["kind", "place"]):
        row = {"kind": kind, "place": place, "points": len(group)}
        for name in ("law", "as_it_is", "log_line"):
            row |= {
                f"{name}_median": group[name].median(),
                f"{name}_p90": group[name].quantile(0.9),
            }
        table.append(row | {"coverage": 100 * group["covered"].mean()})
    return pd.DataFrame(table)


def _held_out(curve: Curve, held_out: int, seed: int) -> list[dict[str, Any]]:
    """The errors at each measurement that is left out of one curve."""
    sizes = curve.sizes
    if len(sizes) < held_out + 2:
        return []
    seen = curve.up_to(sizes[-held_out - 1])
    posterior = fit(seen, seed)
    rows: list[dict[str, Any]] = []
    for i in np.flatnonzero(curve.samples > seen.sizes[-1]):
        samples, truth = float(curve.samples[i]), float(curve.values[i])
        questions = None if curve.questions is None else float(curve.questions[i])
        law = interval(posterior.measured_at(samples, questions))
        guesses = {
            "law": interval(posterior.at(samples)).value,
            "as_it_is": seen.mean_at(seen.sizes[-1]),
            "log_line": line_in_log_samples(seen, samples),
        }
        unit = 1 if curve.is_score else 100 / truth
        rows.append(
            {name: abs(guess - truth) * unit for name, guess in guesses.items()}
            | {"curve": curve.name, "kind": "score" if curve.is_score else "loss"}
            | {"samples": samples, "measured": truth, "value": guesses["law"]}
            | {"low": law.low, "high": law.high}
            | {"place": _place(sizes, samples, held_out), "covered": law.low <= truth <= law.high}
        )
    return rows


def _place(sizes: Array, samples: float, held_out: int) -> int:
    return int(np.searchsorted(sizes, samples)) - (len(sizes) - held_out) + 1
