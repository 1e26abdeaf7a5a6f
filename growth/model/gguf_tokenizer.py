"""The tokenizer inside a GGUF file.

A sentencepiece model becomes one again, so that sentencepiece itself tokenises texts: transformers
rebuilds merges from such a file's scores, and tokenises 185 of 1,184 of our recorded and random
texts differently with Chinese-LLaMA's vocabulary. Of byte-level BPE the file holds vocabulary and
merges, and of the rule that splits texts only the name that llama.cpp has for it
(`tokenizer.ggml.pre`); transformers splits as GPT-2 does where it does not know the name.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.errors import InputError
from growth.core.files import read_object, write_json
from growth.model.gguf_file import read_gguf, read_once
from growth.model.source import Source, fingerprint
from growth.model.weight_cache import entry_of, fill, kept

_SENTENCEPIECE = "llama"  # what llama.cpp calls its kind of tokenizer
_BYTE_LEVEL = "gpt2"
# Names of ways to split (llama.cpp, src/llama-vocab.cpp) that transformers doesn't know, or as its
# fallback only. Where it knows a name, GGUF_PRE_TOKENIZER_SPLITS has it.
GPT2 = "gpt-2"
DIGITS_ALONE = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
# With these, llama.cpp takes a word that is in the vocabulary whole, whatever the merges say.
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "tekken")
_BPE = 2
_UNKNOWN, _USER_DEFINED = 2, 4  # piece types
SPACE = "▁"  # how sentencepiece marks a space
_PIECES, _SPECIAL = "tokenizer.model", "special_tokens.json"
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def gguf_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file.

    Raises:
        InputError: the file doesn't say how texts are split, or in a way that is not known here.
    """
    assert source.gguf_file is not None  # what the caller asked
    path = Path(source.name) / source.gguf_file
    entry = tokenizer_entry(source)
    if (known := kept(entry, _read_pieces)) is not None:  # one may be empty, and so false
        return known
    reader = read_gguf(path)

    def value(name: str, default: Any = None) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{name}")
        return default if field is None else field.contents()

    if value("model") == _SENTENCEPIECE:
        model, special = _sentencepiece_files(path, value)
        if entry is not None:
            fill(entry, lambda folder: _write_pieces(folder, model, special))
        with tempfile.TemporaryDirectory() as folder:
            _write_pieces(Path(folder), model, special)
            return _read_pieces(Path(folder))
    with read_once():
        tokenizer: Any = AutoTokenizer.from_pretrained(source.name, **source.arguments())
    if value("model") == _BYTE_LEVEL:
        _split_as(value("pre"), tokenizer.backend_tokenizer, path)
    return tokenizer


def tokenizer_entry(source: Source) -> Path | None:
    """Where the cache has a GGUF file's sentencepiece model, which takes long to read from it."""
    return entry_of("sentencepiece", fingerprint(source))


def _write_pieces(folder: Path, model: bytes, special: dict[str, str]) -> None:
    (folder / _PIECES).write_bytes(model)
    write_json(folder / _SPECIAL, special)


def _read_pieces(folder: Path) -> PreTrainedTokenizerBase:
    special = read_object(folder / _SPECIAL)
    return SentencePieceBackend(vocab_file=str(folder / _PIECES), **special)


def _split_as(name: str | None, tokenizer: Tokenizer, path: Path) -> None:
    """Make `tokenizer` split and merge as llama.cpp does under the name of `tokenizer.ggml.pre`."""
    if name in DIGITS_ALONE:
        tokenizer.pre_tokenizer = digits_alone()
    elif name != GPT2 and name not in GGUF_PRE_TOKENIZER_SPLITS:
        known = sorted({GPT2, *DIGITS_ALONE, *GGUF_PRE_TOKENIZER_SPLITS})
        raise InputError(
            f"{path}: how it splits texts (tokenizer.ggml.pre: {name or 'missing'}) is not known "
            f"here, and its tokens would be others; known are {', '.join(known)}. Use the model's "
            "folder with its tokenizer.json, or a file that llama.cpp's present converter makes"
        )
    if name in _WHOLE_WORDS:
        tokenizer.model.ignore_merges = True


def digits_alone() -> pre_tokenizers.PreTokenizer:
    """Each digit alone, then GPT-2's pattern: as SmolLM and StarCoder."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def _sentencepiece_files(path: Path, value: Callable[..., Any]) -> tuple[bytes, dict[str, str]]:
    """The sentencepiece model that a GGUF file holds, and the names of its special tokens."""
    pieces = value("tokens")
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # generated
    # GGUF took its piece types over from sentencepiece, with their numbers
    unknown = value("unknown_token_id")
    for i, (piece, score, kind) in enumerate(
        zip(pieces, value("scores"), value("token_type"), strict=True)
    ):
        if i == unknown:
            kind = _UNKNOWN  # Gemma 3's is typed as a control piece, and sentencepiece needs one
        if kind == _USER_DEFINED:
            # llama.cpp finds these in the text as it is, sentencepiece once spaces are marked
            piece = piece.replace(" ", SPACE)
        proto.pieces.add(piece=piece, score=score, type=kind)
    if not any(piece.type == _UNKNOWN for piece in proto.pieces):
        raise InputError(
            f"{path}: its sentencepiece vocabulary has no unknown piece (tokenizer.ggml."
            "unknown_token_id); convert the model again"
        )
    special = {
        f"{name}_token": pieces[index]
        for name, long in _NAMES.items()
        if (index := value(f"{long}_token_id")) is not None
    }
    proto.trainer_spec.model_type = _BPE
    proto.trainer_spec.byte_fallback = any(piece == "<0x00>" for piece in pieces)
    proto.trainer_spec.vocab_size = len(pieces)
    proto.trainer_spec.unk_piece = special.setdefault("unk_token", "<unk>")
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = value("add_space_prefix", True)
    proto.normalizer_spec.remove_extra_whitespaces = False
    return proto.SerializeToString(), special
