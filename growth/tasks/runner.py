"""A benchmark's run over models: flags, folders, what is there already, the results.

    evaluate/<benchmark>/outputs/<tag>/
        run.json                     whose answers these are, and how they were asked for
        <setting>/<subject>.jsonl    an answer sheet: a line a question
        results.json                 what they come to

Sheets are written whole, one a subject, so a run goes on where it was stopped; the sheets of two
models never mix. Many processes share the subjects out and leave the files of one.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from growth.core.cli import add_options, argument_parser, options_from, positive_int
from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.files import check_writable, read_json, sha256, write_json, write_json_lines
from growth.core.options import PRECISIONS, ModelOptions, PromptOptions
from growth.runs.layout import RUN_RECORD, Run, limit_suffix
from growth.runs.record import provenance
from growth.tasks.task import Answer, Benchmark, Exam, read_exam, score, table

# What makes the sheets in a folder those of one model, asked in one way.
_SAME = ("benchmark", "fingerprint", "asked")


def benchmark_parser(benchmark: Benchmark, description: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark's script has; each adds its settings."""
    home = Path("evaluate", benchmark.name)
    parser = argument_parser(description)
    parser.add_argument(
        "--model_name_or_path",
        nargs="+",
        required=True,
        help="checkpoints, runs (all checkpoints that selection considers), or other models "
        "(folder, hub id or .gguf)",
    )
    parser.add_argument(
        "--tag",
        nargs="+",
        help="a name for each model's outputs; by default the run's own, or the model's folder's",
    )
    add_options(parser, ModelOptions)
    parser.add_argument(
        "--data_dir", type=Path, default=home / "data", help="as data/download.py makes it"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        help=f"of the one model; by default {home}/outputs/TAG. With several models each has a "
        "folder TAG in it",
    )
    add_options(parser, PromptOptions)
    parser.add_argument(
        "--tokens_per_batch", type=positive_int, default=2048, help="tokens computed at once"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the model")
    parser.add_argument(
        "--limit",
        type=positive_int,
        help="only the first N questions a subject; marks the outputs' names",
    )
    parser.add_argument(
        "--dump_prompts",
        type=Path,
        help="write the exact prompts to this file, a line each, and end; no weights are loaded",
    )
    return parser


@dataclass(frozen=True)
class Task:
    """One model to be asked, where its sheets go, the record of how they are made."""

    model: Any  # growth.model.source.Source
    folder: Path
    run: Run


def run_benchmark(benchmark: Benchmark, settings: Sequence[str], args: argparse.Namespace) -> None:
    """Ask every model in every setting, or dump the prompts.

    Raises:
        InputError: bad flags, data or models; found before any model is loaded.
    """
    settings = list(dict.fromkeys(settings))
    exam = read_exam(benchmark, args.data_dir, args.limit)
    if args.dump_prompts is not None:
        _dump_prompts(benchmark, exam, settings, args)
        return
    check_writable(args.output_dir or Path("evaluate"), "--output_dir")
    tasks = _tasks(benchmark, exam, args)
    forms = []
    for task in tasks:
        _check_same(task)
        forms.append(_form(task.model, args))
    state = distributed_state()
    if state.is_main_process and exam.missing:
        print(
            f"{len(exam.missing)} of {len(benchmark.subjects)} subjects are not in "
            f"{args.data_dir} and in no mean: {', '.join(exam.missing)}",
            file=sys.stderr,
        )
    for task, form in zip(tasks, forms, strict=True):
        _run_task(benchmark, exam, settings, task, form, args)
    state.leave()


def _tasks(benchmark: Benchmark, exam: Exam, args: argparse.Namespace) -> list[Task]:
    from growth.inference.prediction_store import UNTUNED, resolve_models
    from growth.model.loading import bounded_length
    from growth.model.source import find_model, fingerprint
    from growth.runs.layout import run_folder

    names, tags = args.model_name_or_path, args.tag or [None] * len(args.model_name_or_path)
    if len(tags) != len(names):
        raise InputError(f"--tag: {len(tags)} for {len(names)} models; give one for each")
    data = {
        str(path.relative_to(args.data_dir)): sha256(path)
        for name in exam.subjects
        for path in benchmark.files(args.data_dir, name)
    }
    found: list[tuple[Path, str, Run]] = []
    for name, tag in zip(names, tags, strict=True):
        named = resolve_models(name, "unknown", tag or Path(name).name)
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
    outputs = Path("evaluate", benchmark.name, "outputs")
    tasks = []
    for place, model, run in found:
        source = find_model(model, options_from(args, ModelOptions))
        alone = args.output_dir is not None and len(found) == 1
        folder = args.output_dir if alone else (args.output_dir or outputs) / place
        asked = {
            "letter_tokens": args.letter_tokens,
            "chat_template": args.chat_template,
            "max_length": bounded_length(source, args.max_length),
            "precision": args.precision,
        }
        record = {
            "benchmark": benchmark.name,
            "model_name_or_path": model,
            **run,
            "fingerprint": fingerprint(source),
            "asked": asked,
            "data": data,
        }
        tasks.append(Task(source, folder, record))
    return tasks


def _check_same(task: Task) -> None:
    """Refuse a folder whose sheets are another model's, or answers to other questions.

    Raises:
        InputError: they are.
    """
    path = task.folder / RUN_RECORD
    remedy = "remove the folder, or choose another --tag or --output_dir"
    if not path.is_file():
        if any(task.folder.glob("*/*.jsonl")):
            raise InputError(f"{task.folder}: holds answers without a {RUN_RECORD}; {remedy}")
        return
    earlier = read_json(path)
    different = [name for name in _SAME if earlier.get(name) != task.run[name]]
    if different:
        raise InputError(
            f"{task.folder}: holds answers of another model, or asked for in another way "
            f"(different: {', '.join(different)}); {remedy}"
        )
    known = earlier.get("data", {})
    changed = [
        name for name, digest in task.run["data"].items() if known.get(name, digest) != digest
    ]
    if changed:
        raise InputError(
            f"{task.folder}: holds answers to other questions than --data_dir has now (changed: "
            f"{', '.join(changed[:3])}); {remedy}"
        )


def _run_task(
    benchmark: Benchmark,
    exam: Exam,
    settings: Sequence[str],
    task: Task,
    form: Any,
    args: argparse.Namespace,
) -> None:
    """Fill in the sheets of one model that are not there, and write what all come to."""
    state = distributed_state()
    mark = limit_suffix(args.limit)
    todo = [
        (setting, name)
        for setting in settings
        for name in exam.subjects
        if not _sheet(task, setting, mark, name).is_file()
    ]
    # before anything is written: a check by one process sees what all of them see
    state.wait()
    if todo:
        examinee, device = _load_examinee(task, form, args)
        if state.is_main_process:
            print(device, file=sys.stderr)
            _write_record(task, device)
        state.wait()
        # Largest first within a setting: shares of every so many-th are about one size.
        todo.sort(key=lambda work: (settings.index(work[0]), -_weight(exam, work[1])))
        _fill_in(
            benchmark,
            exam,
            state.shard(todo),
            task,
            mark,
            examinee,
            quiet=not state.is_main_process,
        )
    state.wait()
    if state.is_main_process:
        results = _results(benchmark, task, mark)
        path = task.folder / f"results{mark}.json"
        run = read_json(task.folder / RUN_RECORD)
        del run["data"]  # a digest a file
        write_json(path, {"run": run, "settings": results})
        print(f"{path}: {benchmark.title}, accuracy in % [95 % interval], guessing 25.00")
        print(table(results))
        _say_what_was_cut(results)


def _sheet(task: Task, setting: str, mark: str, name: str) -> Path:
    return task.folder / f"{setting}{mark}" / f"{name}.jsonl"


def _weight(exam: Exam, name: str) -> int:
    """About how long a subject takes: its characters."""
    return sum(map(_characters, exam.subjects[name].items))


def _characters(item: Any) -> int:
    return len(item.passage) + len(item.question) + sum(map(len, item.choices))


def _form(source: Any, args: argparse.Namespace) -> Any:
    """How a model is asked; only its tokenizer is read."""
    from growth.inference.prompting import make_prompt_format
    from growth.model.loading import load_tokenizer

    chat = load_tokenizer(source)
    return make_prompt_format(chat, args.chat_template, args.letter_tokens, source.name)


def _load_examinee(task: Task, form: Any, args: argparse.Namespace) -> tuple[Any, str]:
    """The model, ready to answer, and what it computes on in words."""
    from transformers.utils import logging as transformers_logging

    from growth.core.device import choose_compute
    from growth.inference.prompting import LetterScorer
    from growth.model.loading import load_model

    transformers_logging.set_verbosity_error()
    compute = choose_compute(args.precision)
    model = load_model(task.model, compute.dtype, form.chat).to(compute.device)
    examinee = LetterScorer(model, form, task.run["asked"]["max_length"], args.tokens_per_batch)
    return examinee, compute.describe()


def _write_record(task: Task, device: str) -> None:
    path = task.folder / RUN_RECORD
    if not path.is_file():
        write_json(path, task.run | {"device": device} | provenance())
        return
    earlier = read_json(path)
    if not task.run["data"].items() <= earlier["data"].items():  # subjects that were missing then
        write_json(path, earlier | {"data": earlier["data"] | task.run["data"]})


def _fill_in(
    benchmark: Benchmark,
    exam: Exam,
    todo: Sequence[tuple[str, str]],
    task: Task,
    mark: str,
    examinee: Any,
    quiet: bool,
) -> None:
    """Write the sheets of `todo`; the bar goes by characters, so its estimate is honest."""
    total = sum(_weight(exam, name) for _, name in todo)
    questions = sum(len(exam.subjects[name].items) for _, name in todo)
    with tqdm(
        total=total,
        disable=quiet,
        smoothing=0,
        bar_format="{percentage:3.0f}%|{bar:20}| {desc} [{elapsed}<{remaining}]",
    ) as bar:
        done = 0
        for setting, name in todo:
            subject = exam.subjects[name]

            def progress(index: int, items: Sequence[Any] = subject.items) -> None:
                nonlocal done
                done += 1
                bar.update(_characters(items[index]))
                bar.set_description_str(f"{done:,} of {questions:,} questions", refresh=False)

            answers = examinee.answer(benchmark, subject, setting, progress)
            write_json_lines(_sheet(task, setting, mark, name), answers)


def _results(benchmark: Benchmark, task: Task, mark: str) -> dict[str, Any]:
    """The scores of every setting that has sheets of this limit in the folder."""
    results = {}
    for setting in benchmark.settings:
        sheets: dict[str, list[Answer]] = {
            name: read_sheet(path)
            for name in benchmark.subjects
            if (path := _sheet(task, setting, mark, name)).is_file()
        }
        if sheets:
            results[setting] = score(benchmark, sheets)
    return results


def read_sheet(path: Path) -> list[Answer]:
    """Read an answer sheet.

    Raises:
        InputError: it is not one.
    """
    try:
        answers = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if answers and all(
            {"prediction", "gold", "fewer_shots", "cut"} <= a.keys() for a in answers
        ):
            return answers
    except (ValueError, AttributeError):
        pass
    raise InputError(f"{path}: not an answer sheet of ours; remove it, and run again")


def _say_what_was_cut(results: dict[str, Any]) -> None:
    for setting, result in results.items():
        if result["fewer_shots"] or result["cut"]:
            print(
                f"{setting}: {result['fewer_shots']} questions with fewer shots, so as to fit; "
                f"{result['cut']} cut from their left"
            )


def _dump_prompts(
    benchmark: Benchmark, exam: Exam, settings: Sequence[str], args: argparse.Namespace
) -> None:
    """Write every prompt of every setting, with the fields of a recorded fact."""
    from growth.inference.prompting import ask
    from growth.model.loading import bounded_length
    from growth.model.source import find_model

    if len(args.model_name_or_path) > 1:
        raise InputError("--dump_prompts: give one model; its tokenizer says what fits")
    (name,) = args.model_name_or_path
    model = find_model(name, options_from(args, ModelOptions))
    check_writable(args.dump_prompts.parent, "--dump_prompts")
    form = _form(model, args)
    max_length = bounded_length(model, args.max_length)
    lines = []
    for setting in settings:
        for name, subject in exam.subjects.items():
            asked = ask(benchmark, subject, setting, form, max_length)
            lines += [
                benchmark.dumped(name, setting, item, max_length, question.messages)
                for item, question in zip(subject.items, asked, strict=True)
            ]
    write_json_lines(args.dump_prompts, lines)
    print(f"{args.dump_prompts}: {len(lines):,} prompts")
