"""The pocket foundation model: a small LLaMA with its own sentencepiece tokenizer.

It knows nothing yet: its weights are random. It is there so that every stage runs anywhere.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.files import replacing
from growth.models import save_tokenizer

VOCABULARY = 4000
CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def make_pocket(
    folder: Path,
    texts: Iterable[str],
    seed: int,
    vocabulary: int = VOCABULARY,
    config: Mapping[str, Any] = CONFIG,
) -> int:
    """Train the tokenizer on `texts`, draw the weights, write both whole or not at all.

    Args:
        folder: of the model; replaced if it is there.
        texts: for the tokenizer.
        seed: of the weights.
        vocabulary: pieces of the tokenizer, at most.
        config: of the LLaMA, its vocabulary apart.

    Returns:
        The number of parameters.
    """
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=pieces,
        # As LLaMA's: BPE with bytes to fall back on, digits one by one, spaces kept.
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        # A letter answer is one token, however rare it is in the texts.
        user_defined_symbols=["▁A", "▁B", "▁C", "▁D", "\n"],
        num_threads=1,
        minloglevel=2,
    )
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / "tokenizer.model").write_bytes(pieces.getvalue())
        tokenizer = SentencePieceBackend(
            vocab_file=str(temporary / "tokenizer.model"),
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
        )
        save_tokenizer(tokenizer, temporary)
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **config))
        model.save_pretrained(temporary)
    return model.num_parameters()
