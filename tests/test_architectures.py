"""What a sample gives does not depend on its batch: windows, chunks, positions, recurrences."""

import logging

import pytest
import torch
import transformers
from conftest import greedy_answers
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
