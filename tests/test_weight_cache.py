"""Converted and merged weights, kept ready: the same model, without what made it the first time."""

import errno
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import TEXTS
from families import make_chinese_llama_plus, make_gguf, make_gguf_llama3

from growth.core.errors import InputError
from growth.core.options import ModelOptions
from growth.model import gguf_file, loading, weight_cache
from growth.model.loading import bounded_length, load_model, load_tokenizer
from growth.model.source import find_model, fingerprint
from growth.model.weight_cache import fill


def place_of(made, folder):
    """The model's place, of what a function of `families` has made in `folder`."""
    return made if isinstance(made, Path) else folder


@pytest.fixture(scope="module", params=[make_gguf, make_gguf_llama3, make_chinese_llama_plus])
def converted(request, tmp_path_factory):
    """A GGUF file, sentencepiece or byte-level, or an adapter with its base."""
    folder = tmp_path_factory.mktemp("converted")
    return place_of(request.param(folder), folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GROWTH_CACHE", str(folder))
    return folder


def load(place, dtype=torch.float32):
    source = find_model(place, ModelOptions())
    chat = load_tokenizer(source)
    bounded_length(source, 100)
    return load_model(source, dtype, chat), [chat.encode_content(text) for text in TEXTS]


def said_by(model):
    """What its config says; `architectures`, which saving sets, says the class, compared apart."""
    return {k: v for k, v in model.config.to_dict().items() if k != "architectures"}


def assert_same(one, other):
    (model, ids), (expected, expected_ids) = one, other
    assert ids == expected_ids
    assert type(model) is type(expected)
    assert said_by(model) == said_by(expected)
    assert model.config._attn_implementation == expected.config._attn_implementation
    assert model.generation_config.to_dict() == expected.generation_config.to_dict()
    assert model.name_or_path == expected.name_or_path
    weights, known = model.state_dict(), expected.state_dict()
    assert weights.keys() == known.keys()
    for name, weight in known.items():
        assert weights[name].dtype == weight.dtype
        assert torch.equal(weights[name], weight), name
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_second_start_maps_what_the_first_made(converted, dtype, cache, monkeypatch):
    monkeypatch.setenv("GROWTH_CACHE", "")
    alone, known = load(converted, dtype), fingerprint(converted)
    monkeypatch.setenv("GROWTH_CACHE", str(cache))
    assert_same(load(converted, dtype), alone)
    made = sorted(cache.iterdir())

    def never(*arguments):
        raise AssertionError("made again")

    monkeypatch.setattr(loading, "_load_with_adapter", never)
    if "model.gguf" in str(converted) and not (converted.parent / "tokenizer.json").is_file():
        gguf_file._read.cache_clear()
        monkeypatch.setattr(gguf_file, "_BoundedReader", never)
    assert_same(load(converted, dtype), alone)
    assert sorted(cache.iterdir()) == made
    assert fingerprint(converted) == known  # of the original file


def test_another_file_of_the_same_name_is_another_model(tmp_path, cache):
    path = make_gguf(tmp_path / "model")
    first = load(path)
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")  # its last weight
    second = load(path)
    assert any(
        not torch.equal(weight, second[0].state_dict()[name])
        for name, weight in first[0].state_dict().items()
    )


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no digests"])
def test_a_damaged_entry_is_made_anew(converted, damage, cache, caplog):
    whole = load(converted)
    for file in [*cache.glob("*/model.safetensors"), *cache.glob("*/config.json")]:
        content = file.read_bytes()
        if damage == "cut":
            file.write_bytes(content[:-1])
        elif damage == "changed":
            file.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        elif damage == "missing":
            file.unlink()
        else:
            (file.parent / weight_cache._DIGESTS).unlink(missing_ok=True)
    assert_same(load(converted), whole)
    assert "it is made anew" in caplog.text
    caplog.clear()
    assert_same(load(converted), whole)
    assert not caplog.text


def test_what_was_used_longest_ago_goes_first(cache, monkeypatch):
    monkeypatch.setenv("GROWTH_CACHE_GB", "2.5e-6")
    entries = [weight_cache.entry_of(number) for number in range(4)]
    for age, entry in enumerate(entries[:2]):
        fill(entry, lambda folder: (folder / "weights").write_bytes(b"x" * 900) and None)
        os.utime(entry, (1000 + age, 1000 + age))
    assert weight_cache.is_whole(entries[0])  # used now
    fill(entries[2], lambda folder: (folder / "weights").write_bytes(b"x" * 900) and None)
    assert [entry.is_dir() for entry in entries] == [True, False, True, False]
    fill(entries[3], lambda folder: (folder / "weights").write_bytes(b"x" * 5000) and None)
    assert [entry.is_dir() for entry in entries] == [False, False, False, True]  # the newest stays


def test_a_cache_that_can_t_be_written_to_is_done_without(converted, tmp_path, monkeypatch, caplog):
    alone = load(converted)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GROWTH_CACHE", str(tmp_path / "file" / "cache"))
    assert_same(load(converted), alone)
    assert "GROWTH_CACHE" in caplog.text


@pytest.mark.parametrize("place", ["x" * 300, "of another user"])
def test_a_cache_that_can_t_be_read_is_done_without(place, tmp_path, monkeypatch):
    folder = tmp_path / place
    monkeypatch.setenv("GROWTH_CACHE", str(folder))
    if place == "of another user":
        folder.mkdir(mode=0)
    assert not weight_cache.is_whole(weight_cache.entry_of("one"))


def test_a_cache_that_can_only_be_read_serves(cache, monkeypatch, caplog):
    entry = weight_cache.entry_of("one")
    fill(entry, lambda folder: (folder / "weights").write_bytes(b"x") and None)

    def refuse(path, *times):
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    assert weight_cache.is_whole(entry)
    assert not caplog.text


def test_an_entry_that_goes_while_it_is_loaded_is_made_anew(converted, cache, monkeypatch):
    """Another process may make room at any moment."""
    whole = load(converted)
    is_whole = weight_cache.is_whole

    def and_gone(entry):
        found = is_whole(entry)
        shutil.rmtree(entry, ignore_errors=True)
        return found

    monkeypatch.setattr(weight_cache, "is_whole", and_gone)
    assert_same(load(converted), whole)


def test_what_fails_on_a_whole_entry_is_told(cache, caplog):
    entry = weight_cache.entry_of("one")
    fill(entry, lambda folder: (folder / "weights").write_bytes(b"x") and None)

    def out_of_files(folder):
        raise OSError(errno.EMFILE, "Too many open files")

    assert weight_cache.kept(entry, out_of_files) is None
    assert f"{entry} can't be loaded" in caplog.text
    assert weight_cache.is_whole(entry)


def test_what_a_killed_process_left_of_another_entry_goes(cache):
    def die(folder):
        (folder / "weights").write_bytes(b"x" * 900)
        os.kill(os.getpid(), signal.SIGKILL)

    maker = multiprocessing.get_context("fork").Process(
        target=fill, args=(weight_cache.entry_of("dead"), die)
    )
    maker.start()
    maker.join(60)
    assert any(cache.glob(".*.tmp"))
    entry = weight_cache.entry_of("alive")
    fill(entry, lambda folder: (folder / "weights").write_bytes(b"x") and None)
    assert not any(cache.glob(".*.tmp"))
    assert entry.is_dir()


def test_a_bound_that_is_no_number_is_refused(cache, monkeypatch):
    monkeypatch.setenv("GROWTH_CACHE_GB", "4O")
    with pytest.raises(InputError, match="GROWTH_CACHE_GB=4O"):
        fill(weight_cache.entry_of("one"), lambda folder: None)
    assert not cache.exists()


def test_two_processes_make_an_entry_once(cache, tmp_path):
    entry = weight_cache.entry_of("shared")
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(3)

    def make(number):
        begin.wait(60)

        def write(folder):
            (folder / "by").write_text(str(number))
            with open(tmp_path / "makers", "a") as file:
                file.write(f"{number}\n")

        fill(entry, write)
        os._exit(0 if weight_cache.is_whole(entry) else 1)

    makers = [context.Process(target=make, args=(number,)) for number in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(60)
    assert [maker.exitcode for maker in makers] == [0, 0, 0]
    assert len((tmp_path / "makers").read_text().splitlines()) == 1
    assert sorted(path.name for path in cache.iterdir()) == [entry.name]


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("GROWTH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weight_cache.cache_folder() == tmp_path / "growth"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weight_cache.cache_folder() == tmp_path / ".cache/growth"
    monkeypatch.setenv("GROWTH_CACHE", "")
    assert weight_cache.cache_folder() is None
    monkeypatch.delenv("GROWTH_CACHE")

    def homeless(cls=None):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert weight_cache.cache_folder() is None
