"""What a sample gives does not depend on its batch: windows, chunks, positions, recurrences."""

import logging

import pytest
import torch
import transformers
from conftest import greedy_answers, line, run, write_lines
from families import save_random_model, sentencepiece_model, write_sentencepiece

from growth.core.errors import InputError
from growth.core.options import VARLEN, DecodingOptions
from growth.inference.predictor import Predictor
from growth.inference.requests import Request
from growth.model.loading import bounded_length, load_model, load_tokenizer, max_positions
from growth.packing.attention import attending
from growth.packing.forward import supervised_logits, supports_packing

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 24,
}
LINEAR = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
# Class of the config, its fields, tokens that a sample may have, whether samples are packed.
ARCHITECTURES = {
    "phi3 longrope": (
        "Phi3Config",
        {"original_max_position_embeddings": 24, "rope_parameters": LONG},
        24,
        True,
    ),
    "llama4 chunks": (
        "Llama4TextConfig",
        {
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 24,
            "attn_temperature_tuning": False,
        },
        24,
        False,
    ),
    "llama4 temperature": (
        "Llama4TextConfig",
        {
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 64,
            "floor_scale": 24,
            "attn_scale": 1.0,
        },
        23,
        False,
    ),
    "mistral window": ("MistralConfig", {"sliding_window": 6}, 256, True),
    "qwen3next": ("Qwen3NextConfig", LINEAR, 256, False),
}


def write_model(folder, name, **fields):
    config, own, length, packs = ARCHITECTURES[name]
    size = write_sentencepiece(folder, sentencepiece_model())
    fields = SMALL | {"max_position_embeddings": 256} | own | fields
    save_random_model(folder, getattr(transformers, config)(vocab_size=size, **fields))
    return length, packs


def example(start, length):
    ids = torch.arange(start, start + length)
    return {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sample_gives_the_same_in_any_batch(name, tmp_path):
    """As long as the lengths go that are used, in training and in prediction."""
    length, packs = write_model(tmp_path / "model", name)
    assert bounded_length(tmp_path / "model", 256) == length
    assert bounded_length(tmp_path / "model", 9) == 9
    chat = load_tokenizer(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.float32, chat).eval()
    assert max_positions(model) == length
    assert supports_packing(model) == packs
    longest = min(length, 40)
    examples = [example(1, longest), *(example(60 + i, 5 + i) for i in range(6))]
    with torch.no_grad():
        alone = [model(input_ids=e["input_ids"][None], use_cache=False).logits[0] for e in examples]
        expected = torch.cat([logits[:-1] for logits in alone])
        rows = supervised_logits(model, examples, packed=False).logits
        assert (rows - expected).abs().max() < 1e-4 * expected.abs().max()
        if packs:
            with attending(model, VARLEN):
                rows = supervised_logits(model, examples, packed=True).logits
            assert (rows - expected).abs().max() < 1e-4 * expected.abs().max()
    room = 6
    prompts = [list(range(1, longest - room + 1)), [50, 51, 52], list(range(70, 79))]
    requests = [Request("generate", prompt, room) for prompt in prompts]
    together = greedy_answers(model, requests)
    for request, answer in zip(requests, together, strict=True):
        (own,) = greedy_answers(model, [request])
        assert own.ids == answer.ids
        assert own.logits == pytest.approx(answer.logits, rel=1e-3, abs=1e-3)
    Predictor(model, chat, DecodingOptions())


@pytest.mark.parametrize("name", ["phi3 longrope", "llama4 temperature"])
def test_beyond_that_length_it_would_not(name, tmp_path):
    """The negative control: the bound is not there for nothing."""
    length, _ = write_model(tmp_path / "model", name)
    chat = load_tokenizer(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.float32, chat).eval()
    prompts = [list(range(1, length + 30)), [50, 51, 52]]
    requests = [Request("generate", prompt, 2) for prompt in prompts]
    together = greedy_answers(model, requests)[1]
    (alone,) = greedy_answers(model, requests[1:])
    assert abs(together.logits[0] - alone.logits[0]) > 1e-2


def test_a_bound_on_the_length_is_said(tmp_path, caplog):
    write_model(tmp_path / "model", "phi3 longrope")
    with caplog.at_level(logging.WARNING):
        bounded_length(tmp_path / "model", 24)
        assert not caplog.records
        bounded_length(tmp_path / "model", 25)
    assert "no more than 24 tokens, instead of 25" in caplog.text


def test_the_probe_reaches_beyond_windows(tmp_path, monkeypatch):
    """Attention that forgets the window is found out, though the window is far longer."""
    write_model(tmp_path / "model", "mistral window", sliding_window=128)
    chat = load_tokenizer(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.float32, chat)
    assert model.config.sliding_window == 128
    assert supports_packing(model)
    from growth.packing import attention

    one = attention._one_sample
    monkeypatch.setattr(
        attention, "_one_sample", lambda q, k, v, scale, _: one(q, k, v, scale, None)
    )
    assert not supports_packing(model)
    assert model.config.sliding_window == 128


def test_answers_that_depend_on_the_batch_are_refused_by_name(tmp_path):
    size = write_sentencepiece(tmp_path / "model", sentencepiece_model())
    fields = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
    config = transformers.RecurrentGemmaConfig(
        vocab_size=size,
        intermediate_size=48,
        attention_window_size=8,
        lru_width=32,
        block_types=["recurrent", "recurrent", "attention"],
        **{k: v for k, v in fields.items() if k != "initializer_range"},
    )
    save_random_model(tmp_path / "model", config)
    chat = load_tokenizer(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.float32, chat)
    with pytest.raises(InputError, match=r"RecurrentGemmaForCausalLM.*batch"):
        Predictor(model, chat, DecodingOptions())


# Families for which transformers has no SDPA: config's class, its fields, whether they predict.
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 4}
FEW = {"hidden_size": 32, "num_hidden_layers": 2}
GROUPS = {name: value for name, value in SMALL.items() if name != "num_hidden_layers"}
WITHOUT_SDPA = {
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, True),
    "gemma2": ("Gemma2Config", GROUPS | {"num_hidden_layers": 2, "sliding_window": 8}, True),
    "gptj": ("GPTJConfig", GPT, True),
    "codegen": ("CodeGenConfig", GPT, True),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8}
        | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 256},
        True,
    ),
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}, True),
    "xglm": (
        "XGLMConfig",
        {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
        True,
    ),
    "gpt_oss": (
        "GptOssConfig",
        GROUPS | {"num_hidden_layers": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
        True,
    ),
    "mamba": ("MambaConfig", FEW | {"state_size": 4}, False),
    "rwkv": ("RwkvConfig", FEW | {"context_length": 256}, False),
}


@pytest.mark.parametrize("name", WITHOUT_SDPA)
def test_families_without_sdpa_are_computed_eagerly_in_padded_rows(name, tmp_path):
    """Recurrent ones are trained, and refused in prediction: padding on the left is read."""
    config, fields, predicts = WITHOUT_SDPA[name]
    size = write_sentencepiece(tmp_path / "model", sentencepiece_model())
    save_random_model(tmp_path / "model", getattr(transformers, config)(vocab_size=size, **fields))
    chat = load_tokenizer(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.float32, chat).eval()
    assert model.config._attn_implementation == "eager"
    assert not supports_packing(model)
    examples = [example(1, 20), example(60, 5), example(80, 9)]
    with torch.no_grad():
        alone = [model(input_ids=e["input_ids"][None], use_cache=False).logits[0] for e in examples]
        expected = torch.cat([logits[:-1] for logits in alone])
        rows = supervised_logits(model, examples, packed=False).logits
    assert (rows - expected).abs().max() < 1e-4 * expected.abs().max()
    model.train()
    supervised_logits(model, examples, packed=False).logits.square().sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in model.parameters() if w.grad is not None)
    if not predicts:
        with pytest.raises(InputError, match=rf"{type(model).__name__}.*batch"):
            Predictor(model.eval(), chat, DecodingOptions())
        return
    Predictor(model.eval(), chat, DecodingOptions())
    requests = [Request("generate", list(range(1, n)), 4) for n in (20, 4, 9)]
    for request, answer in zip(requests, greedy_answers(model, requests), strict=True):
        (own,) = greedy_answers(model, [request])
        assert own.ids == answer.ids


def test_a_bound_of_alibi_is_one_on_the_length(tmp_path):
    config, fields, _ = WITHOUT_SDPA["mpt"]
    size = write_sentencepiece(tmp_path / "model", sentencepiece_model())
    save_random_model(tmp_path / "model", getattr(transformers, config)(vocab_size=size, **fields))
    assert bounded_length(tmp_path / "model", 256) == 64


@pytest.mark.parametrize("name", ["bloom", "gpt_oss", "rwkv"])
def test_a_family_without_sdpa_is_trained(name, tmp_path, checkout):
    config, fields, _ = WITHOUT_SDPA[name]
    size = write_sentencepiece(checkout / "model", sentencepiece_model())
    save_random_model(checkout / "model", getattr(transformers, config)(vocab_size=size, **fields))
    write_lines(checkout / "in/biology.json", [line("biology", "A"), line("biology", "B")])
    train = ("train/finetune.py", "--model_name_or_path", "model", "--train_dir", "in")
    run(*train, "--valid_dir", "in", "--output_dir", "out", "--epochs", "1", cwd=checkout)
    assert (checkout / "out/checkpoint-1/model.safetensors").is_file()
    load_model(checkout / "out/checkpoint-1", torch.float32, load_tokenizer(checkout / "model"))
