"""A sentencepiece BPE model as a tokenizer.json that tokenises every text alike.

Other tools read tokenizer.json. The usual conversion turns each score into a merge's rank, and that
loses one rule: where pieces tie, sentencepiece merges the leftmost pair first, and ranks can't say
so. Chinese-LLaMA gave all of its 17,953 new pieces the same, best score, so that conversion
tokenises a third of its texts differently.

What is used here: while only pieces of the best score merge, leftmost first is a shift-reduce pass
from left to right, and its result is the leftmost-longest match over the words which that pass
builds from their characters. (The first symbol of the stack ends as the longest beginning of the
text that the pass reduces to one symbol; what follows it is a text of its own.) So these words are
split off by a regular expression, and ranks do the rest.
"""

import itertools
import random
import re
from collections.abc import Collection, Iterable, Sequence

from google.protobuf.message import Message
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from growth.model.content_encoder import ContentEncoder

SPACE = "▁"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # piece types of sentencepiece's own format
_BRANCHES = 48  # alternatives that the regular expression tries in turn at one place
Scores = dict[str, float]
Merge = tuple[str, str]


def fast_tokenizer(processor: SentencePieceProcessor, prefix_once: bool = False) -> Tokenizer:
    """The tokenizer that gives the ids of `processor`, a BPE model, without BOS or EOS.

    `disagreements` measures how well it does.

    Args:
        processor: the sentencepiece model.
        prefix_once: of a model that puts a space before a text: not before what follows an added
            token in it. A text that itself begins with a space then gets none.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]  # generated
        processor.serialized_model_proto()
    )
    scores = {p.piece: p.score for p in proto.pieces if p.type == _NORMAL}
    symbols = [p.piece for p in proto.pieces if p.type == _USER_DEFINED]
    words = _words_first(scores)
    known = {*scores, *symbols}
    merges = [split for symbol in symbols for split in _splits(symbol, known)]
    merges += _merges(scores, words)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={p.piece: i for i, p in enumerate(proto.pieces)},
            merges=list(dict.fromkeys(merges)),
            byte_fallback=proto.trainer_spec.byte_fallback,
            unk_token=processor.id_to_piece(processor.unk_id()),
            fuse_unk=True,
        )
    )
    spec = proto.normalizer_spec
    prefix = spec.add_dummy_prefix
    steps: list[pre_tokenizers.PreTokenizer] = []
    if prefix and prefix_once:
        spec.add_dummy_prefix = False
        steps.append(pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False))
    tokenizer.normalizer = normalizers.Sequence(_normalizers(spec))
    if words or symbols:
        pattern = Regex(_any_of([*words, *symbols]))
        steps.append(pre_tokenizers.Split(pattern, "isolated"))
    if steps:
        # one alone stands as it is, as ever: checkpoints stay the same bytes
        tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prefix else [])
    )
    controls = [processor.id_to_piece(processor.unk_id())]
    controls += [p.piece for p in proto.pieces if p.type == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(c, normalized=False) for c in controls])
    if not prefix:  # which would be put before these, too
        whole = [symbol for symbol in symbols if not _is_built(symbol, known)]
        tokenizer.add_tokens([AddedToken(s, normalized=True, special=False) for s in whole])
    return tokenizer


def _is_built(piece: str, known: Collection[str]) -> bool:
    """Whether merges can build `piece`; Gemma's `<b>` has no piece `<b` to be built from."""
    return len(piece) == 1 or any(
        _is_built(left, known) and _is_built(right, known) for left, right in _splits(piece, known)
    )


def _normalizers(spec: Message) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"{SPACE}+\z"), ""))
    return steps


def _splits(piece: str, scores: Collection[str]) -> list[Merge]:
    """The pairs of pieces that make `piece`, the longest left part first."""
    cuts = range(len(piece) - 1, 0, -1)
    return [(piece[:i], piece[i:]) for i in cuts if piece[:i] in scores and piece[i:] in scores]


def _shift_reduce(word: str, words: Collection[str]) -> tuple[list[str], list[Merge]]:
    """What `word` becomes when the leftmost pair that makes one of `words` always merges first.

    Returns the symbols that are left, and the merges in order.
    """
    stack: list[str] = []
    merges = []
    for character in word:
        stack.append(character)
        while len(stack) > 1 and stack[-2] + stack[-1] in words:
            merges.append((stack[-2], stack[-1]))
            stack[-2:] = ["".join(stack[-2:])]
    return stack, merges


def _words_first(scores: Scores) -> set[str]:
    """The words of the tied best score that stand before any other merge can be made.

    Not those that go on to merge into a piece of lower score, nor any that could overlap with such
    a one; they are few, and are left to ranks.
    """
    best = max(score for piece, score in scores.items() if len(piece) > 1)
    tied = {piece for piece, score in scores.items() if score == best and len(piece) > 1}
    if len(tied) == 1:
        return set()
    words = {word for word in tied if _shift_reduce(word, tied)[0] == [word]}
    lower = (piece for piece in scores if len(piece) > 1 and piece not in tied)
    parts = {part for piece in lower for split in _splits(piece, scores) for part in split}
    left = words & parts
    while left:
        words -= left
        ends = {word[i:] for word in left for i in range(len(word))}
        beginnings = {word[:i] for word in left for i in range(1, len(word) + 1)}
        left = {
            word
            for word in words
            if any(word[:i] in ends or word[-i:] in beginnings for i in range(1, len(word) + 1))
        }
    return words


def _merges(scores: Scores, words: Collection[str]) -> list[Merge]:
    """All merges of the vocabulary in the order of their ranks."""
    by_score = sorted((p for p in scores if len(p) > 1), key=lambda piece: -scores[piece])
    merges: list[Merge] = []
    for _, tied in itertools.groupby(by_score, key=scores.__getitem__):
        pairs = [split for piece in tied for split in _splits(piece, scores)]
        if merges:
            # Runs of one character, as LLaMA's spaces: by doubling they get as long as they may.
            pairs.sort(key=lambda pair: pair[0] != pair[1])
        merges += pairs
    repaired = [
        merge for word in _broken_words(words, merges) for merge in _shift_reduce(word, words)[1]
    ]
    return [*repaired, *merges]


def _broken_words(words: Collection[str], merges: Sequence[Merge]) -> list[str]:
    """Those of `words` that the ranks of `merges` do not build, each in a segment of its own."""
    ranks = {merge: rank for rank, merge in reversed(list(enumerate(merges)))}
    broken = []
    for word in sorted(words):
        symbols = list(word)
        while len(symbols) > 1:
            pairs = list(itertools.pairwise(symbols))
            place = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], len(ranks)))
            if pairs[place] not in ranks:
                broken.append(word)
                break
            symbols[place : place + 2] = ["".join(pairs[place])]
    return broken


def _any_of(words: Iterable[str]) -> str:
    """A regular expression of the longest of `words` at a place, as a tree of characters."""
    tree: dict = {}
    for word in words:
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _branches(tree)


def _branches(node: dict) -> str:
    keys = sorted(key for key in node if key)
    branches = [re.escape(key) + _branches(node[key]) for key in keys]
    if len(branches) > _BRANCHES:
        # Look ahead for the range of characters first: thousands in turn would take too long.
        branches = [
            f"(?=[{re.escape(keys[i])}-{re.escape(keys[min(i + _BRANCHES, len(keys)) - 1])}])"
            f"(?:{'|'.join(branches[i : i + _BRANCHES])})"
            for i in range(0, len(keys), _BRANCHES)
        ]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)})" + ("?" if "" in node else "")


def random_texts(processor: SentencePieceProcessor, count: int, seed: int = 0) -> list[str]:
    """`count` strings to test a tokenizer on: pieces and parts of pieces in a row, runs of spaces,
    code, any characters at all.
    """
    draw = random.Random(seed)
    pieces = [
        processor.id_to_piece(i)
        for i in range(processor.get_piece_size())
        if not (processor.is_control(i) or processor.is_byte(i) or processor.is_unknown(i))
    ]
    code = [
        "def f(x):\n",
        "    return ",
        "  ",
        "\t",
        "\n",
        " ",
        "x=1",
        "中",
        "国",
        SPACE,
        "()",
        '"',
    ]

    def characters() -> str:
        ranges = ((1, 0x7F), (0x80, 0x2FFF), (0x4E00, 0x9FFF), (0xE000, 0x10FFFF))
        return chr(draw.randint(*draw.choice(ranges)))

    makers = (
        lambda: draw.choice(pieces).replace(SPACE, " "),
        lambda: draw.choice(pieces).replace(SPACE, ""),
        lambda: draw.choice(draw.choice(pieces)),
        lambda: draw.choice(code),
        characters,
    )
    texts = []
    for _ in range(count):
        maker = draw.choice(makers)
        texts.append("".join(maker() for _ in range(draw.randint(1, 24))))
    return texts


def disagreements(
    tokenizer: Tokenizer, processor: SentencePieceProcessor | ContentEncoder, texts: Sequence[str]
) -> list[str]:
    """Those of `texts` that the two tokenise differently.

    A text that spells a control token is plain text to both.
    """
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    tokenizer.encode_special_tokens = before
    return [
        text
        for text, ours in zip(texts, encoded, strict=True)
        if ours.ids != processor.encode(text)
    ]
