"""What makes a checkpoint a model that other tools can use without this repository.

Besides the weights: a tokenizer that they load and that tokenises as training did, a chat template,
a generation_config.json whose stop tokens end an answer, a model card.
"""

import logging
from pathlib import Path

from transformers import (
    AddedToken,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.files import read_json, write_json
from growth.export.chat_template import fitting_template
from growth.export.fast_tokenizer import disagreements, fast_tokenizer, random_texts
from growth.export.model_card import write_new_checkpoint_card
from growth.model.chat_tokenizer import EOT, ChatTokenizer
from growth.model.content_encoder import PREFIX_FIELD, ContentEncoder
from growth.model.tokenizer_files import SENTENCEPIECE_FIELD

logger = logging.getLogger(__name__)
PIECES = "tokenizer.model"
FAST_CLASS = "PreTrainedTokenizerFast"  # every version of transformers knows it by this name
_TESTED_TEXTS = 500
# What only this version of transformers understands, or is about the folder that was loaded.
_PRIVATE_FIELDS = (
    "auto_map",
    "backend",
    "is_local",
    "legacy",
    "local_files_only",
    "sp_model_kwargs",
)


class TokenizerFiles:
    """What a model's folder holds besides config and weights, to be written any number of times.

    Converting a sentencepiece tokenizer to a tokenizer.json, testing it on random texts and fitting
    a chat template take seconds for Chinese-LLaMA's vocabulary, and are done once.

    Args:
        tokenizer: without control tokens in it, it is a foundation model's, and gets neither a
            template nor stop tokens.

    Attributes:
        chat_template: None where there is none that gives the training ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.portable = portable_form(tokenizer)
        self.chat: ChatTokenizer | None = None
        if EOT in tokenizer.get_vocab():
            self.chat = ChatTokenizer(tokenizer, tokenizer.name_or_path)
            self.portable.chat_template = fitting_template(self.chat, self.portable)
            if self.portable.chat_template is None:
                logger.warning("no chat template gives the training ids of this tokenizer")

    @property
    def chat_template(self) -> str | None:
        """The chat template, as Jinja."""
        return self.portable.chat_template if self.chat is not None else None

    def write(self, folder: Path) -> None:
        """Write the tokenizer, generation_config.json and the card of a run, if it is one's.

        To be called once the weights are saved.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # in tokenizer_config.json, where tools of all ages look
        self.portable.save_pretrained(folder, save_jinja_files=False)
        is_sentencepiece = isinstance(self.tokenizer, SentencePieceBackend)
        if isinstance(self.tokenizer, SentencePieceBackend):
            self.tokenizer.save_vocabulary(str(folder))
            added = {str(t): i for i, t in self.tokenizer.added_tokens_decoder.items()}
            new = {t: i for t, i in added.items() if i >= self.tokenizer.vocab_size}
            write_json(folder / "added_tokens.json", new)  # where converters to GGUF look
        _write_config(folder, is_sentencepiece and self.portable is not self.tokenizer)
        if self.chat is not None:
            GenerationConfig(
                do_sample=False,  # greedy, where a tool would sample by default
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=sorted(self.chat.stop_ids),
                pad_token_id=self.chat.pad_id,
            ).save_pretrained(folder)
            write_new_checkpoint_card(folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write all that belongs to a model besides config and weights, once these are saved."""
    TokenizerFiles(tokenizer).write(folder)


def portable_form(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer` in a form that other tools load: one that tokenizer.json can hold."""
    if not isinstance(tokenizer, SentencePieceBackend):
        return tokenizer
    processor = tokenizer.sp_model
    content = ContentEncoder(tokenizer)
    prefix_once = bool(content.words) and not content.prefix_after_words
    fast = fast_tokenizer(processor, prefix_once)
    for index, token in sorted(tokenizer.added_tokens_decoder.items()):
        if token.special:
            fast.add_special_tokens([token])
        else:  # found in the text as it is, before spaces are marked
            fast.add_tokens([AddedToken(token.content, normalized=False, special=False)])
        if fast.token_to_id(str(token)) != index:  # a gap in the ids, which no tokenizer.json has
            logger.warning("%s has the id %s: kept as sentencepiece only", token, index)
            return tokenizer
    texts = random_texts(processor, _TESTED_TEXTS)
    if content.words:
        words = [*content.words] * (1 + _TESTED_TEXTS // len(content.words))
        # content has no spaces around it
        texts = [
            f"{a}{word}{b}".strip()
            for a, word, b in zip(texts, words[: len(texts)], texts[::-1], strict=True)
        ]
    if other := disagreements(fast, content, texts):
        logger.warning(
            "tokenizer.json tokenises %s of %s random texts differently from sentencepiece, such "
            "as %r; other tools will see those tokens",
            *(len(other), _TESTED_TEXTS, min(other, key=len)),
        )
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: getattr(tokenizer, name) for name in names}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        **({PREFIX_FIELD: content.prefix_after_words} if content.words else {}),
        **{name: token for name, token in special.items() if token is not None},
    )


def _write_config(folder: Path, is_sentencepiece: bool) -> None:
    """Put tokenizer_config.json into the terms that older and other tools know."""
    path = folder / "tokenizer_config.json"
    config = read_json(path)
    config = {name: value for name, value in config.items() if name not in _PRIVATE_FIELDS}
    # a list under this name stops transformers 4
    if extra := config.pop("extra_special_tokens", None):
        config["additional_special_tokens"] = extra
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = FAST_CLASS
    if is_sentencepiece:
        config[SENTENCEPIECE_FIELD] = PIECES
    write_json(path, config)
