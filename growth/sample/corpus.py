"""The pretraining text of the pocket model: the sample world, told and exercised in other layouts.

A document is a short text: facts stated, verse and programs as they stand, dialogues with their
questions, exercises with their answers. All facts of the world are in it, those behind the valid
and test questions too: so they can be known before tuning, which only has to teach how to answer.
The wordings and layouts of the instruction data are not in it, nor any sum or program that a valid
or test file may ask for (`may_be_read`).
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from growth.sample import puzzles, scenes, tables
from growth.sample.rules import Draft, Rule, fill_slots
from growth.sample.splits import split_of

Document = Callable[[random.Random], str]

BLANK = "____"
FACTS = (
    tables.BIOLOGY,
    tables.HISTORY,
    tables.CHINESE,
    tables.PHYSICIAN,
    tables.TEACHER,
    tables.PLANNER,
)
# Labels of options, and what may stand behind one. Not the exam's A, B, C, D: that these label
# options is for tuning to teach.
_MARKS: Mapping[str, Sequence[str]] = {
    "①②③④⑤⑥": ("", "", " "),
    "甲乙丙丁戊己": ("、", "："),
    "123456": ("、", ". ", "）"),
    "一二三四五六": ("、",),
    "abcdef": ("）", ". ", "："),
    "子丑寅卯辰巳": ("、", "："),
    "ⅠⅡⅢⅣⅤⅥ": ("、", ". "),
}
LABELS = tuple(_MARKS)
_LATIN_MARKS = ("：", "、", ". ", "）")
_LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# Between these stands what an exercise gives: it is read, and nothing is learnt from guessing it.
GIVEN_OPENS, GIVEN_CLOSES = "\x0e", "\x0f"


def given(text: str) -> str:
    """Text to be read, not to be predicted."""
    return f"{GIVEN_OPENS}{text}{GIVEN_CLOSES}"


def parts(document: str) -> list[tuple[str, bool]]:
    """A document's text in pieces, and whether each is to be predicted."""
    pieces = re.split(f"[{GIVEN_OPENS}{GIVEN_CLOSES}]", document)
    return [(text, i % 2 == 0) for i, text in enumerate(pieces) if text]


# ---------------------------------------------------------------------------------- exercises


@dataclass(frozen=True)
class Layout:
    """How the exercises of one document look: labels of options, and what stands between them."""

    labels: Sequence[str]
    after_label: str
    between: str
    close: str
    ask: str
    answer: str

    def options(self, texts: Sequence[str]) -> str:
        """The labelled options."""
        items = zip(self.labels, texts, strict=False)
        listed = self.between.join(f"{label}{self.after_label}{text}" for label, text in items)
        ended = listed.endswith(("。", "？"))
        return given(listed + (self.close.lstrip("。") if ended else self.close))

    def answered(self, texts: Sequence[str], right: str) -> str:
        """The label of the right option, with its text or without."""
        return self.ask + self.answer.format(label=self.labels[texts.index(right)], text=right)


def _labels(rng: random.Random) -> tuple[str, str]:
    """Labels in order, and the mark behind each."""
    if rng.random() < 0.7:
        labels = rng.choice(LABELS)
        return labels, rng.choice(_MARKS[labels])
    return "".join(rng.sample(_LATIN, 8)), rng.choice(_LATIN_MARKS)


def _layout(rng: random.Random) -> Layout:
    labels, mark = _labels(rng)
    return Layout(
        labels=labels,
        after_label=mark,
        between=rng.choice((" ", "；", "，", "\n", "  ")),
        close=rng.choice(("\n", "。", "。\n")),
        ask=rng.choice(("选", "应选", "答案：", "答：", "——", "填", "→")),
        answer=rng.choice(("{label}",) * 4 + ("{label}（{text}）", "{text}，即{label}")),
    )


def _lookup(rng: random.Random) -> str:
    """Things under labels, then each thing's label asked for."""
    layout = _layout(rng)
    texts = _any_terms(rng, rng.randint(2, 6))
    asked = rng.sample(texts, len(texts))
    ask = rng.choice(("{}是", "{}", "{}——", "哪个是{}？"))
    between = rng.choice(("，", "；", "\n"))
    said = between.join(given(ask.format(t)) + layout.labels[texts.index(t)] for t in asked)
    return layout.options(texts) + said


def _paired(rng: random.Random, texts: Sequence[str], asked: Sequence[str]) -> str:
    """`texts` under labels, in one plain layout, then each label behind what it is asked by."""
    labels, mark = _labels(rng)
    between, ask = rng.choice((" ", "；", "\n")), rng.choice(("{}、", "{}——", "{}是"))
    listed = between.join(f"{a}{mark}{b}" for a, b in zip(labels, texts, strict=False))
    order = rng.sample(range(len(texts)), len(texts))
    said = (given(ask.format(asked[place])) + labels[place] for place in order)
    return given(f"{listed}。") + "，".join(said)


def _named(rng: random.Random) -> str:
    """Words under labels, each asked for by itself."""
    texts = _any_terms(rng, rng.randint(2, 6))
    return _paired(rng, texts, texts)


def _matched(rng: random.Random) -> str:
    """Subjects of a table under labels, each asked for by its object, or the other way round."""
    chosen, asks_object = _apart(rng, _relation(rng), rng.randint(2, 5)), rng.random() < 0.5
    texts, asked = ([pair[side] for pair in chosen] for side in (not asks_object, asks_object))
    return _paired(rng, texts, asked)


def first_documents(rng: random.Random) -> Iterator[str]:
    """The first lesson: words under labels, each asked for by itself; without end."""
    while True:
        yield _named(rng)


def second_documents(rng: random.Random) -> Iterator[str]:
    """The second lesson: what belongs together, under labels; without end."""
    while True:
        yield _named(rng) if rng.random() < 0.25 else _matched(rng)


def _any_terms(rng: random.Random, number: int) -> list[str]:
    """Different words of one kind: a table's objects or subjects, or a pool of the scenes."""
    if rng.random() < 0.5:
        pool = rng.choice(list(scenes.POOLS.values()))
    else:
        relation = _relation(rng)
        pool = list(dict.fromkeys(pair[rng.random() < 0.5] for pair in relation.pairs))
    return rng.sample(pool, min(number, len(pool)))


def _relation(rng: random.Random) -> tables.Relation:
    subject = rng.choice(FACTS)
    return rng.choices(subject, [len(relation.pairs) for relation in subject])[0]


def _cloze(relation: tables.Relation, pair: tables.Pair, hides_object: bool) -> str:
    subject, object_ = pair
    if hides_object:
        return relation.statement.format(s=subject, o=BLANK)
    return relation.statement.format(s=BLANK, o=object_)


def _true(relation: tables.Relation, subject: str, object_: str) -> bool:
    return (subject, object_) in relation.pairs or (subject, object_) in relation.also


def _apart(rng: random.Random, relation: tables.Relation, number: int) -> list[tables.Pair]:
    """Pairs of which no subject has another one's object."""
    chosen: list[tables.Pair] = []
    for pair in rng.sample(relation.pairs, len(relation.pairs)):
        if not any(
            _true(relation, pair[0], other[1]) or _true(relation, other[0], pair[1])
            for other in chosen
        ):
            chosen.append(pair)
        if len(chosen) == number:
            break
    return chosen


def _word_bank(rng: random.Random) -> str:
    """A few options for as many sentences with a blank."""
    layout, relation, hides_object = _layout(rng), _relation(rng), rng.random() < 0.5
    chosen = _apart(rng, relation, rng.randint(2, 5))
    options = [pair[hides_object] for pair in chosen]
    lines = [
        given(_cloze(relation, pair, hides_object) + "。")
        + layout.answered(options, pair[hides_object])
        for pair in rng.sample(chosen, len(chosen))
    ]
    intro = rng.choice(("选词填空。", "把序号填在横线上。", "备选：", ""))
    return given(intro) + layout.options(options) + "\n".join(lines)


def _one_blank(
    rng: random.Random, layout: Layout, relation: tables.Relation, pair: tables.Pair
) -> str:
    hides_object = rng.random() < 0.5
    wrong = relation.wrong_objects(pair[0]) if hides_object else relation.wrong_subjects(pair[1])
    options = [pair[hides_object], *rng.sample(wrong, min(len(wrong), rng.randint(1, 3)))]
    rng.shuffle(options)
    question = given(_cloze(relation, pair, hides_object) + "。")
    return question + layout.options(options) + layout.answered(options, pair[hides_object])


def _blanks(rng: random.Random) -> str:
    """Sentences with a blank, each with options of its own."""
    layout, relation = _layout(rng), _relation(rng)
    intro = rng.choice(("选择填空。\n", "练习。\n", ""))
    asked = rng.sample(relation.pairs, rng.randint(1, 3))
    return given(intro) + "\n".join(_one_blank(rng, layout, relation, pair) for pair in asked)


# -------------------------------------------------------------------------------------- facts


def _statements(rng: random.Random) -> str:
    """Facts, each in a sentence: of one table, or of one field."""
    field = rng.choice(FACTS)
    relations = (_relation(rng),) if rng.random() < 0.5 else field
    facts = [(relation, pair) for relation in relations for pair in relation.pairs]
    return "".join(
        relation.statement.format(s=subject, o=object_) + "。"
        for relation, (subject, object_) in rng.sample(facts, min(6, len(facts)))
    )


def _glossary(rng: random.Random) -> str:
    """Subjects with their objects, or objects with all of their subjects."""
    relation = _relation(rng)
    if rng.random() < 0.5:
        chosen = rng.sample(relation.pairs, min(6, len(relation.pairs)))
        between = rng.choice(("：", "——", " "))
        return "\n".join(f"{subject}{between}{object_}" for subject, object_ in chosen)
    by_object: dict[str, list[str]] = {}
    for subject, object_ in rng.sample(relation.pairs, len(relation.pairs)):
        by_object.setdefault(object_, []).append(subject)
    chosen_objects = rng.sample(list(by_object), min(4, len(by_object)))
    return "\n".join(f"{o}：{'、'.join(by_object[o][:6])}" for o in chosen_objects)


def _marked(rng: random.Random) -> str:
    """Sentences marked as true or false."""
    relation = _relation(rng)
    yes, no = rng.choice((("√", "×"), ("对", "不对"), ("是", "否"), ("真", "假")))
    lines = []
    for _ in range(4):
        subject, object_ = rng.choice(relation.pairs)
        true = rng.random() < 0.5
        if not true:
            object_ = rng.choice(relation.wrong_objects(subject))
        statement = relation.statement.format(s=subject, o=object_)
        lines.append(given(f"{statement}。（") + f"{yes if true else no}）")
    return "\n".join(lines)


def _poem(rng: random.Random) -> str:
    first, second, title, author, dynasty = rng.choice(tables.POEMS)
    return rng.choice(
        (
            f"{first}，{second}。——{author}《{title}》",
            f"《{title}》（{dynasty}·{author}）：{first}，{second}。",
            f"“{second}”前面的一句是“{first}”。",
            f"“{first}，{second}”是{author}《{title}》中的名句。",
        )
    )


def _idiom(rng: random.Random) -> str:
    idiom, meaning = rng.choice(tables.IDIOMS)
    head, tail = idiom[:2], idiom[2:]
    return rng.choice(
        (
            f"{idiom}：{meaning}。",
            f"“{tail}”前面是“{head}”，合起来是“{idiom}”。",
            f"“{head}”后面是“{tail}”，合起来是“{idiom}”。",
            f"{meaning}，这就叫{idiom}。",
        )
    )


def _dynasties(rng: random.Random) -> str:
    start = rng.randrange(len(tables.DYNASTIES) - 3)
    return "、".join(tables.DYNASTIES[start : start + rng.randint(3, 6)]) + "先后建立。"


# ------------------------------------------------------------------------------------- scenes


def _dialogue(rng: random.Random) -> str:
    """A dialogue as a story tells it, and questions answered by a word or by a label."""
    scene = rng.choice(scenes.SCENES)
    a, b = rng.sample(scenes.POOLS["name"], 2)
    words = fill_slots(rng, scene.lines)
    lines = [line.format_map(words) for line in scene.lines]
    tells, between = rng.choice((("{}说：“{}”", ""), ("{}：{}", "\n"), ("{}：“{}”", "\n")))
    spoken = (tells.format((a, b)[i % 2], line) for i, line in enumerate(lines))
    text = given(between.join(spoken))
    layout = _layout(rng)
    lettered = rng.random() < 0.6
    for question, slot in rng.sample(scene.questions, len(scene.questions)):
        asked = question.format_map(words | {"a": a, "b": b})
        if not lettered:
            text += given(f"\n{asked}") + f"{words[slot]}。"
            continue
        pool = slot.rstrip("0123456789")
        said = [w for name, w in words.items() if name.rstrip("0123456789") == pool]
        wrong = [w for w in said if w != words[slot]]
        wrong += rng.sample([w for w in scenes.POOLS[pool] if w not in said], 3)
        options = [words[slot], *wrong[: rng.randint(1, 3)]]
        rng.shuffle(options)
        text += given(f"\n{asked}") + layout.options(options)
        text += layout.answered(options, words[slot])
    return text


def _conduct(rng: random.Random) -> str:
    situation = rng.choice(tuple(scenes.CONDUCT))
    right, wrong = scenes.CONDUCT[situation]
    acts = [(act, True) for act in right] + [(act, False) for act in wrong]
    chosen = rng.sample(acts, rng.randint(3, 6))
    if rng.random() < 0.3:
        good, bad = rng.sample(right, 2), rng.sample(wrong, 2)
        return f"{situation}应该{'、'.join(good)}，不应该{'、'.join(bad)}。"
    if rng.random() < 0.4:
        yes, no = rng.choice((("√", "×"), ("对", "不对"), ("应该", "不应该")))
        return given(situation) + "".join(
            given(f"\n{act}（") + f"{yes if ok else no}）" for act, ok in chosen
        )
    layout = _layout(rng)
    texts = [act for act, _ in chosen]
    good, bad = (
        "".join(label for label, (_, ok) in zip(layout.labels, chosen, strict=False) if ok is kind)
        for kind in (True, False)
    )
    said = f"该做的：{good or '无'}；不该做的：{bad or '无'}。"
    return given(situation) + layout.options(texts) + said


def _verse(rng: random.Random) -> str:
    topic = rng.choice(tuple(scenes.VERSE))
    images = scenes.VERSE[topic]
    image = rng.choice(tuple(images))
    return f"《{topic}·{image}》\n{images[image]}"


def _notice(rng: random.Random) -> str:
    _, body = scenes.FORMS[rng.choice(tuple(scenes.FORMS))]
    return body.format_map(fill_slots(rng, (body,)))


# ------------------------------------------------------------------------------------ puzzles


def may_be_read(draft: Draft, seed: int) -> bool:
    """Whether the question is one that training files may hold, not valid or test files."""
    return split_of(draft, seed) in ("curated", "synthetic")


def readable(rng: random.Random, rule: Rule, seed: int) -> Draft:
    """A question by `rule` that may be read."""
    while not may_be_read(draft := rule(rng), seed):
        pass
    return draft


def _sums(rng: random.Random, seed: int) -> str:
    """Sums with their steps on one line each."""
    texts = []
    for _ in range(3):
        draft = readable(rng, rng.choice((puzzles.column, puzzles.two_steps)), seed)
        *steps, _, _ = draft.gold.split("\n")
        texts.append("，".join(steps) + "。")
    return "\n".join(texts)


def _program(rng: random.Random, seed: int) -> str:
    """A program without a word about what it is to do."""
    return readable(rng, puzzles.program, seed).gold


# How often each kind of document comes, beside the others.
_DOCUMENTS: Mapping[Document, float] = {
    _named: 5,
    _lookup: 12,
    _matched: 14,
    _word_bank: 16,
    _blanks: 16,
    _statements: 7,
    _glossary: 5,
    _marked: 6,
    _poem: 5,
    _idiom: 5,
    _dynasties: 0.5,
    _dialogue: 13,
    _conduct: 8,
    _verse: 2,
    _notice: 1,
}
_PUZZLES: Mapping[Callable[[random.Random, int], str], float] = {_sums: 4, _program: 2}
# Some documents are several in one, so that the places of a long prompt are not new either.
_LONG, _IN_A_LONG_ONE = 0.02, 7


def documents(rng: random.Random, seed: int) -> Iterator[str]:
    """Documents without end.

    Args:
        rng: draws them.
        seed: of the sample world whose valid and test puzzles are kept out.
    """
    plain = [(lambda r, _, make=make: make(r), often) for make, often in _DOCUMENTS.items()]
    makers, often = zip(*plain, *_PUZZLES.items(), strict=True)
    while True:
        number = _IN_A_LONG_ONE if rng.random() < _LONG else 1
        drawn = rng.choices(makers, often, k=number)
        yield "\n".join(make(rng, seed) for make in drawn)


def _world_words() -> list[str]:
    """The words of the world, the longest first; of idioms the halves, which are asked for."""
    found = {
        word for field in FACTS for relation in field for pair in relation.pairs for word in pair
    }
    found -= {idiom for idiom, _ in tables.IDIOMS}
    found |= {half for idiom, _ in tables.IDIOMS for half in (idiom[:2], idiom[2:])}
    found |= {word for pool in scenes.POOLS.values() for word in pool}
    found |= {act for acts in scenes.CONDUCT.values() for side in acts for act in side}
    return sorted(found, key=lambda word: (-len(word), word))


def words() -> re.Pattern[str]:
    """What a piece of the tokenizer must not go beyond: a word of the world, a label, a mark.

    A label is the same token wherever it stands, and a word too; that is what looking up needs.
    """
    labels = "".join(LABELS)
    found = map(re.escape, _world_words())
    return re.compile("|".join([*found, f"[{labels}]", r"[^\w\s]", " +"]))


# Words up to this length are read often enough by the tokenizer to become one piece.
_ONE_PIECE, _OFTEN = 6, 100


def tokenizer_texts(seed: int, number: int = 30_000) -> Iterator[str]:
    """What the tokenizer is trained on: documents, and the words of the world."""
    rng = random.Random(f"tokenizer/{seed}")
    all_documents = documents(rng, seed)
    for _ in range(number):
        yield from (text for text, _ in parts(next(all_documents)))
    for word in _world_words():
        if len(word) <= _ONE_PIECE:
            yield from [word] * _OFTEN
