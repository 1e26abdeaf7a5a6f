r"""How a worked solution in math is scored by the published rule.

    >>> published_verdict(r"所以 $x = -\frac{1}{2}$", "-1/2")
    (True, '-\\frac{1}{2}')
    >>> published_verdict("答案：10.0", "10")
    (False, '10.0')

The published math rule compares strings. It is kept with its oddities, so that scores compare with
the paper's; each is marked "published quirk". Its regular expressions scan some texts once from
each of their characters; here every step takes linear time, with the same result.
"""

import re

ANSWER_WORD = "答案"
# Each line's widest $...$: "." stops at the line end, "*" takes all it can.
DOLLAR_SPAN = re.compile(r"\$(.*)\$")
# published quirk: ",-?" is a range, all of , - . / 0-9 : ; < = > ? (\d adds other scripts' digits).
PLAIN_CHARACTERS = re.compile(r"[\d,-?]+")
# published quirk: a side may be empty, so that 3/ is taken for a fraction.
SIDE_OF_SLASH = re.compile(r"[A-Za-z0-9]*")
SQRT = "sqrt("
CLOSERS = {"[": "]", "(": ")"}
OPENER = re.compile(r"[\[(]")
# \$?-?\d+(?:\.\d+)?(?!\w) as published, but a run of digits is tried once, not from each of them.
# "\w" counts Chinese characters as letters, so the 10 of "10元" is no number.
NUMBER = re.compile(r"\$?-?(?<!\d)\d++(?:\.\d++)?(?!\w)")
NEGATIVE_NUMERATOR = re.compile(r"\\frac\{-(\d+)\}\{(\d+)\}")
CHOICE_TEXT = re.compile(r"\\text\{\(([A-F])\)")
# Step by step, and in this order, as one replacement can make the next one match.
REMOVED_OR_UNIFIED = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)
UNIT_START = "\\text{ "
PERCENT_AND_LEADING_ZEROS = (("\\%", ""), (" .", " 0."), ("{.", "{0."))
LONGEST_NAME = 2  # characters left of "=", the space of "x =" included


class NormalisingError(ValueError):
    """The published rule cannot normalise a text; it then compares the raw texts."""


def parse_answer(response: str) -> str | None:
    """The final answer that a response gives, as text, or None where it gives none.

    Source: the published math rule, "Reading the response", steps 1 to 6.
    """
    text = after_answer_word(response)
    command = _last_box_command(text)
    boxed = _closed_command(text, command) if command else None
    if boxed is not None:
        answer = _boxed_answer(boxed)
    else:
        answer = _dollar_answer(text) or _expression_answer(text) or _last_resort_answer(text)
    if answer is None:
        return None
    return answer.replace("或", ", ").replace("$", "")


def after_answer_word(response: str) -> str:
    """Step 1: what follows the last 答案, stripped; the response as it is where there is none."""
    _, word, rest = response.rpartition(ANSWER_WORD)
    return rest.strip() if word else response


def _right_of_last_equals(text: str) -> str:
    """What stands right of the last `=`; `text` as it is where there is none.

    published quirk: blanks are removed on its left, but no other white space, and as plain numbers
    compare as raw strings, a line end or a tab after the `=` makes a right number wrong.
    """
    _, equals, right = text.rpartition("=")
    return right.lstrip(" ") if equals else text


def _last_box_command(text: str) -> str | None:
    r"""Step 2: `\boxed`, or `\fbox` if there is no `\boxed`, or None if there is neither."""
    return next((command for command in ("\\boxed", "\\fbox") if command in text), None)


def _closed_command(text: str, command: str) -> str | None:
    """Step 2: the last `command` up to the brace that closes its first one, if it ever closes."""
    start = text.rindex(command)
    depth = 0
    for end, character in enumerate(text[start:], start + 1):
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start:end]
    return None


def _boxed_answer(boxed: str) -> str | None:
    r"""Step 2: the inside of `\boxed{...}`, right of its last `=`."""
    opening = "\\boxed{"
    if not boxed.startswith(opening):
        # published quirk: an \fbox is looked for, but only the inside of a \boxed{ is ever read.
        return None
    return _right_of_last_equals(boxed[len(opening) : -1])


def _dollar_answer(text: str) -> str | None:
    """Step 3: the last of the lines' widest `$...$`, right of its last `=`."""
    spans = DOLLAR_SPAN.findall(text)
    return _right_of_last_equals(spans[-1]) if spans else None


def _expression_answer(text: str) -> str | None:
    """Step 4: the whole text if it is one fraction or a list of numbers, or its last bracket."""
    text = text.strip()
    if text.count("/") == 1:
        # A minus or a bracket on either side, and the fraction is not seen.
        return text if all(SIDE_OF_SLASH.fullmatch(side) for side in text.split("/")) else None
    text = text.replace("，", ",")
    if PLAIN_CHARACTERS.fullmatch(text):
        return text
    text = text.replace(" ", "")
    return _last_sqrt_call(text) or _last_bracketed(text)


def _last_sqrt_call(text: str) -> str | None:
    r"""The last match of `sqrt\(.*?\)` over lines, in one pass: calls do not nest."""
    call, start = None, text.find(SQRT)
    while start >= 0:
        end = text.find(")", start) + 1
        if not end:  # none of the later ones is closed either
            break
        call = text[start:end]
        start = text.find(SQRT, end)
    return call


def _last_bracketed(text: str) -> str | None:
    r"""The last match of `\[.*?\]|\(.*?\)`, in one pass.

    published quirk: a bracket that closes on a later line is none ("." stops at the line end).
    """
    for line in reversed(text.split("\n")):
        bracketed, end, closers = None, 0, dict(CLOSERS)
        while closers and (opener := OPENER.search(line, end)):
            start, end = opener.span()
            closer = closers.get(opener[0])
            closed = line.find(closer, end) if closer else -1
            if closed >= 0:
                end = closed + 1
                bracketed = line[start:end]
            else:  # nor are the line's later ones of the kind closed
                closers.pop(opener[0], None)
        if bracketed is not None:
            return bracketed
    return None


def _last_resort_answer(text: str) -> str | None:
    """Step 5: what stands right of the last `=`; where there is no `=`, the last number."""
    if "=" in text:
        # The two characters \ and n, which stand for a line end in badly escaped data.
        return _right_of_last_equals(text).rstrip(".").split("\\n")[0]
    numbers = NUMBER.findall(text)
    return numbers[-1].removeprefix("$") if numbers else None


def normalise(text: str) -> str:
    """Write an answer the one way that the published rule compares.

    Source: the published math rule, "Equal if", in its order.

    Raises:
        NormalisingError: the published code breaks on this text. Plain numbers and lists of
            numbers are among them.
    """
    text = _replace_all(text, REMOVED_OR_UNIFIED)
    text = _drop_unit(text)
    text = _replace_all(text, PERCENT_AND_LEADING_ZEROS)
    if not text:
        return text
    if text.startswith("."):
        text = "0" + text
    text = _drop_short_name(text)
    text = _brace_square_roots(text)
    text = text.replace(" ", "")
    text = _brace_fractions(text)
    if text == "0.5":
        text = "\\frac{1}{2}"
    text = _spell_out_slash(text)
    if PLAIN_CHARACTERS.fullmatch(text):
        # published quirk: these fail and so compare as raw strings. 10 equals 10, but not " 10",
        # 10.0 or x=10, and 2,1 is not 1,2.
        raise NormalisingError(f"{text!r} is a plain number or list")
    text = NEGATIVE_NUMERATOR.sub(r"-\\frac{\1}{\2}", text)
    return _choice_letter(text)


def _replace_all(text: str, replacements: tuple[tuple[str, str], ...]) -> str:
    for old, new in replacements:
        text = text.replace(old, new)
    return text


def _drop_unit(text: str) -> str:
    r"""Keep what stands before `\text{ ` (a brace and a space: how units are written)."""
    before, *units = text.split(UNIT_START)
    if len(units) > 1:
        raise NormalisingError(f"more than one {UNIT_START!r} in {text!r}")
    return before


def _drop_short_name(text: str) -> str:
    """`x=5` and `k = 5` to the right side; longer left sides and chains of `=` stay."""
    sides = text.split("=")
    return sides[1] if len(sides) == 2 and len(sides[0]) <= LONGEST_NAME else text


def _brace_square_roots(text: str) -> str:
    r"""`\sqrt3` to `\sqrt{3}`: one character, so `\sqrt12` becomes `\sqrt{1}2`."""
    braced, *parts = text.split("\\sqrt")
    for part in parts:
        if not part:
            raise NormalisingError(f"nothing after a \\sqrt in {text!r}")
        braced += "\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}")
    return braced


def _brace_fractions(text: str) -> str:
    r"""`\frac12` and `\frac1{2}` to `\frac{1}{2}`; the whole text stays where one is cut short."""
    braced, *parts = text.split("\\frac")
    for part in parts:
        if not part:
            raise NormalisingError(f"nothing after a \\frac in {text!r}")
        if not part.startswith("{"):
            if len(part) < 2:
                return text
            numerator, denominator, rest = part[0], part[1], part[2:]
            if denominator != "{":
                denominator = f"{{{denominator}}}"
            part = f"{{{numerator}}}{denominator}{rest}"
        braced += "\\frac" + part
    return braced


def _spell_out_slash(text: str) -> str:
    r"""`3/4` to `\frac{3}{4}` and `-3/4` to `-\frac{3}{4}`, where both sides are integers."""
    if text.count("/") != 1:
        return text
    left, right = text.split("/")
    if not left:
        raise NormalisingError(f"nothing left of the / in {text!r}")
    try:
        numerator, denominator = int(left.removeprefix("-")), int(right)
    except ValueError:
        return text
    fraction = f"\\frac{{{numerator}}}{{{denominator}}}"
    if left.startswith("-"):
        return "-" + fraction
    # 03/4 and +3/4 stay as they are, while -03/4 becomes -\frac{3}{4}.
    return fraction if text == f"{numerator}/{denominator}" else text


def _choice_letter(text: str) -> str:
    r"""A text that begins `\text{(A)` ... `\text{(F)` to the letter of the last such command."""
    return CHOICE_TEXT.findall(text)[-1] if CHOICE_TEXT.match(text) else text


def is_equal(answer: str, gold: str) -> bool:
    """Whether two answers are the same once both are normalised, or as they are if either can't be.

    Source: the published math rule, "Equal if".
    """
    try:
        return normalise(answer) == normalise(gold)
    except NormalisingError:
        return answer == gold


def published_verdict(response: str, gold: str) -> tuple[bool, str | None]:
    """Score a response by the published math rule.

    Returns:
        Whether it is right, and the answer read from it: None is no answer, which is wrong.
    """
    answer = parse_answer(response)
    return answer is not None and is_equal(answer, gold), answer
