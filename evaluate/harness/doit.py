"""DoIT's abilities as tasks of lm-evaluation-harness: any model that it runs, on our curves.

    PYTHONPATH=. lm_eval --model hf --model_args pretrained=MODEL --apply_chat_template \\
        --include_path evaluate/harness --tasks doit --metadata '{"data_dir": "data/curated/test"}'

The rules are those of `growth.scoring.verdicts`, on the same lines: a letter is the response if it
is one character, else the likeliest of A-D; of three choices the gold one must have the lowest
perplexity, its end of turn included. Two things differ from evaluate/predict.py: of a letter's
answer only the first 8 tokens are generated, and a prompt that is too long is cut as the harness
does it.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from growth.core.options import MAX_NEW_TOKENS
from growth.data.abilities import Ability
from growth.data.records import Record, read_evaluation_files, reads_letter
from growth.data.study import published_study
from growth.inference.backends import FIRST_TOKENS
from growth.inference.native_template import NativeTemplate
from growth.inference.requests import Response
from growth.scoring.verdicts import judge
from growth.tasks.doit import predicted_record

DATA_DIR = "data/curated/valid"


def lines_of(ability: str, data_dir: str = DATA_DIR, **_: Any) -> dict[str, Dataset]:
    """The lines of one ability in a folder, each as the JSON it is.

    Args:
        ability: of the published study.
        data_dir: from --metadata; every *.json in it is read, as predict.py does.
    """
    lines = [
        json.dumps(record, ensure_ascii=False)
        for records in read_evaluation_files(
            Path(data_dir), '--metadata {"data_dir":', published_study()
        ).values()
        for record in records
        if ability_of(record).name == ability
    ]
    return {"test": Dataset.from_list([{"line": line} for line in lines])}


class DoIT(ConfigurableTask):
    """One ability."""

    def __init__(self, config: dict[str, Any]) -> None:
        config = {name: value for name, value in config.items() if name != "class"}
        super().__init__(config=config)
        settings = self.config.metadata or {}
        self.answer_tokens = settings.get("max_gen_toks", MAX_NEW_TOKENS)
        name = settings.get("tokenizer") or settings.get("pretrained")
        self.tokenizer = AutoTokenizer.from_pretrained(name) if name else None
        self.template = bounded_template(self.tokenizer, str(name))
        self.templated = False

    def fewshot_context(
        self, doc: dict[str, str], num_fewshot: int, **options: Any
    ) -> str | list[str]:
        """The conversation before the gold answer; demonstrations are turns of it."""
        if num_fewshot:
            raise ValueError("DoIT's lines hold their own demonstrations; leave --num_fewshot out")
        messages = [
            {"role": m["role"], "content": m["content"].strip()}
            for m in record_of(doc)["messages"][:-1]
        ]
        template: Callable[..., str] | None = options.get("chat_template")
        self.templated = bool(options.get("apply_chat_template") and template)
        if template is not None and self.templated:
            if self.template is not None:  # the harness renders without a bound
                self.template.render(messages, ask=True)
            return template(messages)
        return "\n\n".join(m["content"] for m in messages) + "\n\n"

    def construct_requests(self, doc: dict[str, str], ctx: str, **options: Any) -> list[Instance]:
        """An answer and the four letters' likelihoods, or the three choices' likelihoods."""
        record = record_of(doc)
        options = {name: options[name] for name in ("metadata",) if name in options}

        def request(kind: str, number: int, *arguments: Any) -> Instance:
            return Instance(
                request_type=kind, doc=doc, arguments=(ctx, *arguments), idx=number, **options
            )

        ability = ability_of(record)
        if ability.is_choice:
            texts = [choice + self.end_of_turn() for choice in choices_of(record)]
            return [request("loglikelihood", i, text) for i, text in enumerate(texts)]
        letter = reads_letter(record, ability)
        length = min(self.answer_tokens, FIRST_TOKENS) if letter else self.answer_tokens
        how = {"until": [], "max_gen_toks": length, "do_sample": False}
        asked = [request("generate_until", 0, how)]
        if letter:
            asked += [
                request("loglikelihood", 1 + i, text) for i, text in enumerate(ability.options)
            ]
        return asked

    def process_results(self, doc: dict[str, str], results: Sequence[Any]) -> dict[str, float]:
        """The verdict of `growth.scoring.verdicts` on one line, and the score of chance there."""
        record = record_of(doc)
        ability = ability_of(record)
        if ability.is_choice:
            texts = [choice + self.end_of_turn() for choice in choices_of(record)]
            pairs = zip(results, texts, strict=True)
            response = Response(
                perplexities=[
                    math.exp(min(-likelihood / self.length(text), 700.0))
                    for (likelihood, _), text in pairs
                ]
            )
        else:
            text, *likelihoods = results
            response = Response(text=text.strip(), logits=[value for value, _ in likelihoods])
        verdict = judge(predicted_record(record, response, ability), ability)
        return {"acc": float(verdict.score), "expected": float(verdict.expected)}

    def end_of_turn(self) -> str:
        """What the model's template writes when an answer ends, such as `<eot>`; else nothing."""
        return end_of_turn(self.template) if self.template and self.templated else ""

    def length(self, text: str) -> int:
        """Tokens of `text`, or characters where the model's tokenizer is not known."""
        if self.tokenizer is None:
            return len(text)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def ability_of(record: Record) -> Ability:
    """The ability of a line."""
    return published_study().ability(record)


def record_of(doc: dict[str, str]) -> Record:
    """The line of a document."""
    return json.loads(doc["line"])


def choices_of(record: Record) -> list[str]:
    """The three choices, stripped as training strips an answer."""
    return [choice.strip() for choice in record["choices"]]


def bounded_template(tokenizer: PreTrainedTokenizerBase | None, name: str) -> NativeTemplate | None:
    """The chat template of a tokenizer, a stranger's program; None where there is not just one."""
    if tokenizer is None or not isinstance(tokenizer.chat_template, str):
        return None
    return NativeTemplate(tokenizer, name, "--apply_chat_template")


def end_of_turn(template: NativeTemplate) -> str:
    """What stands behind an answer in the template, without the line break some end with."""
    mark = "ANSWER"
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": mark}]
    return template.render(messages, ask=False).rpartition(mark)[2].strip()
