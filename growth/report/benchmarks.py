"""Scores of public benchmarks, as `evaluate/<benchmark>/run.py` wrote them, in the paper's form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.schemas import BenchmarkResultsRecord, read_record
from growth.data.study import Study, recorded
from growth.report.published import MEASURES
from growth.report.training_runs import Problem, problem
from growth.runs.layout import NO_SIZE

_RESULTS = "results"  # results.json, or results-limit5.json of a smoke run
_HEADINGS = {(benchmark, setting): heading for benchmark, setting, heading in MEASURES}


def read_benchmarks(
    benchmarks_dir: Path, study: Study
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every results.json of a benchmark below `<benchmarks_dir>/*/outputs`.

    Returns:
        An entry for each model tested: `benchmark`, `model_size` (None of a model that is called by
        its tag alone), `data_type`, `setting`, `timestamp`, `checkpoint`, `epoch` (None of models
        that are no checkpoints of ours), `tag`, `smoke`, the `path`, and `scores`, by heading:
        `average`, `low`, `high` over `subjects`, `missing` ones, `over_examples`. Then what was
        left out.
    """
    entries: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for path in sorted(benchmarks_dir.glob(f"*/outputs/**/{_RESULTS}*.json")):
        remedy = "remove it, and run the benchmark again"
        try:
            content = read_record(path, BenchmarkResultsRecord, remedy)
        except InputError as error:
            problems.append(problem("damaged file", str(error)))
            continue
        if "study" in content["run"] and recorded(content["run"])["name"] != study.name:
            problems.append(problem("left out", f"{path}: left out, of another study"))
            continue
        entries.append(_entry(path, content, study))
        if entries[-1]["smoke"]:
            problems.append(problem("smoke run", f"{path}: a part of the questions; not a result"))
    return entries, problems


def _entry(path: Path, content: dict[str, Any], study: Study) -> dict[str, Any]:
    run = content["run"]
    benchmark = str(run.get("benchmark", ""))
    data_type = run.get("data_type")
    recipe = study.recipes.get(data_type or "")
    names = ("model_size", "data_type", "timestamp", "checkpoint", "epoch", "seed")
    return {
        "benchmark": benchmark,
        **{name: run.get(name) for name in names},
        "model_size": None if run.get("model_size") == NO_SIZE else run.get("model_size"),
        "setting": recipe.same_as if recipe else data_type,
        "tag": path.parent.name,
        "smoke": path.stem != _RESULTS,
        "path": str(path),
        "made_by": {
            name: run.get(name)
            for name in ("model_name_or_path", "fingerprint", "git", "versions", "device", "asked")
        },
        "scores": {
            _HEADINGS.get((benchmark, setting), f"{benchmark} {setting}"): {
                "average": score["average"],
                "low": score["average_low"],
                "high": score["average_high"],
                "subjects": len(score["subjects"]),
                "missing": score.get("missing", []),
                "over_examples": score.get("over_examples"),
            }
            for setting, score in content["settings"].items()
        },
    }


def paper_form(
    entries: list[dict[str, Any]],
    published: list[dict[str, Any]],
    order: Callable[[str | None, Any], Any],
) -> dict[str, Any]:
    """One row a setting, epoch and model, a column a benchmark and way to ask, as in the paper.

    Args:
        entries: of `read_benchmarks`.
        published: of `growth.report.published`; they stand above ours of the same setting.
        order: key of a setting and a model size, to sort by.

    Returns:
        `columns`, the headings, and `rows`: `setting`, `data_type` (another name of it, or the
        same), `epoch`, `model_size`, `run`, `paper` (whether it is the paper's row), `smoke`, and
        `scores` by heading.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        run = entry["timestamp"] or entry["tag"]
        key = (entry["setting"], entry["epoch"], entry["model_size"], run, entry["smoke"])
        row = rows.setdefault(
            (*key, entry["checkpoint"]),
            dict(zip(("setting", "epoch", "model_size", "run", "smoke"), key, strict=True))
            | {"data_type": entry["data_type"], "paper": False, "scores": {}},
        )
        row["scores"] |= entry["scores"]
    papers = [
        {name: row[name] for name in ("setting", "epoch", "model_size", "data_type")}
        | {"run": "", "smoke": False, "paper": True}
        | {"scores": {heading: {"average": s} for heading, s in row["scores"].items()}}
        for row in published
    ]
    columns = [*_HEADINGS.values()]
    columns += sorted({h for row in rows.values() for h in row["scores"]} - set(columns))
    ordered = sorted(
        [*papers, *rows.values()],
        key=lambda row: (
            order(row["setting"], row["model_size"])[0],
            row["epoch"] or 0,
            not row["paper"],
            order(row["setting"], row["model_size"]),
            str(row["run"]),
            row["smoke"],
        ),
    )
    return {"columns": columns, "rows": ordered if rows else []}
