"""The sentencepiece model inside a GGUF file, so that sentencepiece itself tokenises texts.

transformers rebuilds merges from such a file's scores, and tokenises 185 of 1,184 of our recorded
and random texts differently with Chinese-LLaMA's vocabulary.
"""

import tempfile
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

_SENTENCEPIECE = "llama"  # what llama.cpp calls its kind of tokenizer
_BPE = 2
_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def sentencepiece_tokenizer(path: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the GGUF file `path`, or None where it is of another kind."""
    reader = GGUFReader(path)

    def value(name: str, default: Any = None) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{name}")
        return default if field is None else field.contents()

    if value("model") != _SENTENCEPIECE:
        return None
    pieces = value("tokens")
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # generated
    # GGUF took its piece types over from sentencepiece, with their numbers
    for piece, score, kind in zip(pieces, value("scores"), value("token_type"), strict=True):
        proto.pieces.add(piece=piece, score=score, type=kind)
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
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(proto.SerializeToString())
        file.flush()
        return SentencePieceBackend(vocab_file=file.name, **special)
