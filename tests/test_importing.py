"""Data as people have it: read, converted, split; what can't be used is counted and named."""

import json
import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, read_lines, run, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from growth.core.errors import InputError
from growth.core.files import parse_json
from growth.core.options import FORMATS, ImportOptions
from growth.data.conversations import Reading, converted, recognised_format
from growth.data.importing import find_overlaps, import_files
from growth.data.lines import index_lines
from growth.data.overlap import QuestionIndex
from growth.data.raw_files import Refusal, read_rows
from growth.data.records import check_training, read_training_files
from growth.data.similarity import Fingerprints, grams, jaccard, normalised
from growth.data.splitting import SPLITS, Sizes, split

WORDS = [f"word{number}" for number in range(400)]


def messages(question="What is it?", answer="A"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def question(number):
    """A question unlike all others."""
    return " ".join(random.Random(number).sample(WORDS, 12)) + f" {number}?"


def alpaca(number, **fields):
    return {"instruction": question(number), "input": "", "output": f"answer {number}"} | fields


def imported(tmp_path, *inputs, reading=None, out="out", **options):
    """What is written, by split and ability, with what `import_files` returns."""
    output = tmp_path / out
    options = ImportOptions(tuple(map(str, inputs)), output, **options)
    made = import_files(options, reading or Reading())
    written = {
        name: {path.stem: read_lines(path) for path in sorted((output / name).iterdir())}
        for name in SPLITS
    }
    return written, made


def all_lines(written):
    return [line for files in written.values() for lines in files.values() for line in lines]


def refusal(fields, system="refuse"):
    reading = Reading(system=system)
    with pytest.raises(Refusal) as caught:
        converted(fields, recognised_format(fields, reading), reading)
    return caught.value.reason


# Formats


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": messages("q", "a")}, "q|a"),
        ({"messages": [*messages("q", "a"), *messages("r", "b")]}, "q|a|r|b"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "q"},
                            {"type": "text", "text": "r"},
                        ],
                    },
                    {"role": "assistant", "content": "a"},
                ]
            },
            "qr|a",
        ),
        ({"instruction": "q", "input": "", "output": "a"}, "q|a"),
        ({"instruction": "q", "input": "i", "output": "a"}, "q\ni|a"),
        ({"instruction": "", "input": "i", "output": "a"}, "i|a"),
        ({"instruction": "q", "output": "a"}, "q|a"),
        (
            {"instruction": "r", "output": "b", "system": "", "history": [["q", "a"]]},
            "q|a|r|b",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                    {"from": "user", "value": "r"},
                    {"from": "assistant", "value": "b"},
                ]
            },
            "q|a|r|b",
        ),
        ({"conversations": messages("q", "a")}, "q|a"),
        ({"prompt": "q", "completion": "a"}, "q|a"),
        ({"prompt": "q\n\n###\n\n", "completion": " a b\n"}, "q\n\n###\n\n|a b\n"),
        ({"prompt": " q", "completion": "  a"}, " q|  a"),  # indented: no joining space
        ({"prompt": messages("q", "a")[:1], "completion": messages("q", "a")[1:]}, "q|a"),
        ({"prompt": [*messages("q", "a"), *messages("r", "b")][:3], "completion": "b"}, "q|a|r|b"),
        ({"prompt": "q", "completion": [{"from": "gpt", "value": " a"}]}, "q| a"),
    ],
)
def test_every_format_becomes_turns(fields, expected):
    turns, others = converted(
        fields | {"choices": ["a", "b"], "answer": 3},
        recognised_format(fields, Reading()),
        Reading(),
    )
    assert "|".join(turn["content"] for turn in turns) == expected
    check_training({"messages": turns})
    assert others == {"choices": ["a", "b"], "answer": 3}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": "S"}, *messages("q", "a")]},
        {"messages": [{"role": "developer", "content": "S"}, *messages("q", "a")]},
        {"instruction": "q", "output": "a", "system": "S"},
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "a"},
            ]
        },
        {
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
            "system": "S",
        },
        {
            "prompt": [{"role": "system", "content": "S"}, messages("q")[0]],
            "completion": messages("q", "a")[1:],
        },
        {"prompt": "q", "completion": " a", "system": "S"},
    ],
)
def test_a_system_message_is_refused_or_folded(fields):
    assert refusal(fields) == "system message"
    folding = Reading(system="fold")
    turns, others = converted(fields, recognised_format(fields, folding), folding)
    assert turns == messages("S\n\nq", "a")
    assert not others


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": []}, "no turn"),
        ({"messages": [{"role": "system", "content": " "}]}, "no turn"),
        ({"messages": messages()[:1]}, "ends with the user"),
        ({"messages": messages()[1:]}, "roles out of order"),
        ({"messages": [messages()[0], *messages()]}, "roles out of order"),
        ({"messages": [*messages(), {"role": "system", "content": "S"}]}, "roles out of order"),
        ({"messages": messages(" ", "a")}, "empty turn"),
        ({"messages": messages("q", None)}, "empty turn"),
        ({"messages": [{"role": "user"}, messages()[1]]}, "empty turn"),
        ({"messages": [{"role": "tool", "content": "x"}, messages()[1]]}, "unknown role"),
        ({"messages": [{"role": ["user"], "content": "x"}, messages()[1]]}, "unknown role"),
        ({"messages": [{"content": "x"}, messages()[1]]}, "unknown role"),
        ({"messages": ["x", "y"]}, "malformed turn"),
        ({"messages": messages(3, "a")}, "number, not text"),
        ({"messages": messages([{"type": "image_url", "image_url": "u"}], "a")}, "not only text"),
        ({"messages": messages(), "images": ["x.png"]}, "not only text"),
        ({"instruction": "", "input": " ", "output": "a"}, "empty turn"),
        ({"instruction": "q", "output": ""}, "empty turn"),
        ({"instruction": None, "output": "a"}, "empty turn"),
        ({"instruction": "q", "output": True}, "not only text"),
        ({"instruction": "q", "output": "a", "history": "x"}, "malformed history"),
        ({"instruction": "q", "output": "a", "history": [["x"]]}, "malformed history"),
        ({"instruction": "q", "output": "a", "history": [["x", ""]]}, "empty turn"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "roles out of order"),
        ({"prompt": "q", "completion": " "}, "empty turn"),
        ({"prompt": "q", "completion": None}, "empty turn"),
        ({"prompt": messages("q", "a"), "completion": "a"}, "roles out of order"),
        ({"prompt": messages("q", "a")[:1], "completion": []}, "ends with the user"),
        ({"prompt": ["q"], "completion": "a"}, "malformed turn"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(fields, reason):
    assert refusal(fields) == reason
    assert refusal(fields, system="fold") == reason


TEXTS = st.text("a1 \n。是", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            *("messages", "conversations", "instruction", "input", "output", "system", "history"),
            *("prompt", "completion"),
        ]
    ),
    JSON,
    max_size=4,
)


@settings(deadline=None)  # other tests may run beside it
@given(FIELDS, st.sampled_from(FORMATS), st.sampled_from(["fold", ""]))
def test_any_fields_are_refused_or_fit_for_training(fields, format_, system):
    try:
        turns, _ = converted(fields, format_, Reading(system=system))
    except Refusal:
        return
    check_training({"messages": turns})


def test_columns_may_have_other_names(tmp_path):
    path = write_lines(tmp_path / "law.jsonl", [{"q": "what?", "a": "that", "idx": 7}])
    with pytest.raises(InputError, match=r"law.jsonl:1: unknown format.*q, a, idx.*--columns"):
        imported(tmp_path, path)
    done = run(
        "data/import.py", "--input", path, "--output_dir", tmp_path / "o", "--columns",
        "instruction=q", "output=a", cwd=ROOT,
    )  # fmt: skip
    assert f"{path}: alpaca, 1 lines" in done.stdout
    assert read_lines(tmp_path / "o/train/law.json") == [
        {"messages": messages("what?", "that"), "type": "law", "idx": 7}
    ]


# Files


def test_one_data_set_reads_the_same_from_every_kind_of_file(tmp_path):
    import pandas

    rows = [alpaca(number, level=number) for number in range(30)]
    folder = tmp_path / "a [b]*"
    write_lines(folder / "1/law.jsonl", rows)
    write_lines(folder / "2/law.json", ["\ufeff", *rows, "", "\r"])
    (folder / "3").mkdir()
    (folder / "3/law.json").write_text("\ufeff \n" + json.dumps(rows, indent=2), encoding="utf-8")
    (folder / "4").mkdir()
    pandas.DataFrame(rows).to_parquet(folder / "4/law.parquet")
    written = [imported(tmp_path, folder / str(kind), out=f"o{kind}")[0] for kind in range(1, 5)]
    assert written[0]["train"]["law"][0]["messages"][0]["content"] == question(0)
    assert written[0]["train"]["law"][0]["level"] == 0
    assert all(other == written[0] for other in written[1:])


def test_parquet_without_text_or_json_is_refused_by_line(tmp_path):
    import pandas

    rows = [alpaca(0, score=1.5), alpaca(1, output=None, score=float("nan")), alpaca(2)]
    frame = pandas.DataFrame(rows)
    frame["day"] = [None, None, pandas.Timestamp("2026-01-01")]
    frame.to_parquet(tmp_path / "law.parquet")
    written, made = imported(tmp_path, tmp_path / "law.parquet", valid=0, test=0)
    (kept,) = written["train"]["law"]
    assert kept == {"messages": messages(question(0), "answer 0"), "type": "law", "idx": 0} | {
        "score": 1.5
    }
    assert made.refusals.counts == {"missing field": 1, "field that JSON can't hold": 1}


def test_parquet_that_cannot_be_read_is_named(tmp_path):
    import pyarrow
    from pyarrow.parquet import write_table

    path = tmp_path / "law.parquet"
    maps = pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    write_table(pyarrow.table({"instruction": ["q"], "output": ["a"], "m": maps}), path)
    with pytest.raises(InputError, match=r"law\.parquet: .*map<.*Leave that column out"):
        imported(tmp_path, path)
    write_table(pyarrow.table({"instruction": WORDS, "output": WORDS}), path)
    data = bytearray(path.read_bytes())
    data[100:500] = b"\xee" * 400
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"law\.parquet:1: the Parquet file is damaged"):
        imported(tmp_path, path)


def test_damaged_lines_are_left_out_and_named(tmp_path):
    good = json.dumps(alpaca(0))
    path = write_lines(
        tmp_path / "law.jsonl",
        [
            "{",
            good,
            "[1]",
            '{"x": NaN}',
            '{"x": 1e999}',
            '{"x": "\\ud800"}',
            "{} {}",
            b"\xff\n",
            "[" * 200_000,
            '{"x": ' + "9" * 5000 + "}",
            "\u2028",
        ],
    )
    written, made = imported(tmp_path, path)
    assert len(all_lines(written)) == 1
    assert made.refusals.counts == {"malformed JSON": 9, "not UTF-8": 1}
    assert made.refusals.first["malformed JSON"][0].startswith(f"{path}:1: malformed JSON")
    assert len(made.refusals.first["malformed JSON"]) == 5
    with pytest.raises(InputError, match=r"law.jsonl:1: .*--strict"):
        imported(tmp_path, path, strict=True)


@pytest.mark.parametrize(
    "ending", ['{"x": NaN}]', "{]", "", "3 4]", '"' + "x" * 10, "[" * 200_000, "nonsense]", ",,]"]
)
def test_a_damaged_array_is_read_up_to_the_damage(tmp_path, ending):
    path = tmp_path / "law.json"
    path.write_text("[\n" + ",\n".join(json.dumps(alpaca(n)) for n in range(3)) + ",\n" + ending)
    written, made = imported(tmp_path, path)
    assert len(all_lines(written)) == 3
    assert set(made.refusals.counts) == {"malformed JSON"}
    assert made.refusals.first["malformed JSON"][0].startswith(f"{path}:5: ")


def test_an_entry_of_an_array_that_is_not_utf8_is_refused_alone(tmp_path):
    path = tmp_path / "law.json"
    path.write_bytes(
        b'[{"instruction": "\xff", "output": "a"},' + json.dumps(alpaca(0)).encode() + b"]"
    )
    written, made = imported(tmp_path, path)
    assert len(all_lines(written)) == 1
    assert made.refusals.counts == {"not UTF-8": 1}


@settings(deadline=None)  # other tests may run beside it
@given(st.lists(st.dictionaries(TEXTS, TEXTS | st.integers(), max_size=4), max_size=9))
def test_arrays_are_read_in_pieces_of_any_size(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("array") / "x.json"
    path.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growth.data.raw_files._CHUNK", 7)
        assert [row.content for row in read_rows(path)] == entries


@settings(deadline=None)
@given(st.sampled_from(["lines", "array"]), st.data())
def test_damaged_bytes_never_crash(tmp_path_factory, kind, data):
    rows = [json.dumps(alpaca(number, input="是")).replace("\\u662f", "是") for number in range(3)]
    text = "[" + ",\n".join(rows) + "]" if kind == "array" else "\n".join(rows)
    damaged = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        cut = data.draw(st.integers(0, 30))
        damaged[place : place + cut] = data.draw(st.binary(max_size=3))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "law.json").write_bytes(damaged)
    try:
        written, made = imported(folder, folder / "law.json", valid=0, test=0)
    except InputError:
        assert not (folder / "out/train").exists()
        return
    for line in all_lines(written):
        check_training(line)
    assert len(all_lines(written)) + made.sources[0].refused == made.sources[0].lines


def test_a_later_line_gives_the_format_of_a_file(tmp_path):
    path = write_lines(tmp_path / "law.jsonl", ["{", {"about": "this file"}, alpaca(0)])
    written, made = imported(tmp_path, path)
    assert len(all_lines(written)) == 1
    assert made.refusals.counts == {"malformed JSON": 1, "unknown format": 1}


# Abilities


def test_the_ability_is_the_flag_a_field_the_lines_own_or_the_files_name(tmp_path):
    write_lines(tmp_path / "in/law.jsonl", [alpaca(0, category="civil", idx="x")])
    write_lines(
        tmp_path / "in/mixed.jsonl",
        [
            {"messages": messages(question(1)), "type": "math", "category": 5},
            {"messages": messages(question(2)), "category": None},
        ],
    )
    source = tmp_path / "in"
    written, _ = imported(tmp_path, source, valid=0, test=0)
    assert set(written["train"]) == {"law", "math", "mixed"}
    assert written["train"]["law"][0]["idx"] == "x"
    written, made = imported(tmp_path, source, type_field="category", valid=0, test=0)
    assert set(written["train"]) == {"civil", "5"}
    assert made.refusals.counts == {"no ability": 1}
    written, _ = imported(tmp_path, source, type="法律", valid=0, test=0)
    assert set(written["train"]) == {"法律"}
    assert [line["type"] for line in all_lines(written)] == ["法律"] * 3


@pytest.mark.parametrize("name", ["", " x", ".x", "a/b", "a\\b", "x\n", "x" * 201, "字" * 67, [1]])
def test_an_ability_that_names_no_file_is_refused(tmp_path, name):
    path = write_lines(tmp_path / "x.jsonl", [alpaca(0, kind=name), alpaca(1, kind="ok")])
    written, made = imported(tmp_path, path, type_field="kind", valid=0, test=0)
    assert set(written["train"]) == {"ok"}
    assert made.refusals.counts == {"ability names no file": 1}


# Near-duplicates


@settings(deadline=None)  # other tests may run beside it
@given(st.text())
def test_case_width_spaces_and_punctuation_say_nothing(text):
    letters = "".join(c for c in text if unicodedata.category(c)[0] == "L") + "z"
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in letters)
    assert normalised(f"  {wide} ?!。") == normalised(letters)


@pytest.mark.parametrize(
    ("first", "second"),
    [("7-3=", "73="), ("1.5", "15"), ("1 2", "12"), ("a+b", "ab"), ("5%", "5"), ("是", "否")],
)
def test_numbers_and_signs_say_something(first, second):
    assert normalised(first) != normalised(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("1  2", "1 2"), ("1,000", "1000"), ("x - y", "xy"), ("A. 3", "a3"), ("１．５", "1.5")],
)
def test_other_spaces_and_signs_say_nothing(first, second):
    assert normalised(first) == normalised(second)


def pairs_of(groups):
    return {(i, j) for i in range(len(groups)) for j in range(i) if groups[i] == groups[j]}


def near(texts, similarity=0.8):
    fingerprints = Fingerprints(True, similarity)
    for text in texts:
        fingerprints.add([text])
    return pairs_of(fingerprints.groups(lambda place: normalised(texts[place])))


def test_near_duplicates_are_together_and_others_apart():
    chinese = "下列关于中华人民共和国宪法修改程序的说法中，正确的一项是哪一个？请选出并说明理由。"
    texts = [question(1), question(1).upper() + "!!", question(1).replace("word", "word", 1)[:-2]]
    texts += [question(2), chinese, chinese.replace("哪一个", "哪个"), chinese[::-1]]
    assert near(texts) == {(1, 0), (2, 0), (2, 1), (5, 4)}


def test_groups_are_those_of_all_pairs():
    generator = random.Random(3)
    texts = []
    for number in range(60):
        words = question(number).split()
        for _ in range(generator.randrange(4)):
            changed = list(words)
            changed[generator.randrange(12)] = generator.choice(WORDS)
            texts.append(" ".join(changed))
        texts.append(" ".join(words))
    sets = [grams(normalised(text)) for text in texts]
    parents = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if jaccard(sets[i], sets[j]) >= 0.85:
                old, new = parents[i], parents[j]
                parents = [new if parent == old else parent for parent in parents]
    expected = pairs_of(parents)
    assert len(expected) > 20
    found = near(texts, 0.85)
    assert found <= expected
    assert len(found) >= 0.9 * len(expected)  # MinHash finds 98 % of those just similar enough


def test_null_is_a_missing_field_and_a_number_no_text():
    fields = {"instruction": "q", "input": None, "output": "a"}
    assert converted(fields, "alpaca", Reading())[0] == messages("q", "a")
    fields = {"instruction": None, "input": "q", "output": "a"}
    assert converted(fields, "alpaca", Reading())[0] == messages("q", "a")
    for number in (7, 0, 1.5):
        with pytest.raises(Refusal, match=f'`output` is a number, not text; quote it: "{number}"'):
            converted({"instruction": "q", "output": number}, "alpaca", Reading())
    assert refusal({"messages": messages("q", 3)}) == "number, not text"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"instruction": "What is it", "output": "', "ends early, at column 41"),
        ('{"instruction": "What is it", "output"', "ends early, at column 38"),
        ('{"instruction": "What is it", ', "ends early, at column 29"),
        ('{"instruction": ["x", tru', "Expecting value"),
        ('{"a": 1,}', "double quotes"),
        ('{"a": 1} x', "Extra data"),
        ('{\n"a": [1,', "ends early, at line 2, column 8"),
    ],
)
def test_a_text_that_was_cut_says_where(text, fault):
    with pytest.raises(ValueError, match=fault):
        parse_json(text)


def test_refused_lines_that_are_not_named_are_counted(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [*(alpaca(n) for n in range(20)), *["{"] * 8])
    done = run("data/import.py", "--input", path, "--output_dir", tmp_path / "out", cwd=ROOT)
    assert "x.jsonl:25: malformed JSON (ends early, at column 1)\n  ... and 3 more\n" in done.stdout
    assert done.stdout.count("more") == 1


# Splitting


def test_sizes_are_served_for_each_ability_and_every_line_is_somewhere(tmp_path):
    lines = {"law": 200, "math": 40}
    for name, count in lines.items():
        rows = [alpaca(number + 1000 * len(name)) for number in range(count)]
        write_lines(tmp_path / f"in/{name}.jsonl", rows)
    written, made = imported(tmp_path, tmp_path / "in", valid=0.1, test=7)
    assert made.counts == {"law": (173, 20, 7), "math": (29, 4, 7)}
    assert len({line["messages"][0]["content"] for line in all_lines(written)}) == 240
    assert {name: index_lines(tmp_path / f"out/train/{name}.json", check_training).__len__()
            for name in lines} == {"law": 173, "math": 29}  # fmt: skip
    read_training_files(tmp_path / "out/train", "--train_dir")
    summary = json.loads((tmp_path / "out/import.json").read_text())
    assert summary["abilities"]["law"] == {"train": 173, "valid": 20, "test": 7}
    assert (
        summary["options"] | {"format": "auto", "system": "refuse", "test": 7, "seed": 0}
        == (summary["options"])
    )
    assert set(summary["files"]) == {f"{side}/{name}.json" for side in SPLITS for name in lines}


def test_the_split_depends_on_the_seed_and_not_on_the_order(tmp_path):
    rows = [alpaca(number) for number in range(100)]
    rows += [alpaca(number, output="again") for number in range(30)]
    write_lines(tmp_path / "a/law.jsonl", rows)
    random.Random(0).shuffle(rows)
    write_lines(tmp_path / "b/x/law.jsonl", rows[:50])
    write_lines(tmp_path / "b/y/law.jsonl", rows[50:])

    def sides(source, **options):
        written, _ = imported(tmp_path, source, valid=0.1, test=0.2, replace=True, **options)
        return {
            side: {json.dumps(line["messages"]) for line in files["law"]}
            for side, files in written.items()
        }

    assert sides(tmp_path / "a") == sides(tmp_path / "b")
    assert sides(tmp_path / "a") != sides(tmp_path / "a", seed=1)
    assert sides(tmp_path / "a", split_by="none") == sides(tmp_path / "b", split_by="none")


def test_more_lines_move_few_others(tmp_path):
    def sides(count):
        path = write_lines(tmp_path / "law.jsonl", [alpaca(number) for number in range(count)])
        written, _ = imported(tmp_path, path, valid=0.1, test=0.1)
        return {
            line["messages"][0]["content"]: side
            for side, files in written.items()
            for line in files["law"]
        }

    few, more = sides(200), sides(220)
    assert sum(few[text] != more[text] for text in few) <= 12  # a new split would move 68


@pytest.mark.parametrize("split_by", ["near", "exact", "none"])
def test_near_duplicates_stay_on_one_side_unless_told_otherwise(tmp_path, split_by):
    rows = []
    for number in range(40):
        text = question(number)
        rows += [alpaca(number), alpaca(number, instruction=text.upper())]
        rows.append(alpaca(number, instruction=text.replace(" ", " the ", 1)))
    path = write_lines(tmp_path / "law.jsonl", rows)
    written, made = imported(tmp_path, path, valid=0.2, test=0.2, split_by=split_by)
    side = {
        line["messages"][0]["content"]: name
        for name, files in written.items()
        for line in files["law"]
    }
    same = sum(side[question(n)] == side[question(n).upper()] for n in range(40))
    close = sum(side[question(n)] == side[question(n).replace(" ", " the ", 1)] for n in range(40))
    assert (same == 40, close == 40) == {
        "near": (True, True), "exact": (True, False), "none": (False, False)
    }[split_by]  # fmt: skip
    assert made.alike == {"near": 120, "exact": 80, "none": 0}[split_by]
    assert bool(made.overlaps) == (split_by != "near")


@pytest.mark.parametrize(
    "kind", ["alpaca", "system", "messages", "greeting", "variants", "behind", "options", "around"]
)
def test_what_all_lines_share_makes_no_duplicates(tmp_path, kind):
    prompt = "You sort letters of customers by what they want, and answer with one word alone. " * 4

    def line(number):
        asked = " ".join(random.Random(number).sample(WORDS, 3))
        if kind == "alpaca":
            return alpaca(number, instruction=prompt, input=asked)
        if kind == "behind":
            return alpaca(number, instruction=asked, input=prompt)
        if kind == "options":  # two sets of them
            labels = "ABCDE" if number % 2 else "12345"
            options = [f"{label}. {word * 3}" for label, word in zip(labels, WORDS, strict=False)]
            return {"messages": messages("\n".join([asked, *options]))}
        if kind == "around":
            return alpaca(number, instruction=f"{prompt}\n{asked}", input=prompt.upper())
        if kind == "variants":
            return alpaca(number, instruction=f"{number % 3} {prompt}", input=asked)
        if kind == "messages":
            return {"messages": messages(f"{prompt}\n\n{asked}")}
        if kind == "system":
            return {"messages": [{"role": "system", "content": prompt}, *messages(asked)]}
        turns = [("human", "你好"), ("gpt", "您好"), ("human", asked), ("gpt", "A")]
        return {"conversations": [{"from": role, "value": text} for role, text in turns]}

    path = write_lines(tmp_path / "x.jsonl", [line(number) for number in range(100)])
    made = imported(tmp_path, path, reading=Reading(system="fold"), valid=0.1, test=0.2)[1]
    assert made.counts == {"x": (70, 10, 20)}
    assert (made.alike, made.largest, made.short, made.overlaps) == (0, 1, [], [])


@pytest.mark.parametrize("place", ["in front", "behind"])
def test_questions_beside_a_shared_text_are_still_compared(tmp_path, place):
    prompt = "You sort letters of customers by what they want, and answer with one word alone."
    asked = [question(n // 2) + "!" * n for n in range(100)]
    both = [(prompt, own) if place == "in front" else (own, prompt) for own in asked]
    rows = [alpaca(n, instruction=one, input=two) for n, (one, two) in enumerate(both)]
    made = imported(tmp_path, write_lines(tmp_path / "x.jsonl", rows), valid=0.1, test=0.2)[1]
    assert (made.alike, made.largest) == (100, 2)


def test_a_few_near_duplicates_in_a_small_file_are_no_opening(tmp_path):
    rows = [alpaca(n) for n in range(30)]
    rows += [alpaca(n, instruction=f"{question(99)} {WORDS[n]}") for n in range(10)]
    made = imported(tmp_path, write_lines(tmp_path / "x.jsonl", rows), valid=0.1, test=0.1)[1]
    assert (made.alike, made.largest) == (10, 10)


def test_a_share_that_is_served_in_part_is_a_warning(tmp_path):
    rows = [alpaca(n, instruction=question(n // 30)) for n in range(90)]
    path = write_lines(tmp_path / "x.jsonl", [*rows, alpaca(200), alpaca(201)])
    done = run(
        "data/import.py", "--input", path, "--output_dir", tmp_path / "out",
        "--valid", "0", "--test", "0.1", cwd=ROOT,
    )  # fmt: skip
    assert "(the largest group: 30 lines)" in done.stdout
    assert "warning: --test 0.1: x has 92 lines" in done.stderr
    assert "only 2 of 9 can be told apart" in done.stderr


@pytest.mark.parametrize("split_by", ["near", "exact"])
def test_the_remedy_is_another_mode(tmp_path, split_by):
    path = write_lines(tmp_path / "x.jsonl", [alpaca(n, instruction="same") for n in range(40)])
    with pytest.raises(InputError, match=r"x has 40 lines.* only 0 of 2") as caught:
        imported(tmp_path, path, split_by=split_by)
    assert f"--split_by {split_by}" not in str(caught.value)
    assert "--split_by none, which lets lines with the same question" in str(caught.value)
    assert imported(tmp_path, path, split_by="none")[1].counts == {"x": (36, 2, 2)}


@settings(deadline=None)  # other tests may run beside it
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=60),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
    st.integers(0, 5),
)
def test_a_group_is_never_divided(lines, valid, test, seed):
    groups, types = (np.array(column) for column in zip(*lines, strict=True))
    names = ["a", "b", "c"]
    keys = np.arange(len(lines)).astype(np.uint64)
    used = sorted(set(types.tolist()))
    types = np.array([used.index(own) for own in types.tolist()])
    try:
        sides = split(groups, types, names[: len(used)], keys, Sizes(valid, test), seed)
    except InputError:
        return
    for group in set(groups.tolist()):
        assert len(set(sides[groups == group].tolist())) == 1
    for place in range(len(used)):
        count = int((types == place).sum())
        for side, size in ((1, valid), (2, test)):
            assert int(((types == place) & (sides == side)).sum()) <= int(size * count + 0.5)


# Test questions inside training data


def overlaps(train, test):
    index = QuestionIndex((str(n), messages(text)) for n, text in enumerate(test))
    found = {}
    for n, text in enumerate(train):
        for own in index.found_in(str(n), text if isinstance(text, list) else messages(text)):
            found.setdefault(own.test, own.train)
    return found


def test_questions_in_training_lines_are_found_and_others_not():
    long = question(1)
    test = [long, "是谁？", question(2), question(3), question(4)]
    train = [
        "Please answer: " + long + " Thank you.",
        "是谁",
        messages("x", "It was " + question(2)),
    ]
    train += [question(3)[: len(question(3)) // 2], question(9)]
    assert overlaps(train, test) == {"0": "0", "1": "1", "2": "2"}


def test_a_greeting_is_no_question():
    test = [[*messages("你好", "您好"), *messages(text)] for text in (question(1), "几点了")]
    index = QuestionIndex((str(n), turns) for n, turns in enumerate(test))
    hello = [*messages("你好", "您好"), *messages(question(2))]
    assert not list(index.found_in("0", hello))
    assert [own.test for own in index.found_in("0", test[1])] == ["1"]  # the whole conversation
    assert [own.test for own in index.found_in("0", messages(question(1)))] == ["0"]


def test_a_template_is_no_overlap():
    template = "Read the following passage with care and choose the one right answer to it. "
    for count in (20, 10, 3):  # few questions have a template too
        test = [template * 9 + question(number) for number in range(count)]
        assert not overlaps([template * 9 + question(99)], test)


def test_overlaps_of_folders_are_shown(tmp_path):
    write_lines(
        tmp_path / "train/law.json", [{"messages": messages(question(n))} for n in range(5)]
    )
    write_lines(tmp_path / "test/law.jsonl", [alpaca(7), alpaca(3), {"messages": "x"}])
    done = run(
        "data/check_overlap.py", "--train", tmp_path / "train", "--test", tmp_path / "test",
        cwd=ROOT,
    )  # fmt: skip
    assert "1 of 2 questions stand in training lines" in done.stdout
    assert "missing field: 1" in done.stdout
    expected = f"{tmp_path}/test/law.jsonl:2 in {tmp_path}/train/law.json:4"
    assert "warning: 1 of 2" in done.stderr
    assert expected in done.stderr
    found, questions, _ = find_overlaps(
        [tmp_path / "train/law.json"], [tmp_path / "train/law.json"], Reading()
    )
    assert len(found) == questions == 5


# The script, and what it refuses


def test_the_script_says_what_it_did_and_changes_no_input(tmp_path):
    path = write_lines(tmp_path / "law.jsonl", [*(alpaca(n) for n in range(20)), "{"])
    before = path.read_bytes()
    command = ["data/import.py", "--input", path, "--output_dir", tmp_path / "out"]
    first = run(*command, cwd=ROOT)
    assert f"{path}: alpaca, 21 lines, 1 refused" in first.stdout
    assert f"refused, malformed JSON: 1\n  {path}:21: malformed JSON" in first.stdout
    assert "\ntotal              18           1           1\n" in first.stdout
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json")}
    run(*command, cwd=ROOT)  # replaces what it made, with the same bytes
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json")} == files
    assert len(files) == 4
    assert path.read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*SPLITS, "import.json"])


def test_a_name_that_no_study_can_list_is_warned_of(tmp_path):
    write_lines(tmp_path / "tax law.jsonl", [alpaca(n) for n in range(20)])
    write_lines(tmp_path / "torts.jsonl", [alpaca(n) for n in range(20, 40)])
    command = ("data/import.py", "--input", tmp_path, "--output_dir", tmp_path / "out")
    said = run(*command, cwd=ROOT).stderr
    assert "warning: the ability 'tax law': expected a plain name without spaces" in said
    assert "torts" not in said


def many(tmp_path, count=10, **fields):
    return write_lines(tmp_path / "law.jsonl", [alpaca(n, **fields) for n in range(count)])


def fifo(tmp_path):
    os.mkfifo(tmp_path / "law.jsonl")
    return tmp_path / "law.jsonl"


def somebodys(tmp_path):
    write_lines(tmp_path / "out/train/x.json", ["{}"])
    return many(tmp_path)


REFUSED = {
    "missing": (lambda t: t / "none.jsonl", [], "none.jsonl: no such file or folder"),
    "folder": (lambda t: t, [], "no file in it named .json or .jsonl or .parquet"),
    "suffix": (lambda t: write_lines(t / "x.csv", ["a"]), [], "expected a file named .json"),
    "fifo": (fifo, [], "law.jsonl: is a FIFO"),
    "empty": (lambda t: write_lines(t / "law.jsonl", []), [], "nothing can be used"),
    "GBK": (lambda t: write_lines(t / "x.json", ["问".encode("gbk")]), [], "x.json:1: not UTF-8"),
    "surrogate": (lambda t: write_lines(t / "x.json", ['"\\ud800"']), [], "x.json:1: a text holds"),
    "NaN": (lambda t: write_lines(t / "x.json", ["NaN"]), [], "x.json:1: NaN is not JSON"),
    "format": (lambda t: write_lines(t / "x.json", [{"a": 1}]), [], "x.json:1: unknown format"),
    "other format": (many, ["--format", "sharegpt"], "law.jsonl:1: has no list `conversations`"),
    "parquet": (
        lambda t: write_lines(t / "x.parquet", ["nonsense"]),
        [],
        "x.parquet: not a Parquet file, or damaged",
    ),
    "too few": (many, ["--test", "10"], "law has 10 lines"),
    "too much": (many, ["--test", "0.6", "--valid", "0.5"], "law has 10 lines"),
    "half a line": (many, ["--test", "1.5"], "--test 1.5: expected a share below 1"),
    "near-duplicates": (
        lambda t: many(t, instruction="always the same"),
        ["--test", "3", "--valid", "0"],
        "only 0 of 3 can be told apart",
    ),
    "two types": (many, ["--type", "a", "--type_field", "b"], "leave one of them out"),
    "type": (many, ["--type", "a/b"], "--type 'a/b': a name has"),
    "columns": (many, ["--columns", "question=x"], "--columns question=x: expected NAME=COLUMN"),
    "case": (
        lambda t: write_lines(t / "x.json", [alpaca(0, k="Law"), alpaca(1, k="law")]),
        ["--type_field", "k"],
        "'Law' and 'law' differ in case only",
    ),
    "composition": (
        lambda t: write_lines(t / "x.json", [alpaca(0, k="\u00e9"), alpaca(1, k="e\u0301")]),
        ["--type_field", "k"],
        "differ in how letters are composed only",
    ),
    "somebody's": (somebodys, [], "out/train is not of an import and would be replaced"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(tmp_path, case):
    make, flags, message = REFUSED[case]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/.hidden.jsonl").write_text("{")
    (tmp_path / "in/folder.json").mkdir()
    path = make(tmp_path / "in")
    out = path.parent / "out" if case == "somebody's" else tmp_path / "out"
    done = run(
        "data/import.py", "--input", path, "--output_dir", out, *flags, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_input_is_never_replaced(tmp_path):
    imported(tmp_path, many(tmp_path))
    path = tmp_path / "out/train/law.json"
    with pytest.raises(InputError, match="would be replaced; choose another folder"):
        imported(tmp_path, path)
    assert path.exists()


def test_nothing_is_replaced_by_an_import_that_fails(tmp_path):
    imported(tmp_path, many(tmp_path))
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json")}
    with pytest.raises(InputError):
        imported(tmp_path, many(tmp_path, 5), test=9)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == files


def test_an_import_of_other_files_is_replaced_only_if_told_to(tmp_path):
    law = write_lines(tmp_path / "law.jsonl", [alpaca(n) for n in range(40)])
    math = write_lines(tmp_path / "math.jsonl", [alpaca(n) for n in range(50, 90)])
    written, _ = imported(tmp_path, law)
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json")}
    with pytest.raises(InputError, match=r"holds an import of .*law\.jsonl too.* --replace"):
        imported(tmp_path, math)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json")} == files
    both, _ = imported(tmp_path, law, math)
    assert [both[side]["law"] for side in SPLITS] == [written[side]["law"] for side in SPLITS]
    with pytest.raises(InputError, match=r"law\.jsonl too"):
        imported(tmp_path, math)
    law.rename(moved := tmp_path / "moved.jsonl")
    assert imported(tmp_path, moved, math, type="law")[1].counts.keys() == {"law"}
    assert imported(tmp_path, math, replace=True)[1].counts.keys() == {"math"}
    for content in ("{", "[]", '{"inputs": 3}'):
        (tmp_path / "out/import.json").write_text(content)
        with pytest.raises(InputError, match=r"import\.json.*--replace"):
            imported(tmp_path, math)


def test_an_ability_refused_whole_is_listed_and_warned_of(tmp_path):
    many(tmp_path, 20)
    system = [{"role": "system", "content": "S"}, *messages()]
    write_lines(tmp_path / "tickets.jsonl", [{"messages": system}] * 3)
    rows = [{"messages": system, "type": "own"}, {"messages": messages(question(70)), "type": "a"}]
    write_lines(tmp_path / "own.jsonl", rows)
    write_lines(tmp_path / "broken.jsonl", ["{", "{"])
    inputs = [tmp_path / f"{name}.jsonl" for name in ("law", "tickets", "own", "broken")]
    done = run(
        "data/import.py", "--input", *inputs, "--output_dir", tmp_path / "out", cwd=ROOT
    )  # fmt: skip
    for name, count in {"tickets": 3, "own": 1, "broken": 2}.items():
        assert [name, "0", "0", "0"] in map(str.split, done.stdout.splitlines())
        assert f"warning: no line of {name} can be used: all {count} were" in done.stderr
    assert done.stderr.count("no line of") == 3
    assert not (tmp_path / "out/train/tickets.json").exists()


def test_too_many_abilities_are_no_abilities(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [alpaca(n, key=f"k{n}") for n in range(1001)])
    with pytest.raises(InputError, match="more than 1,000 abilities"):
        imported(tmp_path, path, type_field="key", split_by="none")


@pytest.mark.parametrize("number", range(1, 5))
def test_an_import_that_ends_amid_its_renames_mixes_no_splits(tmp_path, monkeypatch, number):
    """Another seed over an earlier import: no test line of one split is a training line now."""
    text = [{"instruction": f"What is {word * 9}?", "output": "x"} for word in map(str, range(200))]
    raw = write_lines(tmp_path / "raw.jsonl", text)
    sizes = {"valid": 20.0, "test": 20.0, "split_by": "exact"}
    imported(tmp_path, raw, seed=0, **sizes)
    replace, calls = os.replace, []

    def dies(source, target):
        if Path(target).parent == tmp_path / "out" and not str(target).endswith(".old"):
            calls.append(target)
            if len(calls) == number:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            imported(tmp_path, raw, seed=1, **sizes)

    def questions(name):
        files = (tmp_path / "out" / name).glob("*.json")
        return {r["messages"][0]["content"] for path in files for r in read_lines(path)}

    train = questions("train")
    assert not train & (questions("valid") | questions("test"))
    written, _ = imported(tmp_path, raw, seed=1, **sizes)
    assert [len(written[name]["raw"]) for name in SPLITS] == [160, 20, 20]
