"""What makes a checkpoint a model that other tools can use without this repository.

Beside the weights: a tokenizer that they load and that cuts texts as training did, a chat template,
a generation_config.json that stops where an answer ends, a model card.
"""

import json
import logging
from pathlib import Path

from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.files import read_json, write_json
from growth.export.chat_template import fitting_template
from growth.export.fast_tokenizer import disagreements, fast_tokenizer, random_texts
from growth.export.model_card import write_card
from growth.model.chat_tokenizer import EOT, ChatTokenizer
from growth.model.loading import SENTENCEPIECE_MARK
from growth.runs.layout import METRICS
from growth.runs.record import read_run


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a tokenizer so that any tool loads it, with the chat template, stop tokens and card.

    To be called once the weights are saved.
    """
    save_for_other_tools(tokenizer, folder)


logger = logging.getLogger(__name__)
PIECES = "tokenizer.model"
FAST_CLASS = "PreTrainedTokenizerFast"  # every version of transformers knows it by this name
_TRIED_TEXTS = 500
# What only our transformers understands, or what speaks of the folder that was loaded.
_PRIVATE_FIELDS = (
    "auto_map",
    "backend",
    "is_local",
    "legacy",
    "local_files_only",
    "sp_model_kwargs",
)


def save_for_other_tools(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save all that belongs to a model besides its config and weights.

    Without control tokens in it, `tokenizer` is a foundation model's: it gets no template.
    """
    folder.mkdir(parents=True, exist_ok=True)
    portable = portable_form(tokenizer)
    chat = ChatTokenizer(tokenizer, str(folder)) if EOT in tokenizer.get_vocab() else None
    if chat is not None:
        portable.chat_template = fitting_template(chat, portable)
        if portable.chat_template is None:
            logger.warning("%s: no chat template gives this tokenizer's training ids", folder)
    # in tokenizer_config.json, where tools of all ages look
    portable.save_pretrained(folder, save_jinja_files=False)
    is_sentencepiece = isinstance(tokenizer, SentencePieceBackend)
    if is_sentencepiece:
        tokenizer.save_vocabulary(str(folder))
        added = {str(t): i for i, t in tokenizer.added_tokens_decoder.items()}
        new = {t: i for t, i in added.items() if i >= tokenizer.vocab_size}
        write_json(folder / "added_tokens.json", new)  # where converters to GGUF look
    _write_config(folder, is_sentencepiece and portable is not tokenizer)
    if chat is not None:
        GenerationConfig(
            do_sample=False,  # greedy, where a tool would sample by default
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=sorted(chat.stop_ids),
            pad_token_id=chat.pad_id,
        ).save_pretrained(folder)
        _write_card_of_run(folder)


def portable_form(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer` as what other tools load: one that tokenizer.json can hold."""
    if not isinstance(tokenizer, SentencePieceBackend):
        return tokenizer
    processor = tokenizer.sp_model
    fast = fast_tokenizer(processor)
    for index, token in sorted(tokenizer.added_tokens_decoder.items()):
        fast.add_special_tokens([token])
        if fast.token_to_id(str(token)) != index:  # a gap in the ids, which no tokenizer.json has
            logger.warning("%s has the id %s: kept as sentencepiece only", token, index)
            return tokenizer
    if other := disagreements(fast, processor, random_texts(processor, _TRIED_TEXTS)):
        logger.warning(
            "tokenizer.json cuts %s of %s random texts otherwise than sentencepiece does, such as "
            "%r; other tools will see those tokens",
            *(len(other), _TRIED_TEXTS, min(other, key=len)),
        )
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: getattr(tokenizer, name) for name in names}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token is not None},
    )


def _write_config(folder: Path, is_sentencepiece: bool) -> None:
    """Put tokenizer_config.json into words that older and other tools know."""
    path = folder / "tokenizer_config.json"
    config = read_json(path)
    config = {name: value for name, value in config.items() if name not in _PRIVATE_FIELDS}
    # a list under this name stops transformers 4
    if extra := config.pop("extra_special_tokens", None):
        config["additional_special_tokens"] = extra
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = FAST_CLASS
    if is_sentencepiece:
        config[SENTENCEPIECE_MARK] = PIECES
    write_json(path, config)


def _write_card_of_run(folder: Path) -> None:
    """The card, where the folder above is one of our runs."""
    run = read_run(folder.parent)
    if run is not None:
        metrics = last_evaluation(folder.parent)
        write_card(folder, run, metrics["step"] if metrics else 0, metrics)


def last_evaluation(run_dir: Path, step: int | None = None) -> dict | None:
    """The line of metrics.jsonl of the evaluation at `step`, or of the last one."""
    path = run_dir / METRICS
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [
        line for line in lines if "eval_loss" in line and (step is None or line["step"] == step)
    ]
    return found[-1] if found else None
