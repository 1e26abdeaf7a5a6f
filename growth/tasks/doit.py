"""DoIT's lines as tasks: the ten abilities and the out-of-domain sets (paper section 4.2).

Lines with `question_format` 0 are answered greedily, and the letters' logits are read at the first
step; of lines with `question_format` 1 the perplexity of each choice is taken. Their scores are
computed from the files alone, by `growth.scoring`.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from growth.core.errors import InputError
from growth.core.files import LONGEST_NAME, json_line
from growth.data.abilities import Ability
from growth.data.copies import PREDICTED_FIELDS, RESPONSE_CUT
from growth.data.records import Record, read_records, reads_letter
from growth.data.study import Study
from growth.inference.loglikelihood import significant
from growth.inference.requests import Request, Response, Stop
from growth.model.chat_tokenizer import ChatTokenizer
from growth.runs.layout import PREDICTION_PREFIX
from growth.tasks.task import Prompting, Task


class DoITFile(Task):
    """The lines of the input file `<stem>.json` of a study, each checked by `evaluation_check`.

    Raises:
        InputError: the file of the predictions would have too long a name.
    """

    def __init__(self, stem: str, records: Sequence[Record], study: Study) -> None:
        if len(os.fsencode(f"{PREDICTION_PREFIX}{stem}.json")) > LONGEST_NAME:
            raise InputError(
                f"{stem}.json: too long a name: with {PREDICTION_PREFIX} in front it has more than "
                f"{LONGEST_NAME} bytes; rename the file"
            )
        self.stem, self.records, self.study = stem, records, study
        self.label = stem
        self.file = Path(f"{PREDICTION_PREFIX}{stem}.json")

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self.records)

    def digest(self, index: int) -> str:
        """See `Task`."""
        return hashlib.sha256(json_line(self.records[index]).encode()).hexdigest()[:16]

    def request(self, index: int, prompting: Prompting) -> Request:
        """See `Task`."""
        return request_of(self.records[index], prompting, self._ability(index))

    def result(self, index: int, request: Request, response: Response) -> Record:
        """See `Task`."""
        return predicted_record(self.records[index], response, self._ability(index))

    def _ability(self, index: int) -> Ability:
        return self.study.ability(self.records[index])

    def check_results(self, path: Path) -> None:
        """See `Task`."""
        if list(map(_without_prediction, read_records(path))) != list(
            map(_without_prediction, self.records)
        ):
            raise InputError(
                f"{path}: predictions of other lines than --eval_data_path has now; remove the "
                "file to predict it again"
            )


def request_of(record: Record, prompting: Prompting, ability: Ability) -> Request:
    """One line as a request; a prompt that is too long is cut from its left, as published.

    Raises:
        InputError: the tokenizer can't tell the ability's options apart.
    """
    chat, max_length = prompting.format.chat, prompting.max_length
    ids = chat.encode_prompt(record["messages"][:-1])
    if ability.is_choice:
        choices = [[*chat.encode_content(choice), chat.eot_id] for choice in record["choices"]]
        return Request(
            "choices",
            ids,
            continuations=choices,
            max_length=max_length,
            was_cut=len(ids) > max(1, max_length - max(map(len, choices))),
        )
    labels = chat.labels(ability.options)
    kept = ids[-(max_length - 1) :]  # at least one token of answer has a place
    return Request(
        "generate",
        kept,
        max_new_tokens=min(prompting.max_new_tokens, max_length - len(kept)),
        is_settled=None if prompting.full_responses else _stop(record, chat, ability),
        read_ids=labels.ids,
        read_after=labels.prefix,
        max_length=max_length,
        was_cut=len(kept) < len(ids),
    )


def _stop(record: Record, chat: ChatTokenizer, ability: Ability) -> Stop | None:
    """What neither is one character nor begins a label falls back on the labels' logits."""
    if not reads_letter(record, ability):
        return None

    def is_settled(generated: list[int]) -> bool:
        text = chat.decode(generated)
        # Two or three bytes alone, which decode to as many U+FFFD, may still become one.
        return (
            len(text) > 1
            and text not in ("\ufffd" * 2, "\ufffd" * 3)
            and not any(label.startswith(text) for label in ability.options)
        )

    return is_settled


def predicted_record(record: Record, response: Response, ability: Ability) -> Record:
    """A line with its prediction, in place of any that it brought along."""
    if ability.is_choice:
        return _without_prediction(record) | {
            "generated_ppl": list(map(significant, response.perplexities))
        }
    predicted: Record = {"generated_response": response.text}
    if response.logits:
        logits = map(significant, response.logits)
        predicted["choice_logits"] = dict(zip(ability.options, logits, strict=True))
    if response.was_cut:
        predicted[RESPONSE_CUT] = True
    return _without_prediction(record) | predicted


def _without_prediction(record: Record) -> Record:
    return {key: value for key, value in record.items() if key not in PREDICTED_FIELDS}
