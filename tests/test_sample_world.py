"""The sample world: reproducible, in DoIT's format, its groups of files disjoint."""

import ast
import collections
import functools
import itertools
import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import ABILITIES, ABILITY_NAMES, OUT_OF_DOMAIN, STUDY
from in_process import load_script

from growth.data.abilities import LETTERS, Kind
from growth.data.records import check_training, evaluation_check
from growth.sample import puzzles, rules, scenes, splits, tables, world
from growth.sample.rules import question_key

CHOICE = {ability.name for ability in ABILITIES if ability.kind is Kind.CHOICES}
SCRIPT = Path(__file__).parents[1] / "data" / "make_sample.py"
SYNTHETIC_HERE = 2000  # of the 40,960, to stay fast
RELATIONS = {
    "biology": tables.BIOLOGY,
    "history": tables.HISTORY,
    "chinese": tables.CHINESE,
    "physician": tables.PHYSICIAN,
    "teacher": tables.TEACHER,
    "planner": tables.PLANNER,
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The files of seed 0 with a short synthetic file: (folder, lines by relative path)."""
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "LINES_SYNTHETIC", SYNTHETIC_HERE)
        counts = world.write_sample(folder, 0)
    lines = {
        path: [json.loads(line) for line in (folder / path).read_text("utf-8").splitlines()]
        for path in counts
    }
    assert {path: len(records) for path, records in lines.items()} == counts
    return folder, lines


def _users(record):
    """The user texts that are questions: in five-shot lines only the last one is."""
    texts = [m["content"] for m in record["messages"] if m["role"] == "user"]
    return texts[-1:] if record["type"].startswith("ceval") else texts


def _gold(record):
    return record["messages"][-1]["content"]


def test_layout_and_counts(sample):
    _, lines = sample
    expected = {}
    for name in ABILITY_NAMES:
        full = 1000 if name in ("creative_writing", "ethics", "role_play") else 1400
        expected |= {f"curated/1000/{name}_1000.json": 1000, f"curated/full/{name}_full.json": full}
        expected[f"curated/valid/{name}_valid.json"] = 50
        expected[f"curated/test/{name}_test.json"] = 100
    for ability in OUT_OF_DOMAIN:
        expected[f"curated/valid/{ability.name}_valid.json"] = 10
        expected[f"curated/test/{ability.name}_test.json"] = 40
    expected[f"synthetic/{SYNTHETIC_HERE}/synthetic_{SYNTHETIC_HERE}.json"] = SYNTHETIC_HERE
    assert {path: len(records) for path, records in lines.items()} == expected
    assert world.LINES_SYNTHETIC == 40960


def test_the_1000_lines_are_in_full(sample):
    _, lines = sample
    for name in ABILITY_NAMES:
        full = lines[f"curated/full/{name}_full.json"]
        assert lines[f"curated/1000/{name}_1000.json"] == full[:1000]


def test_same_seed_same_bytes_whatever_the_order(sample):
    folder, _ = sample
    for name, split, count in (("chinese", "test", 100), ("role_play", "valid", 50)):
        again = world.curated_lines(name, split, count, seed=0)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in again)
        path = folder / "curated" / split / f"{name}_{split}.json"
        assert path.read_bytes() == text.encode()
    for split in ("valid", "test"):
        for name in (*ABILITY_NAMES, *(ability.name for ability in OUT_OF_DOMAIN)):
            one, other = (world.curated_lines(name, split, 20, seed) for seed in (0, 1))
            assert one != other


def test_every_line_is_well_formed(sample):
    _, lines = sample
    for path, records in lines.items():
        for index, record in enumerate(records):
            check_training(record)
            assert record["idx"] == index
            assert all(m["content"] == m["content"].strip() for m in record["messages"]) or (
                record["type"] == "synthetic"
            )
            if "synthetic" in path:
                assert record["type"] == "synthetic"
                assert set(record) == {"messages", "idx", "type", "question_format"}
                continue
            stem = Path(path).stem
            assert record["type"] == stem.rpartition("_")[0]
            evaluated = "/valid/" in path or "/test/" in path
            if evaluated:
                evaluation_check(STUDY)(record)
            assert record["question_format"] == int(evaluated and record["type"] in CHOICE)
            assert ("choices" in record) == (record["question_format"] == 1)
            if "choices" in record:
                assert len(set(record["choices"])) == 3
                assert record["choices"][0] == _gold(record)
            assert ("answer" in record) == (record["type"] == "math")
            if record["type"].startswith("ceval"):
                assert len(record["messages"]) == 12


def _curated(sample):
    _, lines = sample
    for path, records in lines.items():
        if path.startswith("curated/"):
            yield from records


def test_golds(sample):
    golds = collections.defaultdict(collections.Counter)
    for record in _curated(sample):
        name, gold = record["type"], _gold(record)
        golds[name][gold] += 1
        question = record["messages"][-2]["content"]
        options = re.findall(r"^([A-D])\. .+$", question, re.MULTILINE)
        texts = re.findall(r"^[A-D]\. (.+)$", question, re.MULTILINE)
        assert len(set(texts)) == len(texts)
        if name == "math":
            *_, head, last = gold.split("\n")
            assert (head, last) == ("答案", f"${record['answer']}$")
        elif name == "ethics":
            assert options == list(LETTERS)
            assert gold == "".join(sorted(set(gold)))
            assert 1 <= len(gold) <= 4
        elif name in CHOICE:
            assert not options
        elif options:
            assert gold in options
            assert options == list(LETTERS) or (name == "understanding" and len(options) == 3)
        elif name == "history":
            assert gold in ("正确", "错误")
        else:
            assert name == "chinese"
            assert re.fullmatch("[\u4e00-\u9fff]+", gold)
    assert golds["history"].keys() >= {"正确", "错误"}
    assert sum(gold not in LETTERS for gold in golds["chinese"].elements()) > 200
    assert {len(gold) for gold in golds["ethics"]} == {1, 2, 3, 4}


def test_understanding_has_lines_of_several_turns(sample):
    _, lines = sample
    for split in ("full", "valid", "test"):
        records = lines[f"curated/{split}/understanding_{split}.json"]
        several = [r for r in records if len(r["messages"]) > 2]
        assert 0.1 < len(several) / len(records) < 0.3
        assert all(
            m["content"] in LETTERS for r in records for m in r["messages"] if m["role"] != "user"
        )


def test_no_question_twice(sample):
    _, lines = sample
    groups = collections.defaultdict(set)
    for path, records in lines.items():
        group = path.split("/")[1] if "/valid/" in path or "/test/" in path else "train"
        keys = [question_key(text) for record in records for text in _users(record)]
        assert len(set(keys)) == len(keys), path
        if "/1000/" not in path:
            assert not groups[group] & set(keys), path
            groups[group].update(keys)
    assert not groups["train"] & groups["valid"]
    assert not groups["train"] & groups["test"]
    assert not groups["valid"] & groups["test"]


def test_no_letter_is_right_more_often(sample):
    """Whoever always gives one letter scores chance."""
    _, lines = sample
    for path, records in lines.items():
        golds = collections.Counter(_gold(record) for record in records)
        letters = [golds[letter] for letter in LETTERS]
        if path.startswith("curated/") and records[0]["type"] not in {*CHOICE, "math", "ethics"}:
            assert max(letters) - min(letters) <= 1, path
            assert min(letters) > 0, path


def _facts(record):
    """The facts that the question is about, by its exact words."""
    stem, *options = record["messages"][-2]["content"].split("\n")
    texts = dict(option.split(". ", 1) for option in options if option[1:3] == ". ")
    gold = texts.get(_gold(record), _gold(record))
    return _asked_facts().get((stem, gold), set())


@functools.cache
def _asked_facts():
    """(question, gold answer) to the facts behind it, for all tables and wordings."""
    asked = collections.defaultdict(set)
    for relation in itertools.chain(*RELATIONS.values(), rules.POEM_RELATIONS):
        for subject, object_ in relation.pairs:
            for wording in relation.forward:
                asked[wording.format(s=subject), object_].add((subject, object_))
            for wording in relation.backward:
                asked[wording.format(o=object_), subject].add((subject, object_))
    return asked


def test_facts_behind_valid_and_test_are_behind_no_training_question(sample):
    _, lines = sample
    facts = collections.defaultdict(set)
    for path, records in lines.items():
        if path.startswith("curated/"):
            for record in records:
                facts[path.split("/")[1]] |= _facts(record)
    assert len(facts["full"]) > 250
    assert len(facts["test"]) > 120
    assert len(facts["valid"]) > 40  # of fewer questions
    assert not facts["full"] & (facts["valid"] | facts["test"])
    assert not facts["valid"] & facts["test"]


def test_situations_of_ethics_are_apart(sample):
    _, lines = sample
    situations = {}
    for split in ("full", "valid", "test"):
        questions = [
            r["messages"][0]["content"] for r in lines[f"curated/{split}/ethics_{split}.json"]
        ]
        situations[split] = {s for s in scenes.CONDUCT if any(s in q for q in questions)}
        assert len(situations[split]) >= 3
    assert not situations["full"] & (situations["valid"] | situations["test"])
    assert not situations["valid"] & situations["test"]


def test_synthetic_draws_from_questions_of_its_own(sample):
    rng = random.Random("test")
    for kinds in world.KINDS.values():
        draft = world._draw(rng, list(kinds), "synthetic", 0, set())
        assert splits.split_of(draft, 0) == "synthetic"


@pytest.mark.parametrize("table", RELATIONS)
def test_tables_allow_four_options(table):
    for relation in RELATIONS[table]:
        assert len(set(relation.pairs)) == len(relation.pairs)
        for subject, object_ in relation.pairs:
            assert subject
            assert object_
            if relation.forward:
                assert len(relation.wrong_objects(subject)) >= 3, (subject, object_)
            if relation.backward:
                assert len(relation.wrong_subjects(object_)) >= 3, (subject, object_)
        for subject, object_ in relation.also:
            # Otherwise a slip of the pen would go unnoticed.
            assert subject in {s for s, _ in relation.pairs}, (subject, object_)
            assert object_ in {o for _, o in relation.pairs}, (subject, object_)


EQUATION = re.compile(r"([\dx+×÷/()-]+)=([\dx+×÷/()-]+)")


def _value(expression, x):
    """An expression as an exact number; 4x is 4 times `x`."""
    expression = re.sub(r"(?<=\d)x", "*x", expression.replace("×", "*").replace("÷", "/"))
    expression = re.sub(r"\d+", r"Fraction(\g<0>)", expression)
    return eval(expression, {"Fraction": Fraction, "x": x})


@pytest.mark.parametrize("rule", [rule for _, rule in puzzles.PUZZLE_KINDS["math"]])
def test_arithmetic_is_right(rule):
    rng = random.Random("arithmetic")
    for _ in range(200):
        draft = rule(rng)
        answer = Fraction(re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", draft.answer))
        equations = EQUATION.findall(draft.gold)
        assert equations, draft.gold
        for sides in equations:
            left, right = (_value(side, answer) for side in sides)
            assert left == right, draft.gold
        assert right == answer, draft.gold  # the last line before the answer gives it


def test_programs_parse_and_their_slips_too():
    rng = random.Random("programs")
    for _ in range(500):
        draft = puzzles.program(rng)
        for text in (draft.gold, *draft.wrong):
            ast.parse(text)
        assert len({draft.gold, *draft.wrong}) == 3


def test_script_prints_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(world, "LINES_SYNTHETIC", 50)
    monkeypatch.setattr(world, "LINES_HELD_OUT", {"valid": (20, 10), "test": (20, 10)})
    monkeypatch.setattr(world, "LINES_FULL", dict.fromkeys(ABILITY_NAMES, 30))
    script = load_script(SCRIPT)
    tables = []
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        script.main(["--output_dir", str(tmp_path / folder), "--seed", seed])
        tables.append(capsys.readouterr().out)
    assert "curated/test/history_test.json" in tables[0]
    files = [sorted(p for p in (tmp_path / f).rglob("*") if p.is_file()) for f in "abc"]
    assert [p.relative_to(tmp_path / "a") for p in files[0]] == [
        p.relative_to(tmp_path / "b") for p in files[1]
    ]
    for a, b, c in zip(*files, strict=True):
        assert a.read_bytes() == b.read_bytes() != c.read_bytes()
