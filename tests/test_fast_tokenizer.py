"""tokenizer.json for other tools, and our own path, against sentencepiece itself."""

import pytest
from conftest import read_lines
from families import (
    FAMILIES,
    make_gguf,
    random_strings,
    sentencepiece_model,
    with_tied_words,
    write_sentencepiece,
)
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from growth.export.checkpoint_files import TokenizerFiles, save_tokenizer
from growth.export.fast_tokenizer import disagreements, fast_tokenizer, random_texts
from growth.model.loading import load_tokenizer

# Overlapping words, words of words, words that only a later merge or nothing at all can build.
TIED = ("甲乙", "乙甲", "乙丙", "丙丁", "甲乙丙丁", "乙丁", "▁乙丁", "re", "retu", "丁一二")
MODELS = {
    "llama": {},
    "tied": {},
    "no dummy prefix": {"add_dummy_prefix": False},
    "spaces removed": {"remove_extra_whitespaces": True},
    "user-defined": {"user_defined_symbols": ["▁A", "▁B", "\n"]},
    "user-defined words": {
        "user_defined_symbols": ["<b>", "</b>", "▁▁", "\n\n"],
        "add_dummy_prefix": False,
    },
    "no bytes": {"byte_fallback": False},
}


def processor_of(name):
    model = sentencepiece_model(**MODELS[name])
    if name == "tied":
        model = with_tied_words(model, TIED)
    return SentencePieceProcessor(model_proto=model)


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_json_tokenises_as_sentencepiece_does(name):
    processor = processor_of(name)
    tokenizer = Tokenizer.from_str(fast_tokenizer(processor).to_str())
    texts = [*random_texts(processor, 5000), *random_strings(5000, seed=3)]
    assert disagreements(tokenizer, processor, texts) == []
    if name not in ("user-defined", "no bytes"):  # these lose characters in encoding
        for ids in processor.encode(random_strings(100, seed=4)):
            assert tokenizer.decode(ids).strip() == processor.decode(ids).strip()


def test_ranks_alone_do_not(monkeypatch):
    """The negative control: without the words cut out first, ties go wrong."""
    processor = processor_of("tied")
    texts = random_texts(processor, 5000)
    monkeypatch.setattr("growth.export.fast_tokenizer._words_first", lambda scores: set())
    assert len(disagreements(fast_tokenizer(processor), processor, texts)) > 10


def test_ten_thousand_strings_with_the_chinese_llama_vocabulary(golden, tmp_path):
    """Our own path and what other tools load, both from one saved folder."""
    model = golden / "tiny-llama/tokenizer.model"
    processor = SentencePieceProcessor(str(model))
    save_tokenizer(load_tokenizer(golden / "tiny-llama").tokenizer, tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((golden / "tiny-llama" / name).read_bytes())
    others, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    texts = [*random_texts(processor, 5000, seed=5), *random_strings(5000, seed=6)]
    expected = processor.encode(texts)
    assert others(texts, add_special_tokens=False, split_special_tokens=True).input_ids == expected
    for text in texts:
        assert ours.encode_content(text) == processor.encode(text.strip())


@pytest.mark.parametrize("name", ["llama2", "qwen2", "gemma3"])
def test_files_written_again_are_the_same(name, tmp_path):
    """Those of a second checkpoint, written by one object, are those of a fresh one."""
    FAMILIES[name](tmp_path / "model")
    save_tokenizer(load_tokenizer(tmp_path / "model").tokenizer, tmp_path / "fresh")
    files = TokenizerFiles(load_tokenizer(tmp_path / "model").tokenizer)
    for _ in range(2):
        files.write(tmp_path / "again")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "fresh").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == expected
    assert "tokenizer.json" in expected


def test_recorded_conversations_through_the_template(golden, tmp_path):
    save_tokenizer(load_tokenizer(golden / "tiny-llama").tokenizer, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for recorded in read_lines(golden / "tokenised_conversations.jsonl"):
        ids = tokenizer.apply_chat_template(recorded["messages"], return_dict=False)
        assert ids == recorded["input_ids"]


def test_a_gguf_file_is_tokenised_as_the_model_in_it(tmp_path):
    path = make_gguf(tmp_path / "x")
    processor = SentencePieceProcessor(str(tmp_path / "x/tokenizer.model"))
    chat = load_tokenizer(path)
    for text in random_strings(1000, seed=10):
        assert chat.encode_content(text) == processor.encode(text.strip())


def test_newer_ways_of_transformers_do_not_change_our_tokens(tmp_path):
    """`legacy: false`, as LLaMA 2's folder says, makes transformers drop the space in front."""
    model = sentencepiece_model()
    write_sentencepiece(tmp_path, model, legacy=False)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({}, tmp_path / "model.safetensors")
    processor = SentencePieceProcessor(model_proto=model)
    chat = load_tokenizer(tmp_path)
    for text in random_strings(500, seed=7):
        assert chat.encode_content(text) == processor.encode(text.strip())
    save_tokenizer(chat.tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    for text in random_strings(500, seed=8):
        assert again.encode_content(text) == processor.encode(text.strip())
