"""Baichuan against a reference of its equations, written out here."""

import json
import shutil

import pytest
import torch
from conftest import greedy_answers
from families import make_baichuan, random_strings
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from torch.nn.functional import normalize, silu

from growth.core.errors import InputError
from growth.core.options import ModelOptions
from growth.inference.requests import Request
from growth.model.baichuan import alibi_slopes
from growth.model.loading import bounded_length, load_model, load_tokenizer
from growth.model.source import find_model
from growth.packing.batches import pad_rows

MODELS = {
    "baichuan2-7b": {},
    "baichuan2-13b": {"alibi": True},
    "baichuan1-7b": {"rows": 64_000},
    "baichuan1-13b": {"rows": 64_000, "alibi": True},
}
IDS = [5, 300, 63_000, 17, 17, 9, 41_000, 2]


@pytest.fixture(scope="module", params=MODELS)
def baichuan(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baichuan") / request.param
    make_baichuan(folder, **MODELS[request.param])
    return request.param, folder


def reference(folder, ids):
    """Logits `(tokens, vocabulary)`, one head and one token at a time."""
    w = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    heads, width = config["num_attention_heads"], config["hidden_size"]
    size = width // heads
    rotary = "max_position_embeddings" in config

    def norm(x, weight):
        return weight * x / (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt()

    def rotated(x):  # (tokens, size)
        angles = torch.outer(
            torch.arange(len(x)).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size)
        )
        first, second = x[:, : size // 2], x[:, size // 2 :]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)

    # ALiBi's paper: for 2^k heads a geometric series from 2^(-8/n); for 5, those of 4 and of 8
    slopes = [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2]
    x = w["model.embed_tokens.weight"][torch.tensor(ids)]
    for i in range(config["num_hidden_layers"]):
        layer = {
            n.removeprefix(f"model.layers.{i}."): t
            for n, t in w.items()
            if n.startswith(f"model.layers.{i}.")
        }
        h = norm(x, layer["input_layernorm.weight"])
        stacked = h @ layer["self_attn.W_pack.weight"].T
        query, key, value = (stacked[:, k * width : (k + 1) * width] for k in range(3))
        outputs = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = query[:, part], key[:, part], value[:, part]
            if rotary:
                q, k = rotated(q), rotated(k)
            rows = []
            for t in range(len(ids)):
                scores = k[: t + 1] @ q[t] / size**0.5
                if not rotary:
                    scores = scores - slopes[head] * torch.arange(t, -1, -1)
                rows.append(scores.softmax(0) @ v[: t + 1])
            outputs.append(torch.stack(rows))
        x = x + torch.cat(outputs, 1) @ layer["self_attn.o_proj.weight"].T
        h = norm(x, layer["post_attention_layernorm.weight"])
        gate = silu(h @ layer["mlp.gate_proj.weight"].T)
        x = x + (gate * (h @ layer["mlp.up_proj.weight"].T)) @ layer["mlp.down_proj.weight"].T
    head = w["lm_head.weight"]
    if config["vocab_size"] == 125_696:
        head = normalize(head)
    return norm(x, w["model.norm.weight"]) @ head.T


@torch.no_grad()
def test_logits_are_those_of_the_equations(baichuan):
    _, folder = baichuan
    chat = load_tokenizer(folder)
    model = load_model(folder, torch.float32, chat).eval()
    expected = reference(folder, IDS)
    rows = expected.shape[1]
    logits = model(torch.tensor([IDS])).logits[0, :, :rows]
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    # padded on either side, and token by token out of a cache
    examples = [{"input_ids": torch.tensor(ids)} for ids in (IDS, IDS[:3])]
    batch = pad_rows([e | {"labels": e["input_ids"]} for e in examples], 0)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert (logits[1, :3, :rows] - expected[:3]).abs().max() < 1e-4 * expected.abs().max()
    prompts = [Request("generate", IDS, 4), Request("generate", IDS[:3], 4)]
    answers = greedy_answers(model, prompts)
    for index, prompt in enumerate(prompts):
        ids = list(prompt.prompt_ids)
        for _ in range(4):
            ids.append(reference(folder, ids)[-1].argmax().item())
        assert answers[index].ids == ids[len(prompt.prompt_ids) :]


def test_tokens_are_sentencepiece_s(baichuan):
    name, folder = baichuan
    processor = SentencePieceProcessor(str(folder / "tokenizer.model"))
    assert processor.get_piece_size() == (125_696 if "2" in name else 64_000)
    chat = load_tokenizer(folder)  # tokenization_baichuan.py ends the process if it is run
    for text in random_strings(1000, seed=9):
        assert chat.encode_content(text) == processor.encode(text.strip())


def test_slopes_of_forty_heads():
    slopes = alibi_slopes(40)
    assert len(slopes) == 40
    assert slopes[:32] == [2 ** (-(i + 1) / 4) for i in range(32)]
    assert slopes[32:] == [2 ** (-(2 * i + 1) / 8) for i in range(8)]


def test_a_vocabulary_of_neither_is_refused(tmp_path):
    make_baichuan(tmp_path / "x", rows=700)
    with pytest.raises(InputError, match=r"vocab_size 700.*125,696"):
        load_model(tmp_path / "x", torch.float32, load_tokenizer(tmp_path / "x"))


def test_code_of_a_model_folder_runs_only_if_asked_for(tmp_path, tiny_model):
    """A folder whose model only its own code knows."""
    odd = tmp_path / "odd"
    shutil.copytree(tiny_model, odd)
    config = json.loads((odd / "config.json").read_text()) | {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"},
    }
    (odd / "config.json").write_text(json.dumps(config))
    (odd / "odd.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'was-run')!r}).touch()\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd'\n"
        "class OddForCausalLM(LlamaForCausalLM):\n    config_class = OddConfig\n"
    )
    chat = load_tokenizer(odd)
    for load in (lambda: bounded_length(odd, 8), lambda: load_model(odd, torch.float32, chat)):
        with pytest.raises(InputError, match=r"can't be loaded.*--trust_remote_code"):
            load()
    assert not (tmp_path / "was-run").exists()
    model = load_model(find_model(odd, ModelOptions(trust_remote_code=True)), torch.float32, chat)
    assert type(model).__name__ == "OddForCausalLM"
    assert (tmp_path / "was-run").exists()
