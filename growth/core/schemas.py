"""What the files between stages hold, as far as it is read: a schema for each kind of file.

Files of older versions lack some fields, and those of newer ones have more: only fields that a
later stage can't do without are required.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict

import msgspec

from growth.core.errors import InputError
from growth.core.files import Object, read_object
from growth.core.options import LARGEST

# Becomes part of a path.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^/\x00]*$")]
# What to do where a results file is damaged.
SCORE_AGAIN = "score its predictions again with evaluate/score.py"
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
PerCent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Nats = Annotated[float, msgspec.Meta(ge=0, le=1e30)]  # a bound that figures can be drawn of


class FileRecord(TypedDict, total=False):
    """A data file of a run."""

    lines: Required[Count]
    sha256: Required[str]


class RecipeRecord(TypedDict, total=False):
    """A setting that no study lists; each table is by the name of its lines."""

    samples: Required[Count]
    lines: Required[dict[str, Count]]
    pools: Required[dict[str, str]]
    distinct: dict[str, Count]


class BuildRecord(TypedDict, total=False):
    """build.record of a built setting: which study, setting and seed its files were made of."""

    study: Required[str]
    setting: Required[Name]
    seed: Required[int]
    files: Required[dict[str, FileRecord]]
    recipe: RecipeRecord


class ImportedFile(TypedDict):
    """A file that an import read."""

    path: str
    sha256: str


class ImportRecord(TypedDict):
    """import.json beside imported data."""

    inputs: list[ImportedFile]


class DataRecord(TypedDict, total=False):
    """What a run was trained or validated on."""

    files: Required[dict[str, FileRecord]]
    samples: Required[Count]
    dir: str
    tokens: Count
    supervised_tokens: Count
    tokens_sha256: str
    answers_lost: Count
    build: BuildRecord | None


class HyperparametersRecord(TypedDict, total=False):
    """The hyper-parameters that a later stage computes with; others are compared only."""

    epochs: Required[Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]]
    tokens_per_micro_batch: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None


class GitRecord(TypedDict, total=False):
    """The commit of the code."""

    commit: str | None
    dirty: bool | None


class StudyRecord(TypedDict):
    """Which study a run is of (`growth.data.study`)."""

    name: Name
    digest: str
    asked: str
    file: str


class RemovedCheckpoint(TypedDict):
    """A checkpoint that was removed once another was selected."""

    checkpoint: Name
    step: Count
    epoch: Count


class RemovalRecord(TypedDict):
    """What a run has kept and removed of its checkpoints (`growth.runs.retention`)."""

    time: str
    kept: Annotated[list[Name], msgspec.Meta(min_length=1)]
    removed: list[RemovedCheckpoint]


class TrainingRecord(TypedDict, total=False):
    """run.json of a training run."""

    model_size: Required[Name]
    data_type: Required[Name]
    timestamp: Required[Name]
    seed: Required[int]
    model_name_or_path: Required[str]
    model_fingerprint: str
    tokenizer_fingerprint: str
    parameters: Required[Count]
    hyperparameters: Required[HyperparametersRecord]
    train: Required[DataRecord]
    valid: Required[DataRecord]
    steps_per_epoch: Required[Count]
    steps: Required[Count]
    device: Required[str]
    started: Required[str]
    study: StudyRecord
    ended: str | None
    peak_memory_bytes: Count
    resumed_otherwise: list[dict[str, Any]]
    removed_checkpoints: RemovalRecord
    git: GitRecord
    versions: dict[str, str]


class TrainerStateRecord(TypedDict, total=False):
    """trainer_state.json of a checkpoint."""

    global_step: Required[Count]
    epoch: Required[Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]]
    log_history: list[dict[str, Any]]
    stateful_callbacks: dict[str, dict[str, Any]]


class SavedFile(TypedDict):
    """A file of a checkpoint as it was saved."""

    bytes: Count
    xxh3: str


class DigestsRecord(TypedDict):
    """digests.json of a checkpoint."""

    files: dict[str, SavedFile]


class MetricsLine(TypedDict, total=False):
    """A line of metrics.jsonl, of a training step or of an evaluation."""

    step: Required[Count]
    loss: float
    eval_loss: float
    eval_perplexity: float
    eval_loss_by_ability: dict[str, float]
    tokens: Count
    supervised_tokens: Count
    tokens_per_second: float


class PredictionRecord(TypedDict, total=False):
    """run.json of a folder of predictions or of a benchmark's answers; `run` of a results file."""

    study: StudyRecord

    model_size: str
    data_type: str
    recipe: RecipeRecord
    timestamp: str
    checkpoint: str
    step: Count
    epoch: Count
    epochs: Count
    seed: Count | None
    limit: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None
    split: str
    device: str
    model_name_or_path: str
    fingerprint: str
    git: GitRecord
    versions: dict[str, str]
    decoding: dict[str, Any]
    lines: dict[str, Count]
    eval_loss_by_ability: dict[str, float]
    cut_prompts: dict[str, Count]
    data: dict[str, str]
    read: dict[str, Any]


class AnswerRecord(TypedDict, total=False):
    """A line of a benchmark's per-sample results."""

    prediction: Required[str]
    gold: Required[str]
    fewer_shots: Required[bool]
    cut: Required[bool]
    gold_probability: float


class FileScore(TypedDict, total=False):
    """The entry of one file in a results file; per cent."""

    type: Required[str]
    n: Required[Count]
    score: Required[PerCent | None]
    expected: Required[PerCent | None]
    low: PerCent | None
    high: PerCent | None
    gold_probability: PerCent
    gold_probability_low: PerCent
    gold_probability_high: PerCent
    gold_probability_n: Count
    loss: Nats
    digest: str | None


class ResultsRecord(TypedDict, total=False):
    """A results file."""

    run: Required[PredictionRecord]
    files: Required[dict[str, FileScore]]
    missing_files: list[str]
    average: PerCent | None
    average_low: PerCent | None
    average_high: PerCent | None
    expected_average: PerCent | None
    ood_average: PerCent | None
    ood_average_low: PerCent | None
    ood_average_high: PerCent | None
    expected_ood_average: PerCent | None


class DetailsLine(TypedDict, total=False):
    """A line of <checkpoint>-details/<file>.jsonl: the verdict on one question."""

    score: Required[Annotated[float, msgspec.Meta(ge=0, le=1)]]
    question: Required[str]
    passages: Required[list[str]]
    gold_probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class BenchmarkScore(TypedDict, total=False):
    """One setting of a benchmark's results.json: means over subjects; per cent."""

    average: Required[PerCent]
    average_low: Required[PerCent]
    average_high: Required[PerCent]
    over_examples: dict[str, Any]
    subjects: Required[dict[str, Any]]
    missing: list[str]


class BenchmarkResultsRecord(TypedDict):
    """results.json of a benchmark."""

    run: PredictionRecord
    settings: dict[str, BenchmarkScore]


class CandidateRecord(TypedDict, total=False):
    """A checkpoint that could have been selected."""

    checkpoint: Required[Name]
    epoch: float
    average: Required[PerCent]


class SelectionRecord(TypedDict, total=False):
    """selected-checkpoint.json."""

    model_size: Required[Name]
    data_type: Required[Name]
    timestamp: Required[Name]
    checkpoint: Required[Name]
    limit: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None
    average: PerCent
    epoch: float
    reason: str
    average_note: str
    candidates: list[CandidateRecord]
    not_scored: list[list[Count]]


def check_schema(value: Object, schema: Any, what: str, remedy: str) -> None:
    """Check that `value` is as `schema` says.

    Args:
        value: a JSON object.
        schema: one of the classes above.
        what: where the value came from.
        remedy: what to do where it is not.

    Raises:
        InputError: it is not; the message says in which field.
    """
    try:
        msgspec.convert(value, schema)
    except msgspec.ValidationError as error:
        found = _with_number(_with_key(str(error), value, schema), value)
        raise InputError(f"{what}: {found}; {remedy}") from None


def _with_key(message: str, value: Object, schema: Any) -> str:
    """`message` with the key in place of the [...] that msgspec writes for any key of an object."""
    field, bracket, _ = message.partition("$.")[2].partition("[...]")
    if bracket and isinstance(value.get(field), dict):
        for key, entry in value[field].items():
            try:
                msgspec.convert(value | {field: {key: entry}}, schema)
            except msgspec.ValidationError as error:
                if str(error) != message:  # of another field
                    continue
                return message.replace("[...]", f"[{key[:80]!r}]", 1)
    return message


def _with_number(message: str, value: Any) -> str:
    """`message` with the number that is out of bounds; of other faults msgspec says what it got."""
    expected, at, place = message.partition(" - at `$")
    keys = re.findall(r"\.(\w+)|\[(\d+)\]|\[(['\"])(.*?)\3\]", place)
    for name, index, _, key in keys:
        try:
            value = value[int(index) if index else name or key]
        except (KeyError, IndexError, TypeError):  # the key was cut
            return message
    bounded = keys and isinstance(value, int | float) and "got" not in expected
    return f"{expected}, got {value!r:.40}{at}{place}" if bounded else message


def read_record(path: Path, schema: Any, remedy: str, *, finite: bool = True) -> Object:
    """Read a file between stages, with all its fields.

    Args:
        path: of the file.
        schema: what it must be, one of the classes above.
        remedy: what to do where it is not.
        finite: as for `read_json`.

    Raises:
        InputError: it can't be read or is not as `schema` says.
    """
    record = read_object(path, remedy=remedy, finite=finite)
    check_schema(record, schema, str(path), remedy)
    return record
