"""How fast CMMLU is asked: this runner, the published path, lm-evaluation-harness.

    pip install -r benchmarks/requirements-cmmlu.txt
    python benchmarks/cmmlu.py --tokenizer path/to/a/model

A LLaMA of 4 layers x 256 with random weights and the tokenizer of a model of yours answers the same
questions three ways, one thread, fp32, each time in a process of its own, in turns: A B C A B C.
Counted is the CPU time from questions in memory to letters; not counted are imports and loading.

ours       evaluate/cmmlu/run.py's own functions
published  one question at a time, the logits of the whole prompt
lm_eval    the harness on a local task with the same prompts, through a chat template
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from growth.core.cli import argument_parser, positive_int, run_script
from growth.core.workers import peak_resident_memory
from growth.tasks.benchmark import Subject
from growth.tasks.cmmlu import CMMLU, HEADER, SUBJECTS

WAYS = ("ours", "published", "lm_eval")
LETTERS = ("A", "B", "C", "D")
MAX_LENGTH = 2048
# The harness builds one user turn of all shots; the description is its system message.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}<user>{% endif %}{{ m['content'] }}{% endfor %}"
    "<eot><assistant>"
)

Answers = dict[str, list[str]]  # subject -> letters


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables."""
    args = parse_args(argv)
    if args.measure is not None:
        print(json.dumps(measure(*args.measure, args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.model = Path(folder, "model")
        make_model(args.tokenizer, args.model)
        for shots in args.num_fewshot:
            rounds = [
                {way: in_own_process(way, shots, args) for way in args.ways}
                for _ in range(args.rounds)
            ]
            report(shots, rounds)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--tokenizer", type=Path, help="a model's folder, for its tokenizer")
    parser.add_argument("--data_dir", type=Path, default=Path("evaluate/cmmlu/data"), help="CMMLU")
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=["management"])
    parser.add_argument("--limit", type=positive_int, help="questions of each subject; default all")
    parser.add_argument("--num_fewshot", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--lm_eval_batch_size", type=positive_int, default=1, help="the harness' own default is 1"
    )
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.tokenizer is None and args.measure is None:
        parser.error("--tokenizer is needed: the folder of a model, such as path/to/tiny-llama")
    return args


def make_model(tokenizer: Path, folder: Path) -> None:
    """A LLaMA of 4 layers x 256 with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from growth.export.checkpoint_files import save_tokenizer
    from growth.model.loading import load_tokenizer

    chat = load_tokenizer(str(tokenizer))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=chat.vocabulary_size,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        # The default of 0.02 gives all questions nearly one answer.
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(chat.tokenizer, folder)


def in_own_process(way: str, shots: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in a fresh process, so that its peak of memory is its own."""
    command = [sys.executable, __file__, "--measure", way, str(shots), "--model", str(args.model)]
    command += ["--data_dir", str(args.data_dir), "--subjects", *args.subjects]
    command += ["--lm_eval_batch_size", str(args.lm_eval_batch_size)]
    command += ["--limit", str(args.limit)] if args.limit else []
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(args.model.parent / "datasets")}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | threads | offline)
    if done.returncode:
        raise SystemExit(f"{way}, {shots} shots: failed, see above")
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"  {shots}-shot {way}: {result['seconds']:.2f} CPU s", file=sys.stderr)
    return result


def measure(way: str, shots: str, args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds, peak memory and letters of one way; runs in a process of its own."""
    import torch

    from growth.model.loading import load_model, load_tokenizer

    torch.set_num_threads(1)
    subjects = {}
    for name in args.subjects:
        subject = CMMLU().read(args.data_dir, name)
        subjects[name] = Subject(name, subject.items[: args.limit], subject.shots)
    chat = load_tokenizer(str(args.model))
    model = load_model(str(args.model), torch.float32, chat).eval()
    ways = {"ours": ours, "published": published, "lm_eval": lm_eval}
    ask = ways[way](model, chat, subjects, int(shots), args)
    began = time.process_time()
    letters = ask()
    seconds = time.process_time() - began
    peak = peak_resident_memory() / 2**20
    return {"seconds": seconds, "mebibytes": peak, "letters": letters}


def ours(
    model: Any, chat: Any, subjects: dict[str, Subject], shots: int, args: argparse.Namespace
) -> Callable[[], Answers]:
    """This repository's runner."""
    from growth.core.options import DecodingOptions
    from growth.inference.predictor import Predictor
    from growth.inference.prompting import ControlFormat
    from growth.tasks.multiple_choice import SubjectTask
    from growth.tasks.task import Prompting

    predictor = Predictor(model, chat, DecodingOptions())
    prompting = Prompting(ControlFormat(chat, "answer"), MAX_LENGTH)

    def ask() -> Answers:
        letters: Answers = {}
        for name, subject in subjects.items():
            task = SubjectTask(CMMLU(), subject, f"{shots}-shot")
            requests = [task.request(index, prompting) for index in range(len(task))]
            triples = zip(range(len(task)), requests, predictor.run(requests), strict=True)
            letters[name] = [task.result(*triple)["prediction"] for triple in triples]
        return letters

    return ask


def published(
    model: Any, chat: Any, subjects: dict[str, Subject], shots: int, args: argparse.Namespace
) -> Callable[[], Answers]:
    """One question at a time; every logit of every token."""
    import torch

    from growth.inference.prompting import ControlFormat
    from growth.tasks.multiple_choice import SubjectTask

    format_ = ControlFormat(chat, "answer")

    @torch.inference_mode()
    def ask() -> Answers:
        letters: Answers = {}
        for name, subject in subjects.items():
            letters[name] = []
            task = SubjectTask(CMMLU(), subject, f"{shots}-shot")
            for index in range(len(task)):
                prompt = task.render(index, format_, MAX_LENGTH)
                logits = model(input_ids=torch.tensor([prompt.ids])).logits[0, -1]
                letters[name].append(LETTERS[int(logits[format_.letter_ids].argmax())])
        return letters

    return ask


def lm_eval(
    model: Any, chat: Any, subjects: dict[str, Subject], shots: int, args: argparse.Namespace
) -> Callable[[], Answers]:
    """The harness, its stock task with the files and the prompt named locally."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = Path(tempfile.mkdtemp(dir=args.model.parent))
    for subject in subjects.values():
        write_task(folder, subject, shots)
    chat.tokenizer.chat_template = CHAT_TEMPLATE
    harness = HFLM(
        pretrained=model,
        tokenizer=chat.tokenizer,
        batch_size=args.lm_eval_batch_size,
        max_length=MAX_LENGTH,
        device="cpu",
        add_bos_token=False,
    )
    tasks = TaskManager(include_path=str(folder), include_defaults=False).load(
        [f"local_{name}" for name in subjects]
    )

    def ask() -> Answers:
        results = evaluate(harness, tasks, bootstrap_iters=0, apply_chat_template=True)
        letters: Answers = {}
        for name in subjects:
            samples = sorted(results["samples"][f"local_{name}"], key=lambda s: s["doc_id"])
            likelihoods = [[r[0] for r in sample["filtered_resps"]] for sample in samples]
            letters[name] = [LETTERS[row.index(max(row))] for row in likelihoods]
        return letters

    return ask


def write_task(folder: Path, subject: Subject, shots: int) -> None:
    """The harness' own CMMLU template over local CSV files, with the published prompt."""
    for split, items in (("dev", subject.shots), ("test", subject.items)):
        with open(folder / f"{subject.name}_{split}.csv", "w", encoding="utf-8", newline="") as f:
            table = csv.writer(f)
            table.writerow(["Text", "Answer"])
            table.writerows([CMMLU().text(item), item.gold] for item in items)
    task = {
        "task": f"local_{subject.name}",
        "dataset_path": "csv",
        "dataset_kwargs": {
            "data_files": {
                split: str(folder / f"{subject.name}_{split}.csv") for split in ("dev", "test")
            }
        },
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": shots,
        "output_type": "multiple_choice",
        "description": HEADER.format(SUBJECTS[subject.name][0]) + "\n\n",
        "doc_to_text": "{{Text}}",
        "doc_to_choice": list(LETTERS),
        "doc_to_target": "{{['A', 'B', 'C', 'D'].index(Answer)}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    # JSON is YAML
    text = json.dumps(task, ensure_ascii=False)
    (folder / f"{task['task']}.yaml").write_text(text, encoding="utf-8")


def report(shots: int, rounds: list[dict[str, dict[str, Any]]]) -> None:
    """Print the table of one setting."""
    questions = sum(map(len, rounds[0]["ours"]["letters"].values()))
    print(f"\n{shots}-shot, {questions} questions, {len(rounds)} rounds, one thread")
    print(
        "| way | questions per CPU second | ours is faster by, median [each] | letters as ours |"
        " peak memory |"
    )
    print("|---|---|---|---|---|")
    for way in rounds[0]:
        speed = statistics.median(questions / r[way]["seconds"] for r in rounds)
        ratios = [r[way]["seconds"] / r["ours"]["seconds"] for r in rounds]
        agree = min(agreement(r[way]["letters"], r["ours"]["letters"]) for r in rounds)
        peak = max(r[way]["mebibytes"] for r in rounds)
        each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        print(
            f"| {way} | {speed:.1f} | {statistics.median(ratios):.1f}x [{each}] | {agree:.1%} | "
            f"{peak:,.0f} MiB |"
        )
    letters = [letter for sheet in rounds[0]["ours"]["letters"].values() for letter in sheet]
    shares = ", ".join(f"{letter} {letters.count(letter)}" for letter in LETTERS)
    print(f"answers given: {shares}", flush=True)


def agreement(one: Answers, other: Answers) -> float:
    """The share of questions with the same letter."""
    pairs = [(a, b) for name in other for a, b in zip(one[name], other[name], strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


if __name__ == "__main__":
    run_script(main)
