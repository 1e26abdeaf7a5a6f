"""The pocket foundation model before it has read anything: tokenizer, shape, first weights.

A LLaMA with a sentencepiece tokenizer of its own. Its first weights are random, but for some heads
that begin as what pretraining would have to find first to choose among labelled options: does an
option go with anything said before, and what is the label in front of it. That takes three layers
of heads one upon another; until all are there none gains anything, and found by gradient descent
alone they take longer than the whole pretraining here (LOG.md, 2026-11-25). What belongs to what is
not set: that has to be read. The idea of beginning near a useful solution is that of mimetic
initialization (arXiv 2305.09828); the heads are relatives of induction heads (arXiv 2209.11895).
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.files import replacing
from growth.export.checkpoint_files import save_tokenizer
from growth.sample.corpus import Lexicon

VOCABULARY = 6000
CONFIG = {
    "hidden_size": 160,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "rope_theta": 1e5,
}
_DELIMITER = "\t"

# Of the first weights. Parts of the hidden state, in dimensions: what a word is, what a label is,
# what a token is looked up by, what was found there, and the tokens 1, 2 and 3 before.
_PARTS = {"word": 24, "label": 20, "key": 24, "found": 24, "back1": 20, "back2": 20, "back3": 20}
_BACK = {"back1": 1, "back2": 2, "back3": 3}
_MATCHING_LAYERS, _PICKING_LAYER = (1, 2), 3
_EMBEDDING_STD = 0.1
_FAST = 3  # rotary frequencies that tell neighbours apart
_SLOW_FROM = 4  # rotary frequencies from this one on hardly turn within a prompt
_BACK_SHARPNESS, _BACK_OUTPUT = 7.0, 0.14
_MATCH_SHARPNESS, _MATCH_OUTPUT = 2.0, 0.3
_PICK_SHARPNESS, _PICK_OUTPUT = 1.4, 0.5


def make_pocket(
    folder: Path,
    texts: Iterable[str],
    seed: int,
    vocabulary: int = VOCABULARY,
    config: Mapping[str, Any] = CONFIG,
    lexicon: Lexicon | None = None,
) -> int:
    """Train the tokenizer on `texts`, draw the weights, write both whole or not at all.

    Args:
        folder: of the model; replaced if it is there.
        texts: for the tokenizer.
        seed: of the weights.
        vocabulary: pieces of the tokenizer, at most.
        config: of the LLaMA, its vocabulary apart.
        lexicon: what the tokenizer keeps apart (`train_tokenizer`); with it, the weights are those
            to pretrain from (`init_induction_heads`), without it random throughout.

    Returns:
        The number of parameters.
    """
    pieces = train_tokenizer(texts, vocabulary, lexicon)
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
        if lexicon:
            init_induction_heads(model, matched_ids(tokenizer.sp_model, lexicon))
        model.save_pretrained(temporary)
    return model.num_parameters()


def train_tokenizer(texts: Iterable[str], vocabulary: int, lexicon: Lexicon | None = None) -> bytes:
    """A sentencepiece BPE model as LLaMA's, but that a text opens without a space of its own.

    Args:
        texts: to train on.
        vocabulary: number of pieces, at most.
        lexicon: no piece goes beyond its borders. So the words of a small world become pieces of
            their own, whatever stands around them.
    """
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_separated(texts, lexicon) if lexicon else iter(texts),
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
        pretokenization_delimiter=_DELIMITER if lexicon else "",
        # A letter is one token, the same in front of an option and as an answer.
        user_defined_symbols=["A", "B", "C", "D", "\n"],
        num_threads=1,
        minloglevel=2,
    )
    return pieces.getvalue()


def _separated(texts: Iterable[str], lexicon: Lexicon) -> Iterator[str]:
    borders = lexicon.borders()
    for text in texts:
        for line in text.replace(_DELIMITER, " ").split("\n"):
            marked = borders.sub(lambda match: _DELIMITER + match[0] + _DELIMITER, line)
            yield _DELIMITER.join(part for part in marked.split(_DELIMITER) if part)


def matched_ids(pieces: sentencepiece.SentencePieceProcessor, lexicon: Lexicon) -> list[int]:
    """Token ids that options are told by: pieces of the words, but for labels and marks."""
    found = {piece for word in lexicon.words for piece in pieces.encode(word, out_type=str)}
    return [
        pieces.piece_to_id(piece)
        for piece in sorted(found)
        if re.search(r"\w", piece) and piece not in lexicon.labels
    ]


@torch.no_grad()
def init_induction_heads(model: LlamaForCausalLM, matched: Sequence[int]) -> None:
    """Let some heads begin as heads that match options with what was said, and pick; in place.

    - Embeddings share a component: without it no head of a LLaMA can attend by place alone, since
      its queries and keys have no bias. A part of the hidden state says which word a token is, and
      is empty in tokens outside `matched`.
    - Layer 0: heads that look 1, 2 and 3 tokens back (their scores peak there through the rotary
      embedding) copy which label stood there; one copies the word before into the part `key`. What
      goes with a word is to be learnt into `key` too.
    - `_MATCHING_LAYERS`: a head looks up, by the word that a token is, the keys before it, and
      copies the key found. The feed-forward part, whose gated product can multiply, writes how much
      that key is the word itself: silu(x)y + silu(-x)(-y) = xy, summed over dimensions.
    - `_PICKING_LAYER`: heads attend, from everywhere, to where that product is largest, and copy
      the label 1, 2 or 3 tokens before it.

    Args:
        model: random weights; more than 152 wide, at least 4 layers and 4 heads.
        matched: ids of the tokens that options are told by.
    """
    config = model.config
    width = config.hidden_size
    head = width // config.num_attention_heads
    shared = torch.sign(torch.randn(width)) / width**0.5
    directions = torch.linalg.qr(torch.cat([shared[:, None], torch.randn(width, width - 1)], 1))[0]
    rest = directions[:, 1:].T
    parts = {}  # (dimensions, width) each
    for name, size in _PARTS.items():
        parts[name], rest = rest[:size], rest[size:]
    agreement = rest[-1]

    embeddings: torch.Tensor = model.model.embed_tokens.weight
    embeddings.mul_(_EMBEDDING_STD / config.initializer_range)
    unmatched = torch.ones(len(embeddings), dtype=torch.bool)
    unmatched[list(matched)] = False
    embeddings[unmatched] -= embeddings[unmatched] @ parts["word"].T @ parts["word"]
    for name in ("key", "found", *_BACK):
        embeddings -= embeddings @ parts[name].T @ parts[name]
    embeddings -= torch.outer(embeddings @ agreement, agreement)
    along = _EMBEDDING_STD * width**0.5  # of the shared component
    embeddings.add_(along * shared)
    along *= width**0.5 / embeddings.norm(dim=1).mean()  # after the norm

    theta = cast(dict[str, float], config.rope_parameters)["rope_theta"]
    fast = theta ** -(torch.arange(0, head, 2) / head)[:_FAST]
    slow = torch.arange(_SLOW_FROM, head // 2)
    slow = torch.cat([slow, slow + head // 2])  # a frequency turns a pair of dimensions
    layers = model.model.layers

    def set_values(layer: int, index: int, source: str, target: str, scale: float) -> None:
        attention, size = layers[layer].self_attn, _PARTS[target]
        value, output = torch.zeros(head, width), torch.zeros(width, head)
        value[:size], output[:, :size] = parts[source], scale * parts[target].T
        attention.v_proj.weight[index * head : (index + 1) * head] = value
        attention.o_proj.weight[:, index * head : (index + 1) * head] = output

    def set_scores(layer: int, index: int, query: torch.Tensor, key: torch.Tensor) -> None:
        attention = layers[layer].self_attn
        attention.q_proj.weight[index * head : (index + 1) * head] = query
        attention.k_proj.weight[index * head : (index + 1) * head] = key

    looks = [("word", "key", 1), *(("label", name, back) for name, back in _BACK.items())]
    for index, (source, target, back) in enumerate(looks):
        query, key = torch.zeros(head), torch.zeros(head)
        query[:_FAST] = 1.0
        key[:_FAST] = torch.cos(back * fast)
        key[head // 2 : head // 2 + _FAST] = torch.sin(back * fast)
        scale = _BACK_SHARPNESS / along
        set_scores(0, index, scale * torch.outer(query, shared), scale * torch.outer(key, shared))
        set_values(0, index, source, target, _BACK_OUTPUT)

    for layer in _MATCHING_LAYERS:
        query, key = torch.zeros(head, width), torch.zeros(head, width)
        query[slow], key[slow] = parts["word"], parts["key"]
        set_scores(layer, 0, _MATCH_SHARPNESS * query, _MATCH_SHARPNESS * key)
        set_values(layer, 0, "key", "found", _MATCH_OUTPUT)
        feed_forward, size = layers[layer].mlp, _PARTS["found"]
        found, word = parts["found"], parts["word"]
        feed_forward.gate_proj.weight[: 2 * size] = torch.cat([found, -found])
        feed_forward.up_proj.weight[: 2 * size] = torch.cat([word, -word])
        feed_forward.down_proj.weight[:, : 2 * size] = agreement[:, None] / size

    for index, name in enumerate(_BACK):
        query = torch.zeros(head)
        query[slow] = 1.0
        set_scores(
            _PICKING_LAYER,
            index,
            _PICK_SHARPNESS / along * torch.outer(query, shared),
            _PICK_SHARPNESS * torch.outer(query, agreement),
        )
        set_values(_PICKING_LAYER, index, name, "label", _PICK_OUTPUT)
