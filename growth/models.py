"""Load and save tokenizer and model, of any family that the Auto classes know, and Baichuan.

Safe by default: weights are safetensors (or GGUF), and code in a model folder is not run unless
that is asked for.
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

from growth import baichuan, patches
from growth.chat import ChatTokenizer
from growth.command_line import InputError
from growth.export import SENTENCEPIECE_MARK, save_for_other_tools
from growth.gguf_tokenizer import sentencepiece_tokenizer

FLAG = "--model_name_or_path"
# Tokenizers that are a sentencepiece BPE model and nothing else; transformers' own LlamaTokenizer
# rebuilds merges from the vocabulary and cuts a third of Chinese-LLaMA's texts differently.
SENTENCEPIECE_CLASSES = (
    *("LlamaTokenizer", "LlamaTokenizerFast", "SentencePieceBackend"),
    baichuan.TOKENIZER_CLASS,
)
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
    """Where a model comes from, and how it may be loaded.

    Attributes:
        name: a folder or hub id.
        gguf_file: the GGUF file in it, if it is one.
        base_model: of a LoRA patch; None for the one that the patch names.
        trust_remote_code: run the code that the folder brings along.
    """

    name: str
    gguf_file: str | None = None
    base_model: str | None = None
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a hub id."""
        path = Path(self.name)
        return path if path.is_dir() else None

    @property
    def is_patch(self) -> bool:
        """Whether it is a LoRA patch, which needs a base."""
        return self.folder is not None and patches.is_patch(self.folder)

    def base(self) -> "Source":
        """Where config and weights are loaded from: a patch's base, any other model itself."""
        if not self.is_patch:
            return self
        return find_model(
            patches.base_of(Path(self.name), self.base_model),
            trust_remote_code=self.trust_remote_code,
        )

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained` of the Auto classes."""
        # False, not None: transformers would ask on the terminal
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        return arguments | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


Model = str | Path | Source  # what the functions below take: --model_name_or_path, or what is known


def find_model(
    name_or_path: Model, base_model: str | None = None, trust_remote_code: bool = False
) -> Source:
    """Check, before anything heavy is loaded, that a model is there and whole.

    Args:
        name_or_path: a folder (of a model or of a LoRA patch), a hub id, a .gguf file; a `Source`
            is taken as it is.
        base_model: of a patch.
        trust_remote_code: run code that the model brings along.

    Raises:
        InputError: no such folder, no config, shards missing, or pickled weights only.
    """
    if isinstance(name_or_path, Source):
        return name_or_path
    options = {"base_model": base_model, "trust_remote_code": trust_remote_code}
    path = Path(name_or_path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"{FLAG} {name_or_path}: no such file")
        return Source(str(path.parent), path.name, **options)
    if path.is_dir():
        if patches.is_patch(path):
            patches.check_patch(path)
        else:
            _check_folder(path)
        return Source(str(path), **options)
    if path.exists():
        raise InputError(
            f"{FLAG} {name_or_path}: a file; expected a model's folder, a hub id or a .gguf file"
        )
    name = str(name_or_path)
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise InputError(f"{FLAG} {name}: no such folder, and no hub id (name/name) either")
    return Source(name, **options)


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
        code = (
            "; if you have read the code that it brings along and trust it, --trust_remote_code "
            "runs it"
        )
        raise InputError(
            f"{FLAG} {source.name}: its {what} can't be loaded ({type(error).__name__}: {reason}). "
            "Expected a causal language model that transformers knows without code of its own"
            + (code if "trust_remote_code" in str(error) else "")
        ) from error


def load_tokenizer(name_or_path: Model) -> ChatTokenizer:
    """The tokenizer of a model, with the control tokens.

    Raises:
        InputError: it is missing or of no known kind.
    """
    source = find_model(name_or_path)
    if source.is_patch and not patches.has_tokenizer(Path(source.name)):
        source = source.base()
    kind: Any = AutoTokenizer
    arguments = source.arguments()
    if _is_sentencepiece(source):
        kind = SentencePieceBackend
        arguments = {"legacy": True}  # otherwise transformers changes how a text begins

    def load() -> PreTrainedTokenizerBase:
        if source.gguf_file:
            path = Path(source.name) / source.gguf_file
            if (tokenizer := sentencepiece_tokenizer(path)) is not None:
                return tokenizer
        return kind.from_pretrained(source.name, **arguments)

    return ChatTokenizer(_explained(source, "tokenizer", load), source.name)


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


def load_config(source: Source) -> PreTrainedConfig:
    """The config of the model that `source` becomes once loaded.

    Raises:
        InputError: it is of no known architecture.
    """
    base = source.base()
    if base.is_patch:
        return load_config(base)
    if base.folder and baichuan.is_baichuan(base.folder):
        return baichuan.converted_config(base.folder)
    return _explained(
        base, "config", lambda: AutoConfig.from_pretrained(base.name, **base.arguments())
    )


def load_model(name_or_path: Model, dtype: torch.dtype, chat: ChatTokenizer) -> PreTrainedModel:
    """The model, with an embedding row for each token of `chat`, in `dtype` on the CPU.

    A LoRA patch is merged into its base. Rows are added for control tokens, never taken away: many
    vocabularies are padded.

    Raises:
        InputError: it is missing, incomplete or of no known architecture.
    """
    source = find_model(name_or_path)
    load_config(source)
    model = _load_patched(source, dtype, chat)
    _add_rows(model, chat.vocabulary_size)
    model.config.pad_token_id = chat.pad_id
    return model


def _load_patched(source: Source, dtype: torch.dtype, chat: ChatTokenizer) -> PreTrainedModel:
    """The weights of a model; of a patch those of its base, which may be patched too, changed."""
    if not source.is_patch:
        return _load_weights(source, dtype)
    base, folder = _load_patched(source.base(), dtype, chat), Path(source.name)
    if not patches.brings_rows(folder):
        # Adapters of ours changed control tokens' rows, which come about the same way each time.
        _add_rows(base, chat.vocabulary_size)
    return _explained(source, "LoRA patch", lambda: patches.apply_patch(base, folder))


def _load_weights(source: Source, dtype: torch.dtype) -> PreTrainedModel:
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if source.folder and baichuan.is_baichuan(source.folder):
        folder = source.folder
        model, loading = _explained(
            source, "model", lambda: baichuan.load_baichuan(folder, **arguments)
        )
    else:
        arguments |= source.arguments()
        if source.gguf_file:
            # unpacked to plain weights, which can be tuned and need no kernel from a hub
            arguments["quantization_config"] = GgufConfig(dequantize=True)
        else:
            arguments["use_safetensors"] = True
        model, loading = _explained(
            source,
            "model",
            lambda: AutoModelForCausalLM.from_pretrained(
                source.name, output_loading_info=True, **arguments
            ),
        )
    if loading["missing_keys"]:
        raise InputError(
            f"{FLAG} {source.name}: incomplete, its weights lack "
            f"{', '.join(sorted(loading['missing_keys'])[:3])} and would be random; fetch it again"
        )
    return model


def _add_rows(model: PreTrainedModel, rows: int) -> None:
    """Grow the vocabulary to `rows` if it is smaller; new rows lie close to the old ones' mean.

    Unlike random rows they get little probability before they are trained (Hewitt 2021). A little
    noise tells them apart; it is the same in every process and for every seed.
    """
    old = model.get_input_embeddings().num_embeddings
    if old >= rows:
        return
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


def bounded_length(name_or_path: Model, max_length: int) -> int:
    """`max_length` tokens, or as many as the model has positions for; no weights are read."""
    config = load_config(find_model(name_or_path))
    return min(max_length, _max_positions(config) or max_length)


def _max_positions(config: PreTrainedConfig) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def fingerprint(name_or_path: Model) -> str:
    """A digest that changes when a model's config or weights change.

    Of each weight file it reads the header and 64 KiB at 64 places, which no retrained model
    shares, instead of all of its gigabytes.
    """
    source = find_model(name_or_path)
    if source.folder is None:
        return f"hub:{source.name}"
    digest = hashlib.sha256()
    if source.is_patch:
        digest.update(fingerprint(source.base()).encode())
    names = (
        [source.gguf_file] if source.gguf_file else ["config.json", patches.CONFIG, "*.safetensors"]
    )
    for path in sorted(path for name in names for path in source.folder.glob(name)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            for place in range(64):
                file.seek(size * place // 64)
                digest.update(file.read(65536))
    return digest.hexdigest()
