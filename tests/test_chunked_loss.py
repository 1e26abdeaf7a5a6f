"""The output layer and its loss in chunks of tokens, against all logits at once."""

import copy

import pytest
import torch
from conftest import make_tiny_model
from peft import LoraConfig, get_peft_model
from test_batches import SMALL, examples, loss_and_gradients
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
)

from growth.core.options import VARLEN, LoraOptions
from growth.model.loading import load_model, load_tokenizer
from growth.model.lora import add_lora
from growth.packing import loss as loss_module
from growth.packing.forward import supports_packing
from growth.packing.loss import (
    casts_kept,
    logits_at_once,
    rows_in_cache,
    summed_loss,
    supports_chunks,
    token_losses,
)
from growth.training.step import Engine, StepLoss

CAP = {"final_logit_softcapping": 2.0}  # of logits beyond it, so that its slope matters
FAMILIES = {
    "llama": LlamaConfig(**SMALL),
    "llama, tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "gemma3, capped": Gemma3TextConfig(**SMALL, **CAP, sliding_window=5),
    "gemma2, capped twice": Gemma2Config(**SMALL, **CAP, attn_logit_softcapping=1.0),
    "cohere2, scaled": Cohere2Config(**SMALL, logit_scale=0.25),
    "granite, divided": GraniteConfig(**SMALL, logits_scaling=3.0),
    "phi, with a bias": PhiConfig(**{k: v for k, v in SMALL.items() if k != "head_dim"}),
    "gpt2, padded": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4),
    "bloom, padded": BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
}


def model_of(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[name], attn_implementation="eager").float()
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    packed = supports_packing(model)
    if packed:
        model.set_attn_implementation(VARLEN)
    return model.eval(), packed


def assert_same(ours, whole, tolerance=2e-6):
    (our_loss, gradients), (loss, expected) = ours, whole
    assert our_loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert (gradients[name] - gradient).abs().max() / scale < tolerance, name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tokens", [1, 7, 1000])
def test_chunks_equal_the_whole(name, tokens):
    model, packed = model_of(name)
    config = copy.deepcopy(model.config.to_dict())
    samples = examples()
    whole = loss_and_gradients(model, summed_loss(model, samples, packed) * 0.3)
    chunks = summed_loss(model, samples, packed, at_once=97 * tokens) * 0.3
    assert_same(loss_and_gradients(model, chunks), whole)
    assert supports_chunks(model, packed)
    with torch.no_grad():
        unlearnt = summed_loss(model, samples, packed, at_once=97 * tokens)
    assert unlearnt.item() * 0.3 == pytest.approx(whole[0], rel=1e-6)
    assert model.config.to_dict() == config
    assert "forward" not in vars(model.get_output_embeddings())


def test_no_more_logits_exist_at_once(monkeypatch):
    model, packed = model_of("llama")
    counts = []
    losses = loss_module._losses

    def counting(products, *rest):
        counts.append(products.numel())
        return losses(products, *rest)

    monkeypatch.setattr(loss_module, "_losses", counting)
    summed_loss(model, examples(), packed, at_once=300).backward()
    assert max(counts) == 3 * 97
    assert sum(counts) == 97 * sum((e["labels"][1:] >= 0).sum().item() for e in examples())
    counts.clear()
    summed_loss(model, examples(), packed).backward()
    assert counts == []


@pytest.mark.parametrize("supervised", [1, 12, 13, 25, 36])
def test_chunks_are_even(supervised, monkeypatch):
    """A few rows more than chunks hold would be too thin a product: CPUs round those worse."""
    model, packed = model_of("llama")
    counts = []
    losses = loss_module._losses

    def counting(products, *rest):
        counts.append(len(products))
        return losses(products, *rest)

    monkeypatch.setattr(loss_module, "_losses", counting)
    ids = torch.arange(supervised + 1)
    summed_loss(model, [{"input_ids": ids, "labels": ids}], packed, at_once=12 * 97)
    assert sum(counts) == supervised
    assert len(counts) == -(-supervised // 12)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("name", ["llama", "llama, tied", "gemma3, capped"])
def test_backward_passes_fill_no_matrix_of_the_vocabulary(name):
    """Neither the embedding's gradient nor the output layer's: a step has one of each."""
    model, packed = model_of(name)
    step = StepLoss(packed, 20, logits_at_once=300)
    step.backward(model, examples())  # the gradients are there from now on
    embedding = model.get_input_embeddings()
    with torch.profiler.profile(record_shapes=True) as profile:
        step.backward(model, examples())
    assert not embedding.sparse
    shape = list(embedding.weight.shape)
    counts = {
        event.key: event.count
        for event in profile.key_averages(group_by_input_shape=True)
        if event.input_shapes and event.input_shapes[0] == shape
    }
    assert "aten::zero_" not in counts
    assert "aten::fill_" not in counts


def test_a_step_copies_the_output_layers_weights_once():
    model, packed = model_of("llama")
    weight, places = model.get_output_embeddings().weight, []

    def noting(module, inputs):
        places.append(module)

    class Halves(Engine):
        def step_context(self):
            return casts_kept()

        def loss_context(self):
            return torch.autocast("cpu", torch.bfloat16)

    model.get_output_embeddings().register_forward_pre_hook(noting)
    copies = {}
    for engine in (Engine.step_context, Halves.step_context):
        places.clear()
        halves = Halves()
        halves.step_context = engine.__get__(halves)
        step = StepLoss(packed, 20, logits_at_once=300, engine=halves)
        with torch.profiler.profile(record_shapes=True) as profile:
            step.backward(model, examples())
        copies[engine] = (
            len(places),
            sum(
                event.count
                for event in profile.key_averages(group_by_input_shape=True)
                if event.key == "aten::_to_copy" and event.input_shapes[0] == list(weight.shape)
            ),
        )
    (rounds, each), (_, once) = copies.values()
    assert rounds > 1
    assert each - once == rounds - 1


def test_an_output_layer_of_another_kind_is_found_out():
    """One that does more than a product with its weights, and an architecture that does."""
    model, packed = model_of("llama")

    class Squared(torch.nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden) ** 2

    model.get_output_embeddings().__class__ = Squared
    assert not supports_chunks(model, packed)
    model, packed = model_of("llama")
    forward = model.forward

    def shifted(**arguments):
        output = forward(**arguments)
        output.logits = output.logits * torch.linspace(1, 2, output.logits.shape[-1])
        return output

    model.forward = shifted
    assert not supports_chunks(model, False)


@pytest.mark.parametrize("rank", [8, 64])
@pytest.mark.parametrize("name", ["gemma3, capped", "gemma2, capped twice", "cohere2, scaled"])
def test_lora_in_half_precision_is_in_chunks_too(name, rank):
    """Its own weights are in fp32, but round as the others do."""
    for seed in range(3):
        torch.manual_seed(seed)
        config = FAMILIES[name]
        base = AutoModelForCausalLM.from_config(config, attn_implementation="eager").bfloat16()
        adapters = LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        model = get_peft_model(base, adapters, autocast_adapter_dtype=True)
        assert supports_chunks(model, False)


@pytest.mark.parametrize("tied", [True, False])
def test_lora_with_rows_of_its_own(tied, tmp_path):
    folder = make_tiny_model(tmp_path / "model", tied=tied)
    chat = load_tokenizer(folder)
    model = load_model(folder, torch.float32, chat)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    adapted = add_lora(model, LoraOptions(rank=2), chat, str(folder)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    assert supports_packing(model)
    model.set_attn_implementation(VARLEN)
    learning = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    whole = torch.autograd.grad(summed_loss(adapted, examples(), True), learning)
    chunks = torch.autograd.grad(summed_loss(adapted, examples(), True, at_once=1), learning)
    for ours, expected in zip(chunks, whole, strict=True):
        assert (ours - expected).abs().max() <= 2e-6 * expected.abs().max().clamp(min=1e-6)
    assert supports_chunks(adapted, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_less_exact_in_chunks(dtype):
    """Against fp32: weights in fp32 whose products are autocast, as training has them."""
    model, packed = model_of("llama")
    exact = loss_and_gradients(model, summed_loss(model, examples(), packed))

    def distances(at_once):
        with torch.autocast("cpu", dtype):
            loss = summed_loss(model, examples(), packed, at_once=at_once)
        _, gradients = loss_and_gradients(model, loss)
        return {
            name: ((gradients[name] - expected).norm() / expected.norm()).item()
            for name, expected in exact[1].items()
        }

    whole, chunks = distances(None), distances(200)
    assert all(chunks[name] < 1.2 * whole[name] + 1e-3 for name in whole)


class Waiting(Engine):
    """An engine that gradients have to come to by the backward pass."""

    adds_directly = False


@pytest.mark.parametrize("name", ["llama", "llama, tied", "phi, with a bias"])
@pytest.mark.parametrize("engine", [Engine(), Waiting()], ids=["direct", "waiting"])
def test_a_step_in_chunks_is_the_whole_step(name, engine):
    samples = examples()
    results, totals = [], []
    for at_once in (None, 300):
        model, packed = model_of(name)
        step = StepLoss(packed, 20, logits_at_once=at_once, engine=engine)
        loss, _ = step.backward(model, samples)
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((loss.item(), gradients))
        totals.append(step.total(model, samples)[:2])
    assert_same(results[1], results[0])
    for ours, whole in zip(totals[1], totals[0], strict=True):  # the sum, and by example
        torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma3, capped", "cohere2, scaled", "phi, with a bias"])
def test_rows_that_stay_in_the_cache_give_the_bits_of_all_rows(name, dtype, monkeypatch):
    model, packed = model_of(name)
    model = model.to(dtype)
    logits, targets = torch.randn(7, 97).to(dtype), torch.arange(7)
    found = []
    for rows in (2, 1000):
        monkeypatch.setattr(loss_module, "_NUMBERS_IN_CACHE", rows * 97)
        assert rows_in_cache(logits) == rows
        loss = summed_loss(model, examples(), packed, at_once=97 * 5)
        total, gradients = loss_and_gradients(model, loss)
        found.append([torch.tensor(total), *gradients.values(), token_losses(logits, targets)])
    for few, many in zip(*found, strict=True):
        assert torch.equal(few, many)


def test_small_models_are_computed_as_before():
    """A micro-batch of the pocket model is whole: the same bits."""
    cpu = torch.device("cpu")
    assert logits_at_once(4096, 1024, cpu) is None
    assert logits_at_once(262_144, 1, cpu) is None
    assert logits_at_once(262_144, 500, cpu) == 256 * 262_144
    assert logits_at_once(32_000, 1024, cpu) == 2**23
