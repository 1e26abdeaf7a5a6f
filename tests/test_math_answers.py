"""The published math rule, against recorded verdicts and case by case; math-verify's opinion."""

import doctest
import re
import subprocess
import sys
import threading

import pytest
from conftest import read_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import growth.scoring.math_answers
import growth.scoring.second_opinion
from growth.scoring import math_answers
from growth.scoring.math_answers import (
    NormalisingError,
    is_equal,
    normalise,
    parse_answer,
    published_verdict,
)
from growth.scoring.second_opinion import is_equal_in_value, second_opinion


def test_agrees_with_every_recorded_verdict(golden):
    records = [r for r in read_lines(golden / "scoring.jsonl") if r["sample"]["type"] == "math"]
    assert len(records) == 185
    disagreeing = [
        record
        for record in records
        if published_verdict(record["sample"]["generated_response"], record["sample"]["answer"])[0]
        != bool(record["score"])
    ]
    assert disagreeing == []


def test_examples_in_the_docstring_hold():
    assert doctest.testmod(growth.scoring.math_answers) == (0, 2)
    assert doctest.testmod(growth.scoring.second_opinion) == (0, 1)


# The expressions of the published rule, which scan some texts once from each of their characters.
PUBLISHED_SQRT = re.compile(r"sqrt\(.*?\)", re.DOTALL)
PUBLISHED_BRACKETED = re.compile(r"\[.*?\]|\(.*?\)")
PUBLISHED_NUMBER = re.compile(r"\$?-?\d+(?:\.\d+)?(?!\w)")
NASTY = st.lists(
    st.sampled_from([*"()[]\n\r$-.1٣x_ =/元", "sqrt(", "sqrt", "12", "1.5", "答案", "\u2028"]),
    max_size=14,
).map("".join)


def last(found):
    return found[-1] if found else None


@settings(max_examples=3000, deadline=None, derandomize=True, database=None)
@given(NASTY)
def test_linear_steps_find_what_the_published_expressions_find(text):
    assert math_answers._last_sqrt_call(text) == last(PUBLISHED_SQRT.findall(text))
    assert math_answers._last_bracketed(text) == last(PUBLISHED_BRACKETED.findall(text))
    assert math_answers.NUMBER.findall(text) == PUBLISHED_NUMBER.findall(text)


PARSED = {
    # Step 1: the last 答案.
    "step 1: only what follows": ("$9$，答案：7", "7"),
    "step 1: the last one": ("答案是$3$。检查：答案是$4$。", "4"),
    "step 1: not what stands before, though nothing follows": (r"\boxed{3} 就是答案", None),
    "step 1: stripped, so a plain number is the whole text": ("答案 \n 12.50 \n", "12.50"),
    # Step 2: boxes.
    "step 2: the last box": (r"\boxed{1}，\boxed{2}", "2"),
    "step 2: before any dollars": (r"\boxed{3}，检验 $4$", "3"),
    "step 2: braces inside": (r"所以 \boxed{\frac{1}{\sqrt{2}}} 米 {x}", r"\frac{1}{\sqrt{2}}"),
    "step 2: right of the last =": (r"\boxed{x = y =  5}", "5"),
    "step 2: spaces stay where there is no =": (r"\boxed{ 5}", " 5"),
    "step 2: an empty box is an empty answer": (r"\boxed{}，$5$", ""),
    "step 2 (!): an \\fbox is no answer": (r"\fbox{5}", None),
    "step 2 (!): no answer, though dollars follow": (r"\fbox{5}，$5$", None),
    "step 2: an \\fbox next to a \\boxed is not read": (r"\boxed{1}，\fbox{2}", "1"),
    "step 2 (!): a space before the brace is no answer": (r"\boxed {5}，$5$", None),
    "step 2 (!): the first brace after the command is its own": (r"\boxed 5，\frac{1}{2}", None),
    "step 2: never closed, on to dollars": (r"$4$，\boxed{\frac{1}{2}", "4"),
    "step 2: never closed, the last number": (r"\boxed{\frac{3}{7}", "7"),
    "step 2: never closed, the last box counts": (r"\boxed{1}，\boxed{8", "8"),
    "step 2: no brace at all": (r"\boxed 5", "5"),
    # Step 3: dollars.
    "step 3: the last line's": ("$1$\n$2$\n没有了", "2"),
    "step 3: the widest of a line": ("$1$ 和 $2$", "1 和 2"),
    "step 3: right of the last =": ("$x=1$ 和 $y= 2$", "2"),
    "step 3: spaces stay where there is no =": ("$ 2 $", " 2 "),
    "step 3: not over two lines": ("$7\n8$", "8"),
    "step 3: empty, on to the last number": ("3 $$", "3"),
    "step 3: nothing right of the =, on to step 5": ("$x=$ 或 y=4", "4"),
    # Step 4: the whole text, or its last bracket.
    "step 4: one fraction": (" 3/4\n", "3/4"),
    "step 4: letters and digits": ("a1/B2", "a1/B2"),
    "step 4 (!): a minus is no letter or digit": ("-3/4", "4"),
    "step 4: other alphabets are not ASCII": ("α/β", None),
    "step 4 (!): one / hides the bracket": ("(1/2)", "2"),
    "step 4 (!): an empty side": ("3/", "3/"),
    "step 4 (!): an empty left side": ("/3", "/3"),
    "step 4 (!): a bracket over two lines": ("(2\n) 5", "5"),
    "step 3: only blanks go left of it": ("$x=\t3$", "\t3"),
    "step 5: a line end stays": ("=\n600", "\n600"),
    "step 4: more than one /": ("1/2,3/4", "1/2,3/4"),
    "step 4: more than one /, with text, the bracket": ("1/2 和 3/4 (5)", "(5)"),
    "step 4: a list": ("1，2，-3", "1,2,-3"),
    "step 4 (!): the whole range": (",-./0123456789/:;<=>?", ",-./0123456789/:;<=>?"),
    "step 4: one / comes before the range": (",-./0123456789:;<=>?", ">?"),
    "step 4: a plus is out of the range": ("+5", "5"),
    "step 4: a space is out of the range": ("1, 2", "2"),
    "step 4: sqrt": ("根号 2 sqrt ( 3 ) 与 sqrt(5)", "sqrt(5)"),
    "step 4: spaces removed, then sqrt": ("sqrt ( 3 ) (4)", "sqrt(3)"),
    "step 4: the last bracket": ("[1, 2] 或 (3，4)", "(3,4)"),
    "step 4: square brackets": ("(3,4) 到 [1, 2]", "[1,2]"),
    "step 4: an open bracket is nothing": ("(3,4", "4"),
    # Step 5: right of the last =, or the last number.
    "step 5: right of the last =": ("x = 3 + 4 =  7...", "7"),
    "step 5: up to a literal \\n": ("x=5\\n验算 6", "5"),
    "step 5: dots before the literal \\n stay": ("x=5.\\n6", "5."),
    "step 5: the words after are kept": ("共 x=5 个", "5 个"),
    "step 5: the last number": ("先 12 后 -3.5 。", "-3.5"),
    "step 5: without its dollar": ("要 $8 。", "8"),
    "step 5: a dollar and a minus": ("要 $-8.25 。", "-8.25"),
    "step 5: no letter follows": ("12 和 3x", "12"),
    "step 5: no Chinese letter follows": ("12 和 30元", "12"),
    "step 5: decimals only if a number stays": ("3.5x", "3"),
    "step 5: a number in a percentage": ("约 10%", "10"),
    "step 5: nothing": ("不知道", None),
    "step 5: an empty response": ("", None),
    # Step 6.
    "step 6: 或": ("$1$或$-1$", "1, -1"),
    "step 6: every dollar": (r"\boxed{\$5}", r"\5"),
    "step 6: 或 in a box": (r"\boxed{x=1或2}", "1, 2"),
}


@pytest.mark.parametrize(("response", "answer"), PARSED.values(), ids=PARSED.keys())
def test_parses_step_by_step(response, answer):
    assert parse_answer(response) == answer


NORMALISED = {
    "newlines": ("x^2\n+1", "x^2+1"),
    "thin spaces": (r"a\!b", "ab"),
    "double backslashes": (r"\\pi", r"\pi"),
    "newlines before the rest": ("\\\n!a", "a"),
    "tfrac": (r"\tfrac{1}{2}", r"\frac{1}{2}"),
    "dfrac": (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    "left and right": (r"\left(1,2\right)", "(1,2)"),
    "arrows lose their head too": (r"\leftarrow", "arrow"),
    "degrees in braces": (r"\pi^{\circ}", r"\pi"),
    "degrees": (r"\pi^\circ", r"\pi"),
    "dollars with a backslash": (r"\$a", "a"),
    "dollars without": ("$a$", "$a$"),
    "a unit": (r"2\pi\text{ cm}", r"2\pi"),
    "a unit without its space": (r"2\pi\text{cm}", r"2\pi\text{cm}"),
    "per cent with a backslash": (r"a\%", "a"),
    "per cent without": ("10%", "10%"),
    "a space and a dot": ("a + .5", "a+0.5"),
    "a brace and a dot": (r"\frac{.5}{a}", r"\frac{0.5}{a}"),
    "empty": ("", ""),
    "empty once a newline is out": ("\n", ""),
    "a space alone": (" ", ""),
    "a leading dot": (".5a", "0.5a"),
    "a leading dot, to a half": (".5", r"\frac{1}{2}"),
    "a name of one": ("x=a+1", "a+1"),
    "a name and a space": ("x = a", "a"),
    "a name of three": ("xyz=a", "xyz=a"),
    "no name": ("=a", "a"),
    "two =": ("x=y=a", "x=y=a"),
    "a square root": (r"2\sqrt3", r"2\sqrt{3}"),
    "a square root of one character": (r"\sqrt12", r"\sqrt{1}2"),
    "a square root in braces": (r"\sqrt{12}", r"\sqrt{12}"),
    "a square root of a space, before spaces go": (r"\sqrt 3", r"\sqrt{}3"),
    "spaces": ("x + 1", "x+1"),
    "frac12": (r"\frac12", r"\frac{1}{2}"),
    "frac12 and more": (r"\frac12x+\frac34", r"\frac{1}{2}x+\frac{3}{4}"),
    "frac1{72}": (r"\frac1{72}", r"\frac{1}{72}"),
    "frac{1}2 stays": (r"\frac{1}2", r"\frac{1}2"),
    "frac 1 2, once spaces go": (r"\frac 1 2", r"\frac{1}{2}"),
    "frac1 leaves the whole text": (r"\frac12+\frac1", r"\frac12+\frac1"),
    "a half": ("0.5", r"\frac{1}{2}"),
    "a half after a name": ("x=0.5", r"\frac{1}{2}"),
    "a slash": ("3/4", r"\frac{3}{4}"),
    "a slash, spaces": (" 3 / 4 ", r"\frac{3}{4}"),
    "a slash, negative": ("-3/4", r"-\frac{3}{4}"),
    "a slash, negative below": ("3/-4", r"\frac{3}{-4}"),
    "a slash, negative with zeros": ("-03/04", r"-\frac{3}{4}"),
    "a slash, plus": ("+3/4", "+3/4"),
    "a slash, letters": ("a/b", "a/b"),
    "two slashes and a letter": ("1/2/a", "1/2/a"),
    "a minus above": (r"\frac{-1}{2}", r"-\frac{1}{2}"),
    "a minus above, cut short": (r"\frac{-a}{2}", r"\frac{-a}{2}"),
    "a choice": (r"\text{(B)}", "B"),
    "a choice, with its text": (r"\text{(B) 5 }", "B"),
    "choices: the last": (r"\text{(A)}或\text{(F)}", "F"),
    "a choice further on stays": (r"a\text{(B)}", r"a\text{(B)}"),
    "no such choice": (r"\text{(G)}", r"\text{(G)}"),
}


@pytest.mark.parametrize(("text", "normal"), NORMALISED.values(), ids=NORMALISED.keys())
def test_normalises_in_order(text, normal):
    assert normalise(text) == normal


NOT_NORMALISED = {
    "(!) an integer": "10",
    "(!) a decimal": "10.0",
    "(!) a negative number": "-7",
    "(!) a list": "1, 2",
    "(!) a number after a name": "x=5",
    "(!) a number of degrees": r"30^\circ",
    "(!) a number with a unit": r"10\text{ cm}",
    "(!) a number after a dot": ".75",
    "(!) a slash with leading zeros": "03/4",
    "(!) two slashes": "1/2/3",
    "two units": r"a\text{ m}\text{ s}",
    "a square root of nothing": r"a\sqrt",
    "a fraction of nothing": r"\frac12+\frac",
    "a square root of a square root": r"\sqrt\sqrt3",
    "nothing left of the slash": "/4",
}


@pytest.mark.parametrize("text", NOT_NORMALISED.values(), ids=NOT_NORMALISED.keys())
def test_fails_to_normalise(text):
    with pytest.raises(NormalisingError):
        normalise(text)


EQUAL = {
    "forms of a fraction": (r"\dfrac34", r"\frac{3}{4}", True),
    "a slash": ("-1/2", r"\frac{-1}{2}", True),
    "a half": (".5", r"\tfrac12", True),
    "spaces": ("(1, 2)", "(1,2)", True),
    "degrees": (r"\pi^\circ", r"\pi^{\circ}", True),
    "letters": (r"\text{(A)}", "A", True),
    "others": ("a", "b", False),
    "(!) the same number": ("10", "10", True),
    "(!) a space": (" 10", "10", False),
    "(!) the value": ("10.0", "10", False),
    "(!) a name": ("x=10", "10", False),
    "(!) degrees of a number": (r"30^\circ", r"30^{\circ}", False),
    "(!) the order of a list": ("2,1", "1,2", False),
    "(!) the spaces of a list": ("1, 2", "1,2", False),
    "(!) one side fails, so raw": (r"\text{(10)}", "10", False),
    "both fail, the same": (r"a\sqrt", r"a\sqrt", True),
    "empty": ("", "", True),
}


@pytest.mark.parametrize(("answer", "gold", "verdict"), EQUAL.values(), ids=EQUAL.keys())
def test_compares(answer, gold, verdict):
    assert is_equal(answer, gold) is verdict
    assert is_equal(gold, answer) is verdict


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("先算 $1+1=2$。\n答案：$x = \\frac12$", "0.5", (True, r"\frac12")),
        ("答案是 12", "12", (True, "12")),
        ("答案是 12 元", "12", (True, "12")),
        ("答案是 12元", "12", (False, None)),
        ("不知道", "", (False, None)),
        # Gold is not read, only normalised: its dollars stay.
        ("答案：$a$", "$a$", (False, "a")),
    ],
)
def test_gives_the_published_verdict_and_the_answer(response, gold, expected):
    assert published_verdict(response, gold) == expected


MATH_VERIFY = {
    "the same number": ("答案：10", "10", True),
    "the same value": ("答案：10.0", "10", True),
    "an integer for a decimal": ("10", "10.0", True),
    "another value": ("答案：11", "10", False),
    "a slash for a fraction": ("答案：1/2", r"\frac{1}{2}", True),
    "a decimal for a fraction": ("0.5", r"\frac{1}{2}", True),
    "an equation for its value": ("$x=10$", "10", True),
    "a value for an equation": ("答案：$10$", "x=10", True),
    "Chinese on both sides": ("答案是1/2。", "0.5", True),
    "a number and its unit": ("$3$ 天，答案：10元", "10", True),
    "a box": (r"所以 \boxed{\sqrt{8}}", r"2\sqrt{2}", True),
    "a space in a tuple": ("答案是$(1, 2)$。", "(1,2)", True),
    "degrees": (r"$30^{\circ}$", r"30^\circ", True),
    "only after the last 答案": ("$10$，答案：$9$", "10", False),
    "all, where nothing parses after it": ("$10$ 就是答案。", "10", True),
    "unparsable": ("不知道", "10", False),
    "unparsable LaTeX": (r"$\frac{\sqrt{$ }{", "10", False),
    "unparsable gold": ("10", r"\frac{\sqrt{", False),
    "an empty response": ("", "10", False),
    "an empty gold": ("10", "", False),
    "both empty": ("", "", False),
}


@pytest.mark.parametrize(
    ("response", "gold", "verdict"), MATH_VERIFY.values(), ids=MATH_VERIFY.keys()
)
def test_math_verify_compares_values(response, gold, verdict):
    assert second_opinion(response, gold) is verdict


def test_math_verify_gives_up_in_time_and_in_silence(capfd, caplog):
    assert second_opinion("$9^{9^{9^{9}}}$", "5") is None
    assert second_opinion("答案：1/2", "0.5") is True  # a new process, as the other is dead
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_memory_that_runs_out_within_the_library_is_no_difference(monkeypatch):
    def runs_out(*_, **__):
        raise MemoryError

    monkeypatch.setattr("math_verify.parser.extract_target_from_pred", runs_out)
    with pytest.raises(MemoryError):
        is_equal_in_value("5", "5")


def test_math_verify_works_outside_the_main_thread(capfd):
    verdicts = []
    thread = threading.Thread(
        target=lambda: verdicts.extend(second_opinion("答案：1/2", gold) for gold in ("0.5", "2"))
    )
    thread.start()
    thread.join()
    assert verdicts == [True, False]
    assert capfd.readouterr() == ("", "")


def test_math_verify_is_imported_only_when_asked():
    script = "import sys, growth.scoring.verdicts; print('sympy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
