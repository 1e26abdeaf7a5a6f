"""Lines of the formats that instruction data comes in, as the turns of a conversation.

The fields are those of OpenAI's fine-tuning files and DoIT (`messages`), of Alpaca (`instruction`,
`input`, `output`, and `system` and `history` as LLaMA-Factory reads them), of ShareGPT
(`conversations`), and of TRL and OpenAI's older files (`prompt`, `completion`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from growth.core.errors import InputError
from growth.core.files import json_line
from growth.core.options import ALPACA, AUTO, COMPLETION, FOLD, MESSAGES, SHAREGPT
from growth.data.raw_files import Fields, Refusal

Messages = list[dict[str, str]]

COLUMNS = (
    *("messages", "role", "content"),
    *("conversations", "from", "value"),
    *("instruction", "input", "output", "system", "history"),
    *("prompt", "completion"),
)
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# OpenAI's older files begin each completion with it, as it is one text with its prompt.
_JOINING_SPACE = re.compile(r"^ (?=\S)")
_OUT_OF_ORDER = "roles out of order"
_EMPTY = "empty turn"


@dataclass(frozen=True)
class Reading:
    """How lines are read.

    Args:
        format: one of `growth.core.options.DATA_FORMATS`.
        system: what becomes of a system message: "refuse", or "fold" to put it in front of the
            first user turn.
        columns: what a field is called in the files, where not as in `COLUMNS`.
    """

    format: str = AUTO
    system: str = "refuse"
    columns: Mapping[str, str] = field(default_factory=dict)

    def name(self, column: str) -> str:
        """What the files call `column`."""
        return self.columns.get(column, column)


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """The names of columns that `--columns instruction=question ...` gives.

    Raises:
        InputError: a pair is none, or names no column that is known.
    """
    columns = {}
    for pair in pairs:
        column, equals, name = pair.partition("=")
        if not equals or not name or column not in COLUMNS:
            raise InputError(
                f"--columns {pair}: expected NAME=COLUMN, such as instruction=question, with NAME "
                f"one of {', '.join(COLUMNS)}"
            )
        columns[column] = name
    return columns


def recognised_format(fields: Fields, reading: Reading) -> str | None:
    """Which format a line has by its fields, or None."""
    if reading.format != AUTO:
        return reading.format
    if isinstance(fields.get(reading.name("messages")), list):
        return MESSAGES
    if isinstance(fields.get(reading.name("conversations")), list):
        return SHAREGPT
    has = {column for column in COLUMNS if reading.name(column) in fields}
    if "output" in has and has & {"instruction", "input"}:
        return ALPACA
    return COMPLETION if has >= {"prompt", "completion"} else None


def converted(fields: Fields, format_: str, reading: Reading) -> tuple[Messages, Fields]:
    """The turns of a line, user first and assistant last, and its other fields.

    Args:
        fields: of the line, as it stands in its file.
        format_: one of the formats, not `AUTO`.
        reading: how to read it.

    Raises:
        Refusal: training can't use it.
    """
    for name in _MEDIA:
        if fields.get(name):
            raise Refusal("not only text", f"has `{name}`; only text can be learnt here")
    if format_ == ALPACA:
        turns, used = _alpaca_turns(fields, reading)
    elif format_ == COMPLETION:
        turns, used = _completion_turns(fields, reading)
    else:
        column = reading.name("messages" if format_ == MESSAGES else "conversations")
        turns, used = _listed_turns(fields.get(column), column, reading), {column}
    system = fields.get(reading.name("system"))
    if system is not None:
        turns.insert(0, ("system", _text(system, "system")))
    messages = _alternating(_without_system(turns, reading.system))
    used |= {reading.name("system"), "messages"}
    others = {name: value for name, value in fields.items() if name not in used}
    try:
        json_line(others)
    except (TypeError, ValueError) as error:  # of Parquet: dates, bytes, a NaN in a list
        raise Refusal("field that JSON can't hold", str(error)) from None
    return messages, others


def _alpaca_turns(fields: Fields, reading: Reading) -> tuple[list[tuple[str, str]], set[str]]:
    turns = []
    history = fields.get(reading.name("history")) or []
    if not isinstance(history, list):
        raise Refusal("malformed history", "`history` must be a list of [question, answer]")
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refusal("malformed history", "`history` must be a list of [question, answer]")
        turns += [("user", _text(pair[0], "history")), ("assistant", _text(pair[1], "history"))]
    # null is how many tools write a field that is missing
    given = [(name, fields.get(reading.name(name))) for name in ("instruction", "input")]
    parts = [_text(value, name) for name, value in given if value is not None]
    question = "\n".join(part for part in parts if part.strip())
    answer = reading.name("output")
    if answer not in fields:
        raise Refusal("missing field", f"has no `{answer}`")
    turns += [("user", question), ("assistant", _text(fields[answer], answer))]
    return turns, {reading.name(name) for name in ("instruction", "input", "output", "history")}


def _completion_turns(fields: Fields, reading: Reading) -> tuple[list[tuple[str, str]], set[str]]:
    """Of a prompt and its completion, each a text or a list of turns."""
    turns = []
    for column, role in (("prompt", "user"), ("completion", "assistant")):
        name = reading.name(column)
        if name not in fields:
            raise Refusal("missing field", f"has no `{name}`")
        value = fields[name]
        if isinstance(value, list):
            turns += _listed_turns(value, name, reading)
        else:
            text = _text(value, name)
            turns.append((role, _JOINING_SPACE.sub("", text) if role == "assistant" else text))
    return turns, {reading.name("prompt"), reading.name("completion")}


def _listed_turns(turns: object, column: str, reading: Reading) -> list[tuple[str, str]]:
    """The turns of a list of objects, whose fields are from/value or role/content."""
    if not isinstance(turns, list):
        raise Refusal("missing field", f"has no list `{column}`")
    read = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise Refusal("malformed turn", f"a turn of `{column}` is no object")
        role = _first(turn, reading.name("role"), reading.name("from"))
        if not isinstance(role, str) or role.lower() not in _ROLES:
            raise Refusal("unknown role", f"a turn of `{column}` has the role {_shown(role)}")
        content = _first(turn, reading.name("content"), reading.name("value"))
        read.append((_ROLES[role.lower()], _text(content, f"{column} content")))
    return read


def _first(turn: Mapping[str, Any], *names: str) -> Any:
    return next((turn[name] for name in names if name in turn), None)


def _text(content: object, name: str) -> str:
    """The text of a turn: a string, or OpenAI's list of parts that are all text."""
    if content is None:
        raise Refusal(_EMPTY, f"`{name}` is empty")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if _is_text(part)]
        if len(texts) == len(content):
            return "".join(map(str, texts))
    if isinstance(content, int | float) and not isinstance(content, bool):
        message = f'`{name}` is a number, not text; quote it: "{content}"'
        raise Refusal("number, not text", message)
    if not isinstance(content, str):
        raise Refusal("not only text", f"`{name}` is not text: {_shown(content)}")
    return content


def _is_text(part: object) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _without_system(turns: list[tuple[str, str]], system: str) -> list[tuple[str, str]]:
    if not turns or turns[0][0] != "system":
        return turns
    (_, message), *turns = turns
    if not message.strip():
        return turns
    if system != FOLD:
        raise Refusal(
            "system message",
            "has a system message, which the study's prompts have no place for; --system fold puts "
            "it in front of the first user turn",
        )
    if turns and turns[0][0] == "user" and turns[0][1].strip():
        turns[0] = ("user", f"{message}\n\n{turns[0][1]}")
    return turns


def _alternating(turns: list[tuple[str, str]]) -> Messages:
    if not turns:
        raise Refusal("no turn", "has no user turn")
    for position, (role, content) in enumerate(turns, start=1):
        expected = ("assistant", "user")[position % 2]
        if role != expected:
            message = f"turn {position} is the {role}'s, expected the {expected}'s"
            raise Refusal(_OUT_OF_ORDER, message)
        if not content.strip():
            raise Refusal(_EMPTY, f"turn {position} ({role}) is empty")
    if len(turns) % 2:
        raise Refusal("ends with the user", "the last turn must be the assistant's")
    return [{"role": role, "content": content} for role, content in turns]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
