"""A model's own chat template, a program of whoever made the model, run in a bounded process.

transformers renders it in jinja's sandbox, which stops neither a loop without end nor a text of
10 GB. Signals could end the one but not the other, and only in the main thread; so it is rendered
where time and memory are bounded. That costs 0.3 ms a prompt.
"""

import functools
from typing import Any

from transformers import PreTrainedTokenizerBase

from growth.core.bounded import CPU_SECONDS, MEMORY_BYTES, BoundedWorker, OverBoundError
from growth.core.errors import InputError
from growth.model.chat_tokenizer import Messages

# What a template may add to a conversation, in characters, besides repeating it.
_MOST_ADDED, _MOST_REPEATED = 1_000_000, 10
NATIVE_FLAG = "--chat_template native"
_REMEDY = "leave the flag out"


class NativeTemplate:
    """The chat template of a tokenizer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, source: str, flag: str = NATIVE_FLAG
    ) -> None:
        """Take the template of `tokenizer`, which was loaded from `source`, as `flag` says.

        Raises:
            InputError: there is none, or there are several and none is the default one.
        """
        self._whose = f"{flag}: the chat template of {source}"
        if not tokenizer.chat_template:
            raise InputError(f"{flag}: the tokenizer of {source} has no chat template; {_REMEDY}")
        try:
            self._template = tokenizer.get_chat_template()
        except ValueError as error:
            raise InputError(f"{self._whose}: {_in_one_line(error)}; {_REMEDY}") from None
        self._special_tokens = {
            name: [str(each) for each in token] if isinstance(token, list) else str(token)
            for name, token in tokenizer.special_tokens_map.items()
        }

    def render(self, messages: Messages, ask: bool) -> str:
        """The text of a conversation; with `ask`, up to where the answer begins.

        Raises:
            InputError: the template fails, or takes too much time or memory, or writes too much.
        """
        plain = [dict(message) for message in messages]
        try:
            rendered = _worker().call(self._template, self._special_tokens, plain, ask)
        except OverBoundError as error:
            raise InputError(
                f"{self._whose} takes too much {error} for a conversation (it may take "
                f"{CPU_SECONDS:g} s and {MEMORY_BYTES >> 20:,} MiB); {_REMEDY}"
            ) from None
        if "error" in rendered:
            raise InputError(f"{self._whose} fails: {rendered['error']}; {_REMEDY}")
        text: str = rendered["text"]
        if len(text) > _MOST_ADDED + _MOST_REPEATED * sum(len(m["content"]) for m in messages):
            raise InputError(
                f"{self._whose} makes {len(text):,} characters of a conversation; {_REMEDY}"
            )
        return text


@functools.cache
def _worker() -> BoundedWorker:
    messages = [{"role": "user", "content": "."}]
    warm_up: tuple[Any, ...] = ("{{ messages[0].content }}", {}, messages, True)
    return BoundedWorker(f"{__name__}:render_template", warm_up=warm_up)


def render_template(
    template: str, special_tokens: dict[str, Any], messages: list[dict[str, str]], ask: bool
) -> dict[str, str]:
    """As `PreTrainedTokenizerBase.apply_chat_template`, in this process and without a bound.

    Returns:
        `text`, or `error` if the template can't be compiled or rendered.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        # its annotation says a string, but it is the texts and what marks their answers
        texts: Any = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=ask, **special_tokens
        )[0]
    except MemoryError:
        raise
    # A template is a program of others: it may raise whatever there is.
    except Exception as error:
        return {"error": f"{type(error).__name__}: {_in_one_line(error)}"}
    return {"text": texts[0]}


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."
