"""LoRA adapters of others, merged into their base on loading."""

import json
import shutil

import pytest
import torch
from conftest import CASES, line, run, write_lines
from families import (
    SMALL,
    make_chinese_llama_plus,
    save_random_model,
    sentencepiece_model,
    write_sentencepiece,
)
from peft import LoraConfig, get_peft_model
from test_bad_input import refused
from transformers import AutoModelForCausalLM, LlamaConfig

from growth.core.errors import InputError
from growth.core.options import LoraOptions, ModelOptions
from growth.model.loading import load_model, load_tokenizer
from growth.model.lora import add_lora
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


def _adapter_of(base, folder, targets, **options):
    """A trained adapter as others make them: of `targets`; returns the model as PEFT has it."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
        if "trainable_tokens" in name:
            parameter.data.add_(1.0)
    adapted.save_pretrained(folder)
    return adapted


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["q_proj", "lm_head"]])
@torch.no_grad()
def test_adapters_of_vocabulary_layers_are_merged_as_they_were_trained(tied, targets, tmp_path):
    size = write_sentencepiece(tmp_path / "base", sentencepiece_model())
    config = LlamaConfig(vocab_size=size, tie_word_embeddings=tied, **SMALL)
    save_random_model(tmp_path / "base", config)
    adapted = _adapter_of(tmp_path / "base", tmp_path / "adapter", targets)
    chat = load_tokenizer(tmp_path / "adapter")
    model = load_model(tmp_path / "adapter", torch.float32, chat).eval()
    ids = torch.tensor([chat.encode_content("春风又绿江南岸")])
    expected = adapted(ids).logits
    assert (model(ids).logits[..., :size] - expected).abs().max() < 1e-4 * expected.abs().max()
    model.save_pretrained(tmp_path / "whole")  # and stays so
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(again[name], weight), name


def test_an_adapter_of_tied_layers_that_trains_their_rows_too_is_refused(tmp_path):
    size = write_sentencepiece(tmp_path / "base", sentencepiece_model())
    config = LlamaConfig(vocab_size=size, tie_word_embeddings=True, **SMALL)
    save_random_model(tmp_path / "base", config)
    rows = {"model.embed_tokens": [3, 4]}
    _adapter_of(tmp_path / "base", tmp_path / "adapter", ["lm_head"], trainable_token_indices=rows)
    with pytest.raises(InputError, match="trains rows of the same"):
        load_model(tmp_path / "adapter", torch.float32, load_tokenizer(tmp_path / "adapter"))


@pytest.mark.parametrize(
    "targets", [("lm_head",), ("embed_tokens",), ("q_proj", "model.embed_tokens"), (".*head",)]
)
def test_vocabulary_layers_are_no_target(targets, tiny_model, checkout):
    """Refused by name before training, whatever way they are named, and not offered."""
    write_lines(checkout / "in/x_1.json", [line("biology", "A")])
    train = ("train/finetune.py", "--model_name_or_path", tiny_model, "--train_dir", "in")
    train += (
        "--valid_dir",
        "in",
        "--output_dir",
        "out",
        "--lora_rank",
        "2",
        "--lora_target_modules",
        *targets,
    )
    if targets == (".*head",):  # a list holds names, no patterns
        refused(checkout, *train, says=["--lora_target_modules", "be adapted are down_proj"])
        chat = load_tokenizer(tiny_model)
        model = load_model(tiny_model, torch.float32, chat)
        with pytest.raises(InputError, match="lm_head holds the vocabulary"):
            add_lora(model, LoraOptions(rank=2, target_modules=".*head"), chat, "x")
        return
    message = refused(checkout, *train, says=["--lora_target_modules", "holds the vocabulary"])
    offered = message.rsplit("expected some of ")[-1]
    assert "q_proj" in offered
    assert "lm_head" not in offered
    assert "embed_tokens" not in offered


def test_every_target_is_a_layer(tiny_model, checkout):
    """peft adapts those that it finds, and records all."""
    write_lines(checkout / "in/x_1.json", [line("biology", "A")])
    train = ("train/finetune.py", "--model_name_or_path", tiny_model, "--train_dir", "in")
    train += ("--valid_dir", "in", "--output_dir", "out", "--lora_rank", "2")
    said = ["--lora_target_modules q_proj q_porj", "no layer 'q_porj'", "k_proj"]
    refused(checkout, *train, "--lora_target_modules", "q_proj", "q_porj", says=said)
    assert LoraOptions(rank=2, target_modules=("all-linear",)) == LoraOptions(rank=2)
    chat = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.float32, chat)
    named = LoraOptions(rank=2, target_modules=("self_attn.q_proj", "model.layers.0.mlp.up_proj"))
    adapted = [n for n, _ in add_lora(model, named, chat, "x").named_modules() if "lora_A." in n]
    assert len(adapted) == 2


def test_an_adapter_that_cannot_be_merged_is_refused():
    with pytest.raises(InputError, match="PROMPT_TUNING"):
        find_model(CASES / "prompt_tuning_adapter")


@pytest.mark.parametrize("targets", ["all-linear", ("v_proj", "q_proj", "up_proj"), ".*_proj"])
def test_the_configuration_of_an_adapter_is_the_same_bytes_in_two_runs(
    targets, tiny_model, tmp_path
):
    """peft writes a set; Python shuffles a set of texts from process to process."""
    chat = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.float32, chat)
    adapted = add_lora(model, LoraOptions(rank=2, target_modules=targets), chat, "x")
    adapted.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(written["target_modules"])
    assert not any(isinstance(v, set) for v in adapted.peft_config["default"].to_dict().values())
