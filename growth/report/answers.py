"""The verdicts of score.py --details -> what each run answered, question by question.

Questions that share a passage are no independent ones: they are one cluster. Which do is found in
the keys that each verdict is noted with (`growth.data.questions`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from growth.core.errors import InputError
from growth.core.intervals import rounded
from growth.core.schemas import SCORE_AGAIN, DetailsLine, ResultsRecord, read_record
from growth.data.lines import Fault, Record, checked_lines
from growth.report.paired import Array
from growth.report.values import SCORE
from growth.runs.layout import Run, details_folder

# Questions of one passage; what more of them share, or more than half of a file, is an instruction.
_MOST_SHARING = 20
_REMEDY = (
    "write them with `python evaluate/score.py --pred_data_path {} --details`, which needs the "
    "predictions only"
)


@dataclass(frozen=True)
class FileAnswers:
    """What one run answered to the questions of one file.

    Attributes:
        type: of the lines, a name of the study's.
        digest: of the lines, None where the results are of an older version.
        scores: (questions,), 1 right, 0 wrong; or what stands in their place, from 0 to 1.
        questions: a key for each.
        clusters: (questions,), the number of the cluster that each is in, from 0.
    """

    type: str
    digest: str | None
    scores: Array
    questions: tuple[str, ...]
    clusters: Array


@dataclass(frozen=True)
class RunAnswers:
    """What one run answered; `run` is its record, `files` are by their name."""

    path: Path
    run: Run
    files: Mapping[str, FileAnswers]


def read_answers(path: Path, value: str = SCORE) -> RunAnswers:
    """The verdicts beside a results file.

    Args:
        path: of the results file.
        value: what of a verdict is read; questions and files without it are left out.

    Raises:
        InputError: it is damaged, or its verdicts are missing, damaged or of another scoring.
    """
    results = read_record(path, ResultsRecord, SCORE_AGAIN)
    files = {
        name: _read_file(path, name, entry, value)
        for name, entry in results["files"].items()
        if entry["n"] and entry.get(value) is not None
    }
    return RunAnswers(path, results["run"], files)


def _read_file(path: Path, name: str, entry: Mapping[str, Any], value: str) -> FileAnswers:
    details = details_folder(path) / f"{name}.jsonl"
    remedy = _REMEDY.format("<the folder of its predictions>")
    if not details.is_file():
        raise InputError(
            f"{details}: no such file; a comparison needs the verdict on each question: {remedy}"
        )
    try:
        lines = [line for _, line in checked_lines(details, _check) if value in line]
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
    scores = np.array([line[value] for line in lines], float)
    score, count = rounded(100 * scores.sum() / max(1, len(scores))), entry["n"]
    if value != SCORE:
        count = entry.get(f"{value}_n", count)
    if len(scores) != count or abs(score - entry[value]) > 0.011:  # both are rounded
        raise InputError(
            f"{details}: {len(scores):,} verdicts, {value} {score:.2f} %, but {path} says "
            f"{count:,} and {entry[value]:.2f} %: of another scoring; {remedy}"
        )
    questions = tuple(line["question"] for line in lines)
    clusters = find_clusters(questions, [line["passages"] for line in lines])
    return FileAnswers(entry["type"], entry.get("digest"), scores, questions, clusters)


def _check(line: Record) -> None:
    if "question" not in line and "score" in line:
        raise Fault("has no `question`, as it was written by an older version")
    try:
        msgspec.convert(line, DetailsLine)
    except msgspec.ValidationError as error:
        raise Fault(str(error)) from None


def find_clusters(questions: Sequence[str], passages: Sequence[Sequence[str]]) -> Array:
    """Which questions belong together: one cluster for all that share a passage, by any chain.

    Lines that repeat a question are of one cluster, too. What more than 20 questions share, or more
    than half of them, is taken for an instruction.

    Args:
        questions: a key for each line.
        passages: keys of the passages of each line.

    Returns:
        (questions,), the number of each line's cluster, from 0 without gaps.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(questions)
    shared = Counter(key for keys in passages for key in set(keys))
    most = min(_MOST_SHARING, max(2, count // 2))
    edges = [(line, f"question {key}") for line, key in enumerate(questions)]
    edges += [
        (line, key) for line, keys in enumerate(passages) for key in keys if shared[key] <= most
    ]
    places = {key: count + place for place, key in enumerate(dict.fromkeys(k for _, k in edges))}
    lines, keys = zip(*((line, places[key]) for line, key in edges), strict=True)
    nodes = count + len(places)
    graph = coo_array((np.ones(len(lines), bool), (lines, keys)), shape=(nodes, nodes))
    labels = connected_components(graph, directed=False)[1][:count]
    return np.unique(labels, return_inverse=True)[1]
