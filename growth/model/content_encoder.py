"""Text as token ids, and ids as text, by the tokenizer alone: no special token in between.

A sentencepiece tokenizer may have words besides its model: tokens of added_tokens.json that are
not special. They are cut out of a text first, the longest at a place; sentencepiece tokenises what
lies between. LLaMA's sentencepiece puts a space before a text; whether it does so after such a
word, too, is what `"legacy": true` in tokenizer_config.json says of transformers' tokenizers.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from google.protobuf.message import Message
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from transformers import PreTrainedTokenizerBase

_USER_DEFINED = 4  # piece type of sentencepiece's own format
# In tokenizer_config.json of our checkpoints: every piece of text between added words begins with
# a space (true), or the first alone (false).
PREFIX_FIELD = "prefix_after_added_words"


class ContentEncoder:
    """Encodes and decodes plain text.

    Attributes:
        words: ids of added words that are not special; empty but for sentencepiece tokenizers, as
            others know such words themselves.
        prefix_after_words: whether text that follows one of `words` begins with a space, as all
            texts do.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._sentencepiece: SentencePieceProcessor | None = getattr(tokenizer, "sp_model", None)
        self.words: dict[str, int] = {}
        if self._sentencepiece is not None:
            added = tokenizer.added_tokens_decoder.items()
            plain = {token.content: index for index, token in added if not token.special}
            self.words = _without_pieces(plain, self._sentencepiece)
        self.prefix_after_words = bool(tokenizer.init_kwargs.get(PREFIX_FIELD, False))
        if self.words:
            longest_first = sorted(self.words, key=lambda word: (-len(word), word))
            self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
            assert self._sentencepiece is not None  # only then there are words
            self._continued = (
                self._sentencepiece
                if self.prefix_after_words
                else _without_prefix(self._sentencepiece)
            )

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; those of special tokens are not among them, whatever it spells."""
        if self._sentencepiece is None:
            return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
                "input_ids"
            ]
        if not self.words:
            return self._sentencepiece.encode(text)
        ids: list[int] = []
        for i, part in enumerate(self._pattern.split(text)):
            if i % 2:
                ids.append(self.words[part])
            elif part:
                ids += (self._continued if i else self._sentencepiece).encode(part)
        return ids

    def at_most(self, text: str) -> int:
        """No fewer tokens than `text` has, without encoding it: one per byte of its normal form.

        A space counts as the three bytes of the mark that many tokenizers put in its place, and a
        text may be given one more at its start.
        """
        if self._sentencepiece is not None:
            normal = self._sentencepiece.normalize(text)
        else:
            backend = getattr(self.tokenizer, "backend_tokenizer", None)
            normalizer = backend.normalizer if backend is not None else None
            normal = normalizer.normalize_str(text) if normalizer is not None else text
        return len(normal.encode()) + 2 * normal.count(" ") + 3

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, of which none is special."""
        if self._sentencepiece is None:
            return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
        # Byte pieces make characters only through sentencepiece itself; rows that pad the
        # vocabulary have no piece.
        size = self._sentencepiece.get_piece_size()
        names = {index: word for word, index in self.words.items()}
        if not names:
            return self._sentencepiece.decode([token for token in ids if token < size])
        text = ""
        known = [token for token in ids if token < size or token in names]
        for i, (is_word, group) in enumerate(groupby(known, key=names.__contains__)):
            if is_word:
                text += "".join(names[token] for token in group)
            else:
                text += (self._continued if i else self._sentencepiece).decode(list(group))
        return text


def _proto(processor: SentencePieceProcessor) -> Message:
    return sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]  # generated
        processor.serialized_model_proto()
    )


def _without_pieces(words: dict[str, int], processor: SentencePieceProcessor) -> dict[str, int]:
    """Those of `words` that sentencepiece does not find whole in a text by itself."""
    if not any(index < processor.get_piece_size() for index in words.values()):
        return words
    pieces = _proto(processor).pieces
    return {
        word: index
        for word, index in words.items()
        if index >= len(pieces) or pieces[index].type != _USER_DEFINED
    }


def _without_prefix(processor: SentencePieceProcessor) -> SentencePieceProcessor:
    """`processor`, but no space is put before a text."""
    proto = _proto(processor)
    proto.normalizer_spec.add_dummy_prefix = False
    return SentencePieceProcessor(model_proto=proto.SerializeToString())
