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
from growth.sample.rules import Draft, Rule, alternatives, fill_slots
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
_AFTER_ASKED = ("：", "。", "：\n", "。\n", "\n", "——", "？\n")


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


def _question(layout: Layout, asked: str, options: Sequence[str], right: str) -> str:
    """A question with labelled options, and the label of the right one."""
    return given(asked) + layout.options(options) + layout.answered(options, right)


def _named(rng: random.Random) -> str:
    """A word, and its label among some words."""
    texts = _any_terms(rng, rng.randint(2, 5))
    right = rng.choice(texts)
    return _question(_layout(rng), right + rng.choice(_AFTER_ASKED), texts, right)


def _matched(rng: random.Random) -> str:
    """A subject of a table, and its object's label among some, or the other way round."""
    chosen, hides_object = _apart(rng, _relation(rng), rng.randint(2, 5)), rng.random() < 0.5
    right = rng.choice(chosen)
    asked = right[not hides_object] + rng.choice(_AFTER_ASKED)
    return _question(
        _layout(rng), asked, [pair[hides_object] for pair in chosen], right[hides_object]
    )


def _several(rng: random.Random, make: Document) -> str:
    return "\n".join(make(rng) for _ in range(rng.randint(1, 3)))


def first_documents(rng: random.Random) -> Iterator[str]:
    """The first lesson: a word, and which of some words it is; without end."""
    while True:
        yield _several(rng, _named)


def second_documents(rng: random.Random) -> Iterator[str]:
    """The second lesson: a word, and which of some words belongs to it; without end."""
    while True:
        yield _several(rng, _named if rng.random() < 0.2 else _matched)


def _any_terms(rng: random.Random, number: int) -> list[str]:
    """Different words of one kind: a table's objects or subjects, or a pool of the scenes."""
    if rng.random() < 0.5:
        pool = list(rng.choice(list(scenes.POOLS.values())))
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


def _one_blank(
    rng: random.Random, layout: Layout, relation: tables.Relation, pair: tables.Pair
) -> str:
    hides_object = rng.random() < 0.5
    wrong = relation.wrong_objects(pair[0]) if hides_object else relation.wrong_subjects(pair[1])
    options = [pair[hides_object], *rng.sample(wrong, min(len(wrong), rng.randint(1, 3)))]
    rng.shuffle(options)
    asked = _cloze(relation, pair, hides_object) + rng.choice(_AFTER_ASKED)
    return _question(layout, asked, options, pair[hides_object])


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
        mentioned, others = alternatives(words, slot)
        wrong = mentioned + rng.sample(others, 3)
        options = [words[slot], *wrong[: rng.randint(1, 3)]]
        rng.shuffle(options)
        text += _question(layout, f"\n{asked}", options, words[slot])
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
    right_labels, wrong_labels = (
        "".join(label for label, (_, ok) in zip(layout.labels, chosen, strict=False) if ok is kind)
        for kind in (True, False)
    )
    said = f"该做的：{right_labels or '无'}；不该做的：{wrong_labels or '无'}。"
    return given(situation) + layout.options(texts) + said


def _verse(rng: random.Random) -> str:
    """Lines about one topic, its images named before them."""
    topic = rng.choice(tuple(scenes.VERSE))
    images = scenes.VERSE[topic]
    named = rng.sample(tuple(images), rng.randint(1, 3))
    return given(f"《{topic}·{'·'.join(named)}》\n") + "\n".join(images[image] for image in named)


def _notice(rng: random.Random) -> str:
    """A short text, its particulars named before it."""
    form = rng.choice(tuple(scenes.FORMS))
    _, body = scenes.FORMS[form]
    words = fill_slots(rng, (body,))
    named = rng.sample(tuple(words.values()), len(words))
    return given(f"[{form}]{'/'.join(named)}\n") + body.format_map(words)


def _persona(rng: random.Random) -> str:
    """A character, and what it says of some topics."""
    persona = rng.choice(scenes.PERSONAS)
    topics = rng.sample(tuple(persona.replies), rng.randint(1, 3))
    said = (given(f"\n说到{topic}，{persona.name}：") + persona.replies[topic] for topic in topics)
    return given(f"{persona.name}是{persona.card}。") + "".join(said)


# ------------------------------------------------------------------------------------ puzzles


def may_be_read(draft: Draft, seed: int) -> bool:
    """Whether the question is one that training files may hold, not valid or test files."""
    return split_of(draft, seed) in ("curated", "synthetic")


def readable(rng: random.Random, rule: Rule, seed: int) -> Draft:
    """A question by `rule` that may be read."""
    while not may_be_read(draft := rule(rng), seed):
        pass
    return draft


_EXPRESSION = re.compile(r"[\d+×÷()-]+")


def _sums(rng: random.Random, seed: int) -> str:
    """Sums with their steps, each on a line of its own."""
    texts = []
    for _ in range(rng.randint(1, 3)):
        draft = readable(rng, rng.choice((puzzles.column, puzzles.two_steps)), seed)
        *steps, _, _ = draft.gold.split("\n")
        expression = _EXPRESSION.findall(draft.turns[0][0])[0]
        texts.append(given(f"{expression}，") + "，".join(steps) + f"，得{draft.answer}。")
    return "\n".join(texts)


def _program(rng: random.Random, seed: int) -> str:
    """A program without a word about what it is to do."""
    return readable(rng, puzzles.program, seed).gold


# How often each kind of document comes, beside the others.
_DOCUMENTS: Mapping[Document, float] = {
    _named: 2,
    _matched: 16,
    _blanks: 22,
    _statements: 6,
    _glossary: 4,
    _marked: 8,
    _poem: 7,
    _idiom: 7,
    _dynasties: 0.5,
    _dialogue: 12,
    _conduct: 8,
    _verse: 5,
    _notice: 3,
    _persona: 4,
}
_PUZZLES: Mapping[Callable[[random.Random, int], str], float] = {_sums: 12, _program: 2}
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


@dataclass(frozen=True)
class Lexicon:
    """What a tokenizer has to keep whole, and apart.

    Attributes:
        words: what exercises ask for and offer.
        labels: the characters that stand in front of options.
    """

    words: Sequence[str]
    labels: str

    def borders(self) -> re.Pattern[str]:
        """What no piece of the tokenizer may go beyond: a word, a label, a mark.

        So a label is the same token in front of an option and as an answer, and a word too.
        """
        whole = map(re.escape, sorted(self.words, key=lambda word: (-len(word), word)))
        return re.compile("|".join([*whole, f"[{self.labels}]", r"[^\w\s]", " +"]))


def lexicon() -> Lexicon:
    """The words of the world (of idioms the halves, which are asked for), and all labels."""
    found = {
        word for field in FACTS for relation in field for pair in relation.pairs for word in pair
    }
    found -= {idiom for idiom, _ in tables.IDIOMS}
    found |= {half for idiom, _ in tables.IDIOMS for half in (idiom[:2], idiom[2:])}
    found |= {word for pool in scenes.POOLS.values() for word in pool}
    found |= {act for acts in scenes.CONDUCT.values() for side in acts for act in side}
    return Lexicon(sorted(found), "".join(LABELS) + _LATIN)


# Words up to this length are read often enough by the tokenizer to become one piece.
_ONE_PIECE, _OFTEN = 6, 100


def tokenizer_texts(seed: int, number: int = 30_000) -> Iterator[str]:
    """What the tokenizer is trained on: documents, and the words of the world."""
    rng = random.Random(f"tokenizer/{seed}")
    all_documents = documents(rng, seed)
    for _ in range(number):
        yield from (text for text, _ in parts(next(all_documents)))
    for word in lexicon().words:
        if len(word) <= _ONE_PIECE:
            yield from [word] * _OFTEN
