"""Beside the published predictor: questions per CPU second, memory, and whether all answers agree.

    python benchmarks/prediction.py --data_dir data/curated/valid --tokenizer MODEL

The published predictor asks one question at a time, lets every answer run to its end, keeps the
vocabulary's logits of each step and stores a step's as a list; each choice's perplexity is computed
apart, from logits of all its tokens. It ran on transformers 4.30, whose `generate` computed logits
of the whole prompt too ("published"); today's `generate` leaves those out ("on today's generate").

A LLaMA of 4 layers x 256 with the tokenizer of MODEL answers, on one thread: once with random
weights, which never end an answer ("rambles"), once tuned for a few steps to say a letter and no
more ("answers at once"). Each path is a process of its own; they take turns, so that what else the
machine does meets both, and the ratio is taken pair by pair.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from growth.core.cli import argument_parser, positive_int, run_script
from growth.core.errors import InputError
from growth.data.abilities import LETTERS
from growth.data.records import Record, data_files, evaluation_check, read_records, reads_letter
from growth.data.study import published_study

PUBLISHED, TODAY, OURS = "published", "on today's generate", "ours"
CONTINUOUS_BATCHING = "ours by --backend continuous"
RAMBLES, AT_ONCE, PERPLEXITY = "rambles", "answers at once", "perplexity"
PATHS = {
    RAMBLES: (PUBLISHED, OURS),
    AT_ONCE: (PUBLISHED, TODAY, OURS),
    PERPLEXITY: (PUBLISHED, OURS),
}
TARGETS = {AT_ONCE: 5.0, PERPLEXITY: 2.5, RAMBLES: 20.0}
TUNING_STEPS, TUNING_LINES = 40, 8


def main(argv: Sequence[str] | None = None) -> None:
    """Make the models, let the paths take turns, print the table."""
    args = parse_args(argv)
    if args.worker:
        work(*args.worker, args)
        return
    if args.device == "cpu":
        os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"] = "1", ""
    with tempfile.TemporaryDirectory() as folder:
        make_models(args, Path(folder))
        for task in args.tasks:
            measured = take_turns(task, args, Path(folder))
            report(task, measured, args.device)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of valid lines")
    parser.add_argument("--tokenizer", required=True, help="a model whose tokenizer to take")
    parser.add_argument("--rounds", type=positive_int, default=3, help="turns of each path")
    parser.add_argument(
        "--questions", type=positive_int, default=10, help="lines of each file, spread over it"
    )
    parser.add_argument(
        "--rambling",
        type=positive_int,
        default=4,
        help="files to take one line of where a model rambles",
    )
    parser.add_argument(
        "--max_new_tokens", type=positive_int, default=1024, help="tokens of an answer, at most"
    )
    parser.add_argument("--tasks", nargs="+", choices=TARGETS, default=list(TARGETS), help="which")
    parser.add_argument(
        "--paths",
        nargs="+",
        choices=[PUBLISHED, TODAY, CONTINUOUS_BATCHING, OURS],
        help="which; ours is always among them; default: those that the published figures have",
    )
    group = parser.add_argument_group("the model, a LLaMA, and where it runs")
    group.add_argument("--layers", type=positive_int, default=4)
    group.add_argument("--hidden", type=positive_int, default=256, help="width")
    group.add_argument("--heads", type=positive_int, default=8)
    group.add_argument("--kv_heads", type=positive_int, help="default: as --heads")
    group.add_argument("--intermediate", type=positive_int, default=688, help="width of the MLP")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of weights")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def questions(args: argparse.Namespace, task: str) -> list[list[Record]]:
    """The lines of `task`, file by file, spread evenly over each file."""
    found, study = [], published_study()
    for path in data_files(args.data_dir, "--data_dir"):
        lines = read_records(path, evaluation_check(study))
        if task == PERPLEXITY:
            lines = [line for line in lines if line["question_format"] == 1]
        else:
            lines = [ln for ln in lines if reads_letter(ln, study.ability(ln))]
        if lines:
            found.append(lines[:: -(-len(lines) // args.questions)])
    if not found:
        raise InputError(f"--data_dir {args.data_dir}: no line to ask for {task}")
    if task == RAMBLES:  # a quarter of a minute a question, the published way
        return [file[:1] for file in found[:: -(-len(found) // args.rambling)]]
    return found


def make_models(args: argparse.Namespace, folder: Path) -> None:
    """One model of random weights, and the same tuned to answer with a letter and <eot>."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from growth.core.options import VARLEN
    from growth.export.checkpoint_files import save_tokenizer
    from growth.model.loading import load_tokenizer
    from growth.packing.attention import attending
    from growth.packing.batches import tokenised
    from growth.packing.forward import supervised_logits

    limit_threads(args.device)
    torch.manual_seed(0)
    chat = load_tokenizer(args.tokenizer)
    shape = {
        "hidden_size": args.hidden,
        "intermediate_size": args.intermediate,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads or args.heads,
        "max_position_embeddings": 2048,
    }
    config = LlamaConfig(vocab_size=chat.vocabulary_size, **shape)
    model = LlamaForCausalLM(config).to(args.device)

    def save(name: str) -> None:
        model.save_pretrained(folder / name)
        save_tokenizer(chat.tokenizer, folder / name)

    save(RAMBLES)
    if AT_ONCE in args.tasks:
        lines = [line for file in questions(args, AT_ONCE) for line in file]
        examples = [tokenised(line["messages"][-2:], chat, 512) for line in lines]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(TUNING_STEPS):
            start = step * TUNING_LINES % len(examples)
            group = examples[start : start + TUNING_LINES]
            with attending(model, VARLEN):
                supervised = supervised_logits(model, group, packed=True)
            targets = supervised.targets.to(supervised.logits.device)
            torch.nn.functional.cross_entropy(supervised.logits, targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        save(AT_ONCE)


def take_turns(task: str, args: argparse.Namespace, folder: Path) -> dict[str, list[dict]]:
    """A B A B ...: each path once a round, in a process of its own; what each measured."""
    paths = [path for path in args.paths or PATHS[task] if path != OURS]
    measured: dict[str, list[dict]] = {path: [] for path in (*paths, OURS)}
    for _ in range(args.rounds):
        for path in measured:
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", task, path, str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            measured[path].append(json.loads(done.stdout))
    return measured


def work(task: str, path: str, folder: str, args: argparse.Namespace) -> None:
    """One turn of one path: prints seconds of CPU, memory and predictions as JSON."""
    import torch
    from transformers.utils import logging

    from growth.core.device import DTYPES, peak_memory
    from growth.core.options import BATCHED, CONTINUOUS, DecodingOptions
    from growth.inference.backends import generator_of
    from growth.inference.predictor import Predictor
    from growth.inference.prompting import ControlFormat
    from growth.model.loading import load_model, load_tokenizer
    from growth.tasks.doit import predicted_record, request_of
    from growth.tasks.task import Prompting

    logging.set_verbosity_error()
    limit_threads(args.device)
    source = str(Path(folder) / (AT_ONCE if task == AT_ONCE else RAMBLES))
    chat = load_tokenizer(source)
    model = load_model(source, DTYPES[args.precision], chat).eval().to(args.device)
    files = questions(args, task)
    if path in (OURS, CONTINUOUS_BATCHING):
        backend = BATCHED if path == OURS else CONTINUOUS
        options = DecodingOptions(max_new_tokens=args.max_new_tokens, backend=backend)
        generate = generator_of(backend, model, chat, source, options.max_length)
        predictor = Predictor(model, chat, options, generate)
        format_ = ControlFormat(chat, "answer")
        prompting = Prompting(format_, options.max_length, options.max_new_tokens)

        def predict(lines: list[Record]) -> list[Any]:
            abilities = list(map(published_study().ability, lines))
            asked = zip(lines, abilities, strict=True)
            responses = predictor.run([request_of(line, prompting, of) for line, of in asked])
            return list(map(predicted_record, lines, responses, abilities))
    else:
        paths = published_perplexities if task == PERPLEXITY else published_answers

        def predict(lines: list[Record]) -> list[Any]:
            return list(paths(model, chat, lines, args.max_new_tokens, path))

    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        clock = time.perf_counter  # answers are read back from the GPU, so it has ended by then
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
        clock = time.process_time
    before, began = peak_memory(model.device), clock()
    predictions = [prediction for file in files for prediction in predict(file)]
    seconds = clock() - began
    lines = [line for file in files for line in file]
    result = {
        "seconds": seconds,
        "questions": len(lines),
        "memory": (peak_memory(model.device) - before) / 2**20,
        "answers": [answered(line, p) for line, p in zip(lines, predictions, strict=True)],
    }
    print(json.dumps(result))


def published_answers(
    model: Any, chat: Any, lines: Sequence[Record], max_new_tokens: int, path: str
) -> Iterator[Record]:
    """The published way to answer, on our prompts; logits of the letters at the first step."""
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(chat.stop_ids),
        pad_token_id=chat.pad_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    # 0: of all positions, as before transformers knew to leave any out
    options = {"logits_to_keep": 0} if path == PUBLISHED else {}
    for line in lines:
        ids = chat.encode_prompt(line["messages"][:-1])[-2047:]
        asked = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            output = model.generate(
                asked, attention_mask=torch.ones_like(asked), generation_config=config, **options
            )
        stored = output.scores[-1][0].tolist()
        json.dumps(stored)
        first = output.scores[0][0]
        yield {
            "generated_response": chat.decode(output.sequences[0, len(ids) :].tolist()),
            "choice_logits": {k: first[token].item() for k, token in chat.letter_ids.items()},
        }


def published_perplexities(
    model: Any, chat: Any, lines: Sequence[Record], max_new_tokens: int, path: str
) -> Iterator[Record]:
    """Each choice apart behind its context, logits of all tokens."""
    import torch

    from growth.inference.loglikelihood import continuation_example

    for line in lines:
        context = chat.encode_prompt(line["messages"][:-1])
        ppl = []
        for choice in line["choices"]:
            continuation = [*chat.encode_content(choice), chat.eot_id]
            example = continuation_example(context, continuation, 2048)
            with torch.inference_mode():
                ids, labels = (example[k][None].to(model.device) for k in ("input_ids", "labels"))
                output = model(ids, labels=labels)
            ppl.append(output.loss.exp().item())
        yield {"generated_ppl": ppl}


def answered(line: Record, prediction: Record) -> Any:
    """What the score reads of a prediction: the letter, or the choices' perplexities."""
    from growth.scoring.short_answers import read_label

    if line["question_format"] == 1:
        return prediction["generated_ppl"]
    return read_label(prediction["generated_response"], LETTERS, prediction["choice_logits"])


def agree(one: Any, other: Any) -> bool:
    """The same letter; or perplexities that differ by float error, the same one the lowest."""
    if not isinstance(one, list):
        return one == other
    near = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(one, other, strict=True))
    return near and one.index(min(one)) == other.index(min(other))


def limit_threads(device: str) -> None:
    """One thread on a CPU, whose seconds are counted."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)


def report(task: str, measured: dict[str, list[dict]], device: str) -> None:
    """Print what each path did, and the ratios pair by pair."""
    unit = "CPU s" if device == "cpu" else "s"
    print(f"\n{task}: {measured[OURS][0]['questions']} questions, {len(measured[OURS])} rounds")
    wide = max(map(len, measured))
    for path, turns in measured.items():
        speeds = [turn["questions"] / turn["seconds"] for turn in turns]
        shown = f"  {path:{wide}} {statistics.median(speeds):8.2f} questions/{unit}"
        shown += f"  {max(turn['memory'] for turn in turns):6.0f} MiB above the loaded model"
        if path != OURS:
            pairs = zip(turns, measured[OURS], strict=True)
            ratios = [other["seconds"] / ours["seconds"] for other, ours in pairs]
            answers = zip(turns[0]["answers"], measured[OURS][0]["answers"], strict=True)
            same = [agree(one, other) for one, other in answers]
            shown += f"  ours is {', '.join(f'{r:.1f}' for r in ratios)} times as fast"
            shown += f" (median {statistics.median(ratios):.1f}, target {TARGETS[task]:g})"
            shown += f"; {sum(same)} of {len(same)} agree"
        print(shown, flush=True)


if __name__ == "__main__":
    run_script(main)
