"""Predict DoIT's lines with one or many models (paper section 4.2).

    <pred_data_path>/<split>/<model_size>/<data_type>/<timestamp>/<checkpoint>/pred_<file>.json

run.json in each folder says which model made the predictions and how; those of two models never
mix.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from growth.core.device import choose_compute
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import check_writable, write_json
from growth.core.locks import locked_for_launch
from growth.core.options import (
    DecodingOptions,
    ModelOptions,
    PredictionOptions,
    PromptOptions,
    published_precision,
)
from growth.data.lines import Record
from growth.data.study import Study, recorded
from growth.inference.backends import check_backend
from growth.inference.prediction_store import check_same_model
from growth.inference.prompting import make_prompt_format
from growth.model.loading import bounded_length, load_tokenizer
from growth.model.source import Source, find_model
from growth.runs.layout import (
    LOSS_BY_ABILITY,
    PREDICTION_PREFIX,
    RUN_RECORD,
    Run,
    cut_at,
    limit_suffix,
    run_folder,
)
from growth.runs.record import provenance
from growth.runs.resolve import model_identity, resolve_models, validation_losses
from growth.tasks.doit import DoITFile
from growth.tasks.runner import TaskRun, load_predictor, missing_tasks
from growth.tasks.task import Prompting

# What makes the predictions in a folder those of one model, predicted in one way.
_SAME = (
    *("model_size", "data_type", "timestamp", "checkpoint", "fingerprint", "tokenizer"),
    *("decoding", "limit"),
)


def predict(
    files: Mapping[str, Sequence[Record]],
    options: PredictionOptions,
    model_options: ModelOptions,
    decoding: DecodingOptions,
    study: Study,
) -> None:
    """Predict what is missing of `files` (by stem), with every model that `options` name.

    The files are of `study`, as the models are.

    Raises:
        InputError: no such model, a folder that can't be written to or that holds other
            predictions, or no memory for a single line.
    """
    published_precision(options.as_published, options.precision)
    check_writable(options.pred_data_path, "--pred_data_path")
    check_backend(decoding.backend)
    named = [
        resolve_models(name, options.model_size, options.tag) for name in options.model_name_or_path
    ]
    tasks = [DoITFile(stem, records, study) for stem, records in files.items()]
    for name, run in itertools.chain(*named):
        run = run | {"study": study.record()}
        _predict_model(name, run, tasks, options, model_options, decoding)


def prediction_folder(pred_data_path: Path, run: Run) -> Path:
    """Where the predictions of the checkpoint, split and limit that `run` tells of belong."""
    folder = pred_data_path / run["split"] / run_folder(run)
    return folder / (run["checkpoint"] + limit_suffix(run["limit"]))


def _predict_model(
    name: str,
    run: Run,
    tasks: Sequence[DoITFile],
    options: PredictionOptions,
    model_options: ModelOptions,
    decoding: DecodingOptions,
) -> None:
    source = find_model(name, model_options)
    # What is computed: on another machine "auto" may be another precision.
    asked = published_precision(options.as_published, options.precision)
    precision = choose_compute(asked).precision
    run = run | {
        "limit": options.limit,
        "split": options.split or options.eval_data_path.resolve().name,
        "model_name_or_path": name,
        **model_identity(source),
        "as_published": options.as_published,
        "decoding": decoding.identity()
        | {"precision": precision, "max_length": bounded_length(source, decoding.max_length)},
    }
    if losses := validation_losses(Path(name), run["step"]):
        run[LOSS_BY_ABILITY] = losses
    folder = prediction_folder(options.pred_data_path, run)
    _check_same(folder, run)  # before the model is loaded, and again once nobody else writes
    with locked_for_launch(folder, "--pred_data_path", options.wait, make=True):
        _predict_missing(source, folder, run, tasks, options, decoding)


def _check_same(folder: Path, run: Run) -> Run | None:
    """The record that is in `folder`, if any; refuses one of another model or way to predict."""
    remedy = "remove the folder or choose another --pred_data_path"
    earlier = check_same_model(folder, run, _SAME, f"{PREDICTION_PREFIX}*.json", remedy)
    if earlier is not None and recorded(earlier)["asked"] != run["study"]["asked"]:
        raise InputError(
            f"{folder}: holds predictions of the study {recorded(earlier)['name']} asked "
            f"otherwise than {run['study']['file']} asks now; {remedy}"
        )
    return earlier


def _predict_missing(
    source: Source,
    folder: Path,
    run: Run,
    tasks: Sequence[DoITFile],
    options: PredictionOptions,
    decoding: DecodingOptions,
) -> None:
    """Predict what is not in `folder` yet, which no other launch writes to meanwhile."""
    state = distributed_state()
    earlier = _check_same(folder, run)
    missing = missing_tasks(tasks, folder)
    if not missing:
        if state.is_main_process:
            print(f"{folder}: all {len(tasks)} files are there")
        return
    chat = load_tokenizer(source)
    prompting = Prompting(
        make_prompt_format(chat, PromptOptions(), source.name),
        run["decoding"]["max_length"],
        decoding.max_new_tokens,
        decoding.full_responses,
    )
    asked = published_precision(options.as_published, options.precision)
    predictor, compute = load_predictor(source, chat, decoding, asked)
    work = TaskRun(missing, folder, prompting, state)
    cuts = dict(zip((task.stem for task in missing), work.cut_prompts(), strict=True))
    if state.is_main_process:
        print(compute.describe(), file=sys.stderr)
        record = earlier or run | {"device": compute.describe()} | provenance()
        record["cut_prompts"] = dict(sorted((record.get("cut_prompts", {}) | cuts).items()))
        record["lines"] = record.get("lines", {}) | {task.stem: len(task) for task in tasks}
        write_json(folder / RUN_RECORD, record)
    work.run(predictor, run["checkpoint"])
    if state.is_main_process:
        lines, cut = sum(map(len, missing)), sum(cuts.values())
        cut_answers, answers = work.cut_answers()
        print(
            f"{folder}: {len(missing)} files predicted, {lines:,} lines, {cut:,} prompts cut, "
            f"{cut_answers:,} of {answers:,} answers cut{cut_at(run) if cut_answers else ''}"
        )
