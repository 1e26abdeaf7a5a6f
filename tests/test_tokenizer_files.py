"""Tokens are those of the model's own file, not of the class that tokenizer_config.json names."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from conftest import CASES, read_lines, run, write_lines
from families import (
    GROUPED,
    SMALL,
    corpus,
    random_strings,
    save_random_model,
    sentencepiece_model,
    write_sentencepiece,
)
from sentencepiece import SentencePieceProcessor
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    AutoTokenizer,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from growth.core.errors import InputError
from growth.export.checkpoint_files import save_tokenizer
from growth.export.gguf import write_gguf
from growth.model.gguf_tokenizer import digits_alone
from growth.model.loading import load_model, load_tokenizer
from growth.model.source import find_model

_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def stripped(count, seed):
    """Random strings as content is: no space around them."""
    return [text.strip() for text in random_strings(count, seed)]


def _split(pattern):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def _byte_level(pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    numbers = ["12", "123", "2024", " 12", " 123", " 2024", "aa1 1234", "don't I'LL"] * 40
    tokenizer.train_from_iterator(
        [*corpus(), *numbers], trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    return tokenizer


def _yi():
    """LLaMA's kind of BPE with no space before the text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    pieces = ["<unk>", "<s>", "</s>", "<|endoftext|>", *(f"<0x{b:02X}>" for b in range(256))]
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=pieces)
    )
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["id"] < 4]
    return Tokenizer.from_str(json.dumps(state))


_PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False)
# Folders as real families give them out: rules of tokenizer.json, class in tokenizer_config.json,
# architecture.
FOLDERS = {
    "SmolLM2": (lambda: _byte_level(digits_alone()), "GPT2Tokenizer", LlamaConfig),
    "Pythia, another pattern": (
        lambda: _byte_level(_split(_GPT4)),
        "GPTNeoXTokenizerFast",
        GPTNeoXConfig,
    ),
    "Pythia, NFC": (
        lambda: _byte_level(_PLAIN, normalizers.NFC()),
        "GPTNeoXTokenizerFast",
        GPTNeoXConfig,
    ),
    "Qwen 3, digits in threes": (lambda: _byte_level(_split(_GPT4)), "Qwen2Tokenizer", Qwen3Config),
    "Qwen 3, no class": (lambda: _byte_level(_split(_GPT4)), None, Qwen3Config),
    "Qwen 3, no NFC": (lambda: _byte_level(_PLAIN), "Qwen2TokenizerFast", Qwen3Config),
    "GPT-2, a space before": (
        lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "GPT2TokenizerFast",
        LlamaConfig,
    ),
    "LLaMA 3's under LlamaTokenizer": (
        lambda: _byte_level(_split(_GPT4)),
        "LlamaTokenizerFast",
        LlamaConfig,
    ),
    "Yi": (_yi, "LlamaTokenizer", LlamaConfig),
    "plain": (lambda: _byte_level(_PLAIN), "PreTrainedTokenizerFast", LlamaConfig),
}


def write_folder(folder, name):
    """A model's folder as one of `FOLDERS`; returns the tokenizer of its tokenizer.json."""
    make, kind, config = FOLDERS[name]
    folder.mkdir(parents=True)
    own = make()
    own.save(str(folder / "tokenizer.json"))
    fields = {"eos_token": "<|endoftext|>"} | ({"tokenizer_class": kind} if kind else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    shape = SMALL if config is GPTNeoXConfig else GROUPED
    save_random_model(folder, config(vocab_size=own.get_vocab_size(), **shape))
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.encode_special_tokens = True
    return own


@pytest.mark.parametrize("name", FOLDERS)
def test_tokenizer_json_decides(name, tmp_path):
    """And a checkpoint keeps its tokens, with the template that gives the training ids."""
    own = write_folder(tmp_path / "model", name)
    texts = [*stripped(300, seed=7), "x = 1234, 2024", "<think>12 345", "e\u0301 don't"]
    chat = load_tokenizer(tmp_path / "model")
    expected = [own.encode(text, add_special_tokens=False).ids for text in texts]
    assert [chat.encode_content(text) for text in texts] == expected
    assert all(
        len(ids) <= chat.content.at_most(text) for text, ids in zip(texts, expected, strict=True)
    )
    assert chat.tokenizer.eos_token == "<|endoftext|>"
    model = load_model(tmp_path / "model", torch.float32, chat)
    model.save_pretrained(tmp_path / "saved")
    save_tokenizer(chat.tokenizer, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert [again.encode_content(text) for text in texts] == expected
    assert (again.stop_ids, again.vocabulary_size) == (chat.stop_ids, chat.vocabulary_size)
    assert again.tokenizer.chat_template


def test_the_class_alone_gives_other_tokens(tmp_path):
    """The negative control: what the test above is there for."""
    wrong = 0
    for name in FOLDERS:
        own = write_folder(tmp_path / name, name)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        texts = ("x = 1234, 2024", "A", "e\u0301")
        ids = [own.encode(text, add_special_tokens=False).ids for text in texts]
        wrong += ids != [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    assert wrong >= 5


def test_the_choice_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        load_tokenizer(CASES / "smollm2_like")
    assert "tokenizer.json decides, not the class GPT2Tokenizer" in caplog.text


def test_the_recorded_folder_through_the_script(checkout):
    folder = CASES / "smollm2_like"
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "x = 1234, 2024 你好"
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "A"}]
    write_lines(checkout / "in/x_1.json", [{"messages": messages}])
    run(
        *("train/finetune.py", "--model_name_or_path", folder),
        *("--train_dir", "in", "--dump_examples", "out.jsonl"),
        cwd=checkout,
    )
    (dumped,) = read_lines(checkout / "out.jsonl")
    ids = own.encode(text, add_special_tokens=False).ids
    assert dumped["input_ids"][1 : len(ids) + 1] == ids
    assert dumped["labels"][len(ids) + 3] == own.encode("A").ids[0]


def test_a_folder_whose_files_disagree_beyond_repair_is_refused(tmp_path):
    """A word that tokenizer_config.json adds, and tokenizer.json does not know."""
    write_folder(tmp_path / "model", "SmolLM2")
    path = tmp_path / "model/tokenizer_config.json"
    word = {"content": "1234", "special": False, "normalized": False}
    word |= {"lstrip": False, "rstrip": False, "single_word": False}
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"added_tokens_decoder": {422: word}})
    )
    with pytest.raises(InputError, match=r"files disagree.*tokenizer\.json"):
        load_tokenizer(tmp_path / "model")


CLASSES = (
    *("LlamaTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "InternLM2Tokenizer"),
    *("GemmaTokenizer", "CodeLlamaTokenizer", None, "no tokenizer_config.json"),
)


@pytest.mark.parametrize("kind", CLASSES)
def test_two_sources_that_disagree_are_said_whatever_the_class(kind, tmp_path, caplog):
    folder = tmp_path / "model"
    size = write_sentencepiece(folder, sentencepiece_model())
    _yi().save(str(folder / "tokenizer.json"))
    save_random_model(folder, LlamaConfig(vocab_size=size, **SMALL))
    config = folder / "tokenizer_config.json"
    if kind == "no tokenizer_config.json":
        config.unlink()
    else:
        config.write_text(json.dumps({"tokenizer_class": kind} if kind else {}))
    with caplog.at_level(logging.WARNING):
        chat = load_tokenizer(folder)
    text = "x = 1"
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    if kind == "LlamaTokenizer":
        says = "tokenizer.model decides, not tokenizer.json"
        assert chat.encode_content(text) == pieces.encode(text)
    else:
        says = "tokenizer.json decides, not tokenizer.model"
        assert chat.encode_content(text) == own.encode(text, add_special_tokens=False).ids
    assert says in caplog.text


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_two_sources_that_agree_are_no_warning(kind, tiny_model, tmp_path, caplog):
    """Here tokenizer.json was made from tokenizer.model."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": kind}
    config.pop("sentencepiece_model", None)
    path.write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING):
        load_tokenizer(folder)
    assert "tokenizer.model" not in caplog.text


def test_sentencepiece_decides_over_an_old_tokenizer_json(tmp_path, caplog):
    folder = tmp_path / "model"
    size = write_sentencepiece(folder, sentencepiece_model())
    _yi().save(str(folder / "tokenizer.json"))
    save_random_model(folder, LlamaConfig(vocab_size=size, **SMALL))
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with caplog.at_level(logging.WARNING):
        chat = load_tokenizer(folder)
    assert chat.encode_content("x = 1") == processor.encode("x = 1")
    assert "tokenizer.model decides, not tokenizer.json" in caplog.text


@pytest.mark.parametrize("kind", ["GemmaTokenizer", "XLNetTokenizer", None])
def test_sentencepiece_where_it_is_all_there_is(kind, tmp_path):
    """Whatever class is named: each would rebuild the merges."""
    folder = tmp_path / "model"
    size = write_sentencepiece(folder, sentencepiece_model(), kind)
    save_random_model(folder, LlamaConfig(vocab_size=size, **SMALL))
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    chat = load_tokenizer(folder)
    for text in stripped(100, seed=8):
        assert chat.encode_content(text) == processor.encode(text)


def _added_words(folder, legacy=None):
    shutil.copytree(CASES / "added_words", folder)
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text()) | ({} if legacy is None else {"legacy": legacy})
    path.write_text(json.dumps(fields))
    return folder


# Pieces: 308 又绿江南岸, 377 ，, 317 ▁, 259 ▁▁, 260 ▁A, 320 A, 264 ▁x, 124 <0x79>
WORDS = {"你好": 380, "春风": 381, "答案是": 382}
ADDED = {
    None: {"你好，春风又绿江南岸": [380, 377, 381, 308], "答案是 A": [382, 260]},
    False: {"你好，春风又绿江南岸": [380, 377, 381, 308], "x 你好 y": [264, 317, 380, 317, 124]},
    True: {"你好，春风又绿江南岸": [380, 317, 377, 381, 317, 308], "答案是 A": [382, 259, 320]},
}


@pytest.mark.parametrize("legacy", ADDED)
def test_added_words_that_are_not_special_count(legacy, tmp_path):
    """Where the folder says so, text after them begins with a space; a checkpoint keeps both."""
    chat = load_tokenizer(_added_words(tmp_path / "model", legacy))
    texts = [*stripped(200, seed=9), *("".join(p) for p in zip("甲A ", WORDS, strict=True))]
    texts = [text.strip() for text in texts]
    for text, ids in ADDED[legacy].items():
        assert chat.encode_content(text) == ids
        assert chat.decode(ids) == text
    model = load_model(tmp_path / "model", torch.float32, chat)
    model.save_pretrained(tmp_path / "saved")
    save_tokenizer(chat.tokenizer, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    other = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [*texts, *ADDED[legacy]]:
        assert again.encode_content(text) == chat.encode_content(text)
        messages = [{"role": "user", "content": text}]
        ids = other.apply_chat_template(messages, return_dict=False)
        assert ids == chat.encode_conversation(messages)[0], text


def test_added_words_that_take_in_spaces_are_refused(tmp_path):
    folder = _added_words(tmp_path / "model")
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    fields["added_tokens_decoder"]["380"]["rstrip"] = True
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="take in spaces"):
        load_tokenizer(folder)


def test_a_model_of_the_hub_is_read_the_same(tmp_path, monkeypatch):
    """Files of the hub's cache decide as those of a folder do."""
    own = write_folder(tmp_path / "model", "SmolLM2")
    monkeypatch.setattr(
        "growth.model.source.cached_file",
        lambda name, file, **_: (
            str(tmp_path / "model" / file) if (tmp_path / "model" / file).is_file() else None
        ),
    )
    monkeypatch.chdir(tmp_path)
    for kind in (AutoTokenizer, PreTrainedTokenizerFast):
        load = kind.from_pretrained
        monkeypatch.setattr(
            kind, "from_pretrained", lambda _, load=load, **rest: load(tmp_path / "model", **rest)
        )
    chat = load_tokenizer("some/model")
    assert chat.encode_content("1234") == own.encode("1234").ids


@pytest.mark.parametrize("name", ["SmolLM2", "plain", "LLaMA 3's under LlamaTokenizer"])
def test_gguf_splits_as_the_folder_does(name, tmp_path):
    """llama.cpp's name for the rule is written, and read."""
    write_folder(tmp_path / "model", name)
    chat = load_tokenizer(tmp_path / "model")
    write_gguf(
        load_model(tmp_path / "model", torch.float32, chat), chat, None, tmp_path / "m.gguf", "f32"
    )
    again = load_tokenizer(tmp_path / "m.gguf")
    for text in [*stripped(200, seed=10), "x = 1234, 2024"]:
        assert again.encode_content(text) == chat.encode_content(text)


def test_gguf_without_a_known_rule_is_refused(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "GPT-2, a space before")
    chat = load_tokenizer(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.float32, chat)
    with pytest.raises(InputError, match="splits texts by rules of its own"):
        write_gguf(model, chat, None, tmp_path / "m.gguf", "f32")
    monkeypatch.setattr("growth.export.gguf._splitting_name", lambda _: "poro-chat")
    write_gguf(model, chat, None, tmp_path / "m.gguf", "f32")
    with pytest.raises(InputError, match="poro-chat"):
        load_tokenizer(find_model(tmp_path / "m.gguf"))


@pytest.mark.parametrize("text", ["\ufeff{}", "[]", "{"])
def test_a_damaged_tokenizer_config_is_one_message(text, tmp_path):
    folder = _added_words(tmp_path / "model")
    Path(folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer_config\.json"):
        load_tokenizer(folder)
