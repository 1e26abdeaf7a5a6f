"""A study's results for others: what its figures and tests are made from, no texts, no weights.

<output_dir>/test, valid            results files, choices, verdicts without the answers read
<output_dir>/runs                   run.json and metrics.jsonl of each run
<output_dir>/benchmarks/<benchmark>/outputs      results.json and run.json of each model
<output_dir>/<study>.toml           the study file, of a study of one's own
<output_dir>/predictions.sha256     digests of the predictions: whoever predicts again can check
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import (
    is_file,
    json_line,
    open_file,
    read_json,
    replacing,
    sha256,
    write_json,
    write_text,
)
from growth.data.lines import Record, checked_lines
from growth.data.study import published_study, recorded
from growth.runs.layout import METRICS, PREDICTION_PREFIX, RESULTS_SUFFIX, RUN_RECORD

# Of a verdict: what pairs it and what is compared. Not what was answered and what was to be, which
# may be words of licensed data.
KEPT = (
    *("score", "expected", "math_verify", "extracted", "over_bound", "gold_probability"),
    *("question", "passages"),
)
_REASONS = "left_out"  # of a benchmark: sentences that quote the questions in question
_DETAILS = "-details"
DIGESTS = "predictions.sha256"  # in the form of sha256sum


@dataclass
class Published:
    """What was copied.

    Attributes:
        files: those written, by the part of `output_dir` that they are in.
        studies: the study files among them.
        places: absolute paths that a file names, by that file: they say where it was made.
        digests: how many predictions have theirs in the list.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    studies: list[Path] = field(default_factory=list)
    places: dict[Path, list[str]] = field(default_factory=dict)
    digests: int = 0


CopyBy = Callable[[Path, Path, Published], None]  # from, to, and where it is noted
Copy = tuple[Path, Path, CopyBy]


def publish(
    results: Path,
    selection: Path,
    runs_dir: Path,
    benchmarks_dir: Path,
    output_dir: Path,
    predictions: Path,
) -> Published:
    """Copy a study's results to `output_dir`.

    A verdict keeps its score, its signals and the digests that pair it, so that `compare.py` gives
    the same numbers.

    Args:
        results: folder of results files.
        selection: of the choices of checkpoints, which need not be there.
        runs_dir: folder of the training runs.
        benchmarks_dir: folder with <benchmark>/outputs.
        output_dir: may hold an earlier copy; files that have no original any more stay.
        predictions: folder whose predictions get a digest each, which need not be there.

    Raises:
        InputError: there are no results, a folder is missing, one of the files is damaged, or
            `output_dir` and what is copied overlap.
    """
    for flag, folder in {"--runs_dir": runs_dir, "--benchmarks_dir": benchmarks_dir}.items():
        if not folder.is_dir():
            raise InputError(f"{flag} {folder}: no such folder")
    parts = {"test": results, "valid": selection, "runs": runs_dir}
    outputs = sorted(benchmarks_dir.glob("*/outputs"))
    parts |= {f"benchmarks/{folder.relative_to(benchmarks_dir)}": folder for folder in outputs}
    _check_apart(parts, output_dir)
    copies = {part: list(_copies(part, parts[part], output_dir / part)) for part in parts}
    if not any(source.name.endswith(RESULTS_SUFFIX) for source, *_ in copies["test"]):
        raise InputError(
            f"--results_path {results}: no *{RESULTS_SUFFIX} in it; score predictions with "
            "evaluate/score.py first, or give the folder they are in"
        )
    found = Published()
    for part, files in copies.items():
        for source, target, by in files:
            by(source, target, found)
        found.files[part] = [target for _, target, _ in files]
    found.digests = _list_digests(predictions, output_dir / DIGESTS)
    if found.digests and predictions.is_absolute():
        found.places[output_dir / DIGESTS] = [str(predictions)]
    return found


def _list_digests(folder: Path, target: Path) -> int:
    """Write the digests of all predictions below a folder; returns how many.

    Lines of an earlier list about other files stay.
    """
    paths = sorted(folder.rglob(f"{PREDICTION_PREFIX}*.json"))
    own = {str(path): sha256(path) for path in paths}
    if not own:
        return 0
    listed: dict[str, str] = {}
    if is_file(target):
        with open_file(target) as file:
            for line in file.read().decode().splitlines():
                digest, _, path = line.partition("  ")
                listed[path] = digest
    lines = sorted((listed | own).items())
    write_text(target, "".join(f"{digest}  {path}\n" for path, digest in lines))
    return len(own)


def _check_apart(parts: Mapping[str, Path], output_dir: Path) -> None:
    """What is written lies in nothing that is read, nor the other way round."""
    for part in parts:
        target = (output_dir / part).resolve()
        for source in parts.values():
            read = source.resolve()
            if target.is_relative_to(read) or read.is_relative_to(target):
                raise InputError(
                    f"--output_dir {output_dir}: its part {part} and {source}, which is copied, "
                    "overlap; give a folder apart from both results and runs"
                )


def _copies(part: str, folder: Path, target: Path) -> Iterator[Copy]:
    """The files of a part, in order; hidden ones are none, as for figures."""
    patterns: dict[str, CopyBy] = {
        f"*{RESULTS_SUFFIX}": partial(_copy_results, target.parent),
        "selected-checkpoint*.json": _copy_object,
        f"*{_DETAILS}/*.jsonl": _copy_verdicts,
    }
    if part == "runs":
        patterns = {RUN_RECORD: _copy_object, METRICS: _copy_lines}
    elif part.startswith("benchmarks/"):
        patterns = {"results*.json": _copy_object, RUN_RECORD: _copy_object}
    for pattern, by in patterns.items():
        for path in sorted(folder.rglob(pattern)):
            if not any(name.startswith(".") for name in path.relative_to(folder).parts):
                yield path, target / path.relative_to(folder), by


def _copy_object(source: Path, target: Path, found: Published) -> Any:
    """The object that was copied, as the source has it."""
    content = read_json(source)
    write_json(target, _without_reasons(content))
    if named := sorted(set(_absolute_paths(content))):
        found.places[target] = named
    return content


def _copy_results(output_dir: Path, source: Path, target: Path, found: Published) -> None:
    """A results file, and the file of a study of one's own, without which nobody can read it."""
    study = recorded(_copy_object(source, target, found).get("run", {}))
    copy = output_dir / f"{study.get('name')}.toml"
    if study.get("name") != published_study().name and copy not in found.studies:
        with open_file(Path(study.get("file", ""))) as file, replacing(copy) as temporary:
            temporary.write_bytes(file.read())
        found.studies.append(copy)


def _copy_lines(source: Path, target: Path, _: Published) -> None:
    _write_lines(source, target, lambda line: line)


def _copy_verdicts(source: Path, target: Path, _: Published) -> None:
    _write_lines(source, target, _without_texts)


def _write_lines(source: Path, target: Path, change: Callable[[Record], Record]) -> None:
    with replacing(target) as temporary, open(temporary, "w", encoding="utf-8") as copy:
        for _, line in checked_lines(source, lambda _: None):
            copy.write(json_line(change(line)))


def _without_texts(line: Record) -> Record:
    kept = {name: line[name] for name in KEPT if name in line}
    return kept | ({"idx": line["idx"]} if type(line.get("idx")) is int else {})


def _without_reasons(value: Any) -> Any:
    """Numbers in place of what says why questions were left out."""
    if isinstance(value, list):
        return [_without_reasons(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _counted(part) if name == _REASONS else _without_reasons(part)
        for name, part in value.items()
    }


def _counted(reasons: Any) -> Any:
    if isinstance(reasons, dict):
        return {name: _counted(part) for name, part in reasons.items()}
    return len(reasons) if isinstance(reasons, list) else reasons


def _absolute_paths(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("/"):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _absolute_paths(part)
