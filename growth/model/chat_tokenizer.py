"""Conversation -> token ids and labels; control tokens.

No text template (paper section 4.1; published training script): for each message the role's control
token, the tokens of the stripped content, `<eot>`. No BOS, no EOS. Loss on the assistant's content
and its `<eot>` only:

    <user>  问 题  <eot>  <assistant>  答 案  <eot>
      .     . .     .         .        L  L    L        (L: label, .: -100)
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import AddedToken, PreTrainedTokenizerBase

from growth.core.errors import InputError
from growth.data.abilities import LETTERS
from growth.model.content_encoder import ContentEncoder

CONTROLS = USER, ASSISTANT, EOT = "<user>", "<assistant>", "<eot>"
PAD = "<pad>"
IGNORED_LABEL = -100
Messages = Sequence[Mapping[str, str]]


class Labels(NamedTuple):
    """The tokens of answers such as A, B, C, D.

    Attributes:
        prefix: tokens before the one that distinguishes them; none for most tokenizers.
        ids: of each, the token that does.
    """

    prefix: list[int]
    ids: list[int]


class ChatTokenizer:
    """A tokenizer with the study's control tokens.

    Content is data: whatever characters it holds, its ids are never those of a control token.

    Attributes:
        tokenizer: the Hugging Face tokenizer; control tokens were added to it where missing.
        has_new_controls: whether none of the control tokens was in the vocabulary before.
        letter_ids: the token that distinguishes the answer "A" from "B" ..., by letter. It is the
            token that the content "A" gives, which is what training teaches.
        letter_prefix: tokens before it in every letter answer; empty for most tokenizers.
        content: what turns plain text into ids and back.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        """Add the missing control tokens to `tokenizer`, which was loaded from `source`.

        Raises:
            InputError: the vocabulary spells a control token out of plain text, or has gaps in its
                ids where a control token would get the id of another.
        """
        self.has_new_controls = _add_controls(tokenizer) == len(CONTROLS)
        if tokenizer.pad_token is None:
            tokenizer.add_special_tokens({"pad_token": PAD})
        self.tokenizer = tokenizer
        # past the added-token machinery: text never meets a control token
        self.content = ContentEncoder(tokenizer)
        ids = tokenizer.convert_tokens_to_ids([*CONTROLS])
        assert isinstance(ids, list)  # as the argument is
        self.user_id, self.assistant_id, self.eot_id = ids
        controls = {*ids}
        if len(controls) < len(CONTROLS) or _are_taken(tokenizer, ids):
            raise InputError(
                f"{source}: its vocabulary has gaps, so that {', '.join(CONTROLS)} would get "
                f"ids that other tokens have ({ids}); use a model whose token ids have none"
            )
        self.pad_id: int = tokenizer.pad_token_id
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
        self.stop_ids = frozenset(controls | special - {None})
        self.vocabulary_size = max(*controls, self.pad_id, len(tokenizer) - 1) + 1
        if controls & set(self.encode_content(f"a{USER}{ASSISTANT}{EOT}")):
            raise InputError(
                f"{source}: its tokenizer turns the plain text {USER}{ASSISTANT}{EOT} into control "
                "tokens, so data could pose as a turn; use one without these as plain pieces"
            )
        self._source = source
        self._labels: dict[tuple[str, ...], Labels] = {}
        letters = self.labels(LETTERS)
        self.letter_prefix, self.letter_ids = (
            letters.prefix,
            dict(zip(LETTERS, letters.ids, strict=True)),
        )

    def labels(self, options: Sequence[str]) -> Labels:
        """The tokens that tell the answers `options` apart, whose likeliest is the model's answer.

        Raises:
            InputError: they have no token each behind the same tokens.
        """
        key = tuple(options)
        if key not in self._labels:
            self._labels[key] = self._tokenised(key)
        return self._labels[key]

    def _tokenised(self, options: tuple[str, ...]) -> Labels:
        encoded = {label: self.encode_content(label) for label in options}
        empty = [label for label, tokens in encoded.items() if not tokens]
        if empty:
            # transformers makes an empty tokenizer, without a word, where its files are missing
            raise InputError(
                f"{self._source}: its tokenizer has no token for {empty[0]!r}; is tokenizer.model "
                "or tokenizer.json missing? Fetch the model again"
                + ("" if options == LETTERS else ", or give the study's ability other options")
            )
        prefix = encoded[options[0]][:-1]
        distinct = {tokens[-1] for tokens in encoded.values() if tokens[:-1] == prefix}
        if len(distinct) != len(options):
            remedy = "" if options == LETTERS else "; give the study's ability other options"
            raise InputError(
                f"{self._source}: its tokenizer gives the labels {', '.join(options)} no token "
                f"each ({encoded}); letter answers can't be read from it{remedy}"
            )
        return Labels(prefix, [tokens[-1] for tokens in encoded.values()])

    def encode_content(self, text: str) -> list[int]:
        """The ids of the stripped `text`, without BOS or EOS."""
        text = text.strip()
        return self.content.encode(text)

    def encode_conversation(self, messages: Messages) -> tuple[list[int], list[int]]:
        """Input ids and labels, both `(tokens,)`, not truncated and not shifted."""
        input_ids: list[int] = []
        labels: list[int] = []
        for message in messages:
            content = [*self.encode_content(message["content"]), self.eot_id]
            assistant = message["role"] == "assistant"
            input_ids += [self.assistant_id if assistant else self.user_id, *content]
            labels += [IGNORED_LABEL, *(content if assistant else [IGNORED_LABEL] * len(content))]
        return input_ids, labels

    def encode_prompt(self, messages: Messages) -> list[int]:
        """The ids of `messages`, closed by the bare `<assistant>` that asks for an answer."""
        return [*self.encode_conversation(messages)[0], self.assistant_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated `ids`, control and other special tokens left out, stripped."""
        special = {*self.tokenizer.all_special_ids, self.user_id, self.assistant_id, self.eot_id}
        plain = [token for token in ids if token not in special]
        return self.content.decode(plain).strip()


def _add_controls(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add the control tokens that are missing; returns how many were."""
    controls = [AddedToken(token, special=True, normalized=False) for token in CONTROLS]
    if getattr(tokenizer, "sp_model", None) is not None:
        # in one call: each lists the vocabulary anew, a second for one of 262,144 pieces
        return tokenizer.add_tokens(controls, special_tokens=True)
    # others miscount past a gap in the ids if given several
    return sum(tokenizer.add_tokens([control], special_tokens=True) for control in controls)


def _are_taken(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    """Whether other tokens have some of the control tokens' `ids`."""
    processor = getattr(tokenizer, "sp_model", None)
    if processor is not None:
        known = {i: processor.id_to_piece(i) for i in ids if i < processor.get_piece_size()}
        return not {*known.values()} <= {*CONTROLS}
    return any(i in ids and token not in CONTROLS for token, i in tokenizer.get_vocab().items())
