"""The pocket foundation model before it has read anything: tokenizer, shape, first weights.

A LLaMA with a sentencepiece tokenizer of its own. Its first weights are random, but for some heads
that begin as what pretraining would have to find first: heads that look back one to three tokens,
and heads that look a text up and fetch what stood before it there. Matching an option to its label
takes both, and found by gradient descent alone they take longer than the whole pretraining here
(LOG.md, 2026-11-25). The idea of beginning near a useful solution is that of mimetic initialization
(arXiv 2305.09828); these heads are induction heads (arXiv 2209.11895) turned round.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.files import replacing
from growth.models import save_tokenizer

VOCABULARY = 6000
CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
# What stays random learns little, and need not be as big.
SMALL_VOCABULARY = 4000
SMALL_CONFIG = CONFIG | {"intermediate_size": 344, "num_hidden_layers": 2}
_DELIMITER = "\t"
_EMBEDDING_STD = 0.1

# Of the first heads.
_BACK = (1, 2, 3)  # tokens that the first layer's heads look back
_BACK_SHARPNESS = 5.0  # scale of their queries and keys
_BACK_FREQUENCIES = 3  # the fastest of the rotary frequencies, which tell neighbours apart
_BACK_OUTPUT, _FETCH_OUTPUT = 0.3, 0.5
_LOOKUP_SHARPNESS = 2.5


def make_pocket(
    folder: Path,
    texts: Iterable[str],
    seed: int,
    vocabulary: int = SMALL_VOCABULARY,
    config: Mapping[str, Any] = SMALL_CONFIG,
    words: re.Pattern[str] | None = None,
) -> int:
    """Train the tokenizer on `texts`, draw the weights, write both whole or not at all.

    Args:
        folder: of the model; replaced if it is there.
        texts: for the tokenizer.
        seed: of the weights.
        vocabulary: pieces of the tokenizer, at most.
        config: of the LLaMA, its vocabulary apart.
        words: what no piece may cross the borders of (`train_tokenizer`); with it, the weights are
            those to pretrain from (`first_weights`), without it random throughout.

    Returns:
        The number of parameters.
    """
    pieces = train_tokenizer(texts, vocabulary, words)
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / "tokenizer.model").write_bytes(pieces)
        tokenizer = SentencePieceBackend(
            vocab_file=str(temporary / "tokenizer.model"),
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
        )
        save_tokenizer(tokenizer, temporary)
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **config))
        if words:
            first_weights(model)
        model.save_pretrained(temporary)
    return model.num_parameters()


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, words: re.Pattern[str] | None = None
) -> bytes:
    """A sentencepiece BPE model as LLaMA's, but that a text opens without a space of its own.

    Args:
        texts: to train on.
        vocabulary: number of pieces, at most.
        words: no piece goes beyond what this matches. So the words of a small world become pieces
            of their own, whatever stands around them.
    """
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_separated(texts, words) if words else iter(texts),
        model_writer=pieces,
        # As LLaMA's: BPE with bytes to fall back on, digits one by one, spaces kept.
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        pretokenization_delimiter=_DELIMITER if words else "",
        # A letter is one token, the same in front of an option and as an answer.
        user_defined_symbols=["A", "B", "C", "D", "\n"],
        num_threads=1,
        minloglevel=2,
    )
    return pieces.getvalue()


def _separated(texts: Iterable[str], words: re.Pattern[str]) -> Iterator[str]:
    for text in texts:
        for line in text.replace(_DELIMITER, " ").split("\n"):
            marked = words.sub(lambda match: _DELIMITER + match[0] + _DELIMITER, line)
            yield _DELIMITER.join(part for part in marked.split(_DELIMITER) if part)


@torch.no_grad()
def first_weights(model: LlamaForCausalLM) -> None:
    """Let some heads begin as heads that look back, and as heads that look up; in place.

    Embeddings get a component that all tokens share: without it no head of a LLaMA can attend by
    place alone, since its queries and keys have no bias.

    In the first layer head i looks `_BACK[i]` tokens back: the score of query and key depends on
    the shared component and, through the rotary embedding, peaks at that distance. It copies what
    it finds into a subspace of its own. In later layers the same heads look up: the query is the
    token before (as copied), the key is a token itself, and the value what stood 1, 2 or 3 tokens
    before that token.
    """
    config = model.config
    width = config.hidden_size
    head = width // config.num_attention_heads
    shared = torch.sign(torch.randn(width))
    embeddings = model.get_input_embeddings().weight
    embeddings.mul_(_EMBEDDING_STD / config.initializer_range).add_(_EMBEDDING_STD * shared)
    shared /= shared.norm()

    # Orthonormal directions beside the shared one: of what a token is, and of what stood before.
    basis = torch.linalg.qr(torch.cat([shared[:, None], torch.randn(width, width - 1)], 1))[0][
        :, 1:
    ]
    reads, free = basis[:, :head].T, basis[:, head:]
    room = min(head, free.shape[1] // len(_BACK))
    copies = []
    for index in range(len(_BACK)):
        copy = torch.zeros(width, head)
        copy[:, :room] = free[:, index * room : (index + 1) * room]
        copies.append(copy)

    # After the norm, a token's length along the shared direction.
    along = (width / 2) ** 0.5
    theta = config.rope_parameters["rope_theta"]
    frequencies = theta ** -(torch.arange(0, head, 2) / head)[:_BACK_FREQUENCIES]
    first, *later = (layer.self_attn for layer in model.model.layers)
    for index, back in enumerate(_BACK):
        rows = slice(index * head, (index + 1) * head)
        query, key = torch.zeros(head), torch.zeros(head)
        query[:_BACK_FREQUENCIES] = 1.0
        key[:_BACK_FREQUENCIES] = torch.cos(back * frequencies)
        key[head // 2 : head // 2 + _BACK_FREQUENCIES] = torch.sin(back * frequencies)
        first.q_proj.weight[rows] = _BACK_SHARPNESS / along * torch.outer(query, shared)
        first.k_proj.weight[rows] = _BACK_SHARPNESS / along * torch.outer(key, shared)
        first.v_proj.weight[rows] = reads
        first.o_proj.weight[:, rows] = _BACK_OUTPUT * copies[index]
        for attention in later:
            attention.q_proj.weight[rows] = _LOOKUP_SHARPNESS * copies[0].T
            attention.k_proj.weight[rows] = _LOOKUP_SHARPNESS * reads
            attention.v_proj.weight[rows] = copies[index].T
            attention.o_proj.weight[:, rows] = _FETCH_OUTPUT * reads.T
