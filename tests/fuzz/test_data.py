"""Readers of data files and flags: whatever bytes they are given, one line or what can be kept."""

import argparse
import json
import math

import pytest
from conftest import line
from hypothesis import strategies as st
from test_flags_and_environment import numeric_flags

from fuzz.conftest import fuzz_case, fuzzed
from growth.core.cli import plain_name
from growth.core.files import parse_json, read_json, write_json, write_json_lines
from growth.data.copies import LinesDigest, find_repeats
from growth.data.lines import index_lines
from growth.data.published import count_lines, count_rows, count_single_answers
from growth.data.records import check_training, evaluation_check, prediction_check, read_records
from growth.data.study import published_study
from growth.tasks.agieval import _demonstrations, _items
from growth.tasks.benchmark import read_results
from growth.tasks.cmmlu import _items as cmmlu_items

PREDICTED = line() | {
    "generated_response": "答案是：A",
    "choice_logits": {"A": 1.5, "B": 0.5, "C": -1.0, "D": 1e-9},
}
CHOICES = line("code", "x", 1, choices=["x", "y", "z"], generated_ppl=[1.5, 2.0, 3])
MATH = line("math", "答案\n$3$", answer="3", generated_response="3")
ITEM = {
    "passage": None,
    "question": "问",
    "options": ["(A)1", "(B)2", "(C)3", "(D)4"],
    "label": "A",
}
RESULT = {"prediction": "A", "gold": "A", "fewer_shots": 0, "cut": False}
SEEDS = [PREDICTED, CHOICES, MATH, ITEM, RESULT]
CHECKS = {
    "training": check_training,
    "evaluation": evaluation_check(published_study()),
    "scoring": prediction_check(published_study()),
}
# What parsers stumble over, put in place of a part of a good file or between two.
ODD = [
    *(b"NaN", b"-Infinity", b"1e400", b"-0", b"1" * 5000, b"0." + b"1" * 5000, b"null", b"true"),
    *(b"[" * 200, b"]" * 200, b'{"a":' * 200, b"[" * 100_000, b'"', b"\\", b'\\"' * 1000, b"{}"),
    *(b"\\ud800", b"\\udc00\\ud800", b"\\ud83d\\ude00", b"\\u0000", b"\x00", b"\xff"),
    *(b"\n", b"\r\n", b"\r", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b",", b":", b'""', b"[]", b"\x1a"),
    *(b"'", b"x" * 200_000, b"\xe9\xa2\x98", b'"messages": []', b'"type": 3', b"\xed\xa0\x80"),
]  # fmt: skip


@st.composite
def files(draw):
    """Good lines, of which some bytes are gone, replaced, repeated or moved."""
    seeds = draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3))
    data = b"\n".join(json.dumps(s, ensure_ascii=draw(st.booleans())).encode() for s in seeds)
    for _ in range(draw(st.integers(0, 4))):
        start, stop = sorted(draw(st.integers(0, len(data))) for _ in range(2))
        if draw(st.booleans()):
            stop = min(stop, start + draw(st.integers(0, 9)))
        piece = draw(
            st.one_of(st.sampled_from(ODD), st.binary(max_size=9), st.just(data[start:stop]))
        )
        data = data[:start] + piece + data[stop:]
    return data


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**400), 10**400),
        st.floats(),
        st.text(),
        st.text(st.characters(categories=["Cs"]), max_size=2),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def lines_with_odd_values(draw):
    """A good line, of which one field, at any depth, has any value."""
    record = json.loads(json.dumps(draw(st.sampled_from(SEEDS))))
    place = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from([*keys, "extra"] if isinstance(place, dict) else keys or [0]))
        inner = place.get(key) if isinstance(place, dict) else (place[key] if place else None)
        if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
            place = inner
            continue
        if isinstance(place, dict) or place:
            place[key] = draw(json_values)
        return json.dumps(record).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a case's file is."""
    return tmp_path_factory.mktemp("fuzz")


@fuzzed(st.sampled_from(sorted(CHECKS)), st.one_of(files(), st.binary(), lines_with_odd_values()))
def test_lines_that_are_read_can_be_written_again(folder, use, data):
    check = CHECKS[use]
    path, again = folder / "x.json", folder / "again.json"
    path.write_bytes(data)
    with fuzz_case(f"lines for {use}"):
        records = read_records(path, check)
        assert index_lines(path, check) == records
        write_json_lines(again, records)
        assert read_records(again, check) == records
        find_repeats({"a": records, "b": index_lines(path, check)})
        digest = LinesDigest()
        for record in records:
            digest.add(record)
        assert len(digest.hexdigest()) == 16


@fuzzed(st.one_of(files(), st.binary(), json_values.map(lambda v: json.dumps(v).encode())))
def test_json_that_is_read_can_be_written_again(folder, data):
    path, again = folder / "value.json", folder / "value-again.json"
    path.write_bytes(data)
    with fuzz_case("a JSON file"):
        value = read_json(path, finite=True)
        write_json(again, value)
        assert read_json(again, finite=True) == value


@fuzzed(st.text())
def test_json_texts(text):
    with fuzz_case("a JSON text"):
        try:
            parse_json(text)
        except ValueError:
            return


READERS = {
    "AGIEval items": _items,
    "AGIEval shots": lambda path: _demonstrations(path, "gaokao-physics"),
    "CMMLU questions": cmmlu_items,
    "per-sample results": read_results,
    "lines": count_lines,
    "rows": count_rows,
    "single answers": count_single_answers,
}
HEADERS = [
    b"",
    b",Question,A,B,C,D,Answer\n",
    b"gaokao-physics,x\n",
    b"\xef\xbb\xbfgaokao-physics\n",
]


def _quoted(text):
    return '"' + text.replace('"', '""') + '"'


@st.composite
def tables(draw):
    """Rows of a CSV file, in quotes that may not end."""
    cells = st.one_of(
        st.sampled_from(["A", "问", '""', '"', '"a\nb"', "\x00", "{'label': 'A'}", "x" * 140_000]),
        st.sampled_from([json.dumps(ITEM), repr(ITEM)]).map(_quoted),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    )  # fmt: skip
    rows = draw(st.lists(st.lists(cells, max_size=8), max_size=5))
    return draw(st.sampled_from(HEADERS)) + "\n".join(map(",".join, rows)).encode()


@fuzzed(
    st.sampled_from(sorted(READERS)),
    st.one_of(files(), tables(), lines_with_odd_values(), st.binary()),
)
def test_readers_of_benchmarks(folder, reader, data):
    path = folder / "benchmark"
    path.write_bytes(data)
    with fuzz_case(reader):
        found = READERS[reader](path)
        texts = [] if isinstance(found, int) else found
        json.dumps([str(text) for text in texts], ensure_ascii=False).encode()


FLAGS = [parameter.values for parameter in numeric_flags()]
number_texts = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{0,3})?(e[-+]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["nan", "inf", "1e999", "9" * 5000, "0x10", "1_000", "١٢", " 1 ", "1e-400"]),
)  # fmt: skip


@fuzzed(st.sampled_from(range(len(FLAGS))), number_texts)
def test_flags_of_numbers(place, text):
    parser, action = FLAGS[place]
    with fuzz_case(action.dest):
        try:
            number = parser._get_value(action, text)
        except argparse.ArgumentError:
            return
        assert number >= 0
        assert number < 2**63 if isinstance(number, int) else math.isfinite(number)


@fuzzed(st.text())
def test_flags_of_names(text):
    with fuzz_case("a name"):
        try:
            name = plain_name(text)
        except argparse.ArgumentTypeError:
            return
        name.encode("utf-8")
        assert "/" not in name
        assert name not in (".", "..")
