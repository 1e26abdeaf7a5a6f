"""Load and save tokenizer and model, of any family that the Auto classes know.

Safe by default: weights are safetensors (or GGUF), and code in a model folder is never run.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend
from transformers.utils.quantization_config import GgufConfig

from growth.chat import ChatTokenizer
from growth.command_line import InputError
from growth.export import SENTENCEPIECE_MARK, save_for_other_tools

FLAG = "--model_name_or_path"
# Tokenizers that are a sentencepiece BPE model and nothing else; transformers' own LlamaTokenizer
# rebuilds merges from the vocabulary and cuts a third of Chinese-LLaMA's texts differently.
SENTENCEPIECE_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast", "SentencePieceBackend")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

NEW_ROWS_NOISE = 0.01  # of the old rows' standard deviation

# What the libraries raise on a broken or unknown model.
_LIBRARY_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    TypeError,
    SafetensorError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a folder or hub id, and the GGUF file in it, if it is one."""

    name: str
    gguf_file: str | None = None

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a hub id."""
        path = Path(self.name)
        return path if path.is_dir() else None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`."""
        return {"gguf_file": self.gguf_file} if self.gguf_file else {}


def find_model(name_or_path: str) -> Source:
    """Check, before anything heavy is loaded, that a model is there and whole.

    Raises:
        InputError: no such folder, no config, shards missing, or pickled weights only.
    """
    path = Path(name_or_path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"{FLAG} {name_or_path}: no such file")
        return Source(str(path.parent), path.name)
    if path.is_dir():
        _check_folder(path)
        return Source(str(path))
    if path.exists():
        raise InputError(
            f"{FLAG} {name_or_path}: a file; expected a model's folder, a hub id or a .gguf file"
        )
    if not HUB_ID.fullmatch(name_or_path) or name_or_path.startswith("."):
        raise InputError(f"{FLAG} {name_or_path}: no such folder, and no hub id (name/name) either")
    return Source(name_or_path)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{FLAG} {folder}: no config.json in it; expected a folder as save_pretrained writes it"
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'}: not JSON ({error})") from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{index}: not an index of weight shards; fetch it again") from None
        missing = sorted(name for name in shards if not (folder / str(name)).is_file())
        if missing:
            raise InputError(
                f"{FLAG} {folder}: incomplete, {len(missing)} of {len(shards)} weight files are "
                f"missing ({', '.join(missing[:3])}); fetch the model again"
            )
        return
    if (folder / "model.safetensors").is_file():
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{FLAG} {folder}: pickled weights only ({', '.join(pickles[:3])}), which can run code "
            "when they are loaded; convert them to safetensors on a machine you can lose "
            "(save_pretrained(..., safe_serialization=True))"
        )
    raise InputError(
        f"{FLAG} {folder}: incomplete, there is no model.safetensors (nor an index of shards) in it"
    )


def _explained(source: Source, what: str, load: Callable[[], T]) -> T:
    """Run `load`; what the libraries complain of becomes one message about `source`."""
    try:
        return load()
    except _LIBRARY_ERRORS as error:
        reason = " ".join(str(error).split())[:400]
        raise InputError(
            f"{FLAG} {source.name}: its {what} can't be loaded ({type(error).__name__}: {reason}). "
            "Expected a causal language model that transformers knows without code of its own"
        ) from error


def load_tokenizer(name_or_path: str) -> ChatTokenizer:
    """The tokenizer of a model, with the control tokens.

    Raises:
        InputError: it is missing or of no known kind.
    """
    source = find_model(name_or_path)
    arguments = source.arguments()
    kind: Any = AutoTokenizer
    if _is_sentencepiece(source):
        kind = SentencePieceBackend
        arguments["legacy"] = True  # otherwise transformers changes how a text begins
    tokenizer = _explained(
        source, "tokenizer", lambda: kind.from_pretrained(source.name, **arguments)
    )
    return ChatTokenizer(tokenizer, source.name)


def _is_sentencepiece(source: Source) -> bool:
    """Whether the tokens must be sentencepiece's own: a tokenizer.model of the LLaMA kind."""
    folder = source.folder
    if folder is None or source.gguf_file or not (folder / "tokenizer.model").is_file():
        return False
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    kind = config.get("tokenizer_class")
    return (
        kind in SENTENCEPIECE_CLASSES
        or SENTENCEPIECE_MARK in config
        or (kind is None and not (folder / "tokenizer.json").is_file())
    )


def load_model(name_or_path: str, dtype: torch.dtype, chat: ChatTokenizer) -> PreTrainedModel:
    """The model, with an embedding row for each token of `chat`, in `dtype` on the CPU.

    Rows are added for control tokens, never taken away: many vocabularies are padded.

    Raises:
        InputError: it is missing, incomplete or of no known architecture.
    """
    source = find_model(name_or_path)
    arguments = source.arguments()
    _explained(source, "config", lambda: AutoConfig.from_pretrained(source.name, **arguments))
    model, loading = _explained(
        source,
        "model",
        lambda: AutoModelForCausalLM.from_pretrained(
            source.name,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            **arguments,
            **(
                # unpacked to plain weights, which can be tuned and need no kernel from a hub
                {"quantization_config": GgufConfig(dequantize=True)}
                if source.gguf_file
                else {"use_safetensors": True}
            ),
        ),
    )
    if loading["missing_keys"]:
        raise InputError(
            f"{FLAG} {source.name}: incomplete, its weights lack "
            f"{', '.join(sorted(loading['missing_keys'])[:3])} and would be random; fetch it again"
        )
    if model.get_input_embeddings().num_embeddings < chat.vocabulary_size:
        _add_rows(model, chat.vocabulary_size)
    model.config.pad_token_id = chat.pad_id
    return model


def _add_rows(model: PreTrainedModel, rows: int) -> None:
    """Grow the vocabulary to `rows`; new rows lie close to the mean of the old ones.

    Unlike random rows they get little probability before they are trained (Hewitt 2021). A little
    noise tells them apart; it is the same in every process and for every seed.
    """
    old = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(rows, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    for layer in (layer for layer in layers if layer is not None):
        known = layer.weight.data[:old].float()
        noise = torch.randn(rows - old, known.shape[1], generator=torch.Generator().manual_seed(0))
        new = known.mean(0) + NEW_ROWS_NOISE * known.std(0) * noise
        layer.weight.data[old:] = new.to(layer.weight.dtype)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a tokenizer so that any tool loads it, with the chat template, stop tokens and card.

    To be called once the weights are saved.
    """
    save_for_other_tools(tokenizer, folder)


def max_positions(model: PreTrainedModel) -> int | None:
    """Positions that the model knows, or None where its config sets no bound."""
    return _max_positions(model.config)


def bounded_length(name_or_path: str, max_length: int) -> int:
    """`max_length` tokens, or as many as the model has positions for; no weights are read."""
    source = find_model(name_or_path)
    config = _explained(
        source, "config", lambda: AutoConfig.from_pretrained(source.name, **source.arguments())
    )
    return min(max_length, _max_positions(config) or max_length)


def _max_positions(config: PreTrainedConfig) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def fingerprint(name_or_path: str) -> str:
    """A digest that changes when a model's config or weights change.

    Of each weight file it reads the header and 64 KiB at 64 places, which no retrained model
    shares, instead of all of its gigabytes.
    """
    source = find_model(name_or_path)
    if source.folder is None:
        return f"hub:{source.name}"
    digest = hashlib.sha256()
    names = [source.gguf_file] if source.gguf_file else ["config.json", "*.safetensors"]
    for path in sorted(path for name in names for path in source.folder.glob(name)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            for place in range(64):
                file.seek(size * place // 64)
                digest.update(file.read(65536))
    return digest.hexdigest()
