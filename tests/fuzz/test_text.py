"""Scorers, parsers and renderers of text: any text, and long ones of few parts, within their time.

Short texts are drawn from what the rules look for, and find exceptions; long ones repeat a few
parts to 50 kB, and find what scans a text more than once. Renderers and
math-verify run in processes of their own, which have their own bound (tests/test_bounded.py).
"""

import contextlib
import json

import pytest
from conftest import STUDY, judged, line, write_lines
from hypothesis import strategies as st

from fuzz.conftest import fuzz_case, fuzzed
from growth.data.abilities import LETTERS, Ability, Kind
from growth.data.records import (
    check_training,
    evaluation_check,
    prediction_check,
    read_records,
)
from growth.data.similarity import normalised as question_compared
from growth.export.chat_template import chat_template
from growth.inference.native_template import NativeTemplate, render_template
from growth.inference.prediction_store import ResultFile
from growth.inference.requests import Response
from growth.scoring.extracted_answers import EXTRACTORS, extract, is_same
from growth.scoring.math_answers import is_equal, parse_answer, published_verdict
from growth.scoring.number_answers import number_value, repeats, with_marked_formulas
from growth.scoring.results import details_line, score_file
from growth.scoring.second_opinion import _space_out_chinese, second_opinion
from growth.scoring.short_answers import normalised, read_label, read_pattern
from growth.scoring.short_answers import read_truth as read_words
from growth.scoring.verdicts import judge, read_blank, read_truth
from growth.tasks.agieval import AGIEVAL_SHOTS, AGIEval
from growth.tasks.benchmark import right_letters
from growth.tasks.cmmlu import CMMLU

LONG = 50_000  # bytes of UTF-8, in 5 to 25 ms; a scan from each character takes 2 to 50 s
LONG_SECONDS = 0.5
ETHICS = STUDY.ability({"type": "ethics"})
PATTERN = r"(?i)answer\s*[:=]\s*(?P<answer>(?:[a-z]+ ?)*)"
LOGITS = {"A": 0.0, "B": 3.0, "C": 1.0, "D": 2.0}

# What the rules look for, piece by piece, and what is odd in Unicode.
PIECES = [
    *"()[]{}<>$=/\\.,:;!?*-_+%^~`'\"ABCDEFabx0123 \t\n\r",
    *"或选是不错对否真假和与及都项第空填句，。：；！？、（）【】《》“”春Ａ１٣√×✓",
    *("sqrt(", "sqrt", "\\sqrt", "\\frac", "\\frac{", "\\dfrac{1}{2}", "\\boxed", "\\boxed{"),
    *("\\fbox{", "\\text{ ", "\\text{(A)", "\\left", "\\\\", "\\!", "\\%", "^\\circ", "\\n", "1/2"),
    *("答案", "答案：", "answer", "answer is", "####", "选项", "正确", "错误", "不正确", "没有错"),
    *("可能", "还是", "其余", "或者", "解析", "而是", "应填", "下一句", "出自", "不知道", "余数"),
    *(
        "不认为",
        "谈不上",
        "部分",
        "绝对",
        "未必",
        "因此",
        "之前的答案",
        "有误",
        "，而",
        "符合",
        "不填",
        "作者",
    ),
    *(
        "万",
        "亿",
        "又",
        "三分之",
        "百分之",
        "二十",
        "²",
        "½",
        "^{",
        "10^",
        "e3",
        "e-999999999",
        "×10^",
        "因为",
        "所以",
        "当",
    ),
    *(
        "\nA项",
        "如果选",
        "选a",
        "也是",
        "，比",
        "π",
        "≥",
        "，此时",
        "（",
        "不应选",
        "还",
        "正确的有",
    ),
    *("A.", "\nA.", "(A)", "A和B", "and", "or", "not", "true", "no", "1,111", "1.5", "-", "．"),
    *("\u0301", "\u0323", "\u0f73", "\ufdfa", "\u2028", "\x00", "\ufeff", "\ud800", "𝟙", "한"),
]
piece = st.sampled_from(PIECES)
short_text = st.one_of(
    st.text(max_size=30), st.lists(piece, max_size=20).map("".join), st.lists(piece).map("".join)
)


@st.composite
def long_texts(draw):
    """A beginning, a few parts again and again, an end."""
    parts = draw(st.lists(piece, min_size=1, max_size=3))
    unit = "".join(parts)
    count = LONG // len(unit.encode("utf-8", "surrogatepass"))
    ends = st.lists(piece, max_size=2).map("".join)
    return draw(ends) + unit * count + draw(ends)


def every_reading(text, gold):
    """All that is read from a generated answer, but for the second opinion."""
    answer = parse_answer(text)
    assert answer is None or isinstance(answer, str)
    assert isinstance(is_equal(text, gold), bool)
    assert is_equal(text, text) is True
    assert published_verdict(text, gold)[1] == answer
    assert read_label(text, LETTERS, LOGITS) in (None, *LOGITS)
    assert isinstance(read_blank(text), str)
    assert read_truth(text) in (True, False, None)
    assert ETHICS.labels_in(text) <= set("ABCDEF")


def every_extraction(kind, text, gold):
    reading = extract(kind, text)
    assert reading is None or isinstance(reading, bool if kind == "truth" else str)
    assert isinstance(is_same(kind, reading, gold), bool)
    assert isinstance(is_same(kind, reading, text), bool)
    if kind == "number" and reading is not None:
        number_value(reading)
        repeats(text, gold)


@fuzzed(short_text, short_text)
def test_published_rules(text, gold):
    with fuzz_case("published rules, a short text"):
        every_reading(text, gold)


@fuzzed(st.sampled_from(sorted(EXTRACTORS)), short_text, short_text)
def test_extracted_answers(kind, text, gold):
    with fuzz_case(f"{kind} extracted from a short text"):
        every_extraction(kind, text, gold)


LONG_READINGS = {
    "the math answer": parse_answer,
    "the answer normalised": lambda text: is_equal(text, "\\frac12"),
    "the letter": lambda text: read_label(text, LETTERS, LOGITS),
    "the blank": read_blank,
    "true or false": read_truth,
    "the letters of ethics": lambda text: ETHICS.labels_in(text),
    "a text compared": lambda text: normalised(text, ("width", "case", "punctuation", "spaces")),
    "true or false in words": lambda text: read_words(text, ("yes", "对"), ("no", "not yes")),
    "a pattern": lambda text: read_pattern(text, PATTERN),
    "Chinese apart": _space_out_chinese,
    **{f"{kind} extracted": lambda text, k=kind: extract(k, text) for kind in EXTRACTORS},
    "questions compared": question_compared,
    "formulas marked": with_marked_formulas,
    "the gold answer repeated": lambda text: repeats(text, text + "1"),
    **{f"{kind} compared": lambda text, k=kind: is_same(k, text, text) for kind in EXTRACTORS},
}


REPEATED = (
    *(
        "(",
        "[",
        "([",
        "sqrt(",
        "1",
        "答案：1",
        "=",
        "/",
        " ",
        "\n",
        "选A",
        "A ",
        "A,",
        "\\frac",
        "1,111,",
    ),
    *(
        "\\boxed{",
        "{",
        "}",
        "$",
        "\u0301\u0323",
        "\u0f73",
        "\ufdfa",
        "√(2",
        "\\sqrt{2} ",
        "《",
        "春 ",
        "1.",
        "and ",
        "\\frac1",
        "x=",
    ),
)


@pytest.mark.parametrize("name", LONG_READINGS)
@pytest.mark.parametrize(
    ("size", "seconds"), [(LONG, LONG_SECONDS), pytest.param(10**6, 2.0, marks=pytest.mark.slow)]
)
def test_one_part_again_and_again(name, size, seconds):
    """Texts that once took minutes or hours."""
    ends = ("", "x") if size == LONG else ("x",)
    for unit in REPEATED:
        for end in ends:
            text = "答案：" + unit * (size // len(unit.encode())) + end
            with fuzz_case(f"{name} of {unit!r} * {size:,} B + {end!r}", seconds):
                LONG_READINGS[name](text)


@fuzzed(st.sampled_from(sorted(LONG_READINGS)), long_texts())
def test_few_parts_again_and_again(name, text):
    with fuzz_case(f"{name} of {text[:12]!r} ...", LONG_SECONDS):
        LONG_READINGS[name](text)


# ---------------------------------------------------------------- whole lines

KINDS = {ability.kind: ability for ability in STUDY.abilities} | {  # one ability of each kind
    Kind.LETTER_SET: Ability("own", Kind.LETTER_SET, options=("A", "B", "both of them", "对")),
    Kind.TRUTH: Ability("own", Kind.TRUTH, true_words=("yes", "对"), false_words=("no", "not yes")),
    Kind.TEXT: Ability("own", Kind.TEXT),
    Kind.NUMBER: Ability("own", Kind.NUMBER),
    Kind.REGEX: Ability("own", Kind.REGEX, pattern=PATTERN),
}
assert set(KINDS) == set(Kind)
GOLDS = {
    Kind.LETTER_SET: "AB",
    Kind.TRUTH: "yes",
    Kind.DOIT_LETTER_SET: "AB",
    Kind.DOIT_LETTER_OR_TRUTH: "对",
    Kind.LETTER: "B",
    Kind.DOIT_DIALOGUE: "C",
}
well_formed_text = short_text.filter(lambda text: "\ud800" not in text)


def scored_line(kind, response, gold):
    ability = KINDS[kind]
    fields = {"generated_response": response, "choice_logits": LOGITS}
    if kind is Kind.CHOICES:
        fields |= {"choices": ["a", "b", "c"], "generated_ppl": [1.0, 2.0, 3.0]}
    if kind is Kind.DOIT_MATH:
        fields["answer"] = gold
    return line(ability.name, GOLDS.get(kind, gold or "春"), ability.question_format, **fields)


NO_NUMBERS = [kind for kind in KINDS if kind not in (Kind.DOIT_MATH, Kind.NUMBER)]


@fuzzed(st.sampled_from(NO_NUMBERS), short_text, short_text)
def test_verdicts(kind, response, gold):
    record = scored_line(kind, response, gold if gold.strip() else "春")
    if record["type"] in STUDY.types:
        prediction_check(STUDY)(record)
    with fuzz_case(f"the verdict on a line of {kind.name.lower()}"):
        verdict = judge(record, KINDS[kind])
        assert verdict.score in (0, 1)
        assert 0 <= verdict.expected <= 1
        json.dumps(details_line(verdict))
        score_file([(record, verdict)])


@fuzzed(short_text, st.one_of(st.just("10"), st.just("\\frac{1}{2}"), short_text))
def test_second_opinions(response, gold):
    with fuzz_case("the second opinion on a short text", seconds=10):  # a new process among them
        assert second_opinion(response, gold) in (True, False, None)


# ---------------------------------------------------------------- parsers

numbers = st.one_of(st.integers(), st.floats(), st.just(10**400))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, short_text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(short_text, inner)),
    max_leaves=8,
)
GOOD_LINE = scored_line(Kind.LETTER, "A", "A")
CHECKS = {
    "training": check_training,
    "evaluation": evaluation_check(STUDY),
    "scoring": prediction_check(STUDY),
}


@st.composite
def lines_of_data(draw):
    """The bytes of a line: of anything, of a good one with other values, or of one that is cut."""
    record = dict(GOOD_LINE)
    for name in draw(st.lists(st.sampled_from([*GOOD_LINE, "answer", "choices", "x"]), max_size=3)):
        record[name] = draw(json_values)
    if draw(st.booleans()):
        record["messages"] = [
            {"role": draw(st.sampled_from(["user", "assistant", "system", ""])), "content": value}
            for value in draw(st.lists(json_values, max_size=4))
        ]
    deep = draw(st.sampled_from([0, 0, 0, 5, 90, 990, 50_000]))
    text = json.dumps(record, ensure_ascii=draw(st.booleans()))
    if deep:
        text = text[:-1] + ', "deep": ' + "[" * deep + "]" * deep + "}"
    whole = text.encode("utf-8", "surrogatepass")
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


@fuzzed(st.sampled_from(sorted(CHECKS)), lines_of_data())
def test_lines_of_data(folder, use, data):
    path = write_lines(folder / "x.json", [data])
    with fuzz_case(f"a line read for {use}"):
        for record in read_records(path, CHECKS[use]):
            # What passes can be written, be it from deep within.
            write_lines(folder / "y.json", [record])
            if use == "scoring":
                judged(record)


ITEM = {
    "passage": "",
    "question": "题",
    "options": ["(A)甲", "(B)乙", "(C)丙", "(D)丁"],
    "label": "A",
}
AGIEVAL_SET = AGIEval.subjects[0]


@fuzzed(st.sampled_from([*ITEM, "other"]), json_values, st.sampled_from([0, 0, 5, 990, 50_000]))
def test_items_of_agieval(folder, field, value, depth):
    item = json.dumps(ITEM | {field: value})
    if depth:
        item = item[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    write_lines(folder / f"v1/{AGIEVAL_SET}.jsonl", [item, json.dumps(ITEM)])
    cell = (item if depth else repr(ITEM | {field: value})).replace('"', '""')
    shots = f'{AGIEVAL_SET}\n"{cell}"\n""\n'.encode("utf-8", "replace")
    (folder / AGIEVAL_SHOTS).write_bytes(shots)
    with fuzz_case("an item of AGIEval"):
        subject = AGIEval().read(folder, AGIEVAL_SET)
        for item in (*subject.items, *subject.shots):
            AGIEval().text(item).encode("utf-8")
        assert all(len(problem) < 1000 for problem in subject.left_out)


@fuzzed(st.lists(short_text, max_size=9), short_text)
def test_rows_of_cmmlu(folder, cells, raw):
    header = "Question,A,B,C,D,Answer\n"
    row = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    good = "题,甲,乙,丙,丁,A\n"
    for split, text in (("test", header + row + "\n" + good), ("dev", header + good + raw)):
        path = folder / split / "agronomy.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with fuzz_case("a row of CMMLU"):
        CMMLU().read(folder, "agronomy")


@fuzzed(json_values)
def test_labels(value):
    with fuzz_case("a label"), contextlib.suppress(ValueError):  # which the readers report
        right_letters(value)


@fuzzed(st.lists(st.one_of(json_values.map(json.dumps), short_text), max_size=5), json_values)
def test_notes_of_an_interrupted_run(folder, lines, value):
    """A note that is none counts as none."""
    file = ResultFile(folder / "pred_x.json", ["digest", "other"])
    good = {"line": 1, "of": "other", "response": Response(text="A").as_json()}
    lines += [json.dumps(good | {"response": value}), json.dumps(good | {"line": value})]
    texts = [*lines, "[" * 2_000, json.dumps(good)]
    data = b"\n".join(text.encode("utf-8", "surrogatepass") for text in texts)
    file.partial(0).write_bytes(data + b"\n")
    with fuzz_case("notes of an interrupted run"):
        assert file.recover()[1] == Response(text="A")


# ---------------------------------------------------------------- renderers

TEMPLATE_PIECES = [
    *("{%", "%}", "{{", "}}", "{#", "#}", "-%}", "for m in messages", "endfor", "if", "endif", "x"),
    *("{% for m in messages %}", "{{ m.content }}", "{% endfor %}", "m['role']", "set x = x ~ x"),
    *(
        "range(9)",
        "range(10**9)",
        "'x' * 10**10",
        "9 ** (9 ** 9)",
        "messages",
        ".append(1)",
        "loop",
    ),
    *(
        "''.__class__",
        "raise_exception('x')",
        "strftime_now('%Y')",
        "| tojson",
        "| replace('x', y)",
    ),
    *("macro f()", "endmacro", "{{ f() }}", "bos_token", "\n", "(", ")", "[", "0", "'", "答案"),
]
templates = st.one_of(
    st.lists(st.sampled_from(TEMPLATE_PIECES), max_size=12).map(" ".join),
    st.lists(st.sampled_from(TEMPLATE_PIECES), max_size=4).map(
        lambda pieces: "{% for m in messages %}{{ " + " ".join(pieces) + " }}{% endfor %}"
    ),
    st.text(max_size=30),
)


class Tokenizer:
    """As much of a tokenizer as rendering needs."""

    special_tokens_map = {"bos_token": "<s>", "extra": ["<a>", "<b>"]}  # noqa: RUF012

    def __init__(self, template):
        self.chat_template = template

    def get_chat_template(self):
        return self.chat_template


@fuzzed(templates, short_text)
def test_templates_of_strangers(template, text):
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "A"}]
    with fuzz_case(f"the template {template[:40]!r}", seconds=10):  # a new process among them
        assert isinstance(NativeTemplate(Tokenizer(template), "it").render(messages, True), str)


@fuzzed(st.lists(st.sampled_from(["<", "eot>", "<eot>", "<user>", ">", "<s>", "a", " "])))
def test_our_template_writes_no_control_token_of_a_text(parts):
    text = "".join(parts)
    template = chat_template(["<user>", "<assistant>", "<eot>", "<s>"])
    with fuzz_case("our own template"):
        rendered = render_template(template, {}, [{"role": "user", "content": text}], True)["text"]
        assert rendered.startswith("<user>")
        assert rendered.endswith("<eot><assistant>")
        for token, count in (("<user>", 1), ("<assistant>", 1), ("<eot>", 1), ("<s>", 0)):
            assert rendered.count(token) == count


@fuzzed(st.lists(well_formed_text, min_size=1, max_size=4))
def test_tokens_of_a_conversation(chat, texts):
    roles = ("user", "assistant") * 2
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    with fuzz_case("the tokens of a conversation"):
        ids, labels = chat.encode_conversation(messages)
        assert len(ids) == len(labels)
        assert sum(token in (chat.user_id, chat.assistant_id) for token in ids) == len(texts)
        assert ids.count(chat.eot_id) == len(texts)
        chat.decode(ids)


@pytest.fixture(scope="module")
def chat(tiny_model):
    from growth.model.loading import load_tokenizer

    return load_tokenizer(tiny_model)
