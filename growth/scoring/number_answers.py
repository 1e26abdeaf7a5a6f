r"""Numbers and expressions, as a person reads them.

>>> extract_number("答案：5。验证：5×2=10"), extract_number("10²"), extract_number("1 1/2")
('5', '100', '3/2')
>>> extract_number("解集为 x>5"), repeats(r"答案：$5\sqrt{2}$", r"5\sqrt{2}")
('x>5', True)
"""

import re
from fractions import Fraction

from growth.core.normal_form import nfkc
from growth.scoring.answer_text import MARKUP, after_answer_mark, after_refusal, plain

SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+|⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
SUPERSCRIPT_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
VULGAR = {"½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5"}
NUMBERING = re.compile(r"^\s{0,3}(?:[(（]\d{1,2}[)）]|[①-⑨])\s{0,3}(?=\S)")
REMARK = re.compile(r"(?<=\d)（")  # full width: a remark, no product
THOUSANDS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))")
FRACTION = re.compile(r"\\[dt]?frac\s{0,3}\{(-?\d+)\}\s{0,3}\{(\d+)\}")
BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{")
# In this order. LaTeX that only shapes a formula, degrees, units, ordinals and numbering: none of
# these is part of the value.
PREPARED = (
    (re.compile(r"(\d)\s?\\[dt]?frac\s{0,3}\{(\d+)\}\s{0,3}\{(\d+)\}"), r"\1 \2/\3"),
    (FRACTION, r"\1/\2"),
    (re.compile(r"\\left|\\right|\\[,;! ]|\\(?=[{}])"), ""),
    (re.compile(r"\\times|\\cdot"), "×"),
    (re.compile(r"\\leq?(?![a-z])|⩽"), "≤"),
    (re.compile(r"\\geq?(?![a-z])|⩾"), "≥"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"(?:\^\{?\\circ\}?|°)C?"), ""),
    (re.compile(r"(?<=\d)\s?[ck]?[mg]/(?:s|h|min|m)(?:\^?\{?\d\}?)?(?![A-Za-z])"), ""),
    (re.compile(r"(?<![A-Za-z])[mcdk]?m\s?\^?\{?[23]\}?(?![\d.])"), ""),
    (re.compile(r"第\s?\d{1,4}\s?(?:小?题|天|步|个|项|次|年)?|步骤\s?\d{1,3}"), ""),
    (re.compile(r"(?<!\d)(\d{1,15})又(\d{1,15})分之(\d{1,15})"), r"\1 \3/\2"),
    (re.compile(r"(?<!\d)(\d{1,15})又(?=\d{1,15}/\d)"), r"\1 "),
    (re.compile(r"(?<!\d)(\d{1,15})分之(\d{1,15})"), r"\2/\1"),
    (re.compile(r"(?:不超过|不大于|小于等于)(?=\d)"), "≤"),
    (re.compile(r"(?:不少于|不小于|大于等于)(?=\d)"), "≥"),
    (re.compile(r"大于(?=\d)"), ">"),
    (re.compile(r"小于(?=\d)"), "<"),
    (re.compile("当[^,。，]{1,20}时"), ""),
    (re.compile(r"百分之(\d+(?:\.\d+)?)"), r"\1%"),
    # other commands, a written-out line end (backslash, n) among them
    (re.compile(r"\\(?!sqrt|pi|infty|frac|log|sin|cos|tan|pm|[lg]e)[A-Za-z]{1,20}"), "、"),
    # English words and units; names of functions and products of letters (ab) stay
    (re.compile(r"(?<![A-Za-z\\])(?!sqrt|sin|cos|tan|log|pi)[A-Za-z]{3,}"), "、"),
    (
        re.compile(
            r"(?<![A-Za-z\\])(?:[ckdm]m|[km]g|ml|is|so|to|in|of|we|he|it|at|by)(?![A-Za-z])"
        ),
        "、",
    ),
)
LARGE = re.compile(r"(?<![\d.])(\d{1,15}(?:\.\d{1,15})?)\s?([万亿])")
CHINESE = re.compile(
    r"(负?)([零一二两三四五六七八九十百千]{1,9})(?:分之([零一二两三四五六七八九十百千]{1,9}))?"
)
UNIT = re.compile(r"(?:[\u4e00-\u9fff]{1,3})?")
ANNOUNCING = re.compile("是|有|为|等于|共|剩下?|得|:")
PER_CENT = re.compile("百分之([零一二两三四五六七八九十百]{1,9})")
NEGATED = re.compile(r"(?:而|并)?(?:不是|并非|而非|不等于)\s{0,3}[^,。;而\n]{0,20}")
SENTENCE_END = re.compile(r"[。;\n!?]|\.(?=\s|$)")
EXPLAINED = re.compile(",此时|,约[等为]|验证|检验|验算|检查|因为|解析|其中")
CONCLUSION = re.compile("所以|因此|因而|故|于是|答:|综上|[Tt]herefore")
CHOICE_OF_NUMBERS = re.compile(
    r"\d\s{0,3}(?:或|也可能|or)|可能.{0,20}可能|\d(?:元|小?时|分|米|角)\d|余\d|\.\.\.\d"
)
# "x=2", "甲有30元": two of them in a sentence are two answers
ASSIGNED = re.compile(
    r"\s{0,3}(?:[A-Za-z]_?\d?\s{0,3}=\s{0,3}-?[\d./]+"
    r"|(?:答:)?[\u4e00-\u9fff]{1,4}(?<![共剩总还])[有是为]\s?\d[\d.]*\s?[\u4e00-\u9fff]{0,2})\s{0,3}"
)
TOGETHER = re.compile(r"^[^,]*\d\s?[和与、]\s?-?\d[\d.]*\s?$")
COMPARED = re.compile(r",\s{0,3}比[^,。]*")  # "8, which is 2 more than ..."
RESTATED = re.compile(r",\s?(?:即|也就是|合)")
ALONE = re.compile(r"-?\d[\d./:%]*\s?[\u4e00-\u9fff]{0,3}")
RUN = re.compile(r"[-+0-9A-Za-z\\{}()\[\]^_*/×÷.,:=<>≤≥≠√π∞%±且 ]+")
MATH = re.compile(r"[\dπ√∞]|\\(?:pi|sqrt|infty)")
BRACKETS = re.compile(r"[(\[{][^()\[\]{},]*,[^()\[\]{}]*[)\]}]")
EXPRESSION = re.compile(r"[<>≤≥≠√π∞±]|\\(?:pi|sqrt|infty|log|sin|cos|tan)|\d\s?i(?![a-z])")
LETTER = re.compile("[A-Za-z]")
OPERATOR = re.compile(r"[-+^*/()]")
MIXED = re.compile(r"(-?)(\d{1,15}) (\d{1,15})/(\d{1,15})")
POWER = re.compile(r"(-?\d{1,9})\^\{?(-?\d{1,2})\}?")
SCIENTIFIC = re.compile(
    r"(-?\d{1,15}(?:\.\d{1,15})?)\s?(?:[×*]\s?10\^\{?(-?\d{1,2})\}?|[eE]([-+]?\d{1,2}))"
)
UNFINISHED = re.compile(r"\d\s?[×÷*+]\s?\d")  # an expression that is not worked out
NUMBER = re.compile(r"(?<![\d.^])-?(?:\d+(?:\.\d+)?|\.\d+)(?:[/:]\d+)?(?![\d^])%?")
PLAIN_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:[/:]\d+)?%?")
OUTER = " \t\r\n,;:!?。，；：！？"


def extract_number(response: str) -> str | None:
    """A number or expression: boxed, behind 答案, alone in the first clause, concluded, or last.

    Right of the last `=` counts; a unit does not, % does. Powers, 1.2e3, 万, 1 1/2 and 三分之二 are
    worked out; what holds a root, a letter, π, an interval or `<` is given as written. What is
    denied (不是6) and what follows as a check or a reason counts only if nothing else is there. Of
    several alternatives none is read.
    """
    box = _last_box(response)
    if box is not None:
        return _read(_prepared(box), first=False)
    text = NEGATED.sub("", _prepared(response))
    marked = after_answer_mark(text)
    if marked is not None:
        part = _first_sentence_with_a_number(marked)
        if part is not None:
            return _read(part, first=True)
        text = marked
    text = after_refusal(text)
    if "无解" in text:
        return "无解"
    explained = EXPLAINED.search(text)
    if explained and MATH.search(text[: explained.start()]):
        text = text[: explained.start()]
    start = SENTENCE_END.split(text, maxsplit=1)[0].partition(",")[0].strip(OUTER).rstrip(".")
    if ALONE.fullmatch(start) and not RESTATED.search(text) and not CHOICE_OF_NUMBERS.search(text):
        return _read(start, first=True)
    *_, last = CONCLUSION.split(text)
    if MATH.search(last):
        return _read(last, first=False)
    return _read(text, first=False)


def _prepared(response: str) -> str:
    """The text without what is no part of a value, powers as ^n."""
    text = SUPERSCRIPTS.sub(lambda found: "^" + found[0].translate(SUPERSCRIPT_DIGITS), response)
    for sign, fraction in VULGAR.items():
        text = text.replace(sign, fraction)
    text = NUMBERING.sub("", text)
    text = REMARK.sub("，(", text)
    text = THOUSANDS.sub("", plain(text))
    for pattern, replacement in PREPARED:
        text = pattern.sub(replacement, text)
    return LARGE.sub(_large, text)


def _large(found: re.Match[str]) -> str:
    return str(Fraction(found[1]) * (10**4 if found[2] == "万" else 10**8))


def _last_box(text: str) -> str | None:
    """What stands in the last box, whose own braces close."""
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    depth = 1
    for place in range(boxes[-1].end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[boxes[-1].end() : place]
    return None


def _first_sentence_with_a_number(text: str) -> str | None:
    for part in SENTENCE_END.split(text):
        if MATH.search(part) or _chinese_number(part):
            return part
    return None


def _read(text: str, first: bool) -> str | None:
    """The first or last number or expression of a text."""
    if not MATH.search(text):
        return _chinese_number(ANNOUNCING.split(text)[-1])
    if CHOICE_OF_NUMBERS.search(text):
        return None
    parts = SENTENCE_END.split(text)
    last = [part for part in parts if MATH.search(part)][-1:]
    if last and sum(ASSIGNED.fullmatch(part) is not None for part in last[0].split(",")) > 1:
        return None  # x=2, y=3
    if first and TOGETHER.search(text):
        return None
    if not first:
        text = COMPARED.sub("", text)
    values = [value for run in RUN.findall(text) for value in _pieces(run)]
    return (_value(values[0] if first else values[-1])) if values else None


def _pieces(run: str) -> list[str]:
    """The expressions of a run of mathematical signs: commas part them, but not inside brackets."""
    if not MATH.search(run):
        return []
    whole = BRACKETS.search(run)
    if whole and MATH.search(whole[0]):
        return [whole[0]]
    pieces = re.split(r",|(?<=[^+\-*/×÷=<>≤≥]) {2,}|\.(?=\s|$)|:(?=\s)", run)
    return [piece.strip(OUTER).rstrip(".") for piece in pieces if MATH.search(piece)]


def _value(piece: str) -> str | None:
    """One expression as its value, or as written where it has no plain one."""
    left, equal, right = piece.rpartition("=")
    if equal:
        left, right = left.rpartition("=")[2].strip(), right.strip()
        named = len(left) == 1 and left.isalpha()
        if named and re.search("[a-zA-Z]", right):
            return piece.replace(" ", "")  # y=2x+1
        piece = left if PLAIN_NUMBER.fullmatch(left) and POWER.fullmatch(right) else right
    if BRACKETS.fullmatch(piece) or EXPRESSION.search(piece):
        return piece.replace(" ", "")
    bare = piece.strip("()[]{} ")
    mixed, power, scientific = (p.fullmatch(bare) for p in (MIXED, POWER, SCIENTIFIC))
    if mixed and int(mixed[4]):
        value = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return str(-value if mixed[1] else value)
    if scientific:
        return str(Fraction(scientific[1]) * Fraction(10) ** int(scientific[2] or scientific[3]))
    if power and (int(power[1]) or int(power[2]) >= 0):
        return str(Fraction(int(power[1])) ** int(power[2]))
    if LETTER.search(bare) and OPERATOR.search(bare.lstrip("-")):
        return bare.replace(" ", "")
    if not equal and UNFINISHED.search(bare):
        return None
    numbers = NUMBER.findall(bare)
    return _written(numbers[-1] if equal else numbers[0]) if numbers else None


DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"两": 2}
TENS = {"十": 10, "百": 100, "千": 1000}


def _chinese_number(text: str) -> str | None:
    """A text that is a number in Chinese characters, and at most a unit."""
    text = text.strip(OUTER + ".")
    per_cent = PER_CENT.fullmatch(text)
    if per_cent:
        return f"{_characters_value(per_cent[1])}%"
    found = CHINESE.match(text)
    if found is None or not UNIT.fullmatch(text, found.end()):
        return None
    value = str(_characters_value(found[2]))
    if found[3]:
        value = f"{_characters_value(found[3])}/{value}"
    return ("-" if found[1] else "") + value


def _characters_value(characters: str) -> int:
    """三百二十 -> 320."""
    total, digit = 0, 0
    for character in characters:
        if character in TENS:
            total += (digit or 1) * TENS[character]
            digit = 0
        else:
            digit = DIGITS[character]
    return total + digit


def _written(number: str) -> str:
    """A number without needless zeros: 10.50 is 10.5, .5 is 0.5."""
    if re.fullmatch(r"-?\d*\.\d+%?", number):
        digits, percent = number.rstrip("%"), number[len(number.rstrip("%")) :]
        digits = digits.rstrip("0").rstrip(".")
        sign = "-" if digits.startswith("-") else ""
        digits = digits.removeprefix("-")
        return sign + ("0" + digits if digits.startswith(".") else digits or "0") + percent
    return number


# 1e-999999999 as a fraction would take minutes and gigabytes.
LONG_EXPONENT = re.compile(r"[eE][-+]?[\d_]{5}")


def number_value(number: str) -> Fraction | None:
    """The value of a number as `extract_number` gives it; None for a ratio or what is no number."""
    if LONG_EXPONENT.search(number):
        return None
    try:
        if number.endswith("%"):
            return Fraction(number[:-1]) / 100
        return Fraction(number)
    except (ValueError, ZeroDivisionError):
        return None


GOLD_UNIT = re.compile(r"(?<=\d)\s?(?:\^\{?\\circ\}?|°|\\text\s?\{[^{}]*\}|[\u4e00-\u9fff]{1,3})$")


def plain_number(gold: str) -> str | None:
    """A gold answer that is a number and at most a unit, as `extract_number` gives it."""
    text = FRACTION.sub(r"\1/\2", gold.replace("\\%", "%")).strip(" $")
    text = GOLD_UNIT.sub("", THOUSANDS.sub("", text)).strip()
    return _written(text) if PLAIN_NUMBER.fullmatch(text) else None


SHAPE = re.compile(r"\\left|\\right|\\[,;! ]|\\(?=[{}])|\s")
ROOT = re.compile(r"\\sqrt\s{0,3}\{([^{}]*)\}")


def expression_key(text: str) -> str:
    r"""An expression as it is compared: √3 for \sqrt{3}, without spaces and shaping LaTeX."""
    text = SUPERSCRIPTS.sub(lambda found: "^" + found[0].translate(SUPERSCRIPT_DIGITS), text)
    text = plain(SHAPE.sub("", text)).strip(OUTER).rstrip(".")
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    for name, sign in (("\\pi", "π"), ("\\leq", "≤"), ("\\geq", "≥"), ("\\infty", "∞")):
        text = text.replace(name, sign)
    return SHAPE.sub("", ROOT.sub(r"√\1", text))


ANNOUNCED = re.compile(r"(?:答案|[Aa]nswer)\s?[:：]\s?")


def repeats(response: str, gold: str) -> bool:
    """Whether a response is the gold answer as text: alone, boxed, or behind the last 答案."""
    key = expression_key(gold)
    marked = after_answer_mark(MARKUP.sub("", response.replace("：", ":")))
    *before, raw = ANNOUNCED.split(response)
    stated = {response, raw.partition("\n")[0] if before else None, _last_box(response), marked}
    if marked:
        stated |= {marked.strip().partition("\n")[0], marked.partition("。")[0]}
    return bool(key) and any(part and expression_key(part) == key for part in stated)


GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d|[.,]\d)")
EXPONENT = re.compile(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,15})?[eE][-+]?\d{1,2}(?!\w|\.\d)")
MIXED_IN_TEXT = re.compile(r"(?<![\w.,/])(\d{1,9}) +(\d{1,3})/(\d{1,3})(?![\w/]|[.,]\d)")
APART = re.compile(r"(?<=\d)\s+(?=\d)")


def in_plain_signs(text: str) -> str:
    """Numbers of a text in ASCII, without grouping and exponents: １２, −3, ½, 1 234, 1.5e3."""
    text = SUPERSCRIPTS.sub(
        lambda found: f"^{{{found[0].translate(SUPERSCRIPT_DIGITS)}}}", text.strip()
    )
    for sign, fraction in VULGAR.items():
        text = text.replace(sign, fraction)
    text = nfkc(text).replace("\u2212", "-").replace("\u2044", "/").strip()
    text = MIXED_IN_TEXT.sub(_mixed_value, text)
    text = GROUPED.sub(lambda found: found[0].replace(" ", ""), text)
    return EXPONENT.sub(lambda found: str(Fraction(found[0])), text)


def _mixed_value(found: re.Match[str]) -> str:
    """1 1/2 as 3/2; what is no mixed number stays: 3 5/4, 1 0/0."""
    whole, part, parts = map(int, found.groups())
    return f"{whole * parts + part}/{parts}" if 0 < part < parts else found[0]


ROOT_SIGN = re.compile(r"√\s?(?:(\d{1,15}|[A-Za-z])|[({]([^(){}√]{1,60})[)}])")
_ATOM = (
    r"(?:\\[A-Za-z]{1,20}|\\[,;! ]|\d|(?<=\d)[.,](?=\d)|[-+*/^_(){}=±]"
    r"|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))"
)
# Not possessive: before Python 3.11.5 such groups match wrongly. Nothing behind it can fail, so
# that it never goes back anyway.
BARE_FORMULA = re.compile(rf"{_ATOM}(?:[ ]?{_ATOM})*")
LATEX = re.compile(r"\\[A-Za-z]|[\^_]\{")
# The article of "a \sqrt{2}", and the unit of "\sqrt{2} m".
WORD_IN_FRONT = re.compile(r"^[A-Za-z] (?![-+*/=^])")
WORD_BEHIND = re.compile(r"(?<![-+*/=^]) [A-Za-z]$")


def with_marked_formulas(text: str) -> str:
    r"""`text` with dollars around LaTeX, roots and π that have none, as math-verify reads them.

    >>> with_marked_formulas(r"so \sqrt{2}, or $x$")
    'so $\\sqrt{2}$, or $x$'
    """
    if BOX.search(text):
        return text
    text = ROOT_SIGN.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = re.sub(r"\\[()\[\]]|\$\$", "$", text.replace("\\$", "")).replace("π", r"\pi ")
    parts = text.split("$")
    parts[::2] = [BARE_FORMULA.sub(_marked, part) for part in parts[::2]]
    return "$".join(parts)


def _marked(found: re.Match[str]) -> str:
    if not LATEX.search(found[0]):
        return found[0]
    formula = WORD_BEHIND.sub("", WORD_IN_FRONT.sub("", found[0])).strip("*= ")
    if formula.count("(") != formula.count(")"):  # one of the sentence's
        formula = formula.strip("()")
    return f"${formula}$"


def bare_gold(gold: str) -> str:
    """A gold number in plain signs, without a unit and a full stop; an expression as it is."""
    text = in_plain_signs(gold).rstrip(".")
    return plain_number(text) or text


def is_written_alike(response: str, gold: str) -> bool:
    """Whether a response is the gold number or expression in writing, as `repeats` reads it.

    Digits that spaces keep apart are several numbers.
    """
    return repeats(*(APART.sub(";", in_plain_signs(text)) for text in (response, gold)))
