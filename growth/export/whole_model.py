"""Write a model of any kind that can be loaded as a plain folder, or as a GGUF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from growth.core.device import DTYPES
from growth.core.files import replacing
from growth.core.options import AS_TEXT, NEAR_MEAN
from growth.export.checkpoint_files import TokenizerFiles
from growth.export.gguf import write_gguf
from growth.export.model_card import write_checkpoint_card
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import init_controls_as_text, load_model, load_tokenizer
from growth.model.source import Source


class WholeModel:
    """A model as it is exported: adapters merged, Baichuan and GGUF converted.

    Args:
        source: of the model.
        precision: of its weights, one of `growth.core.options.WEIGHT_PRECISIONS`.
        control_rows: what rows of added control tokens begin as, one of
            `growth.core.options.CONTROL_ROWS`.

    Raises:
        InputError: it can't be loaded.
    """

    def __init__(self, source: Source, precision: str, control_rows: str = NEAR_MEAN) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self.source = source
        self.chat: ChatTokenizer = load_tokenizer(source)
        self.model: PreTrainedModel = load_model(source, DTYPES[precision], self.chat)
        if control_rows == AS_TEXT:
            init_controls_as_text(self.model, self.chat, source.name)
        self.tokenizer_files = TokenizerFiles(self.chat.tokenizer)

    def write_folder(self, folder: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Write weights, tokenizer and, for a checkpoint of ours, its card with `results`."""
        with replacing(folder) as temporary:
            self.model.save_pretrained(temporary)
            self.tokenizer_files.write(temporary)
            if self.source.folder is not None and self.source.gguf_file is None:
                write_checkpoint_card(self.source.folder, temporary, results)

    def write_gguf(self, path: Path, type_: str) -> None:
        """Write a GGUF file with the chat template.

        Args:
            path: of the file.
            type_: of the matrices, one of `growth.core.options.GGUF_TYPES`.

        Raises:
            InputError: of an architecture that `growth.export.gguf` can't convert.
        """
        write_gguf(self.model, self.chat, self.tokenizer_files.chat_template, path, type_)
