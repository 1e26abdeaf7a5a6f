"""Everything that a report says of a study, as one JSON object; nothing is drawn here.

report.json has these keys (scores and intervals in per cent, 95 % intervals; lists are in the order
of the study; a fact that no file holds is null):

    format      1; changes only when a key changes its meaning
    study       name, title, digest, file; abilities: name, title, out_of_domain; series; settings
    overview    models, seeds; settings_scored of settings; runs, training_runs; results_files;
                checkpoints_compared on valid; answers scored in all; questions of the run with
                most; averages: a row a model size and setting, as the points of a curve below;
                best: of each model size the row with the highest average, with `tied`, the other
                settings with this average, and `overlapping`, those whose intervals overlap its own
    curves      a curve each: ability, title, out_of_domain, chance, and
                points: model_size, source (series, or "other"), setting, samples, score, low, high,
                chance, n (questions of one run), runs, run_scores, sd (between them), sd_questions
                (what the questions of one run give), checkpoints, limit
    noise       an ability and model size each, where a setting has several seeds: title, and the
                columns of `growth.report.noise.noise_floor`
    compared    a pair of settings each, on the same questions: what
                `growth.report.compared_settings.compared_settings` returns
    selections  a run each: model_size, data_type, timestamp, limit, checkpoint, epoch,
                valid_average, average_note, reason, candidates (checkpoint, epoch, average),
                test_average, path
    benchmarks  results: `growth.report.benchmarks.read_benchmarks`; columns, rows:
                `growth.report.benchmarks.paper_form`; published: source and rows of the paper
    costs       a training run each: model_size, data_type, timestamp, seed, state ("finished" or
                "unfinished"), and what `growth.report.training_runs.cost_of` returns
    provenance  results: a results file each: path, run (as the file has it), files with n and
                digest; runs: a training run each: model_size, data_type, timestamp, and what
                `growth.report.training_runs.made_by` returns
    problems    kind and message: what failed, is missing, was left out, or is a smoke run
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from growth.core.schemas import SCORE_AGAIN, ResultsRecord, SelectionRecord, read_record
from growth.data.study import AVERAGE, OOD_AVERAGE, Study, recorded
from growth.report.benchmarks import paper_form, read_benchmarks
from growth.report.compared_settings import compared_settings
from growth.report.curves import POINT, growth_points, size_key, sizes_of
from growth.report.noise import NOISE, noise_floor
from growth.report.plots import title_of
from growth.report.published import SOURCE, published_rows
from growth.report.results_rows import IDENTITY
from growth.report.results_table import RUN, read_results
from growth.report.training_runs import (
    Problem,
    RunKey,
    TrainingRun,
    cost_of,
    key_of,
    made_by,
    problem,
    problems_of,
    read_training_runs,
)
from growth.runs.layout import RESULTS_SUFFIX, UNTUNED, selection_name

_FORMAT = 1
_DIGITS = 4  # of means of scores, which have two


class Places(NamedTuple):
    """The folders that a report is made from: of test results, choices, runs, benchmarks."""

    results_path: Path
    selection_path: Path
    runs_dir: Path
    benchmarks_dir: Path


class Summary(NamedTuple):
    """What a report says, and the points that its figures draw."""

    report: dict[str, Any]
    points: pd.DataFrame
    study: Study


class _Order:
    """The order of rows: by setting as in the study, by model size."""

    def __init__(self, study: Study) -> None:
        self.places = {name: place for place, name in enumerate(study.recipes)}

    def __call__(self, setting: str | None, size: Any) -> tuple[Any, ...]:
        known = self.places.get(setting or "", len(self.places))
        return (known, str(setting)), size_key(str(size))

    def of_run(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """Of a row about one run."""
        setting, size = self(row["data_type"], row["model_size"])
        return size, setting, row["timestamp"], row.get("checkpoint", "")


def summarise(places: Places, flag: Path | None = None) -> Summary:
    """Read everything, and say it.

    Args:
        places: where from; folders that are not there hold nothing, but for results.
        flag: the value of --study.

    Raises:
        InputError: there are no results, or they can't be put on curves
            (`growth.report.results_table.read_results`), or a choice is damaged.
    """
    results = read_results(places.results_path, places.selection_path, flag)
    study, rows = results.study, results.rows
    order = _Order(study)
    points = growth_points(rows)
    runs, problems = read_training_runs(places.runs_dir, study)
    choices = _choices(places.selection_path)
    tested, benchmark_problems = read_benchmarks(places.benchmarks_dir, study)
    files = _results_files(places.results_path, study)
    problems += [p for run in runs.values() for p in problems_of(run)] + benchmark_problems
    problems += _missing(study, rows, runs, files, choices) + _smoke_runs(points)
    problems += [problem("note", note) for note in results.notes]
    curves = _curves(points, study)
    compared, not_compared = compared_settings(rows, study)
    problems += not_compared
    published = published_rows(study)
    own = sorted(runs.values(), key=lambda run: order.of_run(run.record))
    report = {
        "format": _FORMAT,
        "study": _about(study),
        "overview": _overview(points, rows, study, runs, files, choices),
        "curves": curves,
        "noise": _noise(points, study),
        "compared": compared,
        "selections": sorted(_selections(choices, rows), key=order.of_run),
        "benchmarks": {
            "results": tested,
            **paper_form(tested, published, order),
            "published": {"source": SOURCE, "rows": published} if published else None,
        },
        "costs": [
            _named(run)
            | {"seed": run.record["seed"]}
            | {"state": "finished" if run.record.get("ended") else "unfinished"}
            | cost_of(run)
            for run in own
        ],
        "provenance": {
            "results": sorted(_scored(rows, files), key=lambda row: order.of_run(row["run"])),
            "runs": [_named(run) | made_by(run) for run in own],
        },
        "problems": problems,
    }
    return Summary(report, points, study)


def _named(run: TrainingRun) -> dict[str, Any]:
    return dict(zip(RUN, key_of(run.record), strict=True))


def _about(study: Study) -> dict[str, Any]:
    return {
        "name": study.name,
        "title": study.title,
        "digest": study.digest,
        "file": str(study.source.name),
        "abilities": [
            {"name": a.name, "title": a.heading, "out_of_domain": a.out_of_domain}
            for a in study.abilities
        ],
        "series": list(study.series),
        "settings": _settings(study),
    }


def _settings(study: Study) -> list[str]:
    """The settings that hold different lines."""
    return [name for name, r in study.recipes.items() if r.same_as == name and r.samples]


def _names(study: Study) -> list[str]:
    """The averages and abilities in the order in which they are reported."""
    inside, abroad = ([a.name for a in of] for of in (study.in_domain, study.out_of_domain))
    return [AVERAGE, *inside, OOD_AVERAGE, *abroad]


def _curves(points: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """A curve for each average and ability that has points."""
    abroad = {ability.name for ability in study.out_of_domain} | {OOD_AVERAGE}
    curves = []
    for name in _names(study):
        own = points[points["ability"] == name]
        if own.empty:
            continue
        parts = set(own["parts"])
        curves.append(
            {
                "ability": name,
                "title": title_of(name, study, parts.pop() if len(parts) == 1 else 0),
                "out_of_domain": name in abroad,
                "chance": _rounded(own["chance"].mean()),
                "points": [_point(point) for point in own.to_dict("records")],
            }
        )
    return curves


def _point(point: dict[Any, Any]) -> dict[str, Any]:
    """A point of a curve as JSON has it."""
    own = {
        name: point[name]
        for name in POINT
        if name not in ("ability", "data_type", "parts", "value")
    }
    numbers = ("score", "low", "high", "chance", "sd", "sd_questions")
    own |= {name: _rounded(point[name]) for name in numbers}
    own["run_scores"] = [_rounded(score) for score in point["run_scores"]]
    own["limit"] = None if pd.isna(point["limit"]) else int(point["limit"])
    own |= {name: int(point[name]) for name in ("samples", "n", "runs")}
    return {"setting": point["data_type"]} | own | {"checkpoints": list(point["checkpoints"])}


def _noise(points: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """The noise floor of each average and ability, as JSON has it."""
    order = _names(study)
    rows = []
    for row in noise_floor(points).to_dict("records"):
        ability = str(row["ability"])
        title = {"ability": ability, "title": title_of(ability, study)}
        counts = {name: int(row[name]) for name in ("settings", "runs")}
        numbers = {name: _rounded(row[name]) for name in NOISE[4:]}
        rows.append(title | {"model_size": row["model_size"]} | counts | numbers)
    return sorted(rows, key=lambda row: (order.index(row["ability"]), size_key(row["model_size"])))


def _rounded(number: float) -> float | None:
    return None if pd.isna(number) else round(float(number), _DIGITS)


def _overview(
    points: pd.DataFrame,
    rows: pd.DataFrame,
    study: Study,
    runs: dict[RunKey, TrainingRun],
    files: dict[str, dict[str, Any]],
    choices: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    singles = rows[rows["file"] != ""]
    questions = singles.groupby(list(IDENTITY), sort=False)["n"].sum()
    averages = [_point(p) for p in points[points["ability"] == AVERAGE].to_dict("records")]
    sizes = sizes_of(points)
    return {
        "models": sizes,
        "seeds": sorted({int(seed) for seed in rows["seed"].dropna()}),
        "settings_scored": len(set(points.loc[points["samples"] > 0, "data_type"])),
        "settings": len(_settings(study)),
        "runs": len(rows.drop_duplicates(RUN)),
        "training_runs": len(runs),
        "results_files": len(files),
        "checkpoints_compared": sum(len(c.get("candidates", [])) for c in choices.values()),
        "questions": int(questions.max()) if len(questions) else 0,
        "answers": int(questions.sum()),
        "averages": averages,
        "best": [best for size in sizes if (best := _best(averages, size))],
    }


def _best(averages: list[dict[str, Any]], model_size: str) -> dict[str, Any] | None:
    """The row with the highest average of one model size, ties to the fewer samples."""
    own = [row for row in averages if row["model_size"] == model_size]
    if not own:
        return None
    best = max(own, key=lambda row: (row["score"], -row["samples"]))
    overlapping = [
        row["setting"]
        for row in own
        if row is not best and row["high"] >= best["low"] and row["low"] <= best["high"]
    ]
    tied = [r["setting"] for r in own if r is not best and r["score"] == best["score"]]
    return best | {"tied": tied, "overlapping": overlapping}


def _choices(selection_path: Path) -> dict[str, dict[str, Any]]:
    """The choices of select_checkpoint.py, by path."""
    stem, end = Path(selection_name(None)).stem, Path(selection_name(None)).suffix
    paths = [*selection_path.rglob(stem + end), *selection_path.rglob(f"{stem}-limit*{end}")]
    remedy = "make it anew with evaluate/select_checkpoint.py"
    return {str(path): read_record(path, SelectionRecord, remedy) for path in sorted(paths)}


def _selections(choices: dict[str, dict[str, Any]], rows: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """A row for each choice, with the test score of what was chosen where it was scored."""
    averages = rows[rows["ability"] == AVERAGE]
    tested = {
        tuple(row[name] for name in IDENTITY): row["score"] for row in averages.to_dict("records")
    }
    for path, choice in choices.items():
        yield {
            **{name: choice.get(name) for name in (*RUN, "limit", "checkpoint", "epoch")},
            "valid_average": choice.get("average"),
            "average_note": choice.get("average_note"),
            "reason": choice.get("reason"),
            "candidates": [
                {name: candidate.get(name) for name in ("checkpoint", "epoch", "average")}
                for candidate in choice.get("candidates", [])
            ],
            "test_average": tested.get(tuple(choice[name] for name in IDENTITY)),
            "path": path,
        }


def _results_files(results_path: Path, study: Study) -> dict[str, dict[str, Any]]:
    """The results files of settings of the study, by path; `read_results` has checked them."""
    found = {
        str(path): read_record(path, ResultsRecord, SCORE_AGAIN)
        for path in sorted(results_path.rglob(f"*{RESULTS_SUFFIX}"))
        if not path.name.startswith(".")
    }
    return {
        path: results
        for path, results in found.items()
        if results["run"].get("data_type") in (UNTUNED, *study.recipes)
        and recorded(results["run"]).get("digest") == study.digest
    }


def _scored(rows: pd.DataFrame, files: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each results file whose scores are in the report: what made it, and which lines it is of."""
    return [
        {
            "path": path,
            "run": files[path]["run"],
            "files": {
                name: {"n": entry["n"], "digest": entry.get("digest")}
                for name, entry in files[path]["files"].items()
            },
        }
        for path in dict.fromkeys(map(str, rows["path"]))
    ]


def _missing(
    study: Study,
    rows: pd.DataFrame,
    runs: dict[RunKey, TrainingRun],
    files: dict[str, dict[str, Any]],
    choices: dict[str, dict[str, Any]],
) -> list[Problem]:
    """Runs without results, results without a run, settings without either."""
    scored = {tuple(r["run"].get(name) for name in RUN) for r in files.values()}
    chosen = {tuple(choice[name] for name in RUN) for choice in choices.values()}
    problems = []
    for key, run in runs.items():
        if run.record.get("ended") and key not in scored:
            step = "its checkpoint is selected" if key in chosen else "no checkpoint is selected"
            message = f"{run.folder}: trained, {step}, but no results on test"
            problems.append(problem("run without results", message))
    rows = rows[rows["samples"] > 0]  # what a model that is no run of ours cost was not ours
    shown = dict.fromkeys(zip(*(rows[name] for name in RUN), strict=True))
    if lacking := ["/".join(key) for key in shown if key not in runs]:
        message = f"no run record of {', '.join(lacking)} below --runs_dir: their cost is not known"
        problems.append(problem("results without a run", message))
    there = {(row.model_size, row.setting) for row in rows.itertuples()}
    for size, data_type, _ in runs:
        recipe = study.recipes.get(data_type)
        there.add((size, recipe.same_as if recipe else data_type))
    for size in sorted({str(size) for size, _ in there}, key=size_key):
        if absent := [
            name
            for name in _settings(study)
            if study.recipes[name].listed and (size, name) not in there
        ]:
            message = f"{size}: no run of {', '.join(absent)}"
            problems.append(problem("setting without a run", message))
    return problems


def _smoke_runs(points: pd.DataFrame) -> list[Problem]:
    """Settings whose results are of the first lines of each file only."""
    limited = points.dropna(subset="limit")[["model_size", "data_type", "limit"]].drop_duplicates()
    return [
        problem(
            "smoke run",
            f"{row['model_size']} {row['data_type']}: the first {int(row['limit'])} lines of each "
            "file; not a result",
        )
        for row in limited.to_dict("records")
    ]
