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

import functools
import re
from collections.abc import Callable

from growth.scoring.answer_text import (
    EDGE,
    EXPLANATION,
    WRAPPED,
    after_answer_mark,
    after_refusal,
    clauses,
    plain,
    without_refusals,
)
from growth.scoring.number_answers import (
    expression_key,
    extract_number,
    number_value,
    plain_number,
)
from growth.scoring.truth_answers import extract_truth, truth_of_clause

Reading = str | bool | None


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


# ---------------------------------------------------------------- letters

LETTER = r"(?<![A-Za-z0-9])([A-D])(?![A-Za-z0-9])"
MENTION = re.compile(LETTER)
# A letter that the text decides for: "选B", "而是C", "is D"; lower case only behind 选 and option.
DECIDED = re.compile(
    r"(?:(?P<surely>选择?|option|猜是?|觉得是|认为是|choose|pick|select)|倾向于|剩下?|but|而是|应为|应该是|应是|是|为|以|即|得|is|answer)[\s:了个(\[【“\"']{0,5}"
    r"(?:选项|option)?[\s(\[【“\"']{0,5}(?<![A-Za-z0-9])(?P<letter>[A-D])(?![A-Za-z0-9])",
    re.IGNORECASE,
)
NEGATED_END = re.compile(
    r"(?:不|非|没|没有|勿|not)(?:是|应该?|能|会|要|可|该|应当)?(?:选)?\s{0,3}$|排除$"
)
OPTION_LINE = re.compile(
    r"^[\s(\[【“\"']{0,5}([A-Da-d])(?:([.、:,)\]】。]|\s+[^\sA-Da-d])|项|选项)"
)
ALTERNATIVE = re.compile(
    r"^[\s项]{0,3}(?:(?:或者?|还是|和|与|及|or\b|and\b)\s{0,3}[A-D](?![A-Za-z0-9])"
    r"|[、/,]\s{0,3}[A-D](?:$|[\s.,;。、都均两]))"
)
UNLISTED = re.compile(r"(?:^|[\s,.;:!?、(\[“\"'✓])([A-D])(?:$|[\s,.;:!?、)\]”\"'✓])")


def extract_letter(response: str) -> str | None:
    """One letter A to D: alone, behind 答案 or 选, or the one option called right.

    Lower case counts where the letter is alone or behind 选 or option. A text that names several,
    or none, as its answer gives none; words of refusal do not take back an answer that is given.
    """
    text = plain(response)
    alone = text.strip(EDGE)
    if len(alone) == 1:
        return alone.upper() if alone.upper() in "ABCD" else None
    lines = {line.strip(EDGE) for line in text.split("\n")} & set("ABCD")
    if lines:  # letters alone on a line
        return lines.pop() if len(lines) == 1 else None
    marked = after_answer_mark(text)
    if marked is not None:
        letter = _leading_letter(marked)
        if letter:
            return letter
        if MENTION.search(marked):
            text = marked
    text = without_refusals(text)
    chosen = _decided_letter(text)
    if chosen is not None:
        return chosen or None
    return _judged_letter(text)


def _judged_letter(text: str) -> str | None:
    """The one letter called right, or the option that the text begins with, or the only one."""
    option = OPTION_LINE.match(text)
    judged = _judged(LETTERS_JOINED.sub("", text))
    if option and option[2] and len(set(MENTION.findall(text))) <= 1:
        return option[1].upper()  # what follows is the option's own text
    right = [letter for letter, good in judged.items() if good]
    if len(right) == 1:
        return right[0]
    if option and ALTERNATIVE.match(text[option.end(1) : option.end(1) + 12]):
        return None
    if option and option[1].upper() not in judged:
        return option[1].upper()
    mentioned = set(UNLISTED.findall(text)) - judged.keys()
    return mentioned.pop() if len(mentioned) == 1 and not right else None


def _judged(text: str) -> dict[str, bool]:
    """What is said of each letter, up to the next one or the end of its sentence."""
    judged: dict[str, bool] = {}
    for letters, words in _parts(text):
        sentence = re.split("[。;!\n]", words[:60])[0]
        if SUITS.search(sentence):  # "wrong, as the question wants it"
            judged.update(dict.fromkeys(letters & set("ABCD"), True))
            continue
        for clause in clauses(sentence):
            good = _goodness(clause)
            if good is not None:
                judged.update(dict.fromkeys(letters & set("ABCD"), good))
                break
    return judged


def _leading_letter(marked: str) -> str | None:
    """The letter that stands first behind an answer mark, unless another is offered with it."""
    text = re.sub("^选项", "", marked.lstrip(EDGE)).lstrip(EDGE)
    if not text or text[0].upper() not in "ABCD" or re.match(r"[A-Za-z0-9]", text[1:2]):
        return None
    if ALTERNATIVE.match(text[1:].upper()) or re.match(r"\s{0,3}[吗?]", text[1:]):
        return None
    return text[0].upper()


def _decided_letter(text: str) -> str | None:
    """The last letter that a text decides for; empty where it offers another; None for none."""
    chosen = None
    conditional = "如果" in text
    for found in DECIDED.finditer(text):
        start = text[max(0, found.start() - 9) : found.start()]
        letter = found["letter"]
        if NEGATED_END.search(start[-6:]) or not (letter.isupper() or found["surely"]):
            continue
        letter = letter.upper()
        after = text[found.end() : found.end() + 9]
        if ALTERNATIVE.match(after):
            chosen = ""
        elif re.match(r"(?:选项|项)?(?:错|有误|不|吗|\?)", after):
            continue
        elif chosen and chosen != letter and (conditional or "可能" in start or "也可" in start):
            chosen = ""
        else:
            chosen = letter
    return chosen


# ---------------------------------------------------------------- sets of letters

LETTERS_JOINED = re.compile(
    # "ABD, C is wrong" is no list
    r"(?<=[A-F])(?![,;.]\s{0,3}[A-F])(?:项|选项)?(?:[,、;/&+.\s()和与及以]|and)*(?:选项)?(?=[A-F](?![a-zG-Z]))"
    r"|(?<=[A-F])(?<![A-F和与及、][A-F])[,;.\s]*(?=[A-F](?![a-zG-Z和与、]))"
)
# A line that begins with a judged option ends the list above it.
OPTION_BELOW = re.compile(r"(?<=[A-F.。])\n+(?=[A-F](?:项|选项|:|\s?[错对正]))")
OPTION_IN_BRACKETS = re.compile(r"(?<=[A-F])\((?=[A-F][^)])")
REASON = re.compile("因为[^;。\n]*")
LOWER_CASE_LIST = re.compile(r"[a-f][a-f,、;/\s和与]*(?![A-Za-z])")
GROUP = re.compile(r"(?<![A-Za-z0-9])[A-F]+(?![A-Za-z0-9])")
UNSETTLED = re.compile(r"也可能|或者|(?<=[A-F项])\s?还是\s?(?=[A-F选])")
CHOSEN = re.compile(
    r"(?:选(?!项)择?了?|正确的?(?:选项|答案)?(?:分别)?(?:有|是|为|包括|:))[ :(\[“\"]{0,5}(?:选项)?"
    r"([A-F]+|[a-f](?:[a-f,、; 和与]*[a-f])?)(?![A-Za-z0-9])"
)
# Said of options only; what else is good or bad stands in `growth.scoring.truth_answers`.
BAD = re.compile("不[应该当能可会]{0,2}选|排除|除了|除[^,]{0,6}外|不道德|不合适|不恰当|违|不合题意")
GOOD = re.compile("符合|体现|合适|恰当|都选|全选")
SUITS = re.compile("(?<!不)符合题[意目]")
REST = re.compile("其余|其他|都")


def extract_letter_set(response: str) -> str | None:
    """Letters A to F: behind 答案 or 选, else those called right, else those named.

    Lists may be joined by marks or words. Letters called wrong do not count. "全选" is no reading,
    as the options are not known here.
    """
    text = plain(response)
    if LOWER_CASE_LIST.fullmatch(text.strip(EDGE)):
        return _sorted(text.upper())
    if UNSETTLED.search(text):
        return None
    text = OPTION_IN_BRACKETS.sub("。(", OPTION_BELOW.sub("。", text))
    marked = after_answer_mark(text)
    if marked is not None:
        lower = LOWER_CASE_LIST.match(marked.strip(EDGE))
        if lower:
            return _sorted(lower[0].upper())
        first = GROUP.search(LETTERS_JOINED.sub("", marked))
        if first:
            return _sorted(first[0])
    text = without_refusals(text)
    text = REASON.sub("", text)
    explanation = EXPLANATION.search(text)
    if explanation and GROUP.search(text[: explanation.start()]):
        text = text[: explanation.start()]
    lines = [part for part in (line.strip(EDGE) for line in text.split("\n")) if part]
    lines = [part for part in lines if GROUP.fullmatch(part)]
    if len(lines) > 1 and max(map(len, lines)) > 1:
        return None  # several sets, a line each
    if lines:  # the answer, whatever is explained around it
        return _sorted("".join(lines))
    text = LETTERS_JOINED.sub("", text)
    chosen = [
        found[1]
        for found in CHOSEN.finditer(text)
        if not NEGATED_END.search(text[max(0, found.start() - 6) : found.start()])
    ]
    return _sorted(chosen[-1].upper()) if chosen else _judged_set(text)


def _judged_set(text: str) -> str | None:
    """The letters of the clauses of a text, by what each clause says of them."""
    said: dict[bool | None, set[str]] = {True: set(), False: set(), None: set()}
    heading = None
    parts_of, goodness_of = functools.cache(_parts), functools.cache(_goodness)
    for sentence in filter(None, re.split(r"[。;!?\n]|\.(?=\s|$)", text)):
        waiting: set[str] = set()  # "A is collectivism, right"
        for clause in sentence.split(","):
            if not clause.strip(EDGE):
                continue
            parts = parts_of(clause)
            good = goodness_of(clause)
            if not parts:
                if said[False] and not said[True] and REST.search(clause) and good:
                    return None
                said[good] |= waiting
                waiting = waiting if good is None else set()
                heading = good if clause.rstrip().endswith(":") else heading
            for letters, words in parts:
                own = good if len(parts) == 1 else goodness_of(words)
                own = heading if own is None else own
                if own is None:
                    waiting |= letters
                else:
                    said[own] |= letters
        said[None] |= waiting
    return _sorted("".join(said[True] - said[False] or said[None] - said[False]))


def _parts(text: str) -> list[tuple[set[str], str]]:
    """The groups of letters of a text, each with the words up to the next one."""
    groups = list(GROUP.finditer(text))
    if not groups:
        return []
    ends = [*(group.start() for group in groups[1:]), len(text)]
    return [(set(group[0]), text[group.end() : end]) for group, end in zip(groups, ends)]  # noqa: B905


def _goodness(clause: str) -> bool | None:
    """Whether a clause calls an option right; None where it says neither."""
    if BAD.search(clause):
        return False
    good = truth_of_clause(clause.lower().replace("部分", ""))
    return True if good is None and GOOD.search(clause) else good


def _sorted(letters: str) -> str | None:
    return "".join(sorted(set(letters) & set("ABCDEF"))) or None


# ---------------------------------------------------------------- blanks

BLANK_HEADING = re.compile(
    r"(?:^|[,，。\n])[^。,，\n“\"「《:]{0,9}(?:空|填|句|诗|应|括号|横线|补充|手法|原文)[^。,，\n“\"「《:]{0,7}(?::|是|为)(?=.|\n)"
)
BLANK_MARK = re.compile(
    "(?:正确答案|答案|答|应该?填写?入?|填写?入?|[上下前后原][一]?句|作者|可能|应该|[觉认猜想推][得为想测]?(?=是|应)|解(?=:))"
    r"[\]】]?[\s:]{0,5}(?:应该是|应为|就是|是|为|:)?[\s:]{0,5}"
)
QUOTED = re.compile('[“"「『‘《]([^“”"「」『』‘’《》]*)[”"」』’》]')
# Quoted behind what says that it fills the blank; the last one in a text counts.
FILLED = re.compile(
    '(?:填[写入]{0,2}|答案|空[白格缺]?[处中]?|横线|括号|[上下前后]一?句|(?<!不)[是为])[^,，。“”"\n不非]{0,8}'
    '[“"「『‘]([^“”"「」『』‘’]{1,60})[”"」』’]'
)
NAMED = re.compile('[“"「『‘]([^“”"「」『』‘’]{1,60})[”"」』’](?:就?是|为)(?:正确)?答案')
SOURCE = re.compile(r"^[^:\n《]*《[^》\n]*》\s{0,3}:")
BLANK_END = re.compile(
    r"[。!！?？;；\n(（]|\.\.|——|[,，]\s{0,3}(?:出自|意思|而?不是|而非|不填|因为|这|是|作者|原名|著名|形容"
    r"|(?:[唐宋元明清汉晋]|[东西]汉|[北南]宋|东晋)[代朝]?著?名?的?(?:诗|词|文|小说|作家|思想))|出自|[,，]\s{0,3}[\u4e00-\u9fff]{2,4}的(?:诗|词|名|作)"
)
NUMBERING = re.compile(r"^\s{0,3}(?:\d{1,3}[.、]|[(（]\d{1,3}[)）]|[①②③④⑤⑥⑦⑧⑨])\s{0,3}")
# "not X, but Y", where Y is announced; verses that begin with 不是 stay.
DENIED = re.compile(
    r"(?:应该?|当)?不(?:应该?|该|能)?[是填][^,，。;；\n]{1,20}[,，;；。]\s{0,3}(?=而?是|应|正确|填|答案)"
)
ONLY_DENIED = re.compile(r"(?:作者|答案|空|应该?|可能)[^,，。]{0,4}不(?:应该?|该)?[是填为]")
SEVERAL = re.compile(
    r"也可能|还是|或者|^[\u4e00-\u9fff]{1,5}或[\u4e00-\u9fff]{1,5}[。.]?$|[\u4e00-\u9fff]/[\u4e00-\u9fff]"
)
PERSON = re.compile(
    r"^(?![应答作可此这该空下上])([\u4e00-\u9fff]{2,4}?)\s?(?:是(?:我国|中国|[唐宋元明清汉晋]代|[北南]宋|《|一[位名个]|著名))"
)


def extract_blank(response: str) -> str | None:
    """What fills a blank: quoted or announced, up to the end of its sentence, without outer marks.

    Announced is what follows 答案, 应填, 下一句 and the like. Explanations behind it do not count,
    nor what is denied (不是李白).
    """
    text = WRAPPED.sub(r"\1", response.replace("：", ":"))
    text = re.sub(r"\*\*|`|(?m:^#{1,6}\s)|\$", "", text).strip()
    text = re.sub("(?i)(?:the )?answer(?: is)?[\\s:]", "答案:", text)
    stated = after_refusal(text)
    if stated != text and not (BLANK_MARK.search(stated) or QUOTED.search(stated)):
        return None
    text = DENIED.sub("", stated)
    if SEVERAL.search(text) or ONLY_DENIED.search(text):
        return None
    named = NAMED.match(text)
    if named:
        return named[1].strip(EDGE)
    filled = FILLED.findall(text)
    if filled and filled[-1].strip(EDGE):
        return filled[-1].strip(EDGE)
    turned = text.rpartition("而是")[2] if "而是" in text else text
    start = NUMBERING.sub("", NUMBERING.sub("", turned).lstrip(EDGE.translate(_OPENING)))
    return _announced_blank(start)


def _announced_blank(start: str) -> str | None:
    """The blank in a text without numbering: behind what announces it, or the text's beginning."""
    person = PERSON.match(start)
    if person:
        return person[1]
    found = BLANK_HEADING.search(start) or BLANK_MARK.search(start)
    if found:
        start = start[found.end() :].lstrip(" \t\r\n:，,")
        again = BLANK_MARK.match(start)
        start = start[again.end() :] if again and again.end() < len(start) else start
    else:
        start = SOURCE.sub("", start)
    start = NUMBERING.sub("", re.sub(r"^是(?=[\"“「『])", "", start))
    start = re.sub("^《[^》\n]{1,20}》的?作者(?:是|为)?", "", start)
    start = re.sub("^[\u4e00-\u9fff]{1,2}[代朝]的", "", start)
    title = re.search("的(?=《)", start)
    start = start[title.end() :] if title else start
    quoted = QUOTED.match(start.lstrip()) or (
        QUOTED.search(re.split("[\n(（]", start)[0]) if found else None
    )
    if quoted and quoted[1].strip(EDGE):
        return quoted[1].strip(EDGE)
    blank = BLANK_END.split(start.lstrip(EDGE.translate(_OPENING)), maxsplit=1)[0].strip(EDGE)
    return (
        re.sub(
            "^是|所?[写作著说]的$|^首先[,，]|吧$|(?<=[\u4e00-\u9fff]) +(?=[\u4e00-\u9fff])",
            "",
            blank,
        )
        or None
    )


_OPENING = str.maketrans("", "", '“"「『‘《')


OUTER_MARKS = re.compile(r"[\W_]+")


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
        if number == reading or expression_key(reading) == expression_key(gold):
            return True
        value = number_value(reading)
        return value is not None and value == number_value(number or "")
    return reading == gold


EXTRACTORS: dict[str, Callable[[str], Reading]] = {
    "letter": extract_letter,
    "letter_set": extract_letter_set,
    "truth": extract_truth,
    "blank": extract_blank,
    "number": extract_number,
}
