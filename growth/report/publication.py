"""A study's results for others: what its figures and tests are made from, no texts, no weights.

<output_dir>/test, valid            results files, choices, verdicts without the answers read
<output_dir>/runs                   run.json and metrics.jsonl of each run
<output_dir>/benchmarks/<benchmark>/outputs      results.json and run.json of each model
<output_dir>/<study>.toml           the study file, of a study of one's own
<output_dir>/predictions.sha256     digests of the predictions: whoever predicts again can check
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import (
    is_file,
    json_line,
    json_text,
    open_file,
    replacing,
    sha256,
    write_text,
)
from growth.core.schemas import (
    SCORE_AGAIN,
    BenchmarkResultsRecord,
    PredictionRecord,
    ResultsRecord,
    SelectionRecord,
    TrainingRecord,
    read_record,
)
from growth.data.lines import Record, checked_lines
from growth.data.study import Study, recorded, study_of
from growth.report.answers import read_answers
from growth.runs.layout import (
    DETAILS_SUFFIX,
    METRICS,
    PREDICTION_PREFIX,
    RESULTS_SUFFIX,
    RUN_RECORD,
    details_folder,
)
from growth.runs.record import read_metrics

# Of a verdict: what pairs it and what is compared. Not what was answered and what was to be, which
# may be words of licensed data.
KEPT = (
    *("score", "expected", "math_verify", "extracted", "over_bound", "gold_probability"),
    *("question", "passages"),
)
_REASONS = "left_out"  # of a benchmark: sentences that quote the questions in question
DIGESTS = "predictions.sha256"  # in the form of sha256sum
# Where a text, a command say, names a place of this machine: from its root or from the home.
_PLACE = re.compile(r"""(?:^/|(?<=[\s='"(,])/(?=[\w.-]+/)|(?:^|(?<=[\s='"(,]))~/)[^\s'"),]*""")


@dataclass
class Published:
    """What was copied.

    Attributes:
        files: those written, by the part of `output_dir` that they are in.
        studies: the study files among them.
        places: absolute paths that a file names, by that file: they say where it was made.
        digests: how many predictions have theirs in the list.
        notes: on what is left out, or not there for a comparison.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    studies: list[Path] = field(default_factory=list)
    places: dict[Path, list[str]] = field(default_factory=dict)
    digests: int = 0
    notes: list[str] = field(default_factory=list)


# The text of a copy in pieces, and the places that it names, of the path of its original.
Text = Callable[[Path], Iterator[tuple[str, list[str]]]]


@dataclass(frozen=True)
class Copy:
    """A file to copy, and what becomes of its text."""

    source: Path
    target: Path
    text: Text

    def check(self) -> list[str]:
        """The places that it names; raises `InputError` where the original is damaged."""
        return sorted({place for _, places in self.text(self.source) for place in places})

    def write(self) -> None:
        """Write it, whole or not at all."""
        with replacing(self.target) as temporary, open(temporary, "w", encoding="utf-8") as copy:
            copy.writelines(piece for piece, _ in self.text(self.source))


def publish(
    results: Path,
    selection: Path,
    runs_dir: Path,
    benchmarks_dir: Path,
    output_dir: Path,
    predictions: Path,
    flag: Path | None = None,
) -> Published:
    """Copy a study's results to `output_dir`, once all of them are found to be whole.

    A verdict keeps its score, its signals and the digests that pair it, so that `compare.py` gives
    the same numbers.

    Args:
        results: folder of results files.
        selection: of the choices of checkpoints, which need not be there.
        runs_dir: folder of the training runs.
        benchmarks_dir: folder with <benchmark>/outputs.
        output_dir: may hold an earlier copy; files that have no original any more stay.
        predictions: folder whose predictions get a digest each, which need not be there.
        flag: the value of --study; None for the files that the results say.

    Raises:
        InputError: there are no results, a folder is missing, one of the files is damaged, or
            `output_dir` and what is copied overlap; nothing is written then.
    """
    parts = _parts(results, selection, runs_dir, benchmarks_dir)
    _check_apart(parts, output_dir)
    copies = {part: list(_copies(part, parts[part], output_dir / part)) for part in parts}
    if not any(copy.source.name.endswith(RESULTS_SUFFIX) for copy in copies["test"]):
        raise InputError(
            f"--results_path {results}: no *{RESULTS_SUFFIX} in it; score predictions with "
            "evaluate/score.py first, or give the folder they are in"
        )
    found = Published(files={part: [copy.target for copy in copies[part]] for part in parts})
    every = [copy for part in copies.values() for copy in part]
    found.places = {copy.target: places for copy in every if (places := copy.check())}
    scored = [copy.source for copy in every if copy.source.name.endswith(RESULTS_SUFFIX)]
    found.notes = [*_check_verdicts(scored), *_left_out(runs_dir)]
    studies = _studies(scored, flag, output_dir)
    found.studies = list(studies)
    digests, found.digests = _digests(predictions, output_dir / DIGESTS)
    if found.digests and predictions.is_absolute():
        found.places[output_dir / DIGESTS] = [str(predictions)]
    for copy in every:
        copy.write()
    for target, study in studies.items():
        with open_file(study.source) as file, replacing(target) as temporary:
            temporary.write_bytes(file.read())
    if found.digests:
        write_text(output_dir / DIGESTS, digests)
    return found


def _parts(results: Path, selection: Path, runs_dir: Path, benchmarks_dir: Path) -> dict[str, Path]:
    """What is copied to which part of the output."""
    for name, folder in {"--runs_dir": runs_dir, "--benchmarks_dir": benchmarks_dir}.items():
        if not folder.is_dir():
            raise InputError(
                f"{name} {folder}: no such folder; give the one they are in, or an empty one where "
                "there are none"
            )
    parts = {"test": results, "valid": selection, "runs": runs_dir}
    outputs = sorted(benchmarks_dir.glob("*/outputs"))
    parts |= {f"benchmarks/{folder.relative_to(benchmarks_dir)}": folder for folder in outputs}
    return parts


def _check_verdicts(scored: list[Path]) -> Iterator[str]:
    """Check that verdicts are those of their results; a note on results without any.

    Raises:
        InputError: some of a run are missing, damaged or of another scoring; those who read the
            copies have no predictions to score again.
    """
    without = []
    for path in scored:
        if details_folder(path).is_dir():
            read_answers(path)
        else:
            without.append(path)
    if without:
        yield (
            f"{without[0]}{f' and {len(without) - 1} more' if len(without) > 1 else ''}: no "
            "verdicts beside it, so that nobody can compare its run; evaluate/score.py --details "
            "writes them"
        )


def _left_out(runs_dir: Path) -> Iterator[str]:
    """Notes on what of runs is not copied."""
    for path in _visible(runs_dir, METRICS):
        if not is_file(path.with_name(RUN_RECORD)):
            yield f"{path}: left out, as no {RUN_RECORD} beside it says of which run it is"
            continue
        whole = len(read_metrics(path.parent))
        if lost := sum(bool(line.strip()) for line in path.read_bytes().split(b"\n")) - whole:
            yield f"{path}: {lost:,} of {lost + whole:,} lines can't be read and are left out"


def _studies(scored: list[Path], flag: Path | None, output_dir: Path) -> dict[Path, Study]:
    """The studies of one's own that results are of, without whose files nobody can read them.

    Returns:
        Each by the path of its copy.
    """
    studies: dict[Path, Study] = {}
    seen: list[Mapping[str, str]] = []
    for path in scored:
        run = read_record(path, ResultsRecord, SCORE_AGAIN)["run"]
        if recorded(run) in seen:
            continue
        seen.append(recorded(run))
        study = study_of(run, flag, path)
        if study.is_published:
            continue
        target = output_dir / f"{study.name}.toml"
        other = studies.setdefault(target, study)
        if other.source.resolve() != study.source.resolve():
            raise InputError(
                f"{path}: of the study {study.name!r} in {study.source}, and others are of one in "
                f"{other.source}; publish them one by one, or give one file with --study"
            )
    return studies


def _digests(folder: Path, listed: Path) -> tuple[str, int]:
    """The list of the digests of all predictions, and how many are below `folder`.

    Lines of an earlier list about other files stay. In the form of sha256sum: a name with a
    backslash or line feed has them escaped, and a backslash before the digest.
    """
    lines: dict[str, str] = {}
    if is_file(listed):
        with open_file(listed) as file:
            try:
                earlier = file.read().decode().rstrip("\n").split("\n")
            except UnicodeDecodeError:
                raise InputError(
                    f"{listed}: not UTF-8; expected a list of digests, as this script writes it. "
                    "Remove it, and list all predictions again"
                ) from None
        lines = {line.partition("  ")[2]: line for line in earlier}
    paths = sorted(folder.rglob(f"{PREDICTION_PREFIX}*.json"))
    for path in paths:
        name = str(path).replace("\\", "\\\\").replace("\n", "\\n")
        lines[name] = f"{'' if name == str(path) else chr(92)}{sha256(path)}  {name}"
    return "".join(f"{line}\n" for _, line in sorted(lines.items())), len(paths)


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
    """The files of a part, in order; hidden ones are none, as for figures.

    Losses without the record of their run are none either.
    """
    again = "select the checkpoint again with evaluate/select_checkpoint.py"
    patterns: dict[str, Text] = {
        f"*{RESULTS_SUFFIX}": _object(ResultsRecord, SCORE_AGAIN),
        "selected-checkpoint*.json": _object(SelectionRecord, again),
        f"*{DETAILS_SUFFIX}/*.jsonl": _verdicts,
    }
    if part == "runs":
        trained = "train it again in another folder, or remove the run"
        patterns = {RUN_RECORD: _object(TrainingRecord, trained), METRICS: _metrics}
    elif part.startswith("benchmarks/"):
        asked = "remove it, and run the benchmark again"
        patterns = {
            "results*.json": _object(BenchmarkResultsRecord, asked),
            RUN_RECORD: _object(PredictionRecord, asked),
        }
    for pattern, text in patterns.items():
        for path in _visible(folder, pattern):
            if text is not _metrics or is_file(path.with_name(RUN_RECORD)):
                yield Copy(path, target / path.relative_to(folder), text)


def _visible(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder, in order, less hidden ones."""
    found = sorted(folder.rglob(pattern))
    return [p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts)]


def _object(schema: Any, remedy: str) -> Text:
    """The text of a copy of one JSON object."""

    def text(source: Path) -> Iterator[tuple[str, list[str]]]:
        content = read_record(source, schema, remedy)
        yield json_text(_without_reasons(content)), list(_places(content))

    return text


def _metrics(source: Path) -> Iterator[tuple[str, list[str]]]:
    """The text of a copy of a run's losses, which may hold NaN where a run diverged."""
    for line in read_metrics(source.parent):
        yield json.dumps(line, ensure_ascii=False) + "\n", []


def _verdicts(source: Path) -> Iterator[tuple[str, list[str]]]:
    """The text of a copy of the verdicts on a file's questions."""
    try:
        for _, line in checked_lines(source, lambda _: None):
            yield json_line(_without_texts(line)), []
    except InputError as error:
        raise InputError(f"{error}; {SCORE_AGAIN} --details") from None


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


def _places(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (found[0] for found in _PLACE.finditer(value))
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _places(part)
