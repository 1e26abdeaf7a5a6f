"""Which of a model's files its tokens come from, and a check that they are what that file says.

    tokenizer.model  sentencepiece itself reads it
    tokenizer.json   the `tokenizers` library reads it, as it stands
    neither          the class named in tokenizer_config.json, from vocab.json and merges.txt

transformers 5 builds a tokenizer from its class, and takes the vocabulary alone from
tokenizer.json: where the class's own splitting differs from the file's (digits one by one, another
pattern, a space put before the text), texts are tokenised differently from pretraining, silently.
"""

import logging
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.core.errors import InputError
from growth.core.files import read_object
from growth.model import baichuan, lora
from growth.model.content_encoder import PREFIX_FIELD, ContentEncoder
from growth.model.source import Source, files_digest, fingerprint, model_file
from growth.model.weight_files import TOKENIZER_FILES

logger = logging.getLogger(__name__)
# Tokenizers that are a sentencepiece BPE model and nothing else; transformers' own LlamaTokenizer
# rebuilds merges from the vocabulary and tokenises a third of Chinese-LLaMA's texts differently.
SENTENCEPIECE_CLASSES = (
    *("LlamaTokenizer", "LlamaTokenizerFast", "SentencePieceBackend"),
    baichuan.TOKENIZER_CLASS,
)
# A field of tokenizer_config.json that names the sentencepiece model next to tokenizer.json, which
# our own loader reads instead.
SENTENCEPIECE_FIELD = "sentencepiece_model"
# What tokenizers are compared on: where real families differ, or could.
PROBE_TEXTS = (
    *("hello world", "Hello, World! It's I'LL they've don’t", "A", "B. x", " A", "x  y   z"),
    *("x = 1234, 2024", "3.14159 10000000 ½ ² ٣ 1a2b", "1+2=3\n答案\n$3$", "7", "12", "123"),
    "def f(x):\n    return x + 1\n\n\n\tif a != b:\r\n\t\tprint(\"é\", 'y')  # 你好\n",
    *("你好，春风又绿江南岸，明月何时照我还。", "答案是 A", "题目：下列哪一项正确？\nA. 甲\nB. 乙"),
    *("  two", "tail  ", "\n\n", "\t\t", " \n \n ", "\u3000全角　Ａ１", "\u00a0nbsp", "▁a▁▁b", ""),
    *(
        "🙂🙂 👩‍👩‍👧 🇨🇳",
        "é e\u0301 ﬁ Å",
        "한국어 日本語 кириллица العربية ไทย",
        "snake_case camelCase XMLHttp",
    ),
    *(
        "<user>a<eot>",
        "<|x|> [INST] </s>",
        "https://a.b/c?d=e&f=1#g",
        "\\frac{1}{2} \\(x^2\\)",
        "\x00\x7f",
    ),
)
_MODEL_OPTIONS = (
    *("unk_token", "fuse_unk", "byte_fallback", "ignore_merges", "dropout"),
    *("continuing_subword_prefix", "end_of_word_suffix"),
)
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def tokenizer_source(source: Source) -> Source:
    """Where the tokenizer of a model is loaded from: an adapter may have one of its own, or not."""
    while source.is_adapter and not lora.has_tokenizer(Path(source.name)):
        source = source.base()
    return source


def tokenizer_fingerprint(source: Source) -> str:
    """A digest that changes when a file does that a model's tokenizer can be loaded from."""
    source = tokenizer_source(source)
    if source.folder is None or source.gguf_file:
        return fingerprint(source)  # of the same commit, or in the same file
    paths = [source.folder / name for name in TOKENIZER_FILES]
    paths += sorted(source.folder.glob("*.tiktoken"))
    return files_digest(path for path in paths if path.is_file())


def load_from_files(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that is no GGUF file, with the tokens that its own file gives.

    Raises:
        InputError: it can't be made to give the tokens of its tokenizer.json.
    """
    json_file = model_file(source, "tokenizer.json")
    pieces = _sentencepiece_file(source)
    if pieces is not None and _is_sentencepiece(source, json_file):
        tokenizer: PreTrainedTokenizerBase = _load_sentencepiece(source)
        if json_file is not None:
            _warn_of_other_tokens(tokenizer, pieces, json_file, own_tokenizer(json_file))
        return tokenizer
    loaded: Any = AutoTokenizer.from_pretrained(source.name, **source.arguments())
    if json_file is None:
        return loaded
    tokenizer = _with_tokens_of(loaded, json_file, source)
    if pieces is not None:
        processor = SentencePieceProcessor(model_file=str(pieces))
        _warn_of_other_tokens(tokenizer, json_file, pieces, processor)
    return tokenizer


def _load_sentencepiece(source: Source) -> SentencePieceBackend:
    config = _tokenizer_config(source)
    prefix = config.get(PREFIX_FIELD, config.get("legacy"))
    # `legacy`: otherwise transformers changes how a text begins
    arguments: dict[str, Any] = {"legacy": True, PREFIX_FIELD: bool(prefix)}
    tokenizer = SentencePieceBackend.from_pretrained(source.name, **arguments)
    words = ContentEncoder(tokenizer).words.values()
    added = [tokenizer.added_tokens_decoder[index] for index in words]
    greedy = [t.content for t in added if t.lstrip or t.rstrip or t.single_word]
    if greedy:
        raise InputError(
            f"{source.options.origin} {source.name}: added words that take in spaces or match "
            f"whole words only ({', '.join(map(repr, greedy[:3]))}), which can't stand beside a "
            "tokenizer.model here; save the tokenizer as tokenizer.json and remove tokenizer.model"
        )
    if added and prefix is None:
        logger.warning(
            "%s: text after one of its %s added words begins without a space, as in transformers "
            '5; if it was trained otherwise, put "legacy": true into its tokenizer_config.json',
            *(source.name, len(added)),
        )
    return tokenizer


def _tokenizer_config(source: Source) -> dict[str, Any]:
    path = model_file(source, "tokenizer_config.json")
    if path is None:
        return {}
    return read_object(path, remedy="fetch the file again, or save it as plain UTF-8")


def _sentencepiece_file(source: Source) -> Path | None:
    """The sentencepiece model of a folder, if it has one."""
    pieces = model_file(source, "tokenizer.model")
    return pieces if pieces is not None and _is_sentencepiece_model(pieces) else None


def _is_sentencepiece(source: Source, json_file: Path | None) -> bool:
    """Whether a folder's tokens must be those of its sentencepiece model.

    That is by its class, or as there is no other file.
    """
    config = _tokenizer_config(source)
    kind = config.get("tokenizer_class")
    if kind in SENTENCEPIECE_CLASSES or SENTENCEPIECE_FIELD in config:
        return True
    return json_file is None and "auto_map" not in config


def _is_sentencepiece_model(path: Path) -> bool:
    """False for the other thing that is called tokenizer.model, a list of byte pairs (tiktoken)."""
    try:
        SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        return False
    return True


def own_tokenizer(json_file: Path) -> Tokenizer:
    """The tokenizer that a tokenizer.json holds; special tokens that a text spells stay text."""
    own = Tokenizer.from_file(str(json_file))
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = True
    return own


def first_difference(
    tokenizer: PreTrainedTokenizerBase, own: Tokenizer
) -> tuple[str, list[int], list[int]] | None:
    """The first text that `tokenizer` and a tokenizer.json disagree on, with the ids of both.

    Compared are `PROBE_TEXTS` and, within a text, every added token; those are compared by their
    ids too.
    """
    added = [token.content for _, token in sorted(own.get_added_tokens_decoder().items())]
    texts = [*PROBE_TEXTS, *(f"a{token} b" for token in added)]
    encoder = ContentEncoder(tokenizer)
    for text in texts:
        ids = encoder.encode(text)
        expected = own.encode(text, add_special_tokens=False).ids
        if ids != expected:
            return text, ids, expected
    for token in added:
        index = tokenizer.convert_tokens_to_ids(token)
        assert isinstance(index, int)  # as of one token
        if index != own.token_to_id(token):
            return token, [index], [own.token_to_id(token) or 0]
    return None


def _same_rules(loaded: PreTrainedTokenizerBase, own: Tokenizer) -> bool:
    """Whether both normalise, split and merge by the same rules."""
    ours: Tokenizer | None = getattr(loaded, "backend_tokenizer", None)
    if ours is None:
        return False

    def state(part: Any) -> Any:
        return None if part is None else part.__getstate__()

    return (
        state(ours.normalizer) == state(own.normalizer)
        and state(ours.pre_tokenizer) == state(own.pre_tokenizer)
        and type(ours.model) is type(own.model)
        and all(
            # "" and None are both "none"
            (getattr(ours.model, name, None) or None) == (getattr(own.model, name, None) or None)
            for name in _MODEL_OPTIONS
        )
    )


def _with_tokens_of(
    loaded: PreTrainedTokenizerBase, json_file: Path, source: Source
) -> PreTrainedTokenizerBase:
    """`loaded`, or the tokenizer of `json_file` itself where its class gives other tokens."""
    own = own_tokenizer(json_file)
    difference = first_difference(loaded, own)
    if difference is None and _same_rules(loaded, own):
        return loaded
    special = {name: getattr(loaded, name) for name in _SPECIAL_NAMES}
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
        source.name,
        # what the class names, but nothing that the file doesn't know
        **{n: t for n, t in special.items() if t is not None and own.token_to_id(t) is not None},
    )
    left = first_difference(tokenizer, own)
    if left is not None:
        text, ids, expected = left
        raise InputError(
            f"{source.options.origin} {source.name}: its files disagree: {text!r} is {expected} by "
            f"{json_file.name}, {ids} with what tokenizer_config.json and added_tokens.json add; "
            "correct or remove the file that is wrong"
        )
    if difference is not None:
        text, ids, expected = difference
        logger.warning(
            "%s: %s decides, not the class %s: %r is %s by the file, %s by the class",
            *(source.name, json_file.name, type(loaded).__name__, text, expected, ids),
        )
    return tokenizer


def _warn_of_other_tokens(
    tokenizer: PreTrainedTokenizerBase,
    taken: Path,
    passed_over: Path,
    other: Tokenizer | SentencePieceProcessor,
) -> None:
    """Say so where a folder's two files give different tokens.

    Args:
        tokenizer: with the tokens of the file that was taken.
        taken: that file.
        passed_over: the other one, of which `other` has the tokens.
        other: with them.
    """
    if isinstance(other, Tokenizer):
        difference = first_difference(tokenizer, other)
    else:
        encoder = ContentEncoder(tokenizer)
        pairs = ((text, encoder.encode(text), other.encode(text)) for text in PROBE_TEXTS)
        difference = next((pair for pair in pairs if pair[1] != pair[2]), None)
    if difference is not None:
        text, ids, expected = difference
        logger.warning(
            "%s: %s decides, not %s: %r is %s by the former, %s by the latter; if %s is the "
            "model's own, remove %s",
            *(taken.parent, taken.name, passed_over.name, text, ids, expected),
            *(passed_over.name, taken.name),
        )
