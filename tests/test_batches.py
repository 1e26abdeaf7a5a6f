"""Packed rows against the padded loop, the published way: same loss, same gradients."""

import pytest
import torch
from conftest import greedy_answers
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from growth.core.device import choose_compute
from growth.core.options import PER_SAMPLE, VARLEN
from growth.inference.requests import Request
from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.packing.attention import per_sample_attention
from growth.packing.batches import micro_batches, pack_row, pad_rows, supervised_tokens
from growth.packing.forward import supports_packing
from growth.training.step import summed_loss

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL),
    "mistral-window": MistralConfig(**SMALL, sliding_window=5),
    "gemma3-window": Gemma3TextConfig(
        **SMALL,
        sliding_window=5,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
}


def examples(lengths=(1, 2, 7, 12, 12, 19)):
    generator = torch.Generator().manual_seed(0)
    made = []
    for length in lengths:
        ids = torch.randint(0, 97, (length,), generator=generator)
        labels = ids.clone()
        labels[torch.rand(length, generator=generator) < 0.4] = IGNORED_LABEL
        made.append({"input_ids": ids, "labels": labels})
    return made


def small_model(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").float()


def padded_loss(model, batch):
    """The published way: every row padded, every logit computed."""
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    return cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )


def loss_and_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_equals_padded(name):
    model = small_model(name)
    expected, gradients = loss_and_gradients(model, padded_loss(model, pad_rows(examples(), 0)))
    assert supports_packing(model)
    model.set_attn_implementation(VARLEN)
    loss, ours = loss_and_gradients(model, summed_loss(model, examples(), packed=True))
    assert loss == pytest.approx(expected, rel=1e-6)
    for parameter, gradient in gradients.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((ours[parameter] - gradient).abs().max() / scale) < 1e-5, parameter


@pytest.mark.parametrize("name", CONFIGS)
def test_without_boundaries_samples_see_each_other(name, monkeypatch):
    """The negative control: the equality above, to 1e-6, is not for free."""
    model = small_model(name)
    expected = padded_loss(model, pad_rows(examples(), 0)).item()

    def without_boundaries(group):
        batch = pack_row(group)
        return batch | {"boundaries": batch["boundaries"][[0, -1]]}

    monkeypatch.setattr("growth.packing.forward.pack_row", without_boundaries)
    assert not supports_packing(model)
    model.set_attn_implementation(VARLEN)
    assert summed_loss(model, examples(), packed=True).item() != pytest.approx(expected, rel=1e-4)


OTHERS = {
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3),
    "bloom-alibi": BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
    "opt": OPTConfig(
        vocab_size=97,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
    ),
    "gemma2-softcap": Gemma2Config(**SMALL, sliding_window=5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_architecture_trains_and_answers_all_the_same(name):
    """Packed where samples stay apart, padded otherwise; the loss is that of the padded loop."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(OTHERS[name]).float().eval()
    expected = padded_loss(model, pad_rows(examples(), 0)).item()
    packed = supports_packing(model)
    if name in ("bloom-alibi", "gemma2-softcap"):
        assert not packed
    if packed:
        model.set_attn_implementation(VARLEN)
    assert summed_loss(model, examples(), packed).item() == pytest.approx(expected, rel=1e-5)
    model.set_attn_implementation("eager")
    prompts = [Request("generate", list(range(5, 5 + n)), 4) for n in (3, 9)]
    together = greedy_answers(model, prompts)
    for index, prompt in enumerate(prompts):
        (alone,) = greedy_answers(model, [prompt])
        assert together[index].ids == alone.ids


def test_an_architecture_that_asks_for_more_is_refused():
    from growth.packing.attention import varlen_attention

    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match="softcap"):
        varlen_attention(torch.nn.Identity(), q, q, q, None, sample_lengths=[2], softcap=30.0)


def reference_varlen(query, key, value, starts, _, longest, __, *, scale, window_size, enable_gqa):
    """What torch documents of varlen_attn: (tokens, heads, width), window as (left, right)."""
    left, right = window_size
    assert right == 0
    assert longest == starts.diff().max()
    groups = query.shape[1] // key.shape[1] if enable_gqa else 1
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    i = torch.arange(len(query))
    sample = torch.bucketize(i, starts, right=True)
    seen = (sample[:, None] == sample) & (i[:, None] >= i)
    if left >= 0:
        seen &= i[:, None] - i <= left
    scores = torch.einsum("qhd,khd->hqk", query, key) * (scale or query.shape[-1] ** -0.5)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_kernel_is_asked_for_the_same_attention(name, monkeypatch):
    """What a GPU's kernel gets, computed here by the kernel's documented meaning."""
    model = small_model(name)
    expected = padded_loss(model, pad_rows(examples(), 0)).item()
    monkeypatch.setattr("growth.packing.attention._has_kernel", lambda query: True)
    monkeypatch.setattr("growth.packing.attention.varlen_attn", reference_varlen)
    model.set_attn_implementation(VARLEN)
    assert summed_loss(model, examples(), packed=True).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("length", "computed"), [(12, torch.float32), (501, torch.bfloat16)])
def test_short_samples_attend_in_fp32_on_a_cpu(length, computed):
    """Of bf16 inputs, too, where autocast would make 16 bits of them again; both ways through."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 2, length, 8, generator=generator).bfloat16() for _ in range(3)]

    def ours(*parts):
        with torch.autocast("cpu", torch.bfloat16):
            rows, _ = per_sample_attention(
                torch.nn.Identity(), *parts, None, sample_lengths=[length]
            )
        return rows.transpose(1, 2)

    def plain(*parts):
        return scaled_dot_product_attention(*parts, is_causal=True)

    def output_and_gradients(attention, dtype):
        parts = [part.to(dtype).requires_grad_() for part in inputs]
        output = attention(*parts).bfloat16()
        output.float().sum().backward()
        return [output, *(part.grad.bfloat16() for part in parts)]

    expected = output_and_gradients(plain, computed)
    for got, wanted in zip(output_and_gradients(ours, torch.bfloat16), expected, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fp32_products_on_cpus_are_plain_ones(precision):
    if torch.cuda.is_available():
        pytest.skip("is about CPUs")
    torch.set_float32_matmul_precision("medium")
    choose_compute(precision)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_kernel_equals_per_sample_attention():
    for name in CONFIGS:
        model = small_model(name).cuda()
        losses = {}
        for implementation in (VARLEN, PER_SAMPLE):
            model.set_attn_implementation(implementation)
            with torch.autocast("cuda", torch.bfloat16):
                losses[implementation] = summed_loss(model, examples(), packed=True).item()
        assert losses[VARLEN] == pytest.approx(losses[PER_SAMPLE], rel=5e-3), name


@pytest.mark.parametrize("max_tokens", [1, 13, 20, 1000])
def test_micro_batches_keep_every_example_within_the_budget(max_tokens):
    made = examples()
    groups = list(micro_batches(made, max_tokens))
    assert sorted(id(e) for group in groups for e in group) == sorted(map(id, made))
    for group in groups:
        assert len(group) == 1 or sum(len(e["input_ids"]) for e in group) <= max_tokens
    assert all(len(group) <= 2 for group in micro_batches(made, 1000, max_samples=2))


def test_micro_batches_do_not_change_the_loss():
    model = small_model("llama")
    model.set_attn_implementation(VARLEN)
    whole = summed_loss(model, examples(), packed=True).item()
    parts = sum(summed_loss(model, g, packed=True).item() for g in micro_batches(examples(), 13))
    assert parts == pytest.approx(whole, rel=1e-6)


def test_the_first_token_of_a_sample_carries_no_loss():
    ids = torch.tensor([5, 6, 7])
    batch = pack_row([{"input_ids": ids, "labels": ids}, {"input_ids": ids, "labels": ids}])
    assert batch["logit_positions"].tolist() == [0, 1, 3, 4]
    assert batch["targets"].tolist() == [6, 7, 6, 7]
    assert supervised_tokens([{"input_ids": ids, "labels": ids}]) == 2
