"""A model as one GGUF file, for llama.cpp and what is built on it.

The architectures are LLaMA, Mistral, Qwen 2 and Qwen 3; llama.cpp's own converter knows all others.
llama.cpp tokenises by sentencepiece's own algorithm, or by byte-level merges: the tokens are those
of training. (But for Qwen's where a text is not in Unicode's form NFC: llama.cpp leaves it so.)
"""

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.errors import InputError
from growth.core.files import replacing
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.gguf_tokenizer import DIGITS_ALONE, GPT2

# For each model_type: llama.cpp's architecture; whether its rotary positions turn neighbours
# instead of halves, so that rows of queries and keys change places.
_ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, True),
    "mistral": (gguf.MODEL_ARCH.LLAMA, True),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, False),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, False),
}
# llama.cpp's names for ways to split texts, by the pattern in tokenizer.json.
_PATTERNS = {GGUF_PRE_TOKENIZER_SPLITS[name]: name for name in ("llama-bpe", "qwen2", "gpt-4o")}
_TYPES = {
    "f32": (torch.float32, gguf.LlamaFileType.ALL_F32),
    "f16": (torch.float16, gguf.LlamaFileType.MOSTLY_F16),
}
_PAD_PIECE = "[PAD{}]"  # rows of the embedding that have no token


def write_gguf(
    model: PreTrainedModel, chat: ChatTokenizer, template: str | None, path: Path, type_: str
) -> None:
    """Write `model` with its tokenizer to `path`, whole or not at all.

    Args:
        model: of an architecture above.
        chat: its tokenizer.
        template: the chat template.
        path: of the file.
        type_: of the matrices, one of `growth.core.options.GGUF_TYPES`; vectors are float32.

    Raises:
        InputError: another architecture, a sliding window that llama.cpp would leave out, or a
            tokenizer that llama.cpp would replace by another.
    """
    config = model.config
    window = getattr(config, "sliding_window", None)
    if config.model_type not in _ARCHITECTURES or (
        config.model_type == "mistral" and window and window < config.max_position_embeddings
    ):
        what = f"{config.model_type} with a sliding window" if window else config.model_type
        raise InputError(
            f"--gguf: no conversion of {what} here, only of {', '.join(_ARCHITECTURES)} without; "
            "llama.cpp's own convert_hf_to_gguf.py reads the folder that --output_dir writes"
        )
    if chat.content.words and not chat.content.prefix_after_words:
        raise InputError(
            f"--gguf: after this tokenizer's added words ({', '.join([*chat.content.words][:3])}) "
            "text begins without a space, where llama.cpp puts one; use the folder that "
            "--output_dir writes"
        )
    architecture, _ = _ARCHITECTURES[config.model_type]
    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[architecture])
        _write_shape(writer, config, _TYPES[type_][1])
        _write_tokenizer(writer, config, chat)
        if template is not None:
            writer.add_chat_template(template)
        for name, tensor in _tensors(model, _TYPES[type_][0]):
            writer.add_tensor(name, tensor.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _write_shape(
    writer: gguf.GGUFWriter, config: PreTrainedConfig, file_type: gguf.LlamaFileType
) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(file_type)


def _splitting_name(tokenizer: Tokenizer) -> str:
    """llama.cpp's name for the way in which `tokenizer` splits texts.

    Raises:
        InputError: it has none that we know; under another name tokens would be others there.
    """
    state = json.loads(tokenizer.to_str())["pre_tokenizer"] or {}
    steps = state.get("pretokenizers", [state])
    kinds = [step.get("type") for step in steps]
    last = steps[-1]
    if kinds[-1] == "ByteLevel" and not last["add_prefix_space"]:
        if kinds == ["ByteLevel"] and last["use_regex"]:
            return GPT2
        if kinds == ["Digits", "ByteLevel"] and last["use_regex"] and steps[0]["individual_digits"]:
            return DIGITS_ALONE[0]
        if kinds == ["Split", "ByteLevel"] and not last["use_regex"]:
            pattern = steps[0]["pattern"].get("Regex")
            if steps[0]["behavior"] == "Isolated" and pattern in _PATTERNS:
                return _PATTERNS[pattern]
    raise InputError(
        f"--gguf: this tokenizer splits texts by rules of its own ({json.dumps(steps)[:300]}) that "
        "have no name here; llama.cpp's own convert_hf_to_gguf.py reads the folder that "
        "--output_dir writes"
    )


def _write_tokenizer(
    writer: gguf.GGUFWriter, config: PreTrainedConfig, chat: ChatTokenizer
) -> None:
    tokenizer = chat.tokenizer
    rows = config.vocab_size
    tokens = [_PAD_PIECE.format(i) for i in range(rows)]
    types = [gguf.TokenType.UNUSED] * rows
    scores = [-1e9] * rows
    if isinstance(tokenizer, SentencePieceBackend):
        processor = tokenizer.sp_model
        kinds = (
            (processor.is_unknown, gguf.TokenType.UNKNOWN),
            (processor.is_control, gguf.TokenType.CONTROL),
            (processor.is_unused, gguf.TokenType.UNUSED),
            (processor.is_byte, gguf.TokenType.BYTE),
        )
        for i in range(processor.get_piece_size()):
            tokens[i], scores[i] = processor.id_to_piece(i), processor.get_score(i)
            types[i] = next((t for is_it, t in kinds if is_it(i)), gguf.TokenType.NORMAL)
        writer.add_tokenizer_model("llama")
        writer.add_add_space_prefix(processor.encode("a", out_type=str)[0].startswith("▁"))
        writer.add_token_scores(scores)
    else:
        for token, i in tokenizer.get_vocab().items():
            tokens[i], types[i] = token, gguf.TokenType.NORMAL
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_splitting_name(tokenizer.backend_tokenizer))
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(merge) for merge in merges])
    for i, added in tokenizer.added_tokens_decoder.items():
        tokens[i] = added.content
        if types[i] in (gguf.TokenType.UNUSED, gguf.TokenType.NORMAL):
            special = gguf.TokenType.CONTROL if added.special else gguf.TokenType.USER_DEFINED
            types[i] = special
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, chat.pad_id),
        (writer.add_eot_token_id, chat.eot_id),
    ):
        if index is not None:
            add(index)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _tensors(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under llama.cpp's names."""
    config = model.config
    architecture, neighbours = _ARCHITECTURES[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        tensor = tensor.detach().cpu().float()
        part = name.split(".")[-2]
        if neighbours and part in heads:
            rows = tensor.shape[0]
            tensor = tensor.reshape(heads[part], 2, rows // heads[part] // 2, -1)
            tensor = tensor.swapaxes(1, 2).reshape(rows, -1)
        translated = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if translated is None:
            raise InputError(f"--gguf: llama.cpp has no name for {name} of {config.model_type}")
        yield translated, tensor.to(dtype) if tensor.ndim > 1 else tensor
