"""Strangers' model folders, damaged or made up: one message, before time and memory are spent."""

import contextlib
import json
import shutil
import struct
import time

import pytest
import torch
from conftest import CASES
from families import make_gguf_llama3, sentencepiece_model, write_sentencepiece
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from growth.core.errors import InputError
from growth.core.options import LoraOptions, ModelOptions
from growth.model import source as source_module
from growth.model.loading import load_model, load_tokenizer
from growth.model.lora import add_lora
from growth.model.source import find_model, fingerprint
from growth.model.weight_files import weight_files

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n"
BOUND = 20  # seconds; none takes one, and those of before never ended


def load(folder):
    source = find_model(folder)
    return load_model(source, torch.float32, load_tokenizer(source))


def refused(folder, *says):
    """The one message of a folder that can't be loaded, which names the folder."""
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        load(folder)
    assert time.monotonic() - began < BOUND
    message = str(caught.value)
    for words in (str(folder), *says):
        assert words in message
    assert "\n" not in message
    assert len(message) < 1500
    return message


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture(scope="module")
def trained_adapter(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    chat = load_tokenizer(tiny_model)
    lora = LoraOptions(rank=2, target_modules=("q_proj", "v_proj", "o_proj", "up_proj"))
    adapted = add_lora(load_model(tiny_model, torch.float32, chat), lora, chat, str(tiny_model))
    adapted.save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(trained_adapter, tmp_path):
    return shutil.copytree(trained_adapter, tmp_path / "adapter")


def test_the_folders_that_are_damaged_below_are_whole(model, adapter):
    load(model)
    load(adapter)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "expected a JSON object, found a list"),
        ("null", "found null"),
        ('"config"', "found a text"),
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ("", "not JSON"),
        ("\ufeff{}", "not JSON"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "not JSON"),
        (LFS, "git lfs pull"),
    ],
)
def test_a_config_that_is_no_object(model, text, says):
    (model / "config.json").write_text(text)
    refused(model, "config.json", says)


def test_a_config_that_is_not_utf_8_no_file_or_huge(model):
    config = model / "config.json"
    config.write_bytes(b'{"a": "\xff"}')
    refused(model, "not JSON in UTF-8")
    with open(config, "wb") as file:
        file.truncate(1 << 40)
    refused(model, "at most 67,108,864 bytes")


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 1_000_000},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": None},
        {"num_hidden_layers": "two"},
        {"num_hidden_layers": 1.5},
        {"num_hidden_layers": []},
        {"hidden_size": 0},
        {"hidden_size": -16},
        {"hidden_size": None},
        {"hidden_size": 10**6},
        {"hidden_size": 10**15},
        {"hidden_size": "16"},
        {"intermediate_size": 10**9},
        {"vocab_size": 10**9},
        {"vocab_size": 10**18},
        {"vocab_size": 0},
        {"vocab_size": -5},
        {"vocab_size": {}},
        {"num_attention_heads": 0},
        {"num_attention_heads": 10**9},
        {"num_attention_heads": 3},
        {"num_key_value_heads": 0},
        {"head_dim": 10**9},
        {"max_position_embeddings": 10**12},
        {"num_labels": 10**9},
        {"hidden_act": "exec"},
        {"model_type": "no_such"},
        {"model_type": None},
        {"model_type": ["llama"]},
        {"model_type": "gpt2", "n_layer": 10**8},
        {"rope_parameters": "none"},
        {"rope_parameters": {"rope_type": "no_such"}},
        {"quantization_config": {"quant_method": "gptq"}},
        {"quantization_config": 3},
        {"transformers_weights": "pytorch_model.bin"},
        {"transformers_weights": "other.safetensors.index.json"},
        {"transformers_weights": "../model.safetensors"},
        {"transformers_weights": 3},
    ],
    ids=str,
)
def test_a_config_of_odd_values(model, fields):
    change(model / "config.json", **fields)
    refused(model)


@pytest.mark.parametrize("implementation", ["flash_attention_2", "os.system", "eager", 7, None])
def test_the_attention_that_a_config_names_is_not_taken(model, implementation):
    change(
        model / "config.json",
        _attn_implementation=implementation,
        attn_implementation=implementation,
    )
    assert load(model).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("field", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("dtype", ["os.system", "no_such", 7, ["float32"], {"": "system"}], ids=str)
def test_the_type_that_a_config_names_is_not_taken(model, field, dtype):
    """It loads, as its type is asked for, or is refused by name."""
    change(model / "config.json", **{field: dtype})
    with contextlib.suppress(InputError):
        assert load(model).dtype == torch.float32


@pytest.mark.parametrize(
    "text", ["[]", "null", "[" * 100_000, '{"a": 1', "\ufeff{}", LFS, '{"tokenizer_class": 3}']
)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
def test_a_tokenizer_file_that_is_no_object(model, name, text):
    if name == "tokenizer.json":
        (model / "tokenizer.model").unlink()
    (model / name).write_text(text)
    refused(model)


@pytest.mark.parametrize(
    "fields",
    [
        {"pad_token": 5},
        {"pad_token": ["<pad>"]},
        {"bos_token": {"content": None}},
        {"added_tokens_decoder": {"x": 3}},
        {"added_tokens_decoder": {"-1": {"content": "a"}}},
        {"tokenizer_class": "os.system"},
        {"model_max_length": "long"},
        {"extra_special_tokens": 4},
    ],
    ids=str,
)
def test_a_tokenizer_config_of_odd_values_loads_or_is_refused(model, fields):
    """transformers takes some of them; what it does not take is one message."""
    change(model / "tokenizer_config.json", **fields)
    with contextlib.suppress(InputError):
        load(model)


@pytest.mark.parametrize(
    ("shard", "says"),
    [
        ("pytorch_model.bin", "pytorch_model.bin"),
        ("../other/model.safetensors", "../other"),
        ("/etc/passwd", "/etc/passwd"),
        ("/tmp/model.safetensors", "/tmp"),
        ("..", "'..'"),
        ("", "''"),
        (None, "None"),
        (3, "'3'"),
        (["model.safetensors"], "model.safetensors"),
    ],
)
def test_an_index_names_plain_safetensors_files_only(model, shard, says):
    """A pickle runs code when it is loaded; what is elsewhere the fingerprint does not see."""
    weights = load_file(model / "model.safetensors")
    (model / "../other").mkdir()
    save_file(weights, model / "../other/model.safetensors", {"format": "pt"})
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, "model.safetensors.index.json", says, "ends in .safetensors")


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {}}, None])
def test_an_index_that_is_none(model, index):
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, "model.safetensors.index.json")


def test_shards_are_followed_by_the_fingerprint(model):
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    save_file(weights, model / "a-1.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "a-1.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    load(model)
    before = fingerprint(model)
    next(iter(weights.values())).add_(1)
    save_file(weights, model / "a-1.safetensors", {"format": "pt"})
    assert fingerprint(model) != before


def sharded(model):
    """Cut the weights of a model's folder in two; returns them."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = {name: f"a-{place % 2}.safetensors" for place, name in enumerate(sorted(weights))}
    for file in set(names.values()):
        part = {name: weights[name] for name in weights if names[name] == file}
        save_file(part, model / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": names}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return weights


@pytest.mark.parametrize("shards", [False, True])
def test_every_byte_of_the_weights_is_in_the_fingerprint(model, shards):
    """Samples of 64 KiB left out whole tensors of a model of 10 MB, and most of a larger one."""
    if shards:
        sharded(model)
    path = model / ("a-0.safetensors" if shards else "model.safetensors")
    large = load_file(path) | {"large": torch.zeros(64 * 40_000)}
    save_file(large, path, {"format": "pt"})
    found = {fingerprint(model)}
    whole = path.read_bytes()
    places = range(len(whole) // 10, len(whole), len(whole) // 10)
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        found.add(fingerprint(model))
    assert len(found) == 1 + len(places)


def test_what_is_not_loaded_is_not_in_the_fingerprint(model):
    before = fingerprint(model)
    config = json.loads((model / "config.json").read_text())
    turned = dict(reversed((config | {"transformers_version": "4.0.0"}).items()))
    (model / "config.json").write_text(json.dumps(turned, indent=7))
    shutil.copy(model / "model.safetensors", model / "model copy.safetensors")
    (model / "modeling_own.py").write_text("raise SystemExit")
    assert fingerprint(model) == before
    assert fingerprint(find_model(model, ModelOptions(trust_remote_code=True))) != before
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert fingerprint(model) != before


def test_the_single_file_counts_as_it_is_loaded_though_there_are_shards(model):
    single = (model / "model.safetensors").read_bytes()
    weights = sharded(model)
    (model / "model.safetensors").write_bytes(single)
    for name in ("a-0.safetensors", "a-1.safetensors"):
        zeros = {key: torch.zeros_like(weights[key]) for key in load_file(model / name)}
        save_file(zeros, model / name, {"format": "pt"})
    assert weight_files(model) == ["model.safetensors"]
    loaded = load(model)
    for name, weight in loaded.state_dict().items():
        if name in weights:
            assert torch.equal(weight[: len(weights[name])], weights[name])


def test_a_model_of_the_hub_goes_by_its_commit(monkeypatch):
    found = []
    for commit in ("a" * 40, "b" * 40):
        path = f"/cache/models--x--y/snapshots/{commit}/config.json"
        monkeypatch.setattr(source_module, "cached_file", lambda *_, path=path, **__: path)
        found.append(fingerprint("x/y"))
    assert found == [f"hub:x/y@{'a' * 40}", f"hub:x/y@{'b' * 40}"]


def header(text):
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\xff" * 100,
        struct.pack("<Q", 2**63) + b"{}",
        header(b"[]"),
        header(b"{}"),
        header(b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4]}}'),
        header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}'),
        LFS.encode(),
    ],
)
def test_garbage_as_weights(model, adapter, data):
    (model / "model.safetensors").write_bytes(data)
    refused(model, "git lfs pull" if data.startswith(b"version") else "")
    (adapter / "adapter_model.safetensors").write_bytes(data)
    refused(adapter, "git lfs pull" if data.startswith(b"version") else "")


def test_a_pointer_in_place_of_a_tokenizer_or_a_gguf(model, tmp_path):
    (tmp_path / "x.gguf").write_text(LFS)
    refused(tmp_path / "x.gguf", "git lfs pull")
    for name in ("tokenizer.model", "tokenizer.json"):
        (model / name).write_text(LFS)
    refused(model, "git lfs pull")


# Adapters


@pytest.mark.parametrize("text", ["[]", "3", "", LFS, "[" * 100_000])
def test_an_adapter_s_configuration_that_is_no_object(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    refused(adapter, "adapter_config.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"base_model_name_or_path": "x" * 5000},
        {"base_model_name_or_path": "a\0b"},
        {"base_model_name_or_path": ["x"]},
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": "."},
        {"peft_type": "PROMPT_TUNING"},
        {"peft_type": ["LORA"]},
        {"peft_type": None},
        {"peft_type": "no_such"},
        {"r": "x"},
        {"r": 0},
        {"r": 10**9},
        {"r": -1},
        {"lora_alpha": "x"},
        {"target_modules": 5},
        {"target_modules": "("},
        {"target_modules": "(?=q)q_proj"},
        {"target_modules": "no_such"},
        {"target_modules": ["no_such"]},
        {"modules_to_save": ["(a|a)*b"]},
        {"layers_pattern": "(a|a)*b", "layers_to_transform": [0]},
        {"rank_pattern": {"(": 3}},
        {"rank_pattern": 3},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_an_adapter_of_odd_values(adapter, fields):
    change(adapter / "adapter_config.json", **fields)
    refused(adapter)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern"])
@pytest.mark.parametrize("pattern", ["(.*)*(.*)*(.*)*(.*)*(.*)*x!", "([a-z_.]+)+!", "(a|a|.)*$!"])
def test_patterns_of_an_adapter_take_linear_time(adapter, field, pattern):
    value = {pattern: 3} if field == "rank_pattern" else pattern
    change(adapter / "adapter_config.json", **{field: value})
    began = time.monotonic()
    if field == "target_modules":
        refused(adapter, "target_modules", "matches no layer")
    else:
        load(adapter)
    assert time.monotonic() - began < BOUND


def test_a_pattern_adapts_the_layers_that_it_matches(adapter):
    expected = load(adapter).state_dict()
    pattern = r"model\.layers\.\d+\.(self_attn\.(q|v|o)|mlp\.up)_proj"
    change(adapter / "adapter_config.json", target_modules=pattern)
    found = load(adapter).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_pattern_as_a_flag_takes_linear_time(tiny_model):
    chat = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.float32, chat)
    for pattern in ("([a-z_.0-9]+)+!", "("):
        with pytest.raises(InputError, match="--lora_target_modules"):
            add_lora(model, LoraOptions(rank=2, target_modules=pattern), chat, "x")
    adapted = add_lora(model, LoraOptions(rank=2, target_modules=r".*\.q_proj"), chat, "x")
    assert adapted.peft_config["default"].target_modules == ["model.layers.0.self_attn.q_proj"]


def test_adapters_that_build_on_each_other_in_a_circle(adapter, tmp_path):
    change(adapter / "adapter_config.json", base_model_name_or_path=str(adapter))
    refused(adapter, "builds on itself")
    for number in range(3):
        copy = shutil.copytree(adapter, tmp_path / f"a{number}")
        base = str(tmp_path / f"a{(number + 1) % 3}")
        change(copy / "adapter_config.json", base_model_name_or_path=base)
    refused(tmp_path / "a0", "builds on itself")
    for number in range(20):
        copy = shutil.copytree(adapter, tmp_path / f"b{number}")
        base = str(tmp_path / f"b{number + 1}")
        change(copy / "adapter_config.json", base_model_name_or_path=base)
    shutil.copytree(adapter, tmp_path / "b20")
    refused(tmp_path / "b0", "more than 8 adapters")
    with pytest.raises(InputError, match="builds on itself"):
        fingerprint(adapter)
    with pytest.raises(InputError, match="builds on itself"):
        load_tokenizer(find_model(adapter, ModelOptions(base_model=str(adapter)))) and load(
            find_model(adapter, ModelOptions(base_model=str(adapter)))
        )


def test_an_adapter_of_scalars(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: torch.tensor(1.0) for name in weights}, adapter / "adapter_model.safetensors")
    refused(adapter)
    scalar = {"base_model.model.model.embed_tokens.weight": torch.tensor(1.0)}
    save_file(weights | scalar, adapter / "adapter_model.safetensors")
    refused(adapter, "embed_tokens.weight")


def test_an_adapter_of_prompts_is_refused_by_name():
    with pytest.raises(InputError, match="PROMPT_TUNING"):
        find_model(CASES / "prompt_tuning_adapter")


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "a\0b", "", ".", "/", "~", "-"])
def test_a_model_s_name_of_any_kind(name):
    with pytest.raises(InputError, match="--model_name_or_path") as caught:
        find_model(name)
    assert len(str(caught.value)) < 600


# GGUF


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf(tensors, pairs, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGU",
        b"XXXX" + bytes(100),
        b"GGUF" + struct.pack("<I", 99) + bytes(16),
        gguf(2**63, 0),
        gguf(0, 2**63),
        gguf(0, 1, struct.pack("<Q", 2**62)),
        gguf(0, 1, text(b"a") + struct.pack("<I", 77)),
        gguf(0, 1, text(b"\xff") + struct.pack("<II", 4, 1)),
        gguf(0, 1, text(b"a") + struct.pack("<IQ", 8, 2**40)),
        # arrays of 2^60 numbers, of texts, of arrays in arrays
        gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 4, 2**60)),
        gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 8, 2**60)),
        gguf(0, 1, text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000),
        gguf(1, 0, text(b"t") + struct.pack("<I", 2**31)),
        gguf(1, 0, text(b"t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0)),
        gguf(1, 0, text(b"t") + struct.pack("<IQIQ", 1, 4, 0, 2**60)),
        gguf(0, 0),
        LFS.encode(),
    ],
)
def test_garbage_as_a_gguf(tmp_path, data):
    (tmp_path / "x.gguf").write_bytes(data)
    refused(tmp_path / "x.gguf")


def test_a_gguf_is_read_once(tmp_path, monkeypatch):
    """With a large vocabulary that takes many seconds, and transformers does it for each part."""
    path = make_gguf_llama3(tmp_path / "model")
    read, begun = GGUFReader.__init__, []
    monkeypatch.setattr(
        GGUFReader, "__init__", lambda self, *rest: begun.append(rest) or read(self, *rest)
    )
    load(path)
    assert len(begun) == 1


def test_a_cut_gguf(tmp_path):
    path = make_gguf_llama3(tmp_path / "model")
    whole = path.read_bytes()
    load(path)
    for size in (3, 24, 100, 1000, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:size])
        refused(path)


def test_a_sentencepiece_model_that_is_cut(tmp_path, tiny_model):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    write_sentencepiece(folder, sentencepiece_model())
    whole = (folder / "tokenizer.model").read_bytes()
    (folder / "tokenizer.json").unlink(missing_ok=True)
    for size in (0, 10, len(whole) // 2):
        (folder / "tokenizer.model").write_bytes(whole[:size])
        refused(folder)
