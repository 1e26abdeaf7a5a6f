"""Run a public benchmark on one or many models, or write its exact prompts.

evaluate/<benchmark>/outputs/<tag>/
    run.json                     which model answered, and how it was prompted
    <setting>/<subject>.jsonl    per-sample results
    results.json                 their scores
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from growth.core.device import choose_compute
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import check_writable, sha256, write_json, write_json_lines
from growth.core.locks import locked_for_launch
from growth.core.options import (
    BenchmarkOptions,
    DecodingOptions,
    ModelOptions,
    PromptOptions,
    published_letters,
    published_precision,
)
from growth.core.schemas import PredictionRecord, read_record
from growth.inference.prediction_store import check_same_model
from growth.inference.prompting import make_prompt_format
from growth.model.loading import bounded_length, load_tokenizer
from growth.model.source import Source, find_model
from growth.runs.layout import NO_SIZE, RUN_RECORD, UNTUNED, Run, limit_suffix, run_folder
from growth.runs.record import provenance
from growth.runs.resolve import model_identity, resolve_models
from growth.tasks.benchmark import Benchmark, Exam, read_results, result_file, score, table
from growth.tasks.multiple_choice import SubjectTask
from growth.tasks.runner import TaskRun, load_predictor, missing_tasks
from growth.tasks.task import Prompting

# What makes the results in a folder those of one model, prompted in one way.
_SAME = ("benchmark", "fingerprint", "tokenizer", "asked")
# What the record says of single files, of all launches together.
_OF_FILES = ("data", "read", "questions")
_UNREADABLE = "unreadable"  # of a subject in "read"


@dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark to be run.

    Attributes:
        benchmark: with `exam`, its questions.
        settings: of the benchmark, those to run.
        options: on which models, where to.
        model_options: how the models are loaded; `prompt_options`: how they are prompted.
    """

    benchmark: Benchmark
    exam: Exam
    settings: Sequence[str]
    options: BenchmarkOptions
    model_options: ModelOptions
    prompt_options: PromptOptions


@dataclass(frozen=True)
class TestedModel:
    """One model, where its results go, the record of how they are made, how it is prompted."""

    source: Source
    folder: Path
    run: Run
    prompting: Prompting


def run_benchmark(job: BenchmarkRun) -> None:
    """Run every model under every setting, or dump the prompts if `job.options` says so.

    Raises:
        InputError: bad models or folders, found before any model is loaded.
    """
    job = _as_published(job)
    if job.options.dump_prompts is not None:
        _dump_prompts(job, job.options.dump_prompts)
        return
    check_writable(job.options.output_dir or Path("evaluate"), "--output_dir")
    models = _models(job)
    for tested in models:
        _check_same(tested)
        missing_tasks(_tasks(job), tested.folder)
    state = distributed_state()
    if state.is_main_process:
        _report_data(job, models)
    for tested in models:
        with locked_for_launch(tested.folder, "--output_dir", job.options.wait, make=True):
            _run_model(job, tested)


def _as_published(job: BenchmarkRun) -> BenchmarkRun:
    """What --as_published makes of the options: fp32, and letters read as bare pieces.

    Raises:
        InputError: something else is asked for besides.
    """
    options = job.options
    precision = published_precision(options.as_published, options.precision)
    letters = published_letters(options.as_published, job.prompt_options.letter_tokens)
    return replace(
        job,
        options=replace(options, precision=precision),
        prompt_options=replace(job.prompt_options, letter_tokens=letters),
    )


def _report_data(job: BenchmarkRun, models: Sequence[TestedModel]) -> None:
    """Say what of the benchmark is not there, can't be asked, or is asked though it is odd."""
    exam = job.exam
    kept = {name: _answered(job, models, name) for name in (*exam.missing, *exam.unreadable)}
    missing = [name for name in exam.missing if not kept[name]]
    if missing:
        print(
            f"{len(missing)} of {len(job.benchmark.subjects)} subjects are not in "
            f"{exam.data_dir} and in no mean: {', '.join(missing)}",
            file=sys.stderr,
        )
    problems = {name: [f"not in {exam.data_dir}"] for name in exam.missing if kept[name]}
    for name, reasons in (problems | exam.left_out()).items():
        of_what = "the subject is in no mean" if name in exam.unreadable else "left out"
        if kept.get(name):
            folders = ", ".join(map(str, kept[name]))
            of_what = f"not asked, but its earlier answers in {folders} are in the means there"
        for reason in reasons:
            print(f"{name}, {of_what}: {reason}", file=sys.stderr)
    for name, subject in exam.subjects.items():
        for doubt, count in job.benchmark.doubts(subject).items():
            print(f"{name}: {count:,} questions {doubt}; asked as they stand", file=sys.stderr)


def _answered(job: BenchmarkRun, models: Sequence[TestedModel], name: str) -> list[Path]:
    """The folders with answers to a subject, under any setting."""
    suffix = limit_suffix(job.options.limit)
    files = [result_file(setting, suffix, name) for setting in job.benchmark.settings]
    return [model.folder for model in models if any((model.folder / f).is_file() for f in files)]


def _dump_prompts(job: BenchmarkRun, output: Path) -> None:
    """Write every prompt of every setting, with the fields of a recorded fact; no weights are read.

    Raises:
        InputError: several models; one tokenizer says what fits.
    """
    if len(job.options.model_name_or_path) > 1:
        raise InputError("--dump_prompts: give one model; its tokenizer says what fits")
    source = find_model(job.options.model_name_or_path[0], job.model_options)
    check_writable(output.parent, "--dump_prompts")
    prompting = _prompting(job, source)
    lines = []
    for setting in job.settings:
        for name, subject in job.exam.subjects.items():
            task = SubjectTask(job.benchmark, subject, setting)
            for index, item in enumerate(subject.items):
                rendered = task.render(index, prompting.format, prompting.max_length)
                lines.append(
                    job.benchmark.dumped(
                        name, setting, item, prompting.max_length, rendered.messages
                    )
                )
    write_json_lines(output, lines)
    print(f"{output}: {len(lines):,} prompts")


def _prompting(job: BenchmarkRun, source: Source) -> Prompting:
    chat = load_tokenizer(source)
    format_ = make_prompt_format(chat, job.prompt_options, source.name)
    return Prompting(format_, bounded_length(source, job.prompt_options.max_length))


def _models(job: BenchmarkRun) -> list[TestedModel]:
    """The models, each with a folder of its own."""
    options = job.options
    data = {
        str(path.relative_to(job.exam.data_dir)): sha256(path)
        for name in job.exam.subjects
        for path in job.benchmark.files(job.exam.data_dir, name)
    }
    questions = {str(task.file): len(task) for task in _tasks(job)}
    read = _read_of(job)
    found = _named_models(options)
    outputs = options.output_dir or Path("evaluate", job.benchmark.name, "outputs")
    alone = options.output_dir is not None and len(found) == 1
    models = []
    for place, model, run in found:
        source = find_model(model, job.model_options)
        prompting = _prompting(job, source)
        asked = asdict(job.prompt_options) | {
            "max_length": prompting.max_length,
            "precision": choose_compute(options.precision).precision,  # never "auto"
        }
        record = {
            "benchmark": job.benchmark.name,
            "model_name_or_path": model,
            **run,
            **model_identity(source),
            "asked": asked,
            "as_published": options.as_published,
            "data": data,
            "read": read,
            "questions": questions,
        }
        folder = outputs if alone else outputs / place
        models.append(TestedModel(source, folder, record, prompting))
    return models


def _read_of(job: BenchmarkRun) -> dict[str, dict[str, Any]]:
    """What was read of the files of each subject, for the record and the results."""
    left_out = job.exam.left_out()
    read: dict[str, dict[str, Any]] = {}
    for name in job.benchmark.subjects:
        about: dict[str, Any] = {"left_out": left_out.get(name, [])}
        if subject := job.exam.subjects.get(name):
            about |= {"shots": len(subject.shots), "not_asked": subject.not_asked}
            read[name] = about | {"doubts": job.benchmark.doubts(subject)}
        elif name in left_out:
            read[name] = about | {"shots": 0, "not_asked": 0, _UNREADABLE: True}
    return read


def _named_models(options: BenchmarkOptions) -> list[tuple[Path, str, Run]]:
    """For each model the name of its outputs, what to load, what is known of it."""
    names = options.model_name_or_path
    tags: Sequence[str | None] = options.tag or [None] * len(names)
    if len(tags) != len(names):
        raise InputError(f"--tag: {len(tags)} for {len(names)} models; give one for each")
    found: list[tuple[Path, str, Run]] = []
    for name, tag in zip(names, tags, strict=True):
        named = resolve_models(name, NO_SIZE, tag or Path(name).name)
        for model, run in named:
            if tag is None and run["data_type"] != UNTUNED:
                place = run_folder(run) / run["checkpoint"]
            else:
                place = Path(tag or Path(name).name)
                place = place / run["checkpoint"] if len(named) > 1 else place
            found.append((place, model, run))
    places = [place for place, _, _ in found]
    if len(set(places)) < len(places):
        raise InputError(
            "--model_name_or_path: two models would write to one folder; tell them apart with --tag"
        )
    return found


def _check_same(tested: TestedModel) -> Run | None:
    """Refuse a folder whose results are another model's, or answers to other questions.

    Returns:
        The record that is there, None where there is none yet.

    Raises:
        InputError: they are.
    """
    remedy = "remove the folder, or choose another --tag or --output_dir"
    earlier = check_same_model(tested.folder, tested.run, _SAME, "*/*.jsonl", remedy)
    known = (earlier or {}).get("data", {})
    changed = [
        name for name, digest in tested.run["data"].items() if known.get(name, digest) != digest
    ]
    if changed:
        raise InputError(
            f"{tested.folder}: holds answers to other questions than --data_dir has now "
            f"(changed: {', '.join(changed[:3])}); {remedy}"
        )
    return earlier


def _tasks(job: BenchmarkRun) -> list[SubjectTask]:
    """Every subject under every setting."""
    suffix = limit_suffix(job.options.limit)
    return [
        SubjectTask(job.benchmark, subject, setting, suffix)
        for setting in job.settings
        for subject in job.exam.subjects.values()
    ]


def _run_model(job: BenchmarkRun, tested: TestedModel) -> None:
    """Write the per-sample results of one model that are not there, and the scores of all."""
    state, folder = distributed_state(), tested.folder
    missing = missing_tasks(_tasks(job), folder)
    # Before anything is written: a check by one process sees what all of them see.
    earlier = _check_same(tested)
    state.wait()
    if missing:
        decoding = replace(DecodingOptions(), tokens_per_batch=job.options.tokens_per_batch)
        chat, precision = tested.prompting.format.chat, job.options.precision
        predictor, compute = load_predictor(tested.source, chat, decoding, precision)
        if state.is_main_process:
            print(compute.describe(), file=sys.stderr)
            record = earlier or tested.run | {"device": compute.describe()} | provenance()
            _write_record(folder, record, tested.run)
        work = TaskRun(missing, folder, tested.prompting, state)
        work.run(predictor, job.benchmark.title)
    elif state.is_main_process and earlier:
        _write_record(folder, earlier, tested.run)
    state.wait()
    if state.is_main_process:
        _write_scores(job.benchmark, folder, limit_suffix(job.options.limit))


def _write_record(folder: Path, record: Run, now: Run) -> None:
    """Write the record of a folder of results, which may hold more subjects than `now` do."""
    merged = {name: record.get(name, {}) | now[name] for name in _OF_FILES}
    # A subject that can't be read any more keeps what was read of it when it was asked.
    merged["read"] |= {
        name: about
        for name, about in record.get("read", {}).items()
        if now["read"].get(name, {}).get(_UNREADABLE)
    }
    write_json(folder / RUN_RECORD, record | merged)


def _write_scores(benchmark: Benchmark, folder: Path, suffix: str) -> None:
    """Score every setting that has results in `folder`; write, print."""
    settings: dict[str, dict[str, Any]] = {}
    remedy = "remove the folder, and run again"
    record = read_record(folder / RUN_RECORD, PredictionRecord, remedy)
    for setting in benchmark.settings:
        found = {
            name: read_results(folder / file, record.get("questions", {}).get(str(file)))
            for name in benchmark.subjects
            if (folder / (file := result_file(setting, suffix, name))).is_file()
        }
        if found:
            settings[setting] = score(benchmark, found, setting, record.get("read"))
    path = folder / f"results{suffix}.json"
    run = {name: value for name, value in record.items() if name not in _OF_FILES}
    write_json(path, {"run": run, "settings": settings})
    print(f"{path}: {benchmark.title}, accuracy in % [95 % interval], chance 25.00")
    print(table(settings))
    for setting, result in settings.items():
        if result["short_of_shots"]:
            counts = (f"{name} {count}" for name, count in result["short_of_shots"].items())
            print(
                f"{setting}: not that many shots are in the data, which is said in the results: "
                f"{', '.join(counts)}"
            )
        if result["left_out"]:
            counts = (f"{name} {len(found)}" for name, found in result["left_out"].items())
            print(f"{setting}: left out, as they can't be read (see results): {', '.join(counts)}")
        if result["fewer_shots"] or result["cut"]:
            print(
                f"{setting}: {result['fewer_shots']} questions with fewer shots, so as to fit; "
                f"{result['cut']} cut from their left"
            )
