"""The model card (README.md) of a checkpoint, from its run record and its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import write_text
from growth.core.schemas import SCORE_AGAIN, ResultsRecord, read_record
from growth.runs.checkpoints import is_complete, trainer_state
from growth.runs.layout import RESULTS_SUFFIX, Run, read_run, run_folder
from growth.runs.record import read_metrics

CARD = "README.md"
ARXIV = "2310.19651"
_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [instruction-tuning, growth-curves, "arxiv:{arxiv}"]
---

# {data_type}, {model_size}, step {step}

`{base}` ({parameters:,} parameters) tuned on the setting `{data_type}` ({samples:,} samples) of
*Dynamics of Instruction Tuning* (arXiv {arxiv}); optimizer step {step} of {steps}.
{validation}
## Use

```python
from transformers import pipeline

generator = pipeline("text-generation", model="path/to/this/folder")
messages = [{{"role": "user", "content": "1+1=?"}}]
print(generator(messages, max_new_tokens=256)[0]["generated_text"][-1]["content"])
```

```sh
lm_eval --model hf --model_args pretrained=path/to/this/folder --apply_chat_template --tasks ...
vllm serve path/to/this/folder
```

A conversation is, for each message, `<user>` or `<assistant>`, the stripped content, `<eot>`; an
answer is asked for with a bare `<assistant>`, and ends at `<eot>`. No BOS, no EOS, no system
message. The chat template gives exactly these ids. `generation_config.json` holds the stop tokens;
decoding is greedy unless asked otherwise.

## Scores

{scores}

## Data

| part | file | lines | SHA-256 |
|---|---|---|---|
{files}

## How it was made

| | |
|---|---|
{facts}
"""
_NO_SCORES = (
    "None yet: `evaluate/export.py --results_path` writes them here once `evaluate/score.py` "
    "has run."
)


def write_card(
    folder: Path,
    run: Run,
    step: int | str,
    metrics: Mapping[str, Any] | None = None,
    results: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the card of the checkpoint `folder`.

    Args:
        folder: of the checkpoint.
        run: the record of its run.
        step: the optimizer step.
        metrics: the line of metrics.jsonl of the evaluation then.
        results: results files by the name of their split.
    """
    validation = ""
    if metrics:
        validation = (
            f"\nValidation loss {metrics['eval_loss']:.4f} nats a supervised token, perplexity "
            f"{metrics['eval_perplexity']:.2f}.\n"
        )
    text = _CARD.format(
        arxiv=ARXIV,
        data_type=run["data_type"],
        model_size=run["model_size"],
        step=step,
        steps=run["steps"],
        # the name, not the path on somebody's disk
        base=Path(run["model_name_or_path"]).name,
        parameters=run["parameters"],
        samples=run["train"]["samples"],
        validation=validation,
        scores=_scores(results or {}),
        files="\n".join(_file_rows(run)),
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(run)),
    )
    write_text(folder / CARD, text)


def write_new_checkpoint_card(checkpoint: Path) -> None:
    """The card of a checkpoint that its run has just saved; nothing for other folders."""
    run = read_run(checkpoint.parent)
    if run is not None:
        metrics = last_evaluation(checkpoint.parent)
        write_card(checkpoint, run, metrics["step"] if metrics else 0, metrics)


def write_checkpoint_card(
    checkpoint: Path, folder: Path, results: Mapping[str, Mapping[str, Any]]
) -> None:
    """The card of a checkpoint of ours, with its results, to `folder`; nothing for other models."""
    run = read_run(checkpoint.resolve().parent)
    if run is not None and is_complete(checkpoint):
        step = trainer_state(checkpoint)["global_step"]
        write_card(folder, run, step, last_evaluation(checkpoint.resolve().parent, step), results)


def last_evaluation(run_dir: Path, step: int | None = None) -> dict[str, Any] | None:
    """The line of metrics.jsonl of the evaluation at `step`, or of the last one."""
    found = [
        line
        for line in read_metrics(run_dir)
        if "eval_loss" in line and "eval_perplexity" in line and step in (None, line["step"])
    ]
    return found[-1] if found else None


def checkpoint_results(checkpoint: Path, results_path: Path) -> dict[str, dict[str, Any]]:
    """The results files of a checkpoint of ours below `results_path`, by the name of their split.

    Raises:
        InputError: it is none of ours, or there are none.
    """
    run = read_run(checkpoint.resolve().parent)
    if run is None or not is_complete(checkpoint):
        raise InputError(f"--results_path: {checkpoint} is not a checkpoint of one of our runs")
    name = f"{run_folder(run)}/{checkpoint.resolve().name}{RESULTS_SUFFIX}"
    results = {}
    for path in sorted(results_path.glob(f"*/{name}")):
        result = read_record(path, ResultsRecord, SCORE_AGAIN)
        results[result["run"].get("split", path.relative_to(results_path).parts[0])] = result
    if not results:
        raise InputError(f"--results_path {results_path}: no */{name} below it")
    return dict(sorted(results.items()))


def _scores(results: Mapping[str, Mapping[str, Any]]) -> str:
    if not results:
        return _NO_SCORES
    rows = [
        "| split | file | questions | score, % | 95 % interval | chance |",
        "|---|---|---|---|---|---|",
    ]
    for split, result in results.items():
        rows += [
            f"| {split} | {name} | {f['n']} | {f['score']} | {f.get('low')} to {f.get('high')} "
            f"| {f['expected']} |"
            for name, f in result["files"].items()
        ]
        for name in ("average", "ood_average"):
            if name in result:
                low, high = result.get(f"{name}_low"), result.get(f"{name}_high")
                rows.append(
                    f"| {split} | **{name}** | | {result[name]} | {low} to {high} "
                    f"| {result.get(f'expected_{name}')} |"
                )
    return "\n".join(rows)


def _file_rows(run: Run) -> list[str]:
    return [
        f"| {part} | {name} | {file['lines']:,} | `{file['sha256']}` |"
        for part in ("train", "valid")
        for name, file in run[part]["files"].items()
    ]


def _facts(run: Run) -> list[tuple[str, Any]]:
    facts = [*run["hyperparameters"].items()]
    facts += [(name, run[name]) for name in ("steps_per_epoch", "device", "started")]
    git = run.get("git") or {}
    dirty = " (with changes)" if git.get("dirty") else ""
    facts.append(("code", f"{git.get('commit')}{dirty}"))
    return facts + [(name, version) for name, version in run.get("versions", {}).items()]
