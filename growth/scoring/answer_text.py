r"""What the readings of an answer have in common: its text without marks, and the part that counts.

    >>> after_answer_mark("答案：A。更正：答案是C。")
    'C。'
    >>> after_refusal("我不太确定，但我倾向于选A。")
    '但我倾向于选A。'

Every pattern is linear: no repetition holds another.
"""

import re

from growth.core.normal_form import nfkc

REFUSAL = re.compile(
    "不知道|不太?清楚|不太?确定|不记得|忘记了|不会做|我不会|我不能|不一定|无法|抱歉|对不起|不好意思|不能确定|不能判断"
    "|不能回答|不能选择|没有人知道|人工智能|语言模型|信息不足|没有唯一"
)
REFUSING = re.compile(f"(?:{REFUSAL.pattern})[^,;，；。!?！？\n]*")
CLAUSE_END = re.compile("[,;，；。!?！？\n]")
CLAUSE = re.compile(r"[^,;。!?\n]+[,;。!?\n]?")
# What announces an answer; the last one in a text counts. "B选项是错误的" announces none.
ANSWER_MARK = re.compile(
    r"(?:答案|(?<![法能以])判断(?:结果|正误)?|更正|(?<![A-Za-z项])选项(?=[\s:为是])"
    r"|(?<![a-z])answer(?![a-z])|(?<![a-z])ans(?![a-z])|####)"
    r"[\]】]?[\s:]{0,9}(?:应该是|应当是|应为|应当为|应是|就是|是(?!否|不是)|为|选(?!项)择?|is|:)?[\s:]{0,9}",
    re.IGNORECASE,
)
# An earlier answer that is taken back, with the rest of its clause.
WITHDRAWN = re.compile(
    "(?:之前|刚才|前面|先前|方才|上次)我?(?:的?(?:回答|答案|计算|判断|分析|解答|选择)|说|算|写|答|选|看)"
    "[^,，。;；\n]{0,20}(?:错|有误|不对|失误)[^,，。;；\n]{0,9}"
)
EXPLANATION = re.compile(r"[\[【]?(?:解析|理由|因为|出自|意思)")
WRAPPED = re.compile(r"\\(?:boxed|fbox|text|mathrm)\s{0,9}\{([^{}]*)\}")
MARKUP = re.compile(r"\*\*|\\[()\[\]]|\$|`|#{1,6}\s")
EDGE = " \t\r\n.,;:!?。，；：！？、~…()（）[]{}【】「」『』《》〈〉“”‘’\"'_-—*✓<>"


def plain(response: str) -> str:
    """Full width to ASCII, without Markdown, dollars, boxes, and answers that are taken back."""
    text = nfkc(response).replace("−", "-")
    for _ in range(2):  # \boxed{\text{B}}
        text = WRAPPED.sub(r" \1 ", text)
    return WITHDRAWN.sub("", MARKUP.sub("", text)).strip()


def after_answer_mark(text: str) -> str | None:
    """What follows the last 答案, answer or ####; None where nothing does."""
    marks = list(ANSWER_MARK.finditer(text))
    rest = text[marks[-1].end() :] if marks else ""
    return rest if rest.strip(EDGE) else None


def after_refusal(text: str) -> str:
    """What is said behind the last clause that refuses to answer; the whole text without one."""
    refusals = list(REFUSAL.finditer(text))
    if not refusals:
        return text
    end = CLAUSE_END.search(text, refusals[-1].end())
    return text[end.end() :] if end else ""


def without_refusals(text: str) -> str:
    """A text without what a refusal says, from its word to the end of the clause."""
    return REFUSING.sub("", text)


def clauses(text: str) -> list[str]:
    """The clauses of a plain text, each with the mark that ends it."""
    return CLAUSE.findall(text)
