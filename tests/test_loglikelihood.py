"""Shared prefixes: what is computed once is what is computed apart, in every family."""

import math

import pytest
import torch
from test_batches import CONFIGS, small_model
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, GPT2Config

from growth.core.errors import InputError
from growth.inference import loglikelihood
from growth.inference.limits import Limits
from growth.inference.loglikelihood import continuation_example
from growth.packing import attention, forward, loss
from growth.packing import prefix_attention as prefixes
from growth.packing.forward import supports_packing
from growth.packing.loss import token_losses
from growth.packing.prefix_sharing import shared_prefixes

READ = [3, 1, 4]


def next_token_logits(model, prompts, token_ids, max_tokens, packed=True):
    """In order of the prompts."""
    limits = Limits(prefill_tokens=max_tokens)
    found = dict(loglikelihood.next_token_logits(model, prompts, token_ids, limits, packed))
    return [found[index] for index in range(len(prompts))]


def perplexities(model, examples, max_tokens, packed=True, at_once=None):
    """In order of the examples."""
    limits = Limits(prefill_tokens=max_tokens)
    found = dict(loglikelihood.perplexities(model, examples, limits, packed, 0, at_once))
    return [found[index] for index in range(len(examples))]


def sequences():
    """Three families of prompts and some that are alone; prefixes longer than the windows."""
    generator = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(0, 97, (length,), generator=generator).tolist()

    first, second = ids(40), ids(23)
    made = [first + ids(n) for n in (3, 1, 12, 7)] + [second + ids(n) for n in (2, 2, 9)]
    made += [ids(1), ids(15), first[:9], [*second, 5], [*second, 5]]
    return made[::2] + made[1::2]


def apart(model, prompt):
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt])).logits[0]


@pytest.fixture(scope="module", params=CONFIGS)
def family(request):
    return small_model(request.param).eval()


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_next_tokens_behind_shared_prefixes_are_those_of_separate_forwards(family, max_tokens):
    assert supports_packing(family)
    prompts = sequences()
    logits = next_token_logits(family, prompts, READ, max_tokens)
    for prompt, row in zip(prompts, logits, strict=True):
        assert row == pytest.approx(apart(family, prompt)[-1, READ].tolist(), abs=1e-5)


def choices():
    """A context's three choices, twice, and a choice behind a context of its own."""
    contexts = [sequences()[0], sequences()[1] * 2, [7]]
    return [
        (context, continuation)
        for context, continuations in zip(
            contexts, ([[5], [6, 7, 8], [5, 9]], [[1, 2], [1, 3], [4] * 20], [[8, 9]]), strict=True
        )
        for continuation in continuations
    ]


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_perplexities_behind_shared_contexts_are_those_of_separate_forwards(family, max_tokens):
    examples = [continuation_example(*choice, 2048) for choice in choices()]
    expected = []
    for context, continuation in choices():
        logits = apart(family, context + continuation)[len(context) - 1 : -1]
        expected.append(math.exp(cross_entropy(logits, torch.tensor(continuation)).item()))
    assert perplexities(family, examples, max_tokens) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_with_a_bound_no_more_logits_exist_and_perplexities_are_the_same(packed, family):
    examples = [continuation_example(*choice, 2048) for choice in choices()]
    whole = perplexities(family, examples, 10_000, packed)
    sizes = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if "mm" in str(function) and result.shape[-1] == 97:
                sizes.append(result.numel())
            return result

    with Products():
        bounded = perplexities(family, examples, 10_000, packed, 97 * 5)
    assert bounded == pytest.approx(whole, rel=1e-5)
    assert max(sizes) <= 97 * 5


def test_without_its_prefix_a_sample_is_another(family, monkeypatch):
    """The negative control: the equality above, to 1e-5, is not for free."""
    prompts = sequences()
    expected = [apart(family, prompt)[-1, READ].tolist() for prompt in prompts]
    behind = attention.shared_prefix_attention

    def behind_nothing(query, key, value, lengths, prefix_ids, *rest):
        return behind(query, key, value, lengths, [None] * len(prefix_ids), *rest)

    monkeypatch.setattr(attention, "shared_prefix_attention", behind_nothing)
    logits = next_token_logits(family, prompts, READ, 10_000)
    worst = max(
        abs(a - b) for x, y in zip(logits, expected, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert worst > 1e-2
    assert not supports_packing(family)


def test_a_family_that_cannot_share_is_computed_in_padded_rows():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompts = sequences()
    for row, prompt in zip(
        next_token_logits(model, prompts, READ, 100, packed=False), prompts, strict=True
    ):
        assert row == pytest.approx(apart(model, prompt)[-1, READ].tolist(), abs=1e-4)


@pytest.mark.parametrize("window", [None, 4, 30])
@pytest.mark.parametrize("known", [0, 11])
def test_padded_branches_are_looped_branches(window, known):
    """What a GPU computes at once is what a CPU computes one after another."""
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 5, 5, 1]

    def tensor(heads, tokens):
        return torch.randn(1, heads, tokens, 8, generator=generator)

    query, own = tensor(4, sum(lengths)), (tensor(2, sum(lengths)), tensor(2, sum(lengths)))
    prefix = (tensor(2, known), tensor(2, known))
    arguments = (query, own, prefix, lengths, 0.3, window)
    torch.testing.assert_close(
        prefixes._padded_branches(*arguments), prefixes._looped_branches(*arguments)
    )


def test_the_last_mlp_runs_only_where_its_output_is_read():
    model = small_model("llama").eval()
    prompts, rows = sequences(), {"first": 0, "last": 0}
    for name, layer in (("first", model.model.layers[0]), ("last", model.model.layers[-1])):

        def count(_, inputs, name=name):
            rows[name] += inputs[0].shape[1]

        layer.mlp.down_proj.register_forward_pre_hook(count)
    next_token_logits(model, prompts, READ, 10_000)
    assert rows["first"] > rows["last"] == len(prompts)


def test_where_memory_lacks_a_row_is_halved(monkeypatch):
    model = small_model("llama").eval()
    prompts = sequences()
    expected = next_token_logits(model, prompts, READ, 10_000)
    rows = []
    compute = forward.supervised_logits

    def small_memory(model, examples, *rest):
        rows.append(len(examples))
        if len(examples) > 2:
            raise torch.OutOfMemoryError("no memory left")
        return compute(model, examples, *rest)

    monkeypatch.setattr("growth.inference.loglikelihood.supervised_logits", small_memory)
    for row, whole in zip(next_token_logits(model, prompts, READ, 10_000), expected, strict=True):
        assert row == pytest.approx(whole, abs=1e-5)
    assert max(rows) > 2


def test_where_memory_lacks_for_the_losses_less_is_computed_at_once(monkeypatch):
    """On a GPU the fp32 copy of the logits is often the largest tensor of all."""
    model = small_model("llama").eval()
    examples = [continuation_example(*choice, 2048) for choice in choices()]
    expected = perplexities(model, examples, 10_000)
    rows = []

    def small_memory(logits, *rest):
        rows.append(len(logits))
        if len(logits) > 25:
            raise torch.OutOfMemoryError("no memory left")
        return token_losses(logits, *rest)

    monkeypatch.setattr(loss, "token_losses", small_memory)
    assert perplexities(model, examples, 10_000) == pytest.approx(expected, rel=1e-5)
    assert max(rows) > 25
    monkeypatch.setattr(loss, "token_losses", fails := FailsAlways())
    with pytest.raises(InputError, match=r"one question of \d+ tokens; lower --max_length"):
        perplexities(model, examples, 10_000)
    assert fails.calls > 1


class FailsAlways:
    """Memory that holds nothing."""

    calls = 0

    def __call__(self, *_, **__):
        self.calls += 1
        raise torch.OutOfMemoryError("no memory left")


def computed(groups, lengths):
    return sum(
        known + sum(lengths[index] - known for index in indices) for known, indices in groups
    )


def test_groups_hold_every_sequence_once_and_save_what_can_be_saved():
    header, one, two = [1] * 50, [2] * 200, [3] * 300
    made = [[*header, i, 9] for i in range(5)]
    made += [header + one + [i, 9] for i in range(40, 44)] + [header + two + [i] for i in (7, 8)]
    made += [[5, 6], [5, 7]]  # not worth it
    groups = shared_prefixes(made)
    assert sorted(i for _, indices in groups for i in indices) == list(range(len(made)))
    assert {(known, frozenset(indices)) for known, indices in groups} == {
        (50, frozenset(range(5))),
        (250, frozenset(range(5, 9))),
        (350, frozenset((9, 10))),
        (0, frozenset((11,))),
        (0, frozenset((12,))),
    }
    assert computed(groups, list(map(len, made))) == 50 + 10 + 250 + 8 + 350 + 2 + 4


def test_equal_and_nested_sequences_can_be_grouped():
    assert shared_prefixes([]) == []
    ((known, indices),) = shared_prefixes([[1] * 60] * 3)
    assert (known, sorted(indices)) == (59, [0, 1, 2])
    nested = [[1] * n for n in range(1, 1500)]
    found = shared_prefixes(nested)
    assert sorted(i for _, indices in found for i in indices) == list(range(1499))
    assert all(known < len(nested[i]) for known, indices in found for i in indices)
