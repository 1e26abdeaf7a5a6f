"""Two settings, runs or results files compared on the same questions.

The statistics are `growth.report.paired`; here is which runs stand for a side, what can be paired,
and the table that comes out.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from growth.core.errors import InputError
from growth.core.files import is_file
from growth.core.schemas import SCORE_AGAIN, ResultsRecord, read_record
from growth.data.study import AVERAGE, OOD_AVERAGE, Study, recorded, study_of
from growth.report.answers import FileAnswers, RunAnswers, read_answers
from growth.report.curves import repeat_of
from growth.report.paired import (
    Difference,
    Paired,
    Spread,
    compare_ability,
    compare_mean,
    holm,
    spread_of,
)
from growth.report.plots import title_of
from growth.report.results_rows import IDENTITY, Row
from growth.report.results_table import RUN, Results, read_results
from growth.report.values import SCORE
from growth.runs.layout import decoding_differences, decoding_of, limit_suffix, read_run

COLUMNS = (
    *("ability", "title", "out_of_domain", "questions", "clusters", "score_a", "score_b"),
    *("difference", "low", "high", "p", "p_holm", "test", "detectable"),
)
TRAINING_NOISE = (
    "one run on each side: training noise is not in the intervals; another seed may differ by more"
)
_DIGITS = 4  # of per cents


@dataclass(frozen=True)
class Side:
    """One of the two sides.

    Attributes:
        label: what it is called, such as 7b/curated-640.
        repeats: the results files of each repeat; runs of one setting and seed are one repeat.
        seeds: of the repeats, None where it is not known.
    """

    label: str
    repeats: tuple[tuple[Path, ...], ...]
    seeds: tuple[int | None, ...]

    @property
    def paths(self) -> set[Path]:
        """All its results files."""
        return {path for repeat in self.repeats for path in repeat}


@dataclass(frozen=True)
class Comparison:
    """What came out; `rows` have the columns of `COLUMNS`, per cent, A less B.

    The abilities of the study come first, then their average, then both out of domain. `spread` is
    that of the abilities' differences, None with fewer than two abilities.
    """

    a: Side
    b: Side
    study: Study
    limit: int | None
    rows: pd.DataFrame
    notes: list[str]
    value: str = SCORE
    spread: Spread | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        sides = {
            name: {
                "label": side.label,
                "repeats": [
                    {"seed": seed, "results": [str(path) for path in paths]}
                    for seed, paths in zip(side.seeds, side.repeats, strict=True)
                ],
            }
            for name, side in (("a", self.a), ("b", self.b))
        }
        rows = [
            {key: None if isinstance(v, float) and np.isnan(v) else v for key, v in row.items()}
            for row in self.rows.astype(object).to_dict("records")
        ]
        about = {"format": 1, "study": self.study.record(), "limit": self.limit}
        about |= {"value": self.value}
        return about | sides | {"notes": self.notes, "rows": rows, "spread": self._spread()}

    def _spread(self) -> dict[str, Any] | None:
        """Standard deviation in points, and the test."""
        if self.spread is None:
            return None
        between, within = self.spread.df
        return {
            "sd": round(100 * float(self.spread.sd), _DIGITS),
            "f": float(self.spread.f),
            "df": [between, float(within)],
            "p": float(self.spread.p),
        }


class Finder:
    """Finds the runs that A and B name.

    Args:
        results_path: folder of results, which is read where a side is no results file.
        selection_path: of the choices of checkpoints.
        flag: the value of --study.
    """

    def __init__(self, results_path: Path, selection_path: Path, flag: Path | None) -> None:
        self.results_path, self.selection_path, self.flag = results_path, selection_path, flag
        self._results: Results | None = None

    def results(self) -> Results:
        """What the results folder holds, read once."""
        if self._results is None:
            self._results = read_results(self.results_path, self.selection_path, self.flag)
        return self._results

    def notes(self, *sides: Side) -> list[str]:
        """On what was left out of the results folder, but of runs that are of neither side."""
        if self._results is None:
            return []
        others = set(map(str, self._results.rows["path"])) - {
            str(path) for side in sides for path in side.paths
        }
        return [note for note in self._results.notes if note.partition(": ")[0] not in others]

    def side(self, text: str, name: str) -> Side:
        """The side that `text` stands for: a setting, a run or a results file.

        Args:
            text: `7b/curated-640`, `7b/curated-640/<timestamp>`, the folder of a run or of its
                results, or a results file.
            name: A or B, for messages.

        Raises:
            InputError: there is nothing of that name.
        """
        path = Path(text)
        if path.suffix == ".json" or (is_file(path, or_folder=True) and not path.is_dir()):
            return _side_of_file(path)
        names = self._names(path)
        if not 2 <= len(names) <= 3:
            raise InputError(
                f"{name} {text}: expected a setting such as 7b/curated-640, a run such as "
                "7b/curated-640/<timestamp>, the folder of a run, or a results file"
            )
        study, rows = self.results().study, self.results().rows
        recipe = study.recipes.get(names[1])
        setting = names[1] if recipe is None else recipe.same_as
        own = rows[(rows["model_size"] == names[0]) & (rows["setting"] == setting)]
        if len(names) == 3:
            own = own[(own["data_type"] == names[1]) & (own["timestamp"] == names[2])]
        if own.empty:
            there = rows[["model_size", "setting"]].drop_duplicates().itertuples(index=False)
            raise InputError(
                f"{name} {text}: no results of it below {self.results_path}, where there are "
                f"{', '.join(sorted('/'.join(pair) for pair in there))}; {self._left_out(names)}"
                "score it with evaluate/score.py, or give its results file"
            )
        return side_of_rows(own, "/".join(names))

    def _names(self, path: Path) -> tuple[str, ...]:
        """Model size, setting and perhaps timestamp."""
        if path.is_dir():
            if (run := read_run(path)) is not None:
                return tuple(str(run[name]) for name in RUN)
            if path.resolve().is_relative_to(self.results_path.resolve()):
                return path.resolve().relative_to(self.results_path.resolve()).parts
        return path.parts

    def _left_out(self, names: Sequence[str]) -> str:
        """The notes on what was left out of the folder and may be meant."""
        own = [note for note in self.results().notes if names[1] in note]
        return f"{'; '.join(own[:3])}; " if own else ""


def _side_of_file(path: Path) -> Side:
    run = read_record(path, ResultsRecord, SCORE_AGAIN)["run"]
    names = [str(run[name]) for name in IDENTITY if run.get(name)]
    seed = run.get("seed")
    label = "/".join(names) if len(names) == len(IDENTITY) else str(path)
    return Side(label, ((path,),), (seed if isinstance(seed, int) else None,))


def side_of_rows(rows: pd.DataFrame, label: str) -> Side:
    """The side that all runs in `rows` are, which are of one setting."""
    repeats: dict[Any, dict[Path, None]] = {}
    for row in cast(list[Row], rows.sort_values(["data_type", "timestamp"]).to_dict("records")):
        identity = tuple(row[name] for name in IDENTITY)
        repeats.setdefault(repeat_of(row, identity), {})[row["path"]] = None
    ordered = sorted(repeats.items(), key=lambda item: str(item[0]))
    seeds = tuple(key if isinstance(key, int) else None for key, _ in ordered)
    return Side(label, tuple(tuple(paths) for _, paths in ordered), seeds)


def compare(
    a: Side,
    b: Side,
    seed: int,
    flag: Path | None = None,
    notes: Iterable[str] = (),
    read: Callable[[Path], RunAnswers] | None = None,
    value: str = SCORE,
) -> Comparison:
    """Compare two sides on every ability that all their runs were asked.

    Args:
        a: one side.
        b: the other; differences are a less b.
        seed: of the bootstrap and the permutation test.
        flag: the value of --study.
        notes: that the comparison has besides its own.
        read: gives what the run behind a results file answered, of which `value` was read.
        value: what is compared: the score, or gold_probability.

    Raises:
        InputError: both are the same, of two studies, or were asked other questions; verdicts are
            missing or damaged; or they have no ability in common.
    """
    if common := a.paths & b.paths:
        raise InputError(
            f"A {a.label} and B {b.label} are the same: {min(common)} is of both; give two sides"
        )
    read = read or partial(read_answers, value=value)
    return compare_answers(
        (a, [[read(path) for path in paths] for paths in a.repeats]),
        (b, [[read(path) for path in paths] for paths in b.repeats]),
        seed,
        flag,
        notes,
        value,
    )


Answered = tuple[Side, Sequence[Sequence[RunAnswers]]]  # a side and the answers of its repeats


def compare_answers(
    first: Answered,
    second: Answered,
    seed: int,
    flag: Path | None,
    notes: Iterable[str] = (),
    value: str = SCORE,
) -> Comparison:
    """As `compare`, of answers that have been read."""
    sides = (first[0], second[0])
    runs = [run for _, repeats in (first, second) for repeat in repeats for run in repeat]
    study = _study_of(runs, flag)
    told = [*notes, *_differences(runs, sides)]
    limits = {run.run.get("limit") for run in runs}
    names = _common_abilities(runs, study, told)
    pairs: dict[str, Paired] = {}
    for name in names:
        _check_same_questions(runs, study, name)
        a, b = (
            np.array(
                [
                    np.mean([_scores(run, study, name) for run in repeat], axis=0)
                    for repeat in repeats
                ]
            )
            for _, repeats in (first, second)
        )
        pairs[name] = Paired(a, b, _clusters(runs[0], study, name), graded=value != SCORE)
    rows = []
    for group in (study.in_domain, study.out_of_domain):
        own = [ability.name for ability in group if ability.name in pairs]
        rows += _rows({name: pairs[name] for name in own}, study, seed)
    if len(runs) == 2:
        told.append(TRAINING_NOISE)
    abilities = [pairs[ability.name] for ability in study.in_domain if ability.name in pairs]
    return Comparison(
        *sides,
        study,
        max((n for n in limits if n), default=None),
        pd.DataFrame(rows, columns=COLUMNS),
        list(dict.fromkeys(told)),
        value,
        spread_of(abilities) if len(abilities) > 1 else None,
    )


def _study_of(runs: Sequence[RunAnswers], flag: Path | None) -> Study:
    first = runs[0]
    for run in runs:
        if recorded(run.run)["digest"] != recorded(first.run)["digest"]:
            raise InputError(
                f"{first.path} and {run.path} are of two studies, or scored by two sets of rules; "
                "score both again with evaluate/score.py"
            )
    return study_of(first.run, flag, first.path)


def _differences(runs: Sequence[RunAnswers], sides: tuple[Side, Side]) -> Iterable[str]:
    """Notes on what may make a difference besides the training."""
    first, *others = (decoding_of(run.run) for run in runs)
    found = {text for other in others for text in decoding_differences(first, other)}
    if found:
        yield f"predicted in different ways: {', '.join(sorted(found))}"
    for side in sides:
        if any(len(paths) > 1 for paths in side.repeats):
            yield f"{side.label}: runs with one seed count as one repeat, their mean"


def _files_of(run: RunAnswers, study: Study, name: str) -> dict[str, FileAnswers]:
    """The files of one ability, by name."""
    found = {}
    for stem in sorted(run.files):
        ability = study.ability_of(run.files[stem].type)
        if ability is not None and ability.name == name:
            found[stem] = run.files[stem]
    return found


def _common_abilities(runs: Sequence[RunAnswers], study: Study, notes: list[str]) -> list[str]:
    """The abilities that every run was asked; a note on each of the others."""
    asked = {
        ability.name: [run for run in runs if _files_of(run, study, ability.name)]
        for ability in study.abilities
    }
    common = [name for name, having in asked.items() if len(having) == len(runs)]
    if not common:
        texts = "; ".join(
            f"{run.path}: {', '.join(n for n, having in asked.items() if run in having) or 'none'}"
            for run in (runs[0], runs[-1])
        )
        raise InputError(f"no ability in common ({texts}); predict both on the same files")
    for name, having in asked.items():
        if having and name not in common:
            lacking = next(run for run in runs if run not in having)
            notes.append(f"{name}: left out, as {lacking.path} has no score of it")
    return common


def _check_same_questions(runs: Sequence[RunAnswers], study: Study, name: str) -> None:
    """Every run was asked the same questions of an ability, in one order.

    Raises:
        InputError: one was not; it and the first are named.
    """
    remedy = "predict both on the same files with evaluate/predict.py, and score them"
    first = _files_of(runs[0], study, name)
    for run in runs[1:]:
        other = _files_of(run, study, name)
        what = "" if first.keys() == other.keys() else f"{', '.join(first)} and {', '.join(other)}"
        for stem, file in first.items() if not what else ():
            if not _is_same_file(file, other[stem]):
                counts = (
                    f"{len(answers.files[stem].questions):,}{limit_suffix(answers.run.get('limit'))}"
                    for answers in (runs[0], run)
                )
                what = f"{stem} has {' and '.join(counts)} lines, which are not the same"
        if what:
            raise InputError(
                f"{runs[0].path} and {run.path}: other questions of {name}: {what}; {remedy}"
            )


def _is_same_file(one: FileAnswers, other: FileAnswers) -> bool:
    """Whether two runs were asked the same lines, as far as both results say which."""
    known = bool(one.digest and other.digest)
    return one.questions == other.questions and not (known and one.digest != other.digest)


def _scores(run: RunAnswers, study: Study, name: str) -> np.ndarray:
    return np.concatenate([file.scores for file in _files_of(run, study, name).values()])


def _clusters(run: RunAnswers, study: Study, name: str) -> np.ndarray:
    """The clusters of an ability's questions; those of two files are different ones."""
    found: list[np.ndarray] = []
    for file in _files_of(run, study, name).values():
        found.append(file.clusters + (found[-1].max() + 1 if found else 0))
    return np.concatenate(found)


def _rows(pairs: Mapping[str, Paired], study: Study, seed: int) -> list[dict[str, Any]]:
    """A row for each ability of one group, then for their average if there are two or more."""
    if not pairs:
        return []
    found = {name: compare_ability(paired, seed) for name, paired in pairs.items()}
    corrected = holm([difference.p for difference in found.values()])
    rows = [
        _row(name, study, [pairs[name]], difference, p)
        for (name, difference), p in zip(found.items(), corrected, strict=True)
    ]
    if len(pairs) > 1:
        out = {ability.name for ability in study.out_of_domain}
        name = OOD_AVERAGE if out & pairs.keys() else AVERAGE
        together = compare_mean(list(pairs.values()), seed)
        rows.append(_row(name, study, list(pairs.values()), together, None))
    return rows


def _row(
    name: str, study: Study, pairs: Sequence[Paired], found: Difference, p_holm: float | None
) -> dict[str, Any]:
    """One row, in per cent."""
    scores = [np.mean([getattr(paired, side).mean() for paired in pairs]) for side in ("a", "b")]
    ability = study.ability_of(name)
    numbers = dict(zip(("score_a", "score_b"), scores, strict=True))
    numbers |= {"difference": found.value, "low": found.low, "high": found.high}
    numbers |= {"detectable": found.detectable}
    return {
        "ability": name,
        "title": title_of(name, study, len(pairs)),
        "out_of_domain": name == OOD_AVERAGE or (ability is not None and ability.out_of_domain),
        "questions": sum(len(paired.clusters) for paired in pairs),
        "clusters": sum(int(paired.clusters.max()) + 1 for paired in pairs),
        **{key: round(100 * float(value), _DIGITS) for key, value in numbers.items()},
        "p": found.p,
        "p_holm": p_holm,
        "test": found.test,
    }


def folder_name(comparison: Comparison) -> str:
    """The name of a comparison's own folder: <A>-vs-<B>, what is no score, what is a smoke run."""
    names = [re.sub(r"[^\w.-]+", "-", side.label) for side in (comparison.a, comparison.b)]
    value = "" if comparison.value == SCORE else f"-{comparison.value}"
    return f"{names[0]}-vs-{names[1]}{value}{limit_suffix(comparison.limit)}"
