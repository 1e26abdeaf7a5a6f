r"""What a person would read as the answer: a second reading beside the published rules.

    >>> extract("letter", "答案：a")
    'A'
    >>> extract("letter_set", "选ABD，C项错误")
    'ABD'
    >>> extract("truth", "不对。")
    False

The published rules call many right answers wrong (`Ａ`, `春风。`, `10元`), and a few wrong
ones right. These readings are stated here, each kind's in the docstring of its function, and held
to answers that were judged by hand (`tests/golden/extracted_answers.jsonl`). Their score is
reported beside the published one, never instead. Every pattern is linear: no repetition holds
another.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from growth.scoring.normal_form import nfkc

Reading = str | bool | None

REFUSAL = re.compile(
    "不知道|不太?清楚|不太?确定|不记得|不会做|我不会|我不能|不一定|无法|抱歉|对不起|不能确定|不能判断"
    "|不能回答|人工智能|语言模型|信息不足"
)
# What announces an answer; the last one in a text counts.
ANSWER_MARK = re.compile(
    r"(?:答案|判断|选项(?=[\s:为是])|(?<![a-z])answer(?![a-z])|(?<![a-z])ans(?![a-z])|####)"
    r"[\]】]?[\s:]{0,9}(?:应该是|应为|应是|是|为|选|is|:)?[\s:]{0,9}",
    re.IGNORECASE,
)
EXPLANATION = re.compile(r"[\[【]?(?:解析|理由|因为|出自|意思)")
WRAPPED = re.compile(r"\\(?:boxed|fbox|text|mathrm)\s{0,9}\{([^{}]*)\}")
MARKUP = re.compile(r"\*\*|\\[()\[\]]|\$|`")
EDGE = " \t\r\n.,;:!?。，；：！？、~…()（）[]{}【】「」『』《》〈〉“”‘’\"'_-—*✓<>"


def extract(kind: str, response: str) -> Reading:
    """The answer that a response gives, in the way of its kind; None where it gives none.

    Args:
        kind: `letter`, `letter_set`, `truth`, `blank` or `number`.
        response: what the model said.

    Returns:
        `letter`: A to D; `letter_set`: letters A to F in order; `truth`: a bool; `blank`: the text
        without quotes and outer marks; `number`: as written, without unit.
    """
    return EXTRACTORS[kind](response)


def _plain(response: str) -> str:
    """Full width to ASCII, without Markdown, dollars and boxes."""
    text = nfkc(response).replace("−", "-")
    return MARKUP.sub("", WRAPPED.sub(r" \1 ", text)).strip()


def _after_answer_mark(text: str) -> str | None:
    """What follows the last 答案, answer or ####; None where nothing does."""
    marks = list(ANSWER_MARK.finditer(text))
    rest = text[marks[-1].end() :] if marks else ""
    return rest if rest.strip(EDGE) else None


# ---------------------------------------------------------------- letters

LETTER = r"(?<![A-Za-z0-9])([A-D])(?![A-Za-z0-9])"
MENTION = re.compile(LETTER)
# A letter that the text decides for: "选B", "而是C", "is D", "D is correct", "D项正确".
DECIDED = re.compile(
    r"(?:选择?|而是|应为|应该是|应是|是|为|以|即|is|option|answer)[\s:了(\[【“\"']{0,5}"
    r"(?:选项|option)?[\s(\[【“\"']{0,5}" + LETTER,
    re.IGNORECASE,
)
NEGATED_END = re.compile(r"(?:不|非|没|not)\s{0,3}$|(?:不|没|非|排除)(?:是|选|应选)?$")
JUDGED = re.compile(
    LETTER + r"\s{0,3}(?:选项|项)?[中的说法是\s更最(]{0,6}"
    "(不正确|不对|不合适|不符合|错|有误|正确|对|合适|符合)"
)
GOOD = ("正确", "对", "合适", "符合")
OPTION_LINE = re.compile(r"^[\s(\[【“\"']{0,5}([A-Da-d])(?:[.、:,)\]】。]|项|选项|\s+[^\sA-Da-d])")
ALTERNATIVE = re.compile(
    r"^[\s项]{0,3}(?:(?:或者?|和|与|及|or\b|and\b)\s{0,3}[A-D](?![A-Za-z0-9])|[、/,]\s{0,3}[A-D](?:$|[\s.,;。都均两]))"
)
UNLISTED = re.compile(r"(?:^|[\s,.;:!?、(\[“\"'✓])([A-D])(?:$|[\s,.;:!?、)\]”\"'✓])")


def extract_letter(response: str) -> str | None:
    """One letter A to D: alone, behind 答案 or 选, or the one option called right.

    Lower case counts where the letter is the answer alone. A text that names several, or none, as
    its answer gives none.
    """
    text = _plain(response)
    alone = text.strip(EDGE)
    if len(alone) == 1:
        return alone.upper() if alone.upper() in "ABCD" else None
    if REFUSAL.search(text):
        return None
    lines = {line.strip(EDGE) for line in text.split("\n")} & set("ABCD")
    if lines:  # letters alone on a line
        return lines.pop() if len(lines) == 1 else None
    marked = _after_answer_mark(text)
    if marked is not None:
        letter = _leading_letter(marked)
        if letter or not MENTION.search(marked):
            return letter
        text = marked
    chosen = _decided_letter(text)
    if chosen is not None:
        return chosen or None
    option = OPTION_LINE.match(text)
    judged = dict(JUDGED.findall(text))
    right = [letter for letter, word in judged.items() if word in GOOD]
    if len(right) == 1:
        return right[0]
    if option and ALTERNATIVE.match(text[option.end(1) :]):
        return None
    if option and option[1].upper() not in judged:
        return option[1].upper()
    mentioned = set(UNLISTED.findall(text)) - judged.keys()
    return mentioned.pop() if len(mentioned) == 1 and not right else None


def _leading_letter(marked: str) -> str | None:
    """The letter that stands first behind an answer mark, unless another is offered with it."""
    text = marked.lstrip(EDGE)
    if not text or text[0].upper() not in "ABCD" or re.match(r"[A-Za-z0-9]", text[1:2]):
        return None
    if ALTERNATIVE.match(text[1:].upper()) or re.match(r"\s{0,3}[吗?]", text[1:]):
        return None
    return text[0].upper()


def _decided_letter(text: str) -> str | None:
    """The last letter that a text decides for; empty where it offers another; None for none."""
    chosen = None
    for found in DECIDED.finditer(text):
        start = text[max(0, found.start() - 9) : found.start()]
        if NEGATED_END.search(start[-6:]) or found[1] not in "ABCD":
            continue
        after = text[found.end() : found.end() + 9]
        if ALTERNATIVE.match(after):
            chosen = ""
        elif re.match(r"(?:选项|项)?(?:错|有误|不|吗|\?)", after):
            continue
        elif chosen and "可能" in start and chosen != found[1]:
            chosen = ""
        else:
            chosen = found[1]
    return chosen


# ---------------------------------------------------------------- sets of letters

LETTERS_JOINED = re.compile(
    # "ABD, C is wrong" is no list
    r"(?<=[A-F])(?![,;.]\s{0,3}[A-F])(?:项|选项)?(?:[,、;/&+.\s()和与及以]|and)*(?:选项)?(?=[A-F](?![a-zG-Z]))"
    r"|(?<=[A-F])(?<![A-F和与及、][A-F])[,;.\s]*(?=[A-F](?![a-zG-Z和与、]))"
)
LOWER_CASE_LIST = re.compile(r"[a-f][a-f,、;\s和与]*(?![A-Za-z])")
GROUP = re.compile(r"(?<![A-Za-z0-9])[A-F]+(?![A-Za-z0-9])")
WRONG, RIGHT = (
    re.compile("错|不正确|不对|有误|不符|不选|排除|除了|不道德|违"),
    re.compile("正确|对|选|符合|体现"),
)
REST = re.compile("其余|其他|都")


def extract_letter_set(response: str) -> str | None:
    """Letters A to F: behind 答案 or 选, else those called right, else those named.

    Lists may be joined by marks or words. Letters called wrong do not count. "全选" is no reading,
    as the options are not known here.
    """
    text = _plain(response)
    alone = text.strip(EDGE)
    if alone and not alone.strip("abcdef"):
        return _sorted(alone.upper())
    if REFUSAL.search(text) or re.search(r"也可能|或者", text):
        return None
    marked = _after_answer_mark(text)
    if marked is not None:
        text = marked
        lower = LOWER_CASE_LIST.match(text.strip(EDGE))
        if lower:
            return _sorted("".join(re.findall("[A-F]", lower[0].upper())))
    explanation = EXPLANATION.search(text)
    if explanation and GROUP.search(text[: explanation.start()]):
        text = text[: explanation.start()]
    text = LETTERS_JOINED.sub("", text)
    if marked is not None:
        first = GROUP.search(text)
        if first:
            return _sorted(first[0])
        return None
    return _judged_set(text)


def _judged_set(text: str) -> str | None:
    """The letters of the clauses of a text, by what each clause says of them."""
    judged = dict(JUDGED.findall(text))
    if len(judged) > 1 and len(judged) == len(set(GROUP.findall(text))):
        return _sorted("".join(letter for letter, word in judged.items() if word in GOOD))
    lines = [part for part in (line.strip(EDGE) for line in text.split("\n")) if part]
    lines = [part for part in lines if GROUP.fullmatch(part)]
    if len(lines) > 1 and max(map(len, lines)) > 1:
        return None  # several sets, a line each
    if lines:  # the answer, whatever is explained around it
        return _sorted("".join(lines))
    right, wrong, named, chosen = "", "", "", ""
    for line in text.split("\n"):
        for clause in re.split(r"[,;。!?]|\.(?=\s|$)", line):
            letters = "".join(GROUP.findall(clause))
            if not letters:
                if wrong and not right and REST.search(clause) and RIGHT.search(clause):
                    return None
            elif WRONG.search(clause):
                wrong += letters
            elif re.search("选(?!项)", clause):
                chosen = letters
            elif RIGHT.search(clause):
                right += letters
            else:
                named += letters
    return _sorted(chosen or right or named)


def _sorted(letters: str) -> str | None:
    return "".join(sorted(set(letters))) or None


# ---------------------------------------------------------------- true or false

HEDGE = re.compile("还是|是否|是不是|可能|正误|对/错|对\\s?或\\s?错|是/否|正确/错误|真/假")
# The first that is found at a place counts, so the longer ones stand first.
TRUTH_WORD = re.compile(
    r"(?P<T1>没有(?:任何)?(?:错误?|问题)|没错|不错|无误|无错|(?:并非|不是|不能说是)错误?的?"
    r"|not (?:wrong|false|incorrect))"
    r"|(?P<F1>不完全正确|不完全对|不全对|(?:不|并不|不是|并非|非)(?:正确|对|成立|属实|准确|真实|如此|符合|相符)|不符|非也|有误|有错误?"
    r"|不是|incorrect|untrue|not (?:true|correct|right))"
    r"|(?P<T2>正确|成立|属实|相符|符合|[是为]真|真的|(?<![相反面针])对(?!于|比|方|象|应|待)|true|correct|(?<![a-z])right(?![a-z])"
    r"|(?<![a-z])yes(?![a-z])|√|✓|✔)"
    r"|(?P<F2>错误?|[是为]假|假的|false|wrong|(?<![a-z])no(?![a-z])|×|✗|✘)"
)
TRUTH_ALONE = {"t": True, "v": True, "是": True, "是的": True, "真": True} | {
    "f": False,
    "x": False,
    "否": False,
    "假": False,
}


def extract_truth(response: str) -> bool | None:
    """True or false: the first clause that says so, with its negation (不对, 没错, not true).

    What hedges (还是, 可能) or says both gives none.
    """
    text = _plain(response).lower()
    if REFUSAL.search(text) or HEDGE.search(text):
        return None
    marked = _after_answer_mark(text)
    for part in (marked, text):
        truth = _first_truth(part) if part else None
        if truth is not None:
            return truth
    return None


def _first_truth(text: str) -> bool | None:
    """What the first clause says that says true or false; None if bare words contradict it."""
    clauses = [clause.strip(EDGE.replace("✓", "")) for clause in re.split(r"[,;。.!?\n]", text)]
    said = [(clause, _truth_of(clause)) for clause in clauses if clause]
    decided = [(clause, truth) for clause, truth in said if truth is not None]
    if not decided:
        return None
    bare = {truth for clause, truth in decided if TRUTH_WORD.fullmatch(clause)}
    return None if len(bare) > 1 else decided[0][1]


def _truth_of(clause: str) -> bool | None:
    if clause in TRUTH_ALONE:
        return TRUTH_ALONE[clause]
    word = TRUTH_WORD.search(clause)
    return None if word is None or word.lastgroup is None else word.lastgroup.startswith("T")


# ---------------------------------------------------------------- blanks

BLANK_HEADING = re.compile(
    r"^[^。,，\n“\"「《:]{0,9}(?:空|填|句|诗|应|括号|横线)[^。,，\n“\"「《:]{0,5}(?::|是|为)(?=.)"
)
BLANK_MARK = re.compile(
    "(?:正确答案|答案|答|应该?填写?入?|填写?入?|[上下前后原][一]?句|作者|可能|应该)"
    r"[\]】]?[\s:]{0,5}(?:应该是|应为|是|为|:)?[\s:]{0,5}"
)
QUOTED = re.compile('[“"「『‘《]([^“”"「」『』‘’《》]*)[”"」』’》]')
SOURCE = re.compile(r"^[^:\n《]*《[^》\n]*》\s{0,3}:")
BLANK_END = re.compile(
    r"[。!！?？;；\n(（]|\.\.|——|[,，]\s{0,3}(?:出自|意思|不是|因为|这|是|作者)|出自"
)
NUMBERING = re.compile(r"^\s{0,3}(?:\d{1,3}[.、]|[(（]\d{1,3}[)）]|[①②③④⑤⑥⑦⑧⑨])\s{0,3}")


def extract_blank(response: str) -> str | None:
    """What fills a blank: quoted or announced, up to the end of its sentence, without outer marks.

    Announced is what follows 答案, 应填, 下一句 and the like. Explanations behind it do not count.
    """
    text = response.replace("：", ":").replace("**", "").strip()
    text = re.sub("(?i)(?:the )?answer(?: is)?[\\s:]", "答案:", text)
    if REFUSAL.search(text):
        return None
    turned = text.rpartition("而是")[2] if "而是" in text else text
    start = NUMBERING.sub("", NUMBERING.sub("", turned).lstrip(EDGE.translate(_OPENING)))
    found = BLANK_HEADING.match(start) or BLANK_MARK.search(start)
    if found:
        start = start[found.end() :].lstrip(" \t\r\n:，,")
        again = BLANK_MARK.match(start)
        start = start[again.end() :] if again and again.end() < len(start) else start
    else:
        start = SOURCE.sub("", start)
    if re.search(r"[\u4e00-\u9fff]/[\u4e00-\u9fff]", start):  # alternatives
        return None
    title = re.search("的(?=《)", start)
    start = start[title.end() :] if title else start
    quoted = QUOTED.match(start.lstrip()) or (
        QUOTED.search(start.partition("\n")[0]) if found else None
    )
    if quoted and quoted[1].strip(EDGE):
        return quoted[1].strip(EDGE)
    blank = BLANK_END.split(start.lstrip(EDGE.translate(_OPENING)), maxsplit=1)[0].strip(EDGE)
    return re.sub("^是|吧$|(?<=[\u4e00-\u9fff]) +(?=[\u4e00-\u9fff])", "", blank) or None


_OPENING = str.maketrans("", "", '“"「『‘《')


# ---------------------------------------------------------------- numbers

THOUSANDS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))")
FRACTION = re.compile(r"\\[dt]?frac\s{0,3}\{(-?\d+)\}\s{0,3}\{(\d+)\}")
BOXED = re.compile(r"\\boxed\s{0,9}\{([^{}]*)\}")
NUMBER = re.compile(r"(?<![\d.^])-?(?:\d+(?:\.\d+)?|\.\d+)(?:[/:]\d+)?(?![\d^])%?")
CHOICE_OF_NUMBERS = re.compile(
    r"\d\s{0,3}(?:或|也可能|or)|可能.{0,20}可能|\d(?:元|小?时|分|米|角)\d|余\d|\.\.\.\d"
)
UNFINISHED = re.compile(r"\d\s?[×÷*+]\s?\d")  # an expression that is not worked out


def extract_number(response: str) -> str | None:
    """A number: behind 答案, boxed, right of the last `=`, or the last of the text.

    A unit behind it does not count, % does; `\\frac` and `/` are fractions. Of several alternatives
    none is read.
    """
    text = FRACTION.sub(r"\1/\2", response.replace("\\%", "%"))
    boxed = BOXED.findall(text)
    text = _plain(boxed[-1] if boxed else text)
    text = THOUSANDS.sub("", re.sub(r"[a-zA-Z]{1,5}[23](?!\d)", "", text))
    marked = None if boxed else _after_answer_mark(text)
    if REFUSAL.search(text) or "无解" in text or CHOICE_OF_NUMBERS.search(marked or text):
        return None
    if "=" not in (marked or text) and UNFINISHED.search(marked or text):
        return None
    if marked is not None:
        numbers = NUMBER.findall(re.split(r"[。\n]|不是", marked.rpartition("=")[2] or marked)[0])
        if "不是" in marked:
            numbers = NUMBER.findall(marked)[-1:]
        return _written(numbers[0]) if numbers else None
    found = NUMBER.findall(text.rpartition("=")[2]) or NUMBER.findall(text)
    return _written(found[-1]) if found else None


def _written(number: str) -> str:
    """A number without needless zeros: 10.50 is 10.5, .5 is 0.5."""
    if re.fullmatch(r"-?\d*\.\d+%?", number):
        digits, percent = number.rstrip("%"), number[len(number.rstrip("%")) :]
        digits = digits.rstrip("0").rstrip(".")
        sign = "-" if digits.startswith("-") else ""
        digits = digits.removeprefix("-")
        return sign + ("0" + digits if digits.startswith(".") else digits or "0") + percent
    return number


def number_value(number: str) -> Fraction | None:
    """The value of a number as `extract_number` gives it; None for a ratio or what is no number."""
    try:
        if number.endswith("%"):
            return Fraction(number[:-1]) / 100
        return Fraction(number)
    except (ValueError, ZeroDivisionError):
        return None


OUTER_MARKS = re.compile(r"[\W_]+")
PLAIN_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:[/:]\d+)?%?")


def is_same(kind: str, reading: Reading, gold: str) -> bool:
    """Whether a reading of `extract` is the gold answer: letters and truth exactly, text by its
    words, numbers by their value.

    Args:
        kind: as of `extract`.
        reading: of the response.
        gold: the letter, the letters in order, the text or the number; of `truth` its first word.
    """
    if reading is None or isinstance(reading, bool):
        return reading is not None and reading is extract_truth(gold)
    if kind == "blank":
        return OUTER_MARKS.sub("", reading) == OUTER_MARKS.sub("", gold)
    if kind == "number":
        number = plain_number(gold)
        value = number_value(reading)
        return number == reading or (value is not None and value == number_value(number or ""))
    return reading == gold


def plain_number(gold: str) -> str | None:
    """A gold answer that is a number and nothing else, as `extract_number` gives it."""
    text = FRACTION.sub(r"\1/\2", gold.replace("\\%", "%")).strip(" $")
    text = THOUSANDS.sub("", text)
    return _written(text) if PLAIN_NUMBER.fullmatch(text) else None


EXTRACTORS: dict[str, Callable[[str], Reading]] = {
    "letter": extract_letter,
    "letter_set": extract_letter_set,
    "truth": extract_truth,
    "blank": extract_blank,
    "number": extract_number,
}
