"""A study's results for others: what its figures and tests are made from, no texts, no weights.

<output_dir>/test, valid            results files, choices, verdicts without the answers read
<output_dir>/runs                   run.json and metrics.jsonl of each run
<output_dir>/benchmarks/<benchmark>/outputs      results.json and run.json of each model
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import json_line, open_file, read_json, replacing
from growth.data.lines import Record, checked_lines
from growth.runs.layout import METRICS, RESULTS_SUFFIX, RUN_RECORD

# Of a verdict: what was answered and what was to be, which may be words of licensed data.
TEXTS = ("parsed", "gold", "extracted_answer")
_DETAILS = "-details"
_RESULTS = ("*" + RESULTS_SUFFIX, "selected-checkpoint*.json")
_BENCHMARK = ("results*.json", RUN_RECORD)

Copy = tuple[Path, Path, Callable[[Path, Path], None]]  # from, to, by


def publish(
    splits: Mapping[str, Path], runs_dir: Path, benchmarks_dir: Path, output_dir: Path
) -> list[Path]:
    """Copy a study's results to `output_dir`; the files written, in order.

    A verdict keeps its score, its signals and the digests that pair it, so that `compare.py` gives
    the same numbers.

    Args:
        splits: folders of results by the name that they get, "test" and "valid".
        runs_dir: folder of the training runs.
        benchmarks_dir: folder with <benchmark>/outputs.
        output_dir: may hold an earlier copy; files that have no original any more stay.

    Raises:
        InputError: there are no results, one of the files is damaged, or `output_dir` is a part of
            what is copied.
    """
    sources = (*splits.values(), runs_dir, *benchmarks_dir.glob("*/outputs"))
    for folder in sources:
        if output_dir.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"--output_dir {output_dir}: lies in {folder}, which is copied")
    copies = [
        *(copy for split, folder in splits.items() for copy in _results(folder, output_dir / split))
    ]
    if not copies:
        looked = " and ".join(map(str, splits.values()))
        raise InputError(
            f"no *{RESULTS_SUFFIX} in {looked}; score predictions with evaluate/score.py first, or "
            "name the folder with --results_path"
        )
    copies += _copies(runs_dir, output_dir / "runs", (RUN_RECORD, METRICS))
    for outputs in sorted(benchmarks_dir.glob("*/outputs")):
        place = outputs.relative_to(benchmarks_dir)
        copies += _copies(outputs, output_dir / "benchmarks" / place, _BENCHMARK)
    for source, target, by in copies:
        by(source, target)
    return [target for _, target, _ in copies]


def absolute_paths(path: Path) -> list[str]:
    """The absolute paths that a record or a results file names: they say where it was made."""

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (text for part in value.values() for text in texts(part))
        elif isinstance(value, list):
            yield from (text for part in value for text in texts(part))

    return [] if path.suffix != ".json" else [t for t in texts(read_json(path)) if t[:1] == "/"]


def _results(folder: Path, target: Path) -> list[Copy]:
    copies = _copies(folder, target, _RESULTS)
    for path in sorted(folder.rglob(f"*{_DETAILS}/*.jsonl")):
        copies.append((path, target / path.relative_to(folder), _copy_verdicts))
    return copies


def _copies(folder: Path, target: Path, patterns: tuple[str, ...]) -> list[Copy]:
    """Files below `folder` of these names, as they are."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    return [(path, target / path.relative_to(folder), _copy) for path in found]


def _copy(source: Path, target: Path) -> None:
    with open_file(source) as file, replacing(target) as temporary, open(temporary, "wb") as copy:
        shutil.copyfileobj(file, copy)


def _copy_verdicts(source: Path, target: Path) -> None:
    with replacing(target) as temporary, open(temporary, "w", encoding="utf-8") as copy:
        for _, line in checked_lines(source, lambda _: None):
            copy.write(json_line(_without_texts(line)))


def _without_texts(line: Record) -> Record:
    return {name: value for name, value in line.items() if name not in TEXTS}
