"""The loss and gradients of one optimizer step, without a Trainer, against the padded loop."""

import copy

import pytest
import torch
from test_batches import examples, padded_loss, small_model

from growth.core.options import VARLEN
from growth.packing.batches import pad_rows, supervised_tokens
from growth.training.step import DUMMY_EXAMPLE, Engine, StepLoss, linear_decay, perplexity

SAMPLES = examples()  # 53 tokens in 6 samples


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_close(ours, expected, tolerance=1e-5):
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert (ours[name] - gradient).abs().max() / scale < tolerance, name


@pytest.fixture(scope="module")
def oracle():
    """Loss and gradients of all samples in one padded batch: the mean over supervised tokens."""
    model = small_model("llama")
    loss = padded_loss(model, pad_rows(SAMPLES, 0)) / supervised_tokens(SAMPLES)
    loss.backward()
    return loss.item(), gradients(model)


def step(model, samples, packed=True, engine=None, **limits):
    if packed:
        model.set_attn_implementation(VARLEN)
    limits = {"tokens_per_micro_batch": 1000} | limits
    step_loss = StepLoss(packed, engine=engine or Engine(), **limits)
    loss, measures = step_loss.backward(model, samples)
    return loss.item(), measures, gradients(model)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"tokens_per_micro_batch": 20},
        {"tokens_per_micro_batch": 1},
        {"samples_per_micro_batch": 2},
    ],
    ids=["one micro-batch", "20 tokens each", "one sample each", "two samples each"],
)
def test_the_mean_over_the_supervised_tokens_of_the_step(oracle, packed, limits):
    loss, measures, ours = step(small_model("llama"), SAMPLES, packed, **limits)
    assert loss == pytest.approx(oracle[0], rel=1e-6)
    assert_close(ours, oracle[1])
    assert measures.supervised == supervised_tokens(SAMPLES)
    assert measures.tokens == sum(len(sample["input_ids"]) for sample in SAMPLES)
    if packed or limits == {"tokens_per_micro_batch": 1}:
        assert measures.computed == measures.tokens  # no padding
    else:
        assert measures.computed > measures.tokens


def test_a_mean_of_micro_batch_means_would_be_another_loss(oracle):
    """The negative control: micro-batches have unlike numbers of supervised tokens."""
    model = small_model("llama")
    model.set_attn_implementation(VARLEN)
    step_loss = StepLoss(True, tokens_per_micro_batch=20)
    share = step_loss.share(SAMPLES)
    means = [
        step_loss.micro_batch(model, share, turn).item() / supervised_tokens(group)
        for turn, group in enumerate(share.micro_batches)
        if supervised_tokens(group)
    ]
    assert sum(means) / len(means) != pytest.approx(oracle[0], rel=1e-3)


class Rank(Engine):
    """One of several processes whose counts are known."""

    def __init__(self, counts):
        self.counts, self.world_size = counts, len(counts)
        self.rounds = []

    def gather(self, counts):
        assert any(torch.equal(counts[0], known) for known in self.counts)
        return self.counts

    def begin_round(self, last):
        self.rounds.append(last)


def counts_of(samples, limit):
    """What a process gathers: its own counts, read off with an engine of one process."""
    seen = []

    class Reading(Engine):
        def gather(self, counts):
            seen.append(counts[0])
            return counts

    StepLoss(True, limit, engine=Reading()).share(samples)
    return seen[0]


@pytest.mark.parametrize("split", [3, 5, 6], ids=["even", "one sample", "no sample"])
def test_processes_average_to_the_mean_over_all(oracle, split):
    """As data parallelism does: gradients averaged over processes; the last may have no samples."""
    shares = [SAMPLES[:split], SAMPLES[split:]]
    counts = torch.stack([counts_of(share, 12) for share in shares])
    rounds = max(counts[:, 0])
    results, engines = [], []
    for share in shares:
        engines.append(Rank(counts))
        model = small_model("llama")
        results.append(step(model, share, engine=engines[-1], tokens_per_micro_batch=12))
    for engine in engines:  # every process takes part in every round
        assert engine.rounds == [False] * (rounds - 1) + [True]
    assert sum(loss for loss, _, _ in results) / 2 == pytest.approx(oracle[0], rel=1e-6)
    averaged = {n: (g + results[1][2][n]) / 2 for n, g in results[0][2].items()}
    assert_close(averaged, oracle[1])
    assert results[0][1] == results[1][1]
    assert results[0][1].supervised == supervised_tokens(SAMPLES)


def test_a_dummy_counts_nothing_but_takes_part():
    model = small_model("llama")
    counts = torch.stack([counts_of([], 12), counts_of(SAMPLES, 12)])
    loss, _, ours = step(model, [], engine=Rank(counts), tokens_per_micro_batch=12)
    assert loss == 0
    assert all(not gradient.any() for gradient in ours.values())  # there, for engines to gather
    assert supervised_tokens([DUMMY_EXAMPLE]) == 1


def test_the_total_has_no_gradients_and_no_scale(oracle):
    model = small_model("llama")
    model.set_attn_implementation(VARLEN)
    total, _, measures = StepLoss(True, tokens_per_micro_batch=20).total(model, SAMPLES)
    assert total.dtype == torch.float64
    assert total.item() / measures.supervised == pytest.approx(oracle[0], rel=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("packed", [True, False])
def test_the_total_is_bit_for_bit_that_of_its_micro_batches(packed):
    """What is recorded by sample changes nothing of what was recorded before."""
    model = small_model("llama")
    if packed:
        model.set_attn_implementation(VARLEN)
    step_loss = StepLoss(packed, tokens_per_micro_batch=20)
    share = step_loss.share(SAMPLES)
    expected = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for turn in range(share.rounds):
            expected += step_loss.micro_batch(model, share, turn)
    total, _, _ = step_loss.total(model, SAMPLES)
    assert total.item() == expected.item()


@pytest.mark.parametrize("packed", [True, False])
def test_the_losses_of_samples_are_those_of_each_alone(packed):
    model = small_model("llama")
    if packed:
        model.set_attn_implementation(VARLEN)
    unlearnt = {"input_ids": torch.tensor([4, 5]), "labels": torch.tensor([-100, -100])}
    samples = [*SAMPLES, unlearnt]
    total, losses, _ = StepLoss(packed, tokens_per_micro_batch=20).total(model, samples)
    with torch.no_grad():
        alone = [padded_loss(small_model("llama"), pad_rows([s], 0)).item() for s in SAMPLES]
    assert losses.tolist() == pytest.approx([*alone, 0.0], rel=1e-5)
    assert losses.sum().item() == pytest.approx(total.item(), rel=1e-6)


def test_a_process_without_samples_has_no_losses():
    """The others compute, and it takes part with a dummy."""
    counts = torch.stack([counts_of([], 12), counts_of(SAMPLES, 12)])
    model = small_model("llama")
    model.set_attn_implementation(VARLEN)
    step_loss = StepLoss(True, tokens_per_micro_batch=12, engine=Rank(counts))
    total, losses, _ = step_loss.total(model, [])
    assert (total.item(), losses.tolist()) == (0.0, [])


def test_steps_add_up():
    """Gradients are added to those that are there, as an optimizer expects of a backward pass."""
    model = small_model("llama")
    once = copy.deepcopy(step(model, SAMPLES)[2])
    twice = step(model, SAMPLES)[2]
    assert_close(twice, {name: 2 * gradient for name, gradient in once.items()})


def test_the_learning_rate_falls_linearly_to_its_end():
    assert [linear_decay(i, 5, 0.1) for i in range(5)] == pytest.approx(
        [1, 0.775, 0.55, 0.325, 0.1]
    )
    assert linear_decay(0, 1, 0.1) == 1
    assert linear_decay(7, 5, 0.1) == pytest.approx(0.1)


def test_a_perplexity_is_a_number_that_json_holds():
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) == perplexity(700.0) < float("inf")
