"""A Jinja chat template that makes other tools give the ids that training gave.

`tokenizer.apply_chat_template(messages)` then equals `ChatTokenizer.encode_conversation`, and with
`add_generation_prompt` `encode_prompt`. One thing differs, because a template hands text to the
tokenizer: where content spells a special token, such as `<eot>`, a zero-width space inside it keeps
it text. On our own paths content never becomes a special token, and needs no such mark.
"""

import json
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from growth.model.chat_tokenizer import CONTROLS, ChatTokenizer

ZERO_WIDTH_SPACE = "\u200b"
# <tokens>: a list of special tokens; <spelled>: which of them to look for. <space>: what makes the
# content after a special token begin as a text of its own does, "" or " ".
_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('the format has the roles user and assistant only, not ' ~ message['role']) -}}
{%- endif -%}
{%- set text = message['content'] | trim -%}
{%- set content = namespace(text=text) -%}
{%- for token in <tokens><spelled> -%}
{%- set content.text = content.text | replace(token, token[0] ~ '<mark>' ~ token[1:]) -%}
{%- endfor -%}
{{- ('<user>' if message['role'] == 'user' else '<assistant>') -}}
{{- ('<space>' ~ content.text if content.text else '') ~ '<eot>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<assistant>' -}}
{%- endif -%}
"""
# The same where a word at the beginning of the content takes no space. {words}: a list of them.
_WORDS = """\
{%- set content.space = '<space>' -%}
{%- for word in <words> if content.text.startswith(word) -%}
{%- set content.space = '' -%}
{%- endfor -%}
{{- ('<user>' if"""
# What a template is tested on: beginnings that tokenizers treat in ways of their own.
_PROBES = ("你好", "hello  world\n\n  x", "A", "1. 甲", "\u3000乙", "<b>", "(x)", "")
_TESTED_WORDS = 20


def chat_template(special_tokens: list[str], space: str = "", words: Sequence[str] = ()) -> str:
    """The template of a tokenizer with these special tokens.

    Args:
        special_tokens: all that must not be spelled by content, the control tokens among them.
        space: put before content, for tokenizers that mark the beginning of a text only where it
            is the beginning of all.
        words: added words, before which no such space stands.
    """
    template = _TEMPLATE
    if space and words:
        template = template.replace("{{- ('<user>' if", _WORDS).replace(
            "('<space>' ~ content", "(content.space ~ content"
        )
        template = template.replace("<words>", json.dumps(sorted(words), ensure_ascii=False))
    breakable = [token for token in special_tokens if len(token) > 1]
    # of thousands a text spells none; one that holds the mark may arise from another's breaking
    spelled = "" if any(ZERO_WIDTH_SPACE in token for token in breakable) else " if token in text"
    return (
        template.replace("<spelled>", spelled)
        .replace("<tokens>", json.dumps(breakable, ensure_ascii=False))
        .replace("<mark>", ZERO_WIDTH_SPACE)
        .replace("<space>", space)
    )


def fitting_template(chat: ChatTokenizer, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template with which `tokenizer` gives the ids of `chat`, or None where there is none.

    Args:
        chat: what training used.
        tokenizer: what other tools will load; it may be of another kind.
    """
    special = {*tokenizer.all_special_tokens, *CONTROLS}
    special |= {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    words = [*chat.content.words]
    probes = [*_PROBES, *(f"{word}，x{word} y" for word in words[:_TESTED_WORDS])]
    for space in ("", " "):
        # longest first: a token may be part of another
        template = chat_template(sorted(special, key=lambda t: (-len(t), t)), space, words)
        if all(_agree(chat, tokenizer, template, probe) for probe in probes):
            return template
    return None


def _agree(
    chat: ChatTokenizer, tokenizer: PreTrainedTokenizerBase, template: str, text: str
) -> bool:
    messages = [{"role": role, "content": text} for role in ("user", "assistant", "user")]
    ids = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    return ids == chat.encode_prompt(messages)
