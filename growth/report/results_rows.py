"""Results files -> rows: one for each scored file of each run. Without pandas, which takes a while.

So that results that are not there, or are no results, are told at once.
"""

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from growth.core.errors import InputError
from growth.core.schemas import SCORE_AGAIN, ResultsRecord, read_record
from growth.data.study import (
    AVERAGE,
    OOD_AVERAGE,
    OTHER,
    Recipe,
    Study,
    read_study,
    recorded,
    recorded_recipe,
    study_of,
)
from growth.report.values import SCORE, with_value
from growth.runs.layout import MIXED, RESULTS_SUFFIX, UNTUNED, Run, decoding_of

IDENTITY = ("model_size", "data_type", "timestamp", "checkpoint")
ROW = (
    *("model_size", "source", "setting", "data_type", "samples", "timestamp", "checkpoint"),
    *("seed", "limit", "ability", "file", "parts", "n", "score", "expected", "low", "high", "path"),
    *("scored_on", "decoding", "value"),
)
SCORES = ("score", "expected", "low", "high")
_NAMED = 3  # of what is left out, that an error names
Row = dict[str, Any]
ScoredFile = tuple[str, int, str | None]  # name, questions, digest of its lines (None: not known)


class Rows(NamedTuple):
    """What the files of a results folder hold: `rows` in the columns of `ROW`, of all checkpoints.

    `notes` and `study` are those of `growth.report.results_table.Results`.
    """

    rows: list[Row]
    notes: list[str]
    study: Study


def read_rows(results_path: Path, flag: Path | None = None, value: str = SCORE) -> Rows:
    """Read every results file below a folder.

    Args:
        results_path: folder of `*-results.json` files, at any depth.
        flag: the value of --study; None for the study that the results say.
        value: what of the files is read as the score, one of `growth.report.values.VALUES`.

    Raises:
        InputError: they are of several studies or of another one than `flag`, there are no results,
            they can't be placed on a curve, or a file is malformed.
    """
    notes: list[str] = []
    unplaced: list[Path] = []
    rows: list[Row] = []
    studies = _Studies(flag)
    for path in _results_files(results_path):
        results = _read_results_file(path)
        study = studies.of(results, path, notes)
        if study is None:
            continue
        lacking = [name for name in IDENTITY if not _is_name(results["run"].get(name))]
        data_type = _setting(results["run"])
        if _is_name(data_type) and data_type not in study.recipes:
            notes.append(
                f"{path}: {data_type} is not one of the {len(study.recipes)} settings, so it is on "
                "no curve"
            )
        elif lacking:
            unplaced.append(path)
            notes.append(f"{path}: left out, its run record lacks {', '.join(lacking)}")
        else:
            if absent := results.get("missing_files"):
                notes.append(f"{path}: predictions of {', '.join(absent)} are not in it")
            rows += _rows(with_value(results, value, study), path, study, notes, value)
    if not rows:
        raise _nothing_there(results_path, value, unplaced, notes)
    assert studies.study is not None
    return Rows(rows, notes, studies.study)


def _nothing_there(
    results_path: Path, value: str, unplaced: Sequence[Path], notes: Sequence[str]
) -> InputError:
    """What to say of results of which nothing is on a curve; `unplaced` don't say of which run."""
    remedy = ""
    if unplaced:
        remedy = (
            f"{unplaced[0]} does not say which run it is of: predict with evaluate/predict.py"
            " from a checkpoint of one of our runs, and score again"
        )
    elif value != SCORE:
        remedy = (
            f"What was trained, predicted or scored by an older version has no {value}, nor has "
            "every kind of ability (docs/evaluation.md)"
        )
    fault = f"nothing to plot there, no {value} of an ability or of an OOD set"
    said = ". ".join(filter(None, [fault, first_of(notes), remedy]))
    return InputError(f"--results_path {results_path}: {said}")


class _Studies:
    """Sees to it that all results are of one study."""

    def __init__(self, flag: Path | None) -> None:
        self.flag = flag
        self.flagged = read_study(flag) if flag is not None else None
        self.study: Study | None = None
        self.first = Path()

    def of(self, results: dict[str, Any], path: Path, notes: list[str]) -> Study | None:
        """The study of a results file, with its recipe and those of the files before.

        Returns:
            None, with a note, where it is of another study than that of --study or scored by other
            rules, or its setting goes by a name that stands for other lines.

        Raises:
            InputError: it is of another study than the files before.
        """
        run = results["run"]
        if self.flagged is not None and recorded(run)["digest"] != self.flagged.digest:
            of_other = recorded(run)["name"]
            notes.append(
                f"{path}: left out, of the study {of_other}, or scored by other rules than those "
                f"of --study {self.flag}"
            )
            return None
        if self.study is None:
            self.study, self.first = study_of(run, self.flag, path), path
        elif recorded(run)["digest"] != self.study.digest:
            raise InputError(
                f"results of two studies, {self.study.name} ({self.first}) and "
                f"{recorded(run)['name']} ({path}), or scored by two sets of rules; choose one "
                "with --study FILE"
            )
        name, recipe = _setting(run), run.get("recipe")
        if not _is_name(name):
            return self.study
        known = self.study.recipes.get(name)
        if run.get("data_type") == UNTUNED:
            if known is not None and known.samples:
                notes.append(
                    f"{path}: left out, its tag {name} is the name of a setting; predict it with "
                    "another --tag"
                )
                return None
            self.study = self.study.with_recipe(Recipe(name, "", 0, (), name, listed=False))
        if recipe is None:
            return self.study
        if known is not None and known.record()["lines"] != recipe["lines"]:
            notes.append(f"{path}: left out, {name} names other lines, too; rename one of them")
            return None
        if known is None:
            self.study = self.study.with_recipe(recorded_recipe(name, recipe))
        return self.study


def _results_files(results_path: Path) -> list[Path]:
    remedy = (
        "Score predictions first: `python evaluate/score.py --pred_data_path "
        f"evaluate/pred-data/test --results_path {results_path}`, or give the folder they are in"
    )
    if not results_path.is_dir():
        raise InputError(
            f"--results_path {results_path}: nothing to plot, no such folder. {remedy}"
        )
    found = results_path.rglob(f"*{RESULTS_SUFFIX}")
    files = sorted(path for path in found if not path.name.startswith("."))
    if not files:
        raise InputError(
            f"--results_path {results_path}: nothing to plot, no *{RESULTS_SUFFIX} at any depth "
            f"below it. {remedy}"
        )
    return files


def first_of(notes: Sequence[str]) -> str:
    """The first few notes, and how many more there are: there may be one a curve or a file."""
    more = f"; and {len(notes) - _NAMED} more" if len(notes) > _NAMED else ""
    return "; ".join(notes[:_NAMED]) + more


def joined(names: Iterable[Hashable]) -> str:
    """What a run or a setting is called: its parts, as in a path."""
    return "/".join(map(str, names))


def _setting(run: Run) -> Any:
    """The setting that a run record names; of a model that is not one of our runs, its tag."""
    return run.get("timestamp" if run.get("data_type") == UNTUNED else "data_type")


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


def _read_results_file(path: Path) -> dict[str, Any]:
    """One results file, checked as far as it is used.

    Raises:
        InputError: it is not what score.py writes.
    """
    results = read_record(path, ResultsRecord, SCORE_AGAIN)
    size = results["run"].get("model_size")
    if _is_name(size) and Path(size).name != size:
        # It becomes part of a folder's name.
        raise InputError(
            f"{path}: model_size {size!r} is not a plain name such as 7b; {SCORE_AGAIN}"
        )
    return results


def _rows(
    results: dict[str, Any], path: Path, study: Study, notes: list[str], value: str
) -> list[Row]:
    """A row for each scored file and for each average of one results file.

    A file on no curve, as its lines are of several types, gets a note.
    """
    run: Run = results["run"]
    setting = _setting(run)
    recipe = study.recipes[setting]
    shared = {
        **{name: run[name] for name in IDENTITY},
        "data_type": setting,
        **{name: run.get(name) for name in ("seed", "limit")},
        "setting": recipe.same_as,
        "source": recipe.series or OTHER,
        "samples": recipe.samples,
        "path": path,
        "decoding": decoding_of(run),
        "value": value,
    }
    rows = []
    files: dict[str, list[Row]] = {AVERAGE: [], OOD_AVERAGE: []}
    scored_on: dict[str, list[ScoredFile]] = {AVERAGE: [], OOD_AVERAGE: []}
    for name, scored in results["files"].items():
        ability = study.ability_of(scored["type"])
        if scored["type"] == MIXED:
            notes.append(f"{path}: {name} has lines of several types, so it is on no curve")
        if ability is None or scored["score"] is None or not scored["n"]:
            continue
        file = (name, scored["n"], scored.get("digest"))
        files[OOD_AVERAGE if ability.out_of_domain else AVERAGE].append(scored)
        scored_on[OOD_AVERAGE if ability.out_of_domain else AVERAGE].append(file)
        numbers = {key: scored.get(key) for key in ("n", *SCORES)} | {"scored_on": (file,)}
        rows.append(shared | numbers | {"ability": ability.name, "file": name, "parts": 1})
    for name, averaged in files.items():
        if results.get(name) is None:
            continue
        numbers = {
            "n": sum(scored["n"] for scored in averaged),
            "parts": len({study.ability_of(scored["type"]) for scored in averaged}),
            "score": results[name],
            "expected": results.get(f"expected_{name}"),
            "low": results.get(f"{name}_low"),
            "high": results.get(f"{name}_high"),
            "scored_on": tuple(sorted(scored_on[name], key=lambda file: file[0])),
        }
        rows.append(shared | numbers | {"ability": name, "file": ""})
    return rows
