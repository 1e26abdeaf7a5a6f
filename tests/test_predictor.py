"""Predictions against recorded facts; batching, cutting and stopping early."""

import json
import math

import pytest
import torch
from conftest import ROOT, STUDY, judged, line, predict_lines, prompting_of, read_lines, run
from test_loglikelihood import next_token_logits, perplexities
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from growth.core.distributed import DistributedState
from growth.core.errors import InputError
from growth.core.options import CONTINUOUS, DecodingOptions
from growth.inference.backends import continuous_generator
from growth.inference.generation import Generator
from growth.inference.limits import Limits
from growth.inference.loglikelihood import continuation_example
from growth.inference.predictor import Predictor
from growth.inference.progress import STEP_COST, Cost, Progress
from growth.inference.requests import Request, Response
from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.model.loading import load_model, load_tokenizer
from growth.packing import loss
from growth.packing.forward import supports_packing
from growth.tasks.doit import DoITFile, request_of
from growth.tasks.runner import TaskRun


@pytest.fixture(scope="module")
def tiny_llama(golden):
    chat = load_tokenizer(golden / "tiny-llama")
    return load_model(golden / "tiny-llama", torch.float32, chat).eval(), chat


@pytest.fixture(scope="module")
def recorded(golden):
    facts = read_lines(golden / "predictions.jsonl")
    return {kind: [f for f in facts if f["kind"] == kind] for kind in ("generate", "perplexity")}


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_recorded_generations(tiny_llama, recorded, batch_size):
    model, chat = tiny_llama
    facts = recorded["generate"]
    prompts = [Request("generate", chat.encode_prompt(f["messages"]), 8) for f in facts]
    read_ids = list(chat.letter_ids.values())
    generator = Generator(model, chat.stop_ids, read_ids, chat.pad_id, supports_packing(model))
    answers = dict(generator.answers(prompts, Limits(rows=batch_size)))
    assert len(answers) == len(facts) == 20
    for index, fact in enumerate(facts):
        assert answers[index].ids == fact["generated_ids"]
        assert answers[index].logits == pytest.approx(
            list(fact["choice_logits"].values()), rel=1e-3
        )


@pytest.mark.parametrize("max_tokens", [1, 1024])
def test_recorded_perplexities(tiny_llama, recorded, max_tokens):
    model, chat = tiny_llama
    facts = recorded["perplexity"]
    examples = [
        continuation_example(
            chat.encode_prompt(f["messages"]), [*chat.encode_content(c), chat.eot_id], 2048
        )
        for f in facts
        for c in f["choices"]
    ]
    assert len(facts) == 20
    assert perplexities(model, examples, max_tokens) == pytest.approx(
        [p for f in facts for p in f["generated_ppl"]], rel=1e-3
    )


def test_letter_logits_in_a_packed_row_are_those_of_the_first_answer_step(tiny_llama, recorded):
    model, chat = tiny_llama
    prompts = [chat.encode_prompt(f["messages"]) for f in recorded["generate"]]
    logits = next_token_logits(model, prompts, list(chat.letter_ids.values()), 1024)
    for row, fact in zip(logits, recorded["generate"], strict=True):
        assert row == pytest.approx(list(fact["choice_logits"].values()), rel=1e-3)


def test_perplexity_is_the_exponential_of_the_mean(tiny_model):
    chat = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.float32, chat).eval()
    ids = torch.tensor([3, 9, 20, 31])
    example = {"input_ids": ids, "labels": torch.tensor([IGNORED_LABEL, IGNORED_LABEL, 20, 31])}
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0]
    expected = math.exp(cross_entropy(logits[1:3], ids[2:]).item())
    assert perplexities(model, [example], 100) == [pytest.approx(expected, rel=1e-6)]


def test_a_long_context_is_cut_from_its_left_and_a_long_choice_at_its_end():
    example = continuation_example(list(range(10)), [91, 92], max_length=6)
    assert example["input_ids"].tolist() == [6, 7, 8, 9, 91, 92]
    assert example["labels"].tolist() == [IGNORED_LABEL] * 4 + [91, 92]
    alone = continuation_example(list(range(10)), list(range(90, 99)), max_length=4)
    assert alone["input_ids"].tolist() == [9, 90, 91, 92]


class Predicting:
    """The tiny model, and how it is prompted."""

    def __init__(self, folder, generate=None, **decoding):
        self.chat, options = load_tokenizer(folder), DecodingOptions(**decoding)
        model = load_model(folder, torch.float32, self.chat)
        self.predictor = Predictor(model, self.chat, options, generate)
        self.prompting = prompting_of(model, self.chat, options)

    def request(self, record):
        return request_of(record, self.prompting, STUDY.ability(record))

    def predict(self, records):
        return predict_lines(self.predictor, self.prompting, records)


def test_records_are_the_line_and_what_was_predicted(tiny_model):
    lines = [
        line("biology", "B", extra=1, generated_response="stale"),
        line("code", "甲", 1, choices=["甲", "乙", "丙"]),
    ]
    first, second = Predicting(tiny_model, max_new_tokens=3).predict(lines)
    assert {k: first[k] for k in ("messages", "type", "extra")} == {
        k: lines[0][k] for k in ("messages", "type", "extra")
    }
    assert isinstance(first["generated_response"], str)
    assert first["generated_response"] != "stale"
    assert list(first["choice_logits"]) == ["A", "B", "C", "D"]
    assert second.items() >= lines[1].items()
    assert len(second["generated_ppl"]) == 3


def test_predictions_do_not_depend_on_the_batch(tiny_model):
    lines = [line("math", "甲" * n, answer="1") for n in (1, 30, 2, 60)]
    lines += [line("code", "甲", 1, choices=["甲", "乙" * n, "丙丙"]) for n in (1, 7)]
    for record in lines:
        record["messages"] = [dict(m) for m in record["messages"]]
    lines[1]["messages"][0]["content"] *= 3
    one = Predicting(tiny_model, max_new_tokens=12, batch_size=1, tokens_per_batch=1).predict(lines)
    all_ = Predicting(tiny_model, max_new_tokens=12).predict(lines)
    for a, b in zip(one, all_, strict=True):
        assert a.get("generated_response") == b.get("generated_response")
        if "generated_ppl" in b:
            assert a["generated_ppl"] == pytest.approx(b["generated_ppl"], rel=1e-4)
        else:
            assert a["choice_logits"] == pytest.approx(b["choice_logits"], rel=1e-3)


def test_choices_behind_a_large_vocabulary_are_computed_in_chunks(tiny_model, monkeypatch):
    choices = [line("code", "甲", 1, choices=["甲", "乙" * n, "丙丙"]) for n in (1, 30)]
    letters = line("biology", "B")
    whole = Predicting(tiny_model, max_new_tokens=3).predict([*choices, letters])
    asked = []
    supports_chunks = loss.supports_chunks
    monkeypatch.setattr(loss, "LOGITS_WHOLE", 0)
    monkeypatch.setattr(loss, "_TOKENS_AT_ONCE", {"cpu": 4})
    monkeypatch.setattr(loss, "supports_chunks", lambda *a: asked.append(a) or supports_chunks(*a))
    monkeypatch.setattr(loss, "token_losses", None)  # what takes all logits at once
    predicting = Predicting(tiny_model, max_new_tokens=3)
    assert predicting.predict([letters]) == whole[2:]
    assert asked == []  # without choices nothing is tried
    for _ in range(2):
        for record, expected in zip(predicting.predict(choices), whole, strict=False):
            assert record["generated_ppl"] == pytest.approx(expected["generated_ppl"], rel=1e-5)
    assert len(asked) == 1


def test_prompt_and_answer_fit_the_positions(tiny_model):
    """256 positions: a longer prompt loses its beginning, and the answer ends with them."""
    long = line("math", "1", answer="1")
    long["messages"][0]["content"] = "题目甲乙丙丁" * 200
    engine = Predicting(tiny_model)
    request = engine.request(long)
    assert len(request.prompt_ids) == 255
    assert request.prompt_ids[-1] == engine.chat.assistant_id
    assert request.max_new_tokens == 1
    assert len(engine.predict([long])) == 1
    assert request.was_cut
    assert not engine.request(line("math", "1", answer="1")).was_cut


def test_a_choice_that_takes_its_contexts_place_counts_as_a_cut(tiny_model):
    engine = Predicting(tiny_model)
    short = line("code", "甲", 1, choices=["甲", "乙", "丙"])
    assert not engine.request(short).was_cut
    assert engine.request(short | {"choices": ["甲", "乙", "丙" * 300]}).was_cut


def test_a_letter_answer_stops_once_it_can_be_no_letter(tiny_model):
    lines = [line("biology", "A"), line("math", "1", answer="1"), line("ethics", "AB")]
    early = Predicting(tiny_model, max_new_tokens=40).predict(lines)
    full = Predicting(tiny_model, max_new_tokens=40, full_responses=True).predict(lines)
    assert full[0]["generated_response"].startswith(early[0]["generated_response"])
    assert len(early[0]["generated_response"]) < len(full[0]["generated_response"])
    assert early[1:] == full[1:]

    assert judged(early[0]) == judged(full[0])


def test_half_a_character_does_not_settle_an_answer(tiny_model):
    """Three byte pieces make one character; after two of them it is not decided."""
    engine = Predicting(tiny_model)
    record = line("biology", "A")
    ids = engine.chat.encode_content("龘")  # no piece of its own: bytes
    assert len(ids) == 3
    is_settled = engine.request(record).is_settled
    assert not any(is_settled(ids[:n]) for n in range(len(ids) + 1))
    assert is_settled(engine.chat.encode_content("龘龘"))


def test_backends_give_the_same_predictions(tiny_model):
    lines = [line("biology", "A"), line("math", "1", answer="1"), line("ethics", "AB")]
    lines += [line("code", "甲", 1, choices=["甲", "乙", "丙"])]
    batched = Predicting(tiny_model, max_new_tokens=20)
    model, chat = batched.predictor.model, batched.chat
    generate = continuous_generator(model, chat.stop_ids, chat.pad_id)
    continuous = Predicting(tiny_model, generate, max_new_tokens=20, backend=CONTINUOUS)
    for a, b in zip(batched.predict(lines), continuous.predict(lines), strict=True):
        assert a.get("generated_response") == b.get("generated_response")
        assert a.get("generated_ppl") == b.get("generated_ppl")
        if "choice_logits" in a:
            assert a["choice_logits"] == pytest.approx(b["choice_logits"], rel=1e-4)


def test_what_is_computed_at_once_is_no_part_of_a_predictions_identity():
    default = DecodingOptions().identity()
    assert DecodingOptions(batch_size=1, tokens_per_batch=1, cache_tokens=9).identity() == default
    assert DecodingOptions(backend=CONTINUOUS).identity() != default
    assert DecodingOptions(max_new_tokens=1).identity() != default


def test_a_question_is_tokenised_once(tiny_model, tmp_path, monkeypatch):
    """From the plan to the file of predictions, over both kinds of questions."""
    records = [line("biology", "A", idx=i) for i in range(3)]
    choices = [line("code", "甲", 1, choices=["甲", "乙", "丙"])]
    engine = Predicting(tiny_model, max_new_tokens=2)
    encoded = []
    encode = type(engine.chat).encode_content
    monkeypatch.setattr(
        type(engine.chat), "encode_content", lambda s, text: encoded.append(text) or encode(s, text)
    )
    tasks = [DoITFile("biology", records, STUDY), DoITFile("code", choices, STUDY)]
    work = TaskRun(tasks, tmp_path, engine.prompting, DistributedState())
    work.run(engine.predictor, "test")
    assert {path.name for path in tmp_path.iterdir()} == {"pred_biology.json", "pred_code.json"}
    questions = [r["messages"][0]["content"] for r in records + choices]
    assert sorted(encoded) == sorted([*questions, "甲", "乙", "丙"])


def test_a_response_is_the_same_after_it_was_noted():
    response = Response([5], "甲", [0.1, -1 / 3, 1e-30], [700.1, math.exp(1)])
    again = Response.from_json(json.loads(json.dumps(response.as_json())))
    assert (again.text, again.logits, again.perplexities) == (
        response.text,
        response.logits,
        response.perplexities,
    )


def test_a_model_without_numbers_ends_in_a_message(tiny_model):
    broken = Predicting(tiny_model)
    broken.predictor.model.model.norm.weight.data.fill_(float("nan"))
    for record in (
        line("math", "1", answer="1"),
        line("code", "甲", 1, choices=["甲", "乙", "丙"]),
    ):
        with pytest.raises(InputError, match="--precision"):
            broken.predict([record])


@pytest.mark.slow
def test_the_benchmark_runs(tiny_model, tiny_data):
    """In its smallest form: the speed depends on the machine, the agreement does not."""
    flags = ("--data_dir", tiny_data / "curated/valid", "--tokenizer", tiny_model)
    smallest = ("--tasks", "perplexity", "--rounds", "1", "--questions", "1")
    said = run("benchmarks/prediction.py", *flags, *smallest, cwd=ROOT).stdout
    assert "perplexity: 3 questions, 1 rounds" in said
    assert "3 of 3 agree" in said


def test_time_left_is_told_in_work(tiny_model):
    """Answers to come are expected to take the share of their room that finished ones took."""
    bar = tqdm(disable=True)
    progress = Progress(bar, [Cost(10, 100), Cost(10, 100), Cost(30)])
    progress.computed(prompt_tokens=10, steps=20)
    assert (bar.n, bar.total) == (10 + 20 * STEP_COST, 50 + 200 * STEP_COST)
    progress.finished(Cost(10, 100), used=20)
    assert (bar.n, bar.total) == (10 + 20 * STEP_COST, 50 + 40 * STEP_COST)
    progress.computed(prompt_tokens=40, steps=50)
    progress.finished(Cost(10, 100), used=50)
    progress.finished(Cost(30))
    assert bar.n == bar.total == 50 + 70 * STEP_COST
