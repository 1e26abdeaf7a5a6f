"""LoRA adapters of others, merged into their base on loading."""

import json
import shutil

import pytest
import torch
from conftest import line, run, write_lines
from families import make_chinese_llama_plus
from test_bad_input import refused

from growth.core.errors import InputError
from growth.core.options import ModelOptions
from growth.model.loading import load_model, load_tokenizer
from growth.model.source import find_model, fingerprint


@pytest.fixture(scope="module")
def plus(tmp_path_factory):
    """An adapter's folder, and the adapted model as PEFT has it before it is saved."""
    folder = tmp_path_factory.mktemp("adapters") / "plus"
    return folder, make_chinese_llama_plus(folder).eval()


@torch.no_grad()
def test_merged_on_loading(plus):
    folder, adapted = plus
    chat = load_tokenizer(folder)
    model = load_model(folder, torch.float32, chat).eval()
    ids = torch.tensor([chat.encode_content("春风又绿江南岸")])
    expected = adapted(ids).logits
    logits = model(ids).logits[..., : expected.shape[-1]]
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    assert type(model).__name__ == "LlamaForCausalLM"
    # the adapter changes something, and so does its vocabulary
    base = load_model(folder.parent / "llama1", torch.float32, load_tokenizer(folder)).eval()
    known = load_tokenizer(folder.parent / "llama1").encode_content("题目")
    assert (
        base(torch.tensor([known])).logits - model(torch.tensor([known])).logits
    ).abs().max() > 1
    assert load_tokenizer(folder.parent / "llama1").vocabulary_size < chat.vocabulary_size


def test_a_base_elsewhere(plus, checkout):
    folder, _ = plus
    adapter = checkout / "adapter"
    shutil.copytree(folder, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    named = {"base_model_name_or_path": "somebody/llama-7b"}
    (adapter / "adapter_config.json").write_text(json.dumps(config | named))
    write_lines(checkout / "in/x.json", [line("biology", "A")])
    predict = ("evaluate/predict.py", "--model_name_or_path", "adapter", "--eval_data_path", "in")
    predict += ("--model_size", "x", "--tag", "y", "--max_new_tokens", "2")
    refused(checkout, *predict, says=["somebody/llama-7b", "--base_model"])
    run(*predict, "--base_model", folder.parent / "llama1", cwd=checkout)
    assert list(checkout.glob("evaluate/pred-data/in/x/*/y/*/pred_x.json"))


def test_a_pickled_adapter_is_refused(plus, tmp_path):
    folder, _ = plus
    shutil.copytree(folder, tmp_path / "adapter")
    weights = tmp_path / "adapter/adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"adapter_model\.bin.*pickle"):
        find_model(tmp_path / "adapter")


def test_the_fingerprint_depends_on_adapter_and_base(plus, tmp_path):
    folder, _ = plus
    base = folder.parent / "llama1"
    shutil.copytree(base, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    prints = {
        fingerprint(folder),
        fingerprint(find_model(folder, ModelOptions(base_model=str(tmp_path / "other")))),
        fingerprint(base),
    }
    assert len(prints) == 3
    assert fingerprint(find_model(folder, ModelOptions(base_model=str(base)))) == fingerprint(
        folder
    )
