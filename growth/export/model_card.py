"""The model card (README.md) of a checkpoint, out of its run record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth.core.files import write_text
from growth.runs.layout import Run

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
        # the name, not the place on somebody's disk
        base=Path(run["model_name_or_path"]).name,
        parameters=run["parameters"],
        samples=run["train"]["samples"],
        validation=validation,
        scores=_scores(results or {}),
        files="\n".join(_file_rows(run)),
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(run)),
    )
    write_text(folder / CARD, text)


def _scores(results: Mapping[str, Mapping[str, Any]]) -> str:
    if not results:
        return _NO_SCORES
    rows = [
        "| split | file | questions | score, % | 95 % interval | guessing |",
        "|---|---|---|---|---|---|",
    ]
    for split, result in results.items():
        rows += [
            f"| {split} | {name} | {f['n']} | {f['score']} | {f['low']} to {f['high']} "
            f"| {f['expected']} |"
            for name, f in result["files"].items()
        ]
        for name in ("average", "ood_average"):
            if name in result:
                rows.append(
                    f"| {split} | **{name}** | | {result[name]} | {result[f'{name}_low']} to "
                    f"{result[f'{name}_high']} | {result[f'expected_{name}']} |"
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
