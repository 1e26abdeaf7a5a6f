"""Greedy generation: whatever is computed at once, the answers are those of plain generate."""

import functools
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma3TextConfig,
    GenerationConfig,
    Lfm2Config,
    LlamaConfig,
    Qwen2Config,
)

from growth.core.errors import InputError
from growth.inference.backends import (
    BATCHED,
    CONTINUOUS,
    VLLM,
    backend_answers,
    check_backend,
    continuous_generator,
    vllm_generator,
)
from growth.inference.generation import Generator, _common_beginning, plan_batches
from growth.inference.kv_cache import buffered_cache, bytes_per_token
from growth.inference.limits import Limits
from growth.inference.requests import Request
from growth.packing.forward import supports_packing

DEFAULT = Limits()
STOP, PAD, VOCABULARY = 3, 0, 97
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
    "initializer_range": 0.8,  # far apart logits: no near-ties
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "window": Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=0,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gemma": Gemma3TextConfig(
        **SMALL, head_dim=8, sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
    ),
    # can't be laid packed: ALiBi stands in for positions
    "alibi": FalconConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        alibi=True, initializer_range=0.8,
    ),
    # keeps more than keys and values: states of convolutions
    "convolution": Lfm2Config(
        **SMALL, block_auto_adjust_ff_dim=False, layer_types=["conv", "full_attention"]
    ),
}  # fmt: skip


flattens = functools.cache(supports_packing)  # found out once, before a test watches the model


def make(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def llama():
    model = make("llama")
    assert flattens(model)
    return model


def random_prompts(lengths, common=0, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return torch.randint(4, VOCABULARY, (count,), generator=generator).tolist()

    beginning = ids(common)
    return [beginning + ids(length) for length in lengths]


def answers_of(model, prompts, limits=DEFAULT, new=12, **options):
    generator = Generator(model, frozenset({STOP}), [5, 6], PAD, flattens(model))
    rooms = new if isinstance(new, list) else [new] * len(prompts)
    asked = [
        Request("generate", ids, room, **options) for ids, room in zip(prompts, rooms, strict=True)
    ]
    found = dict(generator.answers(asked, limits))
    assert len(found) == len(prompts)
    return [found[i] for i in range(len(prompts))]


def generated_alone(model, ids, new=12):
    config = GenerationConfig(
        max_new_tokens=new, do_sample=False, eos_token_id=[STOP], pad_token_id=PAD
    )
    asked = torch.tensor([ids])
    output = model.generate(asked, attention_mask=torch.ones_like(asked), generation_config=config)
    return output[0, len(ids) :].tolist()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "limits",
    [DEFAULT, Limits(rows=1), Limits(rows=2), Limits(prefill_tokens=20), Limits(tokens=90)],
    ids=str,
)
@pytest.mark.parametrize("common", [0, 15])
def test_answers_are_those_of_generate(name, limits, common):
    model = make(name)
    prompts = random_prompts((9, 1, 14, 3, 3, 11), common)
    rooms = [
        12,
        9,
        4,
        12,
        1,
        6,
    ]  # rows leave one after the other, the longest prompt among the first
    answers = answers_of(model, prompts, limits, rooms)
    for ids, room, answer in zip(prompts, rooms, answers, strict=True):
        assert answer.ids == generated_alone(model, ids, room)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1, [5, 6]]
        assert answer.logits == pytest.approx(logits.tolist(), rel=1e-3, abs=1e-4)


def test_where_buffers_serve():
    buffered = {name: buffered_cache(make(name)) is not None for name in CONFIGS}
    assert buffered == {name: name != "convolution" for name in CONFIGS}
    names = ("llama", "window", "gemma", "alibi")
    assert {name: supports_packing(make(name)) for name in names} == {
        "llama": True, "window": True, "gemma": True, "alibi": False
    }  # fmt: skip


def test_a_batch_is_planned_as_itself_and_holds_no_more_than_its_limits():
    prompts = [Request("generate", ids, 99) for ids in random_prompts(range(1, 40))]
    limits = Limits(rows=8, tokens=400)
    batches = plan_batches(prompts, limits)
    assert sorted(i for batch in batches for i in batch) == list(range(39))
    assert len(batches) > 5
    for batch in batches:
        longest = len(prompts[batch[0]].prompt_ids)
        assert longest == max(len(prompts[i].prompt_ids) for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= limits.tokens
        again = plan_batches([prompts[i] for i in batch], limits)
        assert again == [list(range(len(batch)))]


def test_a_common_beginning_is_computed_once(llama):
    prompts = random_prompts((5, 3, 4, 5), common=60)
    seen = []
    handle = llama.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        answers_of(llama, prompts, new=1)
    finally:
        handle.remove()
    assert seen == [60, 4 * 5]
    assert _common_beginning([[1, 2, 3], [1, 2], [1, 2, 4]]) == 1


@pytest.mark.parametrize("common", [0, 60])
def test_the_last_feed_forward_part_runs_where_logits_are_read(llama, monkeypatch, common):
    prompts = random_prompts((9, 8, 8, 7), common=common)
    computed = []
    handle = llama.model.layers[-1].mlp.down_proj.register_forward_pre_hook(
        lambda _, args: computed.append(args[0].shape[:-1].numel())
    )
    try:
        answers = answers_of(llama, prompts, new=2)
        narrow, computed[:] = list(computed), []
        with monkeypatch.context() as patch:
            patch.setattr("growth.inference.generation._FEW_ROWS", 1000)
            assert answers_of(llama, prompts, new=2) == answers
        assert answers_of(llama, prompts[:3], new=1)
        whole = computed[-1]  # of three rows, which would be rounded otherwise
    finally:
        handle.remove()
    rows = sum(map(len, prompts)) if not common else 4 * 9
    before = [common] if common else []
    assert narrow == [*before, 4, 4]
    assert computed[: len(before) + 2] == [*before, rows, 4]
    assert whole > 3


def test_answers_that_outgrow_the_budget_wait_for_room(llama):
    prompts = random_prompts((9, 8, 8, 7))
    most = []

    def watch(_, args, kwargs):
        most.append(kwargs["attention_mask"].numel() if "attention_mask" in kwargs else 0)

    handle = llama.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        split = answers_of(llama, prompts, Limits(tokens=300), new=150)
    finally:
        handle.remove()
    assert max(most) <= 300
    whole = answers_of(llama, prompts, new=150)
    assert [a.ids for a in split] == [a.ids for a in whole]
    assert max(len(a.ids) for a in whole) > 80


class Fails:
    """Runs out of memory wherever more than so many rows or tokens are computed."""

    def __init__(self, model, rows):
        self.rows, self.failed = rows, 0
        self.handle = model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, _, args, kwargs):
        boundaries = kwargs.get("cu_seq_lens_q")
        ids = kwargs["input_ids"]
        rows = len(ids) if boundaries is None else len(boundaries) - 1
        if rows > self.rows:
            self.failed += 1
            raise torch.OutOfMemoryError("injected")


@pytest.mark.parametrize("decoding", [False, True])
def test_out_of_memory_halves_the_batch_and_goes_on(llama, decoding):
    prompts = random_prompts((9, 1, 14, 3, 3, 11, 8))
    expected = answers_of(llama, prompts)
    fails = Fails(llama, 2)
    # Amid decoding: prompts pass one by one, and the first step of all of them fails.
    limits = Limits(prefill_tokens=1) if decoding else Limits()
    try:
        answers = answers_of(llama, prompts, limits)
    finally:
        fails.handle.remove()
    assert fails.failed == 2  # 7, 4, 2
    assert [a.ids for a in answers] == [a.ids for a in expected]


def test_out_of_memory_on_a_single_prompt_says_what_to_do(llama):
    fails = Fails(llama, 0)
    try:
        with pytest.raises(InputError, match="max_length"):
            answers_of(llama, random_prompts((4, 5)))
    finally:
        fails.handle.remove()


def test_rows_stop_when_they_are_settled(llama):
    prompts = random_prompts((4, 9))
    full = answers_of(llama, prompts)
    short = answers_of(llama, prompts, is_settled=lambda ids: len(ids) == 2)
    assert [a.ids for a in short] == [a.ids[:2] for a in full]


def test_bytes_of_a_token():
    assert bytes_per_token(make("llama")) == 2 * 2 * 1 * 8 * 4  # k and v, layers, heads, width


def test_continuous_batching_gives_the_same_answers(llama):
    prompts = random_prompts((9, 1, 14, 3, 11))
    asked = [Request("generate", ids, 12 if n else 3) for n, ids in enumerate(prompts)]
    asked[2].is_settled = lambda ids: len(ids) == 10
    asked[3].is_settled = lambda ids: len(ids) == 2
    batched = Generator(llama, frozenset({STOP}), [5], PAD, True).answers(asked, Limits())
    generate = continuous_generator(llama, frozenset({STOP}), PAD)
    found = dict(backend_answers(generate, asked, frozenset({STOP})))
    assert found == {index: answer.ids for index, answer in batched}
    assert llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("lost", [True, False])
def test_a_failed_request_is_raised(llama, monkeypatch, lost):
    """transformers only logs it, and returns less or an item without tokens."""
    failed = SimpleNamespace(error="no room", prompt_ids=[1, 2], generated_tokens=[])
    outputs = {"req_0": failed} | ({} if lost else {"req_1": failed})
    monkeypatch.setattr(llama, "generate_batch", lambda *_, **__: outputs, raising=False)
    generate = continuous_generator(llama, frozenset({STOP}), PAD)
    with pytest.raises(RuntimeError, match="1 of 2" if lost else "no room"):
        generate([[4], [5]], [3, 3])


def test_an_answer_that_breaks_off_is_raised():
    asked = [Request("generate", [4], 9), Request("generate", [5], 9)]
    answers = backend_answers(lambda *_: [[7, STOP], [7]], asked, frozenset({STOP}))
    assert next(answers) == (0, [7, STOP])
    with pytest.raises(RuntimeError, match="1 of 2"):
        next(answers)


def test_an_engine_that_is_not_installed_is_told_before_a_model_is_loaded():
    for engine in (BATCHED, CONTINUOUS):
        check_backend(engine)
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is here")
    with pytest.raises(InputError, match="pip install vllm"):
        check_backend(VLLM)


def test_vllm_is_told_the_same_prompts_rooms_and_stops(monkeypatch):
    """Beside a stand-in: what is asked of it, and how its answers are read."""
    calls = []

    class LLM:
        def __init__(self, **options):
            calls.append(options)

        def generate(self, prompts, parameters, use_tqdm):
            calls.extend(zip(prompts, parameters, strict=True))
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=(7, STOP))])] * len(prompts)

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=lambda **o: o))
    generate = vllm_generator("folder", frozenset({STOP}), 64, torch.bfloat16)
    assert generate([[4], [5, 6]], [9, 2]) == [[7, STOP], [7, STOP]]
    assert calls[0]["dtype"] == "bfloat16"
    assert [c[0]["prompt_token_ids"] for c in calls[1:]] == [[4], [5, 6]]
    assert [c[1]["max_tokens"] for c in calls[1:]] == [9, 2]
    assert all(c[1]["stop_token_ids"] == [STOP] and c[1]["temperature"] == 0 for c in calls[1:])
