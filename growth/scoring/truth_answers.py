"""True or false, as a person reads it: the words for both, and what turns them round.

>>> extract_truth("我不认为这个说法是对的"), extract_truth("没有不正确")
(False, True)
>>> extract_truth("部分正确") is None
True
"""

import re

from growth.scoring.answer_text import EDGE, after_answer_mark, after_refusal, clauses, plain

# 对 and 错 are words of their own only before 的, 了 and the like: not in 绝对, 对于, 错综.
WORD_END = r"(?=[的了吧呢哦啊呀,;。!?\s)\]】」”\"'、/和与及或并且]|$|[^\u4e00-\u9fff])"
CORE = re.compile(
    "(?P<T>正确|准确|成立|属实|真实|符合|相符|可信|有道理|合理|[是为]真|真的|真命题|(?<!in)accurate|没毛病"
    f"|(?<![绝反相面针应校派配一核敌])对{WORD_END}|true|(?<!in)correct|(?<![a-z])right(?![a-z])"
    "|(?<![a-z])yes(?![a-z])|√|✓|✔|✅)"
    "|(?P<F>错误|有误|失误|误解|误区|谎言|偏颇|片面|不妥|欠妥|荒谬|违背|虚假|站不住脚|不符|大错特错|谬误|非也"
    "|(?:不是|并非|不)(?:这样|如此|这么回事)"
    "|有[很大些一任何什么]{0,2}问题|(?<!交)错(?![综过落开])|误(?=$|[,。的])|[是为]假|假的|假命题|inaccurate"
    "|incorrect|untrue|false|wrong|(?<![a-z])no(?![a-z])|×|✗|✘|❌)"
)
# Negations whose scope is the rest of the clause.
FAR_NEGATION = re.compile(
    "不认为|不觉得|不赞同|不同意|不能说|不可以说|不可能|不能算|不算|谈不上|说不上|称不上|算不上|不能认为|并不意味着|没有理由认为"
)
# Negations of the word right behind them, with what may stand between.
NEAR_NEGATION = re.compile(
    r"(?:没有?|并?不(?:是|属于)?|并?非|无|未(?!必)|isn't|not|n't|never)"
    r"(?:是|很|太|完全|全|都|怎么|够|任何|什么|能|说得|说|得|有|的|会|存在|\s|a|quite|entirely){0,3}$"
)
UNDECIDED = re.compile(
    r"还是|是否|是不是|正误|与否|(?<!绝)对错|是对是错|吗|部分|一半|[前后][半一](?:句|部分|段)|前者|后者|未必|不一定|不见得"
    r"|难说|说不准|难以|争议|有时|取决于|看情况|既[^,]{0,9}[又也]|对\s?[/或和与]\s?错|是/否|真/假"
    r"|(?:正确|错误)(?:和|与|及|或|、|/)(?:正确|错误)|\?$"
)
CONCLUSION = re.compile(r"^\s{0,3}(?:因此|所以|故|综上|总之|总的来说|可见|整体|总体|其实|而是)")
# What is spoken of, not what is said of it: "正确的说法是隋朝".
HEADING = re.compile("^(?:而)?正确的?(?:说法|答案|表述|顺序|时间|做法|理解|应)")
_EDGE = EDGE.replace("✓", "")  # which is a word here
ALONE = {"t": True, "v": True, "是": True, "是的": True, "真": True} | {
    "f": False,
    "x": False,
    "否": False,
    "不": False,
    "不是": False,
    "不是的": False,
    "假": False,
}


def extract_truth(response: str) -> bool | None:
    """True or false: behind 答案, else a bare first clause, else what is concluded, else the first.

    Each clause counts with its negations (不对, 没错, 不认为, not true), two cancel each other. A
    clause that asks or hedges (是否, 部分, 未必) says nothing, nor do bare words of both kinds.
    """
    text = plain(response).lower()
    marked = after_answer_mark(text)
    for part in (marked, after_refusal(text)):
        truth = _truth_of_clauses(clauses(part)) if part else None
        if truth is not None:
            return truth
    return None


def _truth_of_clauses(parts: list[str]) -> bool | None:
    truths = {part: truth_of_clause(part) for part in set(parts)}
    decided = [(part.strip(EDGE), truths[part]) for part in parts if truths[part] is not None]
    if not decided:
        return None
    bare = {truth for part, truth in decided if _is_bare(part)}
    perhaps = {truth for part, truth in decided if "可能" in part and "不可能" not in part}
    if len(bare) > 1 or len(perhaps) > 1:
        return None
    if _is_bare(decided[0][0]):
        return decided[0][1]
    concluded = [truth for part, truth in decided if CONCLUSION.match(part)]
    if concluded:
        return concluded[-1]
    if any(UNDECIDED.search(part) and not part.endswith("?") for part in parts):
        return decided[-1][1]  # "one half is right, the other wrong; it is wrong"
    return decided[0][1]


def _is_bare(clause: str) -> bool:
    return clause in ALONE or CORE.fullmatch(clause) is not None


def truth_of_clause(clause: str) -> bool | None:
    """What one clause says, in lower case: the sign of its first word, turned by each negation."""
    words = clause.strip(_EDGE)
    if words in ALONE and not clause.endswith("?"):
        return ALONE[words]
    core = CORE.search(clause)
    if core is None or UNDECIDED.search(clause.strip()) or HEADING.match(words):
        return None
    before, turns = FAR_NEGATION.subn("", clause[: core.start()])
    before = before[-20:]
    while (near := NEAR_NEGATION.search(before)) is not None:
        turns += 1
        before = before[: near.start()]
    return (core.lastgroup == "T") == (turns % 2 == 0)
