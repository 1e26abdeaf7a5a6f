"""Rules of the sample world that need no table of facts: arithmetic, logic puzzles, programs."""

import itertools
import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from growth.sample.rules import Draft, Kinds, letter_turn, one_turn, question_key
from growth.sample.scenes import POOLS
from growth.sample.tables import words

NAMES = POOLS["name"]
GROUPS = words("合唱队 篮球队 舞蹈队 书法社 航模社 天文社 摄影社 围棋社 校报社")
ACTIVITIES = words("春游 义卖 植树 晚会 游园 军训 长跑 夏令营 知识竞赛 志愿服务")
DEEDS = words("打碎了花瓶 拿走了蛋糕 擦了黑板 关了灯 修好了课桌 关上了窗户 画了黑板报 浇了花")

# --------------------------------------------------------------------------------------- math


def solution(question: str, steps: Sequence[str], answer: str) -> Draft:
    """A worked solution: the steps, a line 答案, the short answer between dollar signs."""
    return one_turn(question, "\n".join([*steps, "答案", f"${answer}$"]), answer=answer)


def column(rng: random.Random) -> Draft:
    """One addition, subtraction or multiplication, taken apart by tens and ones."""
    ask = rng.choice(("计算：{}", "口算：{}", "{}等于多少？", "求{}的结果。"))
    # No step that adds or takes nothing.
    a, b = (rng.choice([n for n in range(11, 100) if n % 10]) for _ in range(2))
    sign = rng.choice("+-×")
    if sign == "×":
        b = rng.randint(2, 9)
        tens, ones = a - a % 10, a % 10
        steps = [f"{tens}×{b}={tens * b}", f"{ones}×{b}={ones * b}"]
        steps.append(f"{tens * b}+{ones * b}={a * b}")
        return solution(ask.format(f"{a}×{b}"), steps, str(a * b))
    if sign == "-":
        a, b = max(a, b), min(a, b)
    tens, ones = b - b % 10, b % 10
    half = a + tens if sign == "+" else a - tens
    whole = a + b if sign == "+" else a - b
    steps = [f"{a}{sign}{tens}={half}", f"{half}{sign}{ones}={whole}"]
    return solution(ask.format(f"{a}{sign}{b}"), steps, str(whole))


def two_steps(rng: random.Random) -> Draft:
    """An expression of two operations, one step a line."""
    a, b, c = rng.randint(2, 20), rng.randint(2, 20), rng.randint(2, 9)
    shape = rng.choice(("({a}+{b})×{c}", "{a}×{c}+{b}", "{b}+{a}×{c}", "{s}÷{c}+{b}"))
    if shape.startswith("("):
        steps = [f"{a}+{b}={a + b}", f"{a + b}×{c}={(a + b) * c}"]
    elif "÷" in shape:
        steps = [f"{a * c}÷{c}={a}", f"{a}+{b}={a + b}"]
    elif shape.startswith("{a}"):
        steps = [f"{a}×{c}={a * c}", f"{a * c}+{b}={a * c + b}"]
    else:
        steps = [f"{a}×{c}={a * c}", f"{b}+{a * c}={b + a * c}"]
    expression = shape.format(a=a, b=b, c=c, s=a * c)
    question = rng.choice(("计算：{}", "脱式计算：{}", "算一算{}等于多少。")).format(expression)
    return solution(question, steps, steps[-1].partition("=")[2])


def story(rng: random.Random) -> Draft:
    """A small tale of shopping, walking, sharing, ages and the like."""
    name, other = rng.sample(NAMES, 2)
    # (thing, its measure word)
    thing, measure = rng.choice(
        (("铅笔", "支"), ("苹果", "个"), ("橘子", "个"), ("本子", "本"), ("气球", "个"))
    )
    a, b, c = rng.randint(3, 30), rng.randint(2, 12), rng.randint(2, 8)
    tales: tuple[Callable[[], tuple[str, list[str], int]], ...] = (
        lambda: (
            f"{name}有{a}{measure}{thing}，{other}的{thing}是{name}的{c}倍，{other}有多少{measure}？",
            [f"{other}有{a}×{c}={a * c}（{measure}）"],
            a * c,
        ),
        lambda: (
            f"{thing}每{measure}{b}元，{name}买了{c}{measure}，付了100元，应找回多少元？",
            [f"一共要付{b}×{c}={b * c}（元）", f"应找回100-{b * c}={100 - b * c}（元）"],
            100 - b * c,
        ),
        lambda: (
            f"{name}有{a * c}{measure}{thing}，平均分给{c}个同学，每人分到多少{measure}？",
            [f"每人分到{a * c}÷{c}={a}（{measure}）"],
            a,
        ),
        lambda: (
            f"{name}今年{b}岁，爸爸比{name}大{a + 20}岁，{c}年后爸爸多少岁？",
            [
                f"爸爸今年{b}+{a + 20}={a + b + 20}（岁）",
                f"{c}年后{a + b + 20}+{c}={a + b + c + 20}（岁）",
            ],
            a + b + c + 20,
        ),
        lambda: (
            f"{name}每分钟走{a + 40}米，从家到学校走了{c}分钟，家到学校有多少米？",
            [f"路程=速度×时间={a + 40}×{c}={(a + 40) * c}（米）"],
            (a + 40) * c,
        ),
        lambda: (
            f"书架上有{a + 30}本书，借走{b}本，又还回{c}本，现在有多少本？",
            [f"{a + 30}-{b}={a + 30 - b}", f"{a + 30 - b}+{c}={a + 30 - b + c}（本）"],
            a + 30 - b + c,
        ),
        lambda: (
            f"长方形的长是{a + b}厘米，宽是{b}厘米，周长是多少厘米？",
            [f"{a + b}+{b}={a + b + b}", f"{a + b + b}×2={(a + b + b) * 2}（厘米）"],
            (a + b + b) * 2,
        ),
        lambda: (
            f"长方形的长是{a + c}厘米，宽是{c}厘米，面积是多少平方厘米？",
            [f"面积=长×宽={a + c}×{c}={(a + c) * c}（平方厘米）"],
            (a + c) * c,
        ),
        lambda: (
            f"果园里有{a}行梨树，每行{b}棵，还有{c}棵桃树，一共有多少棵树？",
            [f"梨树{a}×{b}={a * b}（棵）", f"一共{a * b}+{c}={a * b + c}（棵）"],
            a * b + c,
        ),
    )
    question, steps, answer = rng.choice(tales)()
    return solution(question, steps, str(answer))


def equation(rng: random.Random) -> Draft:
    """A linear equation in x with a whole solution."""
    a, x, b = rng.randint(2, 9), rng.randint(2, 20), rng.randint(1, 30)
    ask = rng.choice(("解方程：{}", "求x：{}", "已知{}，求x的值。"))
    if rng.random() < 0.5:
        steps = [f"{a}x={a * x + b}-{b}", f"{a}x={a * x}", f"x={x}"]
        return solution(ask.format(f"{a}x+{b}={a * x + b}"), steps, str(x))
    right = a * x - b
    steps = [f"{a}x={right}+{b}", f"{a}x={a * x}", f"x={x}"]
    return solution(ask.format(f"{a}x-{b}={right}"), steps, str(x))


def fractions(rng: random.Random) -> Draft:
    """Two fractions of one denominator, added or subtracted; the sum in lowest terms."""
    below = rng.randint(5, 40)
    a, b = sorted(rng.sample(range(1, below), 2), reverse=True)
    sign = "-" if a + b >= below or rng.random() < 0.5 else "+"
    above = a + b if sign == "+" else a - b
    value = Fraction(above, below)
    steps = [f"{a}/{below}{sign}{b}/{below}={above}/{below}"]
    if value.denominator != below:
        steps.append(f"约分得{value.numerator}/{value.denominator}")
    ask = rng.choice(("计算：{}，用分数表示。", "求{}，结果写成最简分数。"))
    answer = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return solution(ask.format(f"{a}/{below}{sign}{b}/{below}"), steps, answer)


def sequence(rng: random.Random) -> Draft:
    """The next number where each is the one before and as much again."""
    start, step = rng.randint(1, 60), rng.randint(2, 15)
    shown = [start + i * step for i in range(4)]
    text = "，".join(map(str, shown))
    ask = rng.choice(("找规律填数：{}，（　）", "数列{}的下一个数是多少？"))
    steps = [f"后一个数比前一个数多{step}", f"{shown[-1]}+{step}={shown[-1] + step}"]
    return solution(ask.format(text), steps, str(shown[-1] + step))


# ---------------------------------------------------------------------------------- reasoning


def _puzzle(rng: random.Random, story_: str, ask: str, right: str, wrong: Sequence[str]) -> Draft:
    """A puzzle; the premises with the question are its key, whatever the options."""
    stem = f"{story_}{ask}"
    return Draft((letter_turn(rng, stem, right, wrong),), (question_key(stem),))


def ordering(rng: random.Random) -> Draft:
    """Four people on a scale, from comparisons of neighbours in any order."""
    people = rng.sample(NAMES, 4)  # the most first
    more, most, least = rng.choice(
        (
            ("比{}高", "最高", "最矮"),
            ("比{}年龄大", "年龄最大", "年龄最小"),
            ("比{}跑得快", "跑得最快", "跑得最慢"),
            ("比{}考得好", "考得最好", "考得最差"),
            ("比{}来得早", "来得最早", "来得最晚"),
            ("比{}重", "最重", "最轻"),
        )
    )
    clues = [a + more.format(b) for a, b in itertools.pairwise(people)]
    rng.shuffle(clues)
    place, ask = rng.choice(((0, most), (3, least)))
    return _puzzle(
        rng,
        "，".join(clues) + "。",
        f"四人中谁{ask}？",
        people[place],
        [p for p in people if p != people[place]],
    )


def syllogism(rng: random.Random) -> Draft:
    """All A are B: what follows for one who is A, or who is not B."""
    name, other = rng.sample(NAMES, 2)
    group = rng.choice(GROUPS)
    act = rng.choice(ACTIVITIES)
    story_ = f"{group}的成员都参加了{act}。"
    everyone = f"参加{act}的都是{group}的成员"
    if rng.random() < 0.5:
        story_ += f"{name}是{group}的成员，{other}不是{group}的成员。"
        right = f"{name}参加了{act}"
        wrong = (f"{name}没有参加{act}", f"{other}没有参加{act}", everyone)
    else:
        story_ += f"{name}没有参加{act}，{other}参加了{act}。"
        right = f"{name}不是{group}的成员"
        wrong = (f"{name}是{group}的成员", f"{other}是{group}的成员", everyone)
    return _puzzle(rng, story_, rng.choice(("由此可以推出：", "下列哪项一定为真？")), right, wrong)


def condition(rng: random.Random) -> Draft:
    """If p then q: with p, not p, q or not q given, what can be said."""
    name = rng.choice(NAMES)
    p, not_p, q, not_q = rng.choice(
        (
            ("下雨了", "没有下雨", "{}在家看书", "{}没有在家看书"),
            ("{}考了满分", "{}没有考满分", "爸爸送{}一辆自行车", "爸爸没有送{}自行车"),
            ("{}起晚了", "{}没有起晚", "{}坐出租车上学", "{}没有坐出租车上学"),
            ("天气晴朗", "天气不晴朗", "{}去爬山", "{}没有去爬山"),
            ("{}生病了", "{}没有生病", "{}不来训练", "{}来训练了"),
            ("{}作业写完了", "{}作业没写完", "{}去打球", "{}没有去打球"),
            ("商店打折", "商店没有打折", "{}去买鞋", "{}没有去买鞋"),
            ("有客人来", "没有客人来", "{}的妈妈做鱼", "{}的妈妈没有做鱼"),
            ("河水结冰", "河水没有结冰", "{}去滑冰", "{}没有去滑冰"),
            ("停电了", "没有停电", "{}点蜡烛", "{}没有点蜡烛"),
        )
    )
    p, not_p, q, not_q = (text.format(name) for text in (p, not_p, q, not_q))
    # From q, or from not p, nothing follows.
    nothing = "其余三项都不一定成立"
    given, right, *wrong = rng.choice(
        (
            (p, q, not_q, not_p, nothing),
            (not_q, not_p, p, q, nothing),
            (q, nothing, p, not_p, not_q),
            (not_p, nothing, q, not_q, p),
        )
    )
    day = rng.choice(POOLS["day"])
    story_ = f"已知：如果{p}，那么{q}。{day}，{given}。"
    ask = rng.choice(("由此一定可以推出：", "下列哪项一定成立？"))
    return _puzzle(rng, story_, ask, right, wrong)


def truth_tellers(rng: random.Random) -> Draft:
    """Four people, one of whom did it; so many of their sentences are true. Solved by trying."""
    deed = rng.choice(DEEDS)
    while True:
        people = rng.sample(NAMES, 4)
        claims = []
        for person in people:
            whom = rng.choice(people)
            claims.append((person, whom, whom != person and rng.random() < 0.5))
        number = rng.choice((1, 3))
        fits = [
            did for did in people if sum((did == whom) == is_ for _, whom, is_ in claims) == number
        ]
        if len(fits) == 1:
            break
    said = "".join(
        f"{person}说：“{'是' if is_ else '不是'}{'我' if whom == person else whom}做的。”"
        for person, whom, is_ in claims
    )
    truth = "只有一人说了真话" if number == 1 else "只有一人说了假话"
    story_ = f"{'、'.join(people)}中有一人{deed}。{said}{truth}。"
    return _puzzle(rng, story_, f"是谁{deed}？", fits[0], [p for p in people if p != fits[0]])


_PLACES = ("最前面", "第二位", "第三位", "最后")


def queue(rng: random.Random) -> Draft:
    """Four people in a row, from just enough clues; solved by trying all rows."""
    people = rng.sample(NAMES, 4)
    rows = set(itertools.permutations(sorted(people)))
    # Every true clue of the few shapes there are, with the rows that it allows.
    clues: list[tuple[str, set[tuple[str, ...]]]] = []
    for i, x in enumerate(people):
        for k, place in enumerate(_PLACES):
            if k != i:
                clues.append((f"{x}不在{place}", {r for r in rows if r.index(x) != k}))
        for y in people[i + 1 :]:
            clues.append((f"{x}在{y}前面", {r for r in rows if r.index(x) < r.index(y)}))
    for x, y in itertools.pairwise(people):
        clues.append((f"{y}紧跟在{x}后面", {r for r in rows if r.index(y) == r.index(x) + 1}))
    rng.shuffle(clues)
    while True:  # leave out what the others say already
        needless = next((c for c in clues if len(_rows(rows, clues, c)) == 1), None)
        if needless is None:
            break
        clues.remove(needless)
    asked = rng.randrange(4)
    story_ = f"{'、'.join(sorted(people))}四人排成一队。{'，'.join(said for said, _ in clues)}。"
    wrong = [p for p in people if p != people[asked]]
    return _puzzle(rng, story_, f"谁排在{_PLACES[asked]}？", people[asked], wrong)


def _rows(
    rows: set[tuple[str, ...]],
    clues: Sequence[tuple[str, set[tuple[str, ...]]]],
    without: tuple[str, set[tuple[str, ...]]],
) -> set[tuple[str, ...]]:
    """The rows that all clues but one allow."""
    return rows.intersection(*(clue[1] for clue in clues if clue != without))


def weekday(rng: random.Random) -> Draft:
    """The day of the week so many days from now or ago."""
    days = ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日")
    today, distance = rng.randrange(7), rng.randint(2, 60)
    forward = rng.random() < 0.6
    place = (today + (distance if forward else -distance)) % 7
    text = rng.choice(
        (
            "今天是{0}，{1}天{2}是星期几？",
            "如果今天是{0}，那么{1}天{2}是：",
            "假定某天是{0}，{1}天{2}是星期几？",
        )
    ).format(days[today], distance, "后" if forward else "前")
    return _puzzle(rng, "", text, days[place], [d for d in days if d != days[place]])


def turns(rng: random.Random) -> Draft:
    """Where somebody looks after a few turns."""
    directions = ("北", "东", "南", "西")
    name, start = rng.choice(NAMES), rng.randrange(4)
    moves = [rng.choice((("向右转", 1), ("向左转", 3), ("向后转", 2))) for _ in range(3)]
    end = (start + sum(quarter for _, quarter in moves)) % 4
    steps = "，".join(f"{w}{m}" for w, (m, _) in zip(("先", "再", "最后"), moves, strict=True))
    story_ = f"{name}面向{directions[start]}方，{steps}。"
    return _puzzle(
        rng,
        story_,
        f"现在{name}面向哪个方向？",
        directions[end],
        [d for d in directions if d != directions[end]],
    )


# --------------------------------------------------------------------------------------- code

Program = tuple[str, str]  # what it is to do, and the program


def _filtered(rng: random.Random, f: str, x: str) -> Program:
    k = rng.randint(2, 20)
    said, test = rng.choice(
        (
            (f"大于{k}的数", f"n > {k}"),
            (f"小于{k}的数", f"n < {k}"),
            (f"不小于{k}的数", f"n >= {k}"),
            (f"能被{k}整除的数", f"n % {k} == 0"),
            (f"不等于{k}的数", f"n != {k}"),
            (f"除以{k}余1的数", f"n % {k} == 1"),
        )
    )
    asked, body = rng.choice(
        (
            (f"求列表{x}中{said}的和", f"sum(n for n in {x} if {test})"),
            (f"统计列表{x}中{said}的个数", f"len([n for n in {x} if {test}])"),
            (f"从列表{x}中选出{said}，返回新列表", f"[n for n in {x} if {test}]"),
        )
    )
    return asked, f"def {f}({x}):\n    return {body}"


def _formula(rng: random.Random, f: str, x: str) -> Program:
    a, b = rng.randint(2, 20), rng.randint(1, 50)
    asked, body = rng.choice(
        (
            (f"返回{x}乘以{a}再加{b}的结果", f"{x} * {a} + {b}"),
            (f"返回{x}乘以{a}再减{b}的结果", f"{x} * {a} - {b}"),
            (f"返回{x}加{a}的和再乘以{b}", f"({x} + {a}) * {b}"),
            (f"返回{x}除以{b + 1}的余数", f"{x} % {b + 1}"),
        )
    )
    return asked, f"def {f}({x}):\n    return {body}"


def _grade(rng: random.Random, f: str, x: str) -> Program:
    limit = rng.randint(10, 95)
    yes, no = rng.choice((("及格", "不及格"), ("通过", "未通过"), ("高", "低"), ("合格", "不合格")))
    lines = (f"def {f}({x}):", f"    if {x} >= {limit}:", f'        return "{yes}"')
    asked = f"{x}不小于{limit}时返回“{yes}”，否则返回“{no}”"
    return asked, "\n".join((*lines, f'    return "{no}"'))


def _loop(rng: random.Random, f: str, x: str) -> Program:
    k, b = rng.randint(2, 9), rng.randint(1, 9)
    asked, body = rng.choice(
        (
            (f"求1到{x}中所有{k}的倍数的和", f"total += i if i % {k} == 0 else 0"),
            (f"把1到{x}的每个数乘以{k}后求和", f"total += i * {k}"),
            (f"求1到{x}各数加{b}以后的总和", f"total += i + {b}"),
            (f"统计1到{x}中有几个数除以{k + 1}余1", f"total += 1 if i % {k + 1} == 1 else 0"),
        )
    )
    head = (f"def {f}({x}):", "    total = 0", f"    for i in range(1, {x} + 1):")
    return asked, "\n".join((*head, f"        {body}", "    return total"))


def _text(rng: random.Random, f: str, x: str) -> Program:
    k = rng.randint(2, 9)
    letter = rng.choice("abcdefghijkmnopqrstuvwxyz")
    asked, body = rng.choice(
        (
            (f"返回字符串{x}的前{k}个字符", f"{x}[:{k}]"),
            (f"返回字符串{x}的后{k}个字符", f"{x}[-{k}:]"),
            (f"把字符串{x}重复{k}次", f"{x} * {k}"),
            (f"统计字符串{x}中字母{letter}出现的次数", f'{x}.count("{letter}")'),
            (f"判断字符串{x}是否以字母{letter}开头", f'{x}.startswith("{letter}")'),
            (f"判断字符串{x}是否以字母{letter}结尾", f'{x}.endswith("{letter}")'),
            (f"判断字符串{x}的长度是否大于{k}", f"len({x}) > {k}"),
            (f"去掉字符串{x}中所有的字母{letter}", f'{x}.replace("{letter}", "")'),
            (f"把字符串{x}倒过来，再接上字母{letter}", f'{x}[::-1] + "{letter}"'),
        )
    )
    return asked, f"def {f}({x}):\n    return {body}"


def _listed(rng: random.Random, f: str, x: str) -> Program:
    k = rng.randint(2, 9)
    asked, body = rng.choice(
        (
            (f"返回列表{x}中最大的{k}个数", f"sorted({x}, reverse=True)[:{k}]"),
            (f"返回列表{x}中最小的{k}个数", f"sorted({x})[:{k}]"),
            (f"把列表{x}的每个数加上{k}", f"[n + {k} for n in {x}]"),
            (f"把列表{x}的每个数乘以{k}", f"[n * {k} for n in {x}]"),
            (f"返回列表{x}去掉前{k}个元素后的部分", f"{x}[{k}:]"),
            (f"返回列表{x}的最大值与{k}的和", f"max({x}) + {k}"),
            (f"判断{k}是否在列表{x}中", f"{k} in {x}"),
        )
    )
    return asked, f"def {f}({x}):\n    return {body}"


# (program, names that suit its argument)
_PROGRAMS: tuple[tuple[Callable[[random.Random, str, str], Program], Sequence[str]], ...] = (
    (_filtered, ("nums", "values", "items", "data")),
    (_formula, ("x", "n", "num", "value")),
    (_grade, ("score", "x", "value", "points")),
    (_loop, ("n", "m", "limit", "end")),
    (_text, ("s", "text", "word", "line")),
    (_listed, ("nums", "values", "items", "data")),
)
_FUNCTIONS = ("f", "solve", "calc", "work", "run", "func", "task", "answer", "make", "check")
_CODE_REQUESTS = (
    "用Python写一个函数{f}({x})，{task}。",
    "请编写Python函数{f}，参数为{x}：{task}。",
    "写Python代码，定义{f}({x})，要求{task}。",
)

# Slips that a program survives but its meaning does not.
_SLIPS = (
    (" + ", " - "),
    (" - ", " + "),
    (" * ", " + "),
    (" % ", " // "),
    (" >= ", " < "),
    (" > ", " < "),
    (" < ", " > "),
    (" == ", " != "),
    (" != ", " == "),
    ("sum(", "max("),
    ("max(", "min("),
    ("len([", "sum(["),
    (".startswith(", ".endswith("),
    (".endswith(", ".startswith("),
    (".count(", ".find("),
    (" in ", " not in "),
    ('", "")', '", "_")'),
)


def slipped(rng: random.Random, program: str) -> str:
    """The program with one slip that changes what it returns: an operator, or a number."""
    head, _, body = program.partition("\n")
    slips = [body.replace(a, b, 1) for a, b in _SLIPS if a in body and " for " not in a]
    # "for n in" is grammar, not a test.
    slips = [slip for slip in slips if "for n not in" not in slip and "for i not in" not in slip]
    for match in re.finditer(r"(?<![\w.])\d+", body):
        slips.append(f"{body[: match.start()]}{int(match[0]) + 3}{body[match.end() :]}")
    return f"{head}\n{rng.choice(slips)}"


def program(rng: random.Random) -> Draft:
    """A function to write; worse: with a slip, and one for another task under the same name."""
    (write, names), (other, _) = rng.sample(_PROGRAMS, 2)
    f, x = rng.choice(_FUNCTIONS), rng.choice(names)
    task, gold = write(rng, f, x)
    request = rng.choice(_CODE_REQUESTS).format(f=f, x=x, task=task)
    return one_turn(request, gold, wrong=(slipped(rng, gold), other(rng, f, x)[1]))


PUZZLE_KINDS: dict[str, Kinds] = {
    "reasoning": (
        (0.25, ordering),
        (0.15, syllogism),
        (0.1, condition),
        (0.15, truth_tellers),
        (0.15, queue),
        (0.1, weekday),
        (0.1, turns),
    ),
    "math": (
        (0.25, column),
        (0.2, two_steps),
        (0.3, story),
        (0.1, equation),
        (0.05, fractions),
        (0.1, sequence),
    ),
    "code": ((1.0, program),),
}
