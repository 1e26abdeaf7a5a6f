"""The pocket model: its text, its first weights, its pretraining."""

import itertools
import random

import pytest
import torch
from conftest import ROOT, run
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from growth.sample import corpus, pocket, pretraining, splits, world
from growth.sample.pretraining import Batch, Plan

SHORT = Plan(steps=8, tokens=800, first_steps=2, second_steps=2, mixing_steps=2)


def read(number, seed=0):
    return list(itertools.islice(corpus.documents(random.Random(seed), 0), number))


@pytest.fixture(scope="module")
def many():
    return read(20_000)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A small model to begin from, in a folder `first`."""
    work = tmp_path_factory.mktemp("work")
    texts = corpus.tokenizer_texts(0, number=500)
    pocket.make_pocket(work / "first", texts, 0, lexicon=corpus.lexicon())
    return work / "first"


def test_same_seed_same_documents():
    assert read(200) == read(200) != read(200, seed=1)


def test_every_fact_is_stated(many):
    texts = [document.replace(corpus.GIVEN_OPENS, "") for document in many]
    unstated = [
        pair
        for field in corpus.FACTS
        for relation in field
        for pair in relation.pairs
        if not any(relation.statement.format(s=pair[0], o=pair[1]) in text for text in texts)
    ]
    assert len(unstated) < 0.05 * sum(len(r.pairs) for field in corpus.FACTS for r in field)


def test_no_question_of_the_instruction_data_is_read(many):
    """Not as it stands, whatever file it is in."""
    read_texts = "\n\n".join(corpus.GIVEN_OPENS.join(many).split(corpus.GIVEN_OPENS))
    for name, kinds in world.KINDS.items():
        rng = random.Random(name)
        for _, rule in kinds:
            for _ in range(30):
                assert rule(rng).turns[0][0] not in read_texts


def test_puzzles_of_valid_and_test_are_not_read():
    rng = random.Random(0)
    places = [
        splits.split_of(corpus.readable(rng, rule, 0), 0)
        for rule in (corpus.puzzles.column, corpus.puzzles.program)
        for _ in range(100)
    ]
    assert set(places) == {"curated", "synthetic"}


def test_what_is_given_is_not_predicted(first):
    tokenizer = SentencePieceBackend.from_pretrained(first)
    document = corpus.given("①鲤鱼 ②麻雀\n鲤鱼——") + "①"
    ids, labels = pretraining.encode(document, tokenizer)
    assert tokenizer.decode(ids[:-1]) == "①鲤鱼 ②麻雀\n鲤鱼——①"
    assert [i for i, label in enumerate(labels) if label != -100] == [len(ids) - 2, len(ids) - 1]


def test_a_label_is_the_same_token_everywhere(first):
    tokenizer = SentencePieceBackend.from_pretrained(first).sp_model
    for text in ("①、鲤鱼；②、麻雀。选①", "\nA. 鲤鱼\nB. 麻雀", "A", "甲：鱼，乙：鸟——甲"):
        pieces = tokenizer.encode(text, out_type=str)
        labels = [c for c in text if c in "①②AB甲乙"]
        assert [piece for piece in pieces if set(piece) & set("①②AB甲乙")] == labels


LABEL_IDS, WORD_IDS = range(100, 104), range(1000, 3000)


def _untrained():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=6000, attn_implementation="eager", **pocket.CONFIG)
    return LlamaForCausalLM(config)


@torch.no_grad()
def _picked(model, between):
    """How often the label of the option that was named before is the likeliest label."""
    generator = torch.Generator().manual_seed(0)
    right = 0
    for _ in range(60):
        order = torch.randperm(len(WORD_IDS), generator=generator)[:10] + WORD_IDS[0]
        *said, stop = order[4:].tolist()
        place = int(torch.randint(4, (1,), generator=generator))
        said[2] = int(order[place])
        options = [
            token
            for label, word in zip(LABEL_IDS, order[:4].tolist(), strict=True)
            for token in (label, *between, word)
        ]
        logits = model(input_ids=torch.tensor([[*said, *options, stop]])).logits[0, -1]
        right += int(logits[list(LABEL_IDS)].argmax()) == place
    return right / 60


def test_the_first_heads_pick_the_option_that_was_named():
    """Four options: chance is 25 %."""
    betweens = ([], [50], [50, 51])  # the label stands 1, 2 or 3 tokens before the option
    model = _untrained()
    assert sum(_picked(model, between) for between in betweens) / 3 < 0.33
    pocket.init_induction_heads(model, WORD_IDS)
    assert sum(_picked(model, between) for between in betweens) / 3 > 0.42


def test_heads_of_the_first_layer_look_back():
    model = _untrained()
    pocket.init_induction_heads(model, WORD_IDS)
    ids = torch.randint(0, 6000, (1, 60))
    attention = model(input_ids=ids, output_attentions=True).attentions[0][0]
    for head, back in enumerate((1, 1, 2, 3)):
        looks_at = attention[head, 10:].argmax(-1)
        distances = torch.arange(10, 60) - looks_at
        assert (distances == back).float().mean() > 0.8, (head, distances)


def _weights(folder):
    return load_file(folder / "model.safetensors")


def _same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def _work(tmp_path, name, first):
    work = tmp_path / name
    work.mkdir()
    (work / "first").symlink_to(first)
    return work


def test_an_interrupted_run_ends_in_the_same_weights(tmp_path, first, monkeypatch):
    monkeypatch.setattr(pretraining, "SAVED_EVERY", 3)
    quiet, killed = (_work(tmp_path, name, first) for name in ("quiet", "killed"))
    pretraining.pretrain(0, 1, "", SHORT, quiet, tmp_path / "a")
    rate = Plan.rate

    def stops(plan, step):
        if step == 5:
            raise KeyboardInterrupt
        return rate(plan, step)

    with monkeypatch.context() as patch:
        patch.setattr(Plan, "rate", stops)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain(0, 1, "", SHORT, killed, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    pretraining.pretrain(0, 1, "", SHORT, killed, tmp_path / "b")
    assert _same(_weights(tmp_path / "a"), _weights(tmp_path / "b"))
    assert not _same(_weights(tmp_path / "a"), _weights(first))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_weights_of_one(tmp_path, first):
    one, two = (_work(tmp_path, name, first) for name in ("one", "two"))
    pretraining.pretrain(0, 1, "", SHORT, one, tmp_path / "a")
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    torch.multiprocessing.spawn(
        pretraining.pretrain, (2, str(meeting), SHORT, two, tmp_path / "b"), nprocs=2
    )
    assert _same(_weights(tmp_path / "a"), _weights(tmp_path / "b"))


def test_state_of_another_run_is_refused(tmp_path, first, monkeypatch):
    monkeypatch.setattr(pretraining, "SAVED_EVERY", 3)
    work = _work(tmp_path, "work", first)
    pretraining.pretrain(0, 1, "", SHORT, work, tmp_path / "a")
    other = Plan(**(vars(SHORT) | {"seed": 1}))
    with pytest.raises(pretraining.InputError, match="another run"):
        pretraining.pretrain(0, 1, "", other, work, tmp_path / "a")


def test_batches_hold_the_tokens_they_may(first):
    tokenizer = SentencePieceBackend.from_pretrained(first)
    steps = list(itertools.islice(pretraining.batches(SHORT, tokenizer), 20))
    assert all(len(shards) == pretraining.SHARDS for shards in steps)
    batches = [batch for shards in steps for batch in shards]
    longest = max(batch.ids.shape[1] for batch in batches)
    assert all(batch.ids.numel() <= max(400, longest) for batch in batches)
    padding = sum(int((batch.ids == 0).sum()) for batch in batches)
    assert padding < 0.15 * sum(batch.ids.numel() for batch in batches)
    assert all(isinstance(batch, Batch) and batch.supervised > 0 for batch in batches)


def test_script_refuses_no_steps():
    done = run("train/pretrain_pocket.py", "--steps", "0", cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "--steps: '0' is not a whole number of at least 1" in done.stderr
