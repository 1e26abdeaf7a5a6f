"""How a conversation becomes a prompt: in the study's control tokens or a model's chat template.

The letters are read as training taught them or as the published runners read them.
"""

from abc import ABC, abstractmethod

from growth.core.errors import InputError
from growth.core.options import PromptOptions, published_letters
from growth.data.abilities import LETTERS
from growth.inference.native_template import NativeTemplate
from growth.model.chat_tokenizer import ChatTokenizer, Messages

_PLAIN = "."  # stands for any text that spells no control token


class PromptFormat(ABC):
    """How a conversation becomes the ids of a prompt, and which ids are the letters.

    Attributes:
        chat: the model's tokenizer.
        letter_ids: the tokens of A, B, C, D.
    """

    chat: ChatTokenizer
    letter_ids: list[int]

    @abstractmethod
    def encode(self, messages: Messages) -> list[int]:
        """The ids after which a letter is the next token."""


class ControlFormat(PromptFormat):
    """The study's own form (paper section 4.1): `<user> ... <eot> <assistant>`."""

    def __init__(self, chat: ChatTokenizer, letter_tokens: str) -> None:
        self.chat = chat
        self._prefix = chat.letter_prefix
        self.letter_ids = [chat.letter_ids[letter] for letter in LETTERS]
        if letter_tokens == "bare":
            self._prefix, self.letter_ids = [], bare_letters(chat)

    def encode(self, messages: Messages) -> list[int]:
        """See `PromptFormat`."""
        return self.chat.encode_prompt(messages) + self._prefix


class NativeFormat(PromptFormat):
    """A model's own chat template.

    Raises:
        InputError: the tokenizer has none, or no token for each letter, or the template fails.
    """

    def __init__(self, chat: ChatTokenizer, letter_tokens: str, source: str) -> None:
        self.chat = chat
        self._tokenizer = chat.tokenizer
        self._template = NativeTemplate(self._tokenizer, source)
        # The control tokens of a prompt, in order, by its turns.
        self._controls: dict[int, list[int]] = {}
        self._before_letter = self._between() if letter_tokens == "answer" else None
        self._special = self._special_ids()
        self.letter_ids = self._letters(source) if letter_tokens == "answer" else bare_letters(chat)

    def encode(self, messages: Messages) -> list[int]:
        """See `PromptFormat`.

        Raises:
            InputError: the text of a message spells a control token of the model, or the template
                fails.
        """
        ids = self._ids(messages)
        turns = len(messages)
        if turns not in self._controls:
            plain = [{**message, "content": _PLAIN} for message in messages]
            self._controls[turns] = self._controls_of(self._ids(plain))
        if self._controls_of(ids) != self._controls[turns]:
            raise InputError(
                "--chat_template native: a question spells a control token of this model "
                f"({messages[-1]['content'][:80]!r} ...)"
            )
        return ids

    def _ids(self, messages: Messages, letter: str | None = None) -> list[int]:
        """The prompt's ids, with the letter's at the end if one is given."""
        text = self._template.render(messages, True)
        if self._before_letter is None:
            return self._tokenizer(text, add_special_tokens=False)["input_ids"]
        # A space before a letter may be part of its token: what comes before is known only with
        # a letter behind it.
        text += self._before_letter + (letter or LETTERS[0])
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids if letter else ids[:-1]

    def _special_ids(self) -> set[int]:
        """All special tokens, and added words that the template writes itself, special or not."""
        added = self._tokenizer.added_tokens_decoder
        roles = ("user", "assistant", "user")
        written = set(self._ids([{"role": role, "content": _PLAIN} for role in roles]))
        # Gemma's line breaks are added words, which any question may hold.
        plain = {index for index, token in added.items() if token.content.strip() in ("", _PLAIN)}
        return {
            *self._tokenizer.all_special_ids,
            *(index for index, token in added.items() if token.special),
            *((written & added.keys()) - plain),
        }

    def _controls_of(self, ids: list[int]) -> list[int]:
        return [token for token in ids if token in self._special]

    def _between(self) -> str:
        """What the template puts between prompt and answer: nothing, a space, an empty thought."""
        question = [{"role": "user", "content": _PLAIN}]
        answer = {"role": "assistant", "content": LETTERS[0]}
        prompt = self._template.render(question, True)
        whole = self._template.render([*question, answer], False)
        return whole[len(prompt) :].partition(LETTERS[0])[0] if whole.startswith(prompt) else ""

    def _letters(self, source: str) -> list[int]:
        question = [{"role": "user", "content": _PLAIN}]
        answered = [self._ids(question, letter) for letter in LETTERS]
        letters = [ids[-1] for ids in answered]
        if len({tuple(ids[:-1]) for ids in answered}) > 1 or len(set(letters)) < len(LETTERS):
            raise InputError(
                f"--chat_template native: the tokenizer of {source} gives the letters A-D no token "
                f"each behind its template ({answered}); letter answers can't be read from it"
            )
        return letters


def bare_letters(chat: ChatTokenizer) -> list[int]:
    """The ids of the pieces "A" to "D" themselves, which the published runners read.

    Raises:
        InputError: the vocabulary lacks one.
    """
    vocabulary = chat.tokenizer.get_vocab()
    ids = [vocabulary.get(letter, chat.tokenizer.unk_token_id) for letter in LETTERS]
    if any(token is None or token == chat.tokenizer.unk_token_id for token in ids):
        raise InputError(
            "--letter_tokens bare: the vocabulary has no pieces A, B, C, D; use answer"
        )
    return ids


def make_prompt_format(chat: ChatTokenizer, options: PromptOptions, source: str) -> PromptFormat:
    """The format that the options name, for the tokenizer of `source`.

    Raises:
        InputError: the tokenizer can't be prompted so.
    """
    letter_tokens = published_letters(False, options.letter_tokens)
    if options.chat_template == "native":
        return NativeFormat(chat, letter_tokens, source)
    return ControlFormat(chat, letter_tokens)
