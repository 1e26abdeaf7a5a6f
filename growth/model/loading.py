"""Load and save tokenizer and model, of any family that the Auto classes know, and Baichuan.

Safe by default: weights are safetensors (or GGUF), and code in a model folder is only run with
`trust_remote_code`.
"""

import contextlib
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.quantization_config import GgufConfig

import growth
from growth.core.errors import InputError
from growth.model import baichuan, lora
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.source import Model, Source, find_model, fingerprint, stored_elements
from growth.model.tokenizer_files import load_from_files, tokenizer_source
from growth.model.weight_cache import entry_of, fill, kept
from growth.model.weight_files import FETCH

logger = logging.getLogger(__name__)
PACKED = 16  # weights that one element of a file may stand for: 32 bits of 2 each
NEW_ROWS_NOISE = 0.01  # of the old rows' standard deviation
# What the libraries raise on a broken or unknown model, and may raise through our own functions.
_LIBRARY_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    TypeError,
    SafetensorError,
)
_PACKAGE = str(Path(growth.__file__).parent)
T = TypeVar("T")


def translate_load_errors(source: Source, what: str, load: Callable[[], T]) -> T:
    """Run `load`; errors of the libraries become one message about `source`.

    Raises:
        InputError: `load` failed; `what` names the part of the model that was loaded.
    """
    try:
        return load()
    except InputError:
        raise
    except BaseException as error:
        if not _is_of_library(error):
            raise
        reason = " ".join(str(error).split())[:400]
        code = (
            "; if you have read the code that it brings along and trust it, --trust_remote_code "
            "runs it"
        )
        raise InputError(
            f"{source.options.origin} {source.name}: its {what} can't be loaded "
            f"({type(error).__name__}: {reason}). Expected a causal language model that "
            "transformers knows without code of its own"
            + (code if "trust_remote_code" in str(error) else "")
        ) from error


def _is_of_library(error: BaseException) -> bool:
    """Whether `error` is what a library makes of a strange model, and no bug of ours.

    What is in a model's files may reach any line of the libraries; so what they raise themselves is
    theirs, of any kind. `tokenizers` raises Rust's panics as no Exception.
    """
    if isinstance(error, _LIBRARY_ERRORS) or type(error).__name__ == "PanicException":
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, Exception) and not frame.f_code.co_filename.startswith(_PACKAGE)


def load_tokenizer(name_or_path: Model) -> ChatTokenizer:
    """The tokenizer of a model, with the control tokens.

    Raises:
        InputError: it is missing or of no known kind.
    """
    source = tokenizer_source(find_model(name_or_path))

    def load() -> ChatTokenizer:
        if source.gguf_file is None:
            return ChatTokenizer(load_from_files(source), source.name)
        from growth.model.gguf_tokenizer import gguf_tokenizer

        return ChatTokenizer(gguf_tokenizer(source), source.name)

    return translate_load_errors(source, "tokenizer", load)


def load_config(source: Source) -> PreTrainedConfig:
    """The config of the model that `source` becomes once loaded.

    Raises:
        InputError: it is of no known architecture.
    """
    base = source.base()
    if base.is_adapter:
        return load_config(base)
    if base.folder and baichuan.is_baichuan(base.folder):
        folder = base.folder
        return translate_load_errors(base, "config", lambda: baichuan.converted_config(folder))

    def load() -> PreTrainedConfig:
        entry = entry_of("config", fingerprint(base)) if base.gguf_file else None
        if config := kept(entry, AutoConfig.from_pretrained):
            return config
        with _gguf_read_once(base):
            config = AutoConfig.from_pretrained(base.name, **base.arguments())
        if entry is not None:
            fill(entry, config.save_pretrained)
        return config

    return translate_load_errors(base, "config", load)


def _gguf_read_once(source: Source) -> contextlib.AbstractContextManager[None]:
    if source.gguf_file is None:
        return contextlib.nullcontext()
    from growth.model.gguf_file import read_once  # gguf is needed for such files alone

    return read_once()


def load_model(name_or_path: Model, dtype: torch.dtype, chat: ChatTokenizer) -> PreTrainedModel:
    """The model, with an embedding row for each token of `chat`, in `dtype` on the CPU.

    A LoRA adapter is merged into its base. Rows are added for control tokens, never removed: many
    vocabularies are padded.

    Raises:
        InputError: it is missing, incomplete or of no known architecture.
    """
    source = find_model(name_or_path)
    load_config(source)
    model = _load_once(source, dtype, chat)
    model.config.pad_token_id = chat.pad_id
    return model


def _load_once(source: Source, dtype: torch.dtype, chat: ChatTokenizer) -> PreTrainedModel:
    """The model with a row for each token of `chat`, from the cache where it was made before."""
    entry = None
    if (source.is_adapter or source.gguf_file) and not source.options.trust_remote_code:
        known = fingerprint(source)
        # a model of the hub of no known commit may be another one the next time
        if not known.startswith("hub:") or "@" in known:
            entry = entry_of("weights", known, dtype, chat.vocabulary_size)
    if model := kept(
        entry, lambda folder: _load_weights(Source(str(folder), options=source.options), dtype)
    ):
        model.config._name_or_path = model.name_or_path = source.base().name
        return model
    model = _load_with_adapter(source, dtype, chat)
    resize_embeddings(model, chat.vocabulary_size)
    # a class of ours or of the model's own is not what its config alone would be loaded as
    if entry is not None and type(model).__module__.startswith("transformers."):
        fill(entry, model.save_pretrained)
    return model


def _load_with_adapter(source: Source, dtype: torch.dtype, chat: ChatTokenizer) -> PreTrainedModel:
    """The weights of a model; an adapter's are merged into its base, itself perhaps an adapter."""
    if not source.is_adapter:
        return _load_weights(source, dtype)
    base, folder = _load_with_adapter(source.base(), dtype, chat), Path(source.name)
    if not lora.replaces_vocabulary(folder):
        # Adapters of ours changed control tokens' rows, which are initialised alike every time.
        resize_embeddings(base, chat.vocabulary_size)
    return translate_load_errors(source, "LoRA adapter", lambda: lora.merge_adapter(base, folder))


def _load_weights(source: Source, dtype: torch.dtype) -> PreTrainedModel:
    config = load_config(source)
    attention = translate_load_errors(source, "config", lambda: _check_and_attend(source, config))
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if source.folder and baichuan.is_baichuan(source.folder):
        folder = source.folder
        model, loading = translate_load_errors(
            source, "model", lambda: baichuan.load_baichuan(folder, **arguments)
        )
    else:
        arguments |= source.arguments()
        if source.gguf_file:
            # unpacked to plain weights, which can be tuned and need no kernel from a hub
            arguments["quantization_config"] = GgufConfig(dequantize=True)
        else:
            arguments |= {"use_safetensors": True, "config": config}

        def load() -> tuple[PreTrainedModel, dict[str, Any]]:
            with _gguf_read_once(source):
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    source.name, output_loading_info=True, **arguments
                )
            return loaded

        model, loading = translate_load_errors(source, "model", load)
    if loading["missing_keys"]:
        raise InputError(
            f"{source.options.origin} {source.name}: incomplete, its weights lack "
            f"{', '.join(sorted(loading['missing_keys'])[:3])} and would be random; fetch it again"
        )
    return model


def _architecture(config: PreTrainedConfig, source: Source) -> PreTrainedModel:
    """The model of a config on the meta device: shapes without numbers."""
    config._attn_implementation = None  # what its file names is not taken
    code = {"trust_remote_code": source.options.trust_remote_code}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", **code)
    config._attn_implementation = None
    return model


def shapes_of(source: Source, chat: ChatTokenizer) -> PreTrainedModel:
    """What `load_model` gives, on the meta device; no weights are read.

    Raises:
        InputError: it is of no known architecture.
    """
    config = load_config(source)
    model = translate_load_errors(source, "config", lambda: _architecture(config, source))
    rows = model.get_input_embeddings().num_embeddings
    if rows < chat.vocabulary_size:
        with torch.device("meta"):
            model.resize_token_embeddings(chat.vocabulary_size, mean_resizing=False)
    return model


def _check_and_attend(source: Source, config: PreTrainedConfig) -> str:
    """The attention to compute with: eager where the architecture has no SDPA.

    Raises:
        InputError: the config is of a far larger model than the weights are, whose other weights
            would be drawn at random first, in all the memory that it takes.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", 1)
    if layers < 1:
        raise InputError(
            f"{source.options.origin} {source.name}: a model of {layers} layers; {FETCH}"
        )
    model = _architecture(config, source)
    stored = stored_elements(source)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if stored is not None and parameters > PACKED * stored:
        raise InputError(
            f"{source.options.origin} {source.name}: incomplete, by its config it has "
            f"{parameters:,} parameters, and its weight files hold {stored:,}: the others would be "
            f"random; {FETCH}"
        )
    return "sdpa" if model._supports_sdpa else "eager"


def check_weights_are_numbers(model: torch.nn.Module, name: str) -> None:
    """Refuse a model whose weights hold NaN or infinity, once its output has turned out to.

    It takes a pass over all weights, so that it is no part of loading.

    Raises:
        InputError: it does; `name` says of which model.
    """
    for parameter, weights in model.named_parameters():
        if not torch.isfinite(weights).all():
            raise InputError(
                f"{name}: its weights hold NaN or infinity ({parameter}), as after a training "
                "that diverged; fetch the model again, or take a checkpoint before that"
            )


def resize_embeddings(model: PreTrainedModel, rows: int) -> None:
    """Grow the vocabulary to `rows` if it is smaller; new rows lie close to the old ones' mean.

    Unlike random rows they get little probability before they are trained (Hewitt 2021). A little
    noise makes them differ; it is the same in every process and for every seed.
    """
    old = cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings
    if old >= rows:
        return
    model.resize_token_embeddings(rows, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    for layer in (layer for layer in layers if layer is not None):
        known = layer.weight.data[:old].float()
        noise = torch.randn(rows - old, known.shape[1], generator=torch.Generator().manual_seed(0))
        new = known.mean(0) + NEW_ROWS_NOISE * known.std(0) * noise
        layer.weight.data[old:] = new.to(layer.weight.dtype)


def init_controls_as_text(model: PreTrainedModel, chat: ChatTokenizer, name: str) -> None:
    """Let the rows of new control tokens begin as those of the tokens that bound a text.

    `<eot>` becomes what closes a text (EOS), `<user>` and `<assistant>` what opens one (BOS, or EOS
    where there is none), in the embedding and in the output layer: a pretrained model knows what
    these mean, while rows near the mean have to be learned from the first samples.

    Args:
        model: with a row for each token of `chat`, both of the model `name`.

    Raises:
        InputError: the control tokens are not new, or the vocabulary has no EOS.
    """
    closing = chat.tokenizer.eos_token_id
    opening = chat.tokenizer.bos_token_id
    if not chat.has_new_controls or closing is None:
        why = "has no EOS token" if chat.has_new_controls else "has the control tokens already"
        raise InputError(
            f"--init_control_tokens text: {name} {why}; leave the flag out, and its rows stay as "
            "they are"
        )
    opening = closing if opening is None else opening
    controls, known = [chat.user_id, chat.assistant_id, chat.eot_id], [opening, opening, closing]
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for rows in layer.parameters() if layer is not None else ():  # weight, perhaps bias
            rows.data[controls] = rows.data[known]


def max_positions(model: PreTrainedModel) -> int | None:
    """Positions that the model may use, or None where its config sets no bound."""
    return _max_positions(model.config)


def bounded_length(name_or_path: Model, max_length: int) -> int:
    """`max_length` tokens, or as many as the model has positions for; no weights are read."""
    source = find_model(name_or_path)
    config = load_config(source)
    bound = _max_positions(config)
    if bound is None or max_length <= bound:
        return max_length
    if _batch_independent_length(config) == bound:
        logger.warning(
            "%s: no more than %s tokens, instead of %s: beyond them transformers computes this "
            "architecture in ways that depend on the other samples of a batch",
            *(source.name, bound, max_length),
        )
    return bound


def _max_positions(config: PreTrainedConfig) -> int | None:
    text = config.get_text_config()
    bounds = [
        getattr(text, "max_position_embeddings", None),
        getattr(text, "max_seq_len", None),  # MPT's, whose ALiBi reaches no further
        _batch_independent_length(config),
    ]
    return min((bound for bound in bounds if bound is not None), default=None)


def _batch_independent_length(config: PreTrainedConfig) -> int | None:
    """Tokens up to which a sample is computed alike in any batch; None where that has no bound.

    Phi-3's long rotary frequencies replace the short ones for a whole batch as soon as one sample
    of it is longer than the original length. Llama 4 counts its chunks and the temperature of its
    attention in columns of a batch, padding included; within the first chunk neither matters.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]  # or one a layer
    bounds = [
        kind.get("original_max_position_embeddings")
        for kind in kinds
        if kind.get("rope_type") == "longrope"
    ]
    if "chunked_attention" in (getattr(text, "layer_types", None) or ()):
        bounds.append(getattr(text, "attention_chunk_size", None))
    if getattr(text, "attn_temperature_tuning", False):
        bounds.append(text.floor_scale - 1)
    return min((bound for bound in bounds if bound), default=None)
