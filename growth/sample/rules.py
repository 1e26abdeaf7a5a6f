"""From the tables of the sample world to questions: the rules for facts, dialogues, conduct, texts.

A rule draws one question from a random source. `puzzles` holds the rules that need no table.
"""

import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from growth.data.abilities import LETTERS
from growth.sample import scenes, tables

Rule = Callable[[random.Random], "Draft"]
Turn = tuple[str, str]

_SLOT = re.compile(r"\{(([a-z]+)\d*)\}")
_OPTION = re.compile(r"^[A-D]\. ")


@dataclass(frozen=True)
class Draft:
    """One conversation, before it is known which file it goes to.

    Attributes:
        turns: (user, assistant) texts; the last assistant text is the gold answer.
        keys: what makes it the question it is; no two files that must be disjoint share one, and no
            file has one twice. The order of options is no part of it.
        facts: what has to be known to answer it. A fact is asked in training files, or in valid
            ones, or in test ones.
        wrong: two answers worse than the gold one, for the abilities chosen by perplexity.
        answer: the short final answer, for math.
    """

    turns: tuple[Turn, ...]
    keys: tuple[str, ...]
    facts: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    answer: str | None = None

    @property
    def gold(self) -> str:
        """The last assistant text."""
        return self.turns[-1][1]


def question_key(text: str) -> str:
    """What two spellings of a question have in common: its words, its options in any order."""
    lines = unicodedata.normalize("NFKC", text).split("\n")
    options = sorted(_OPTION.sub("", line) for line in lines if _OPTION.match(line))
    return "\n".join([line for line in lines if not _OPTION.match(line)] + options)


def one_turn(
    user: str,
    gold: str,
    *,
    facts: tuple[str, ...] = (),
    wrong: tuple[str, ...] = (),
    answer: str | None = None,
) -> Draft:
    """A question and its answer; its key is its text."""
    return Draft(((user, gold),), (question_key(user),), facts, wrong, answer)


def lettered(options: Iterable[str]) -> str:
    """The options on lines of their own, each opening with its letter."""
    return "".join(
        f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)
    )


def letter_turn(
    rng: random.Random, stem: str, right: str, wrong: Sequence[str], options: int = 4
) -> Turn:
    """A question with `options` options in a random order, and the letter of the right one."""
    chosen = [right, *rng.sample(list(wrong), options - 1)]
    rng.shuffle(chosen)
    return stem + lettered(chosen), LETTERS[chosen.index(right)]


def letter_question(
    rng: random.Random, stem: str, right: str, wrong: Sequence[str], *facts: str
) -> Draft:
    """A question of four options, answered by a letter."""
    return one_turn(*letter_turn(rng, stem, right, wrong), facts=facts)


def fill_slots(
    rng: random.Random, texts: Iterable[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A word for every slot of `texts`; slots of one pool get different words."""
    words = dict(given or {})
    taken: dict[str, list[str]] = {}
    for text in texts:
        for slot, pool in _SLOT.findall(text):
            if slot in words:
                continue
            left = [w for w in scenes.POOLS[pool] if w not in taken.setdefault(pool, [])]
            words[slot] = rng.choice(left)
            taken[pool].append(words[slot])
    return words


def alternatives(words: Mapping[str, str], slot: str) -> tuple[list[str], list[str]]:
    """Words of a slot's pool beside the word in it: those in other slots, and those in none."""
    pool = slot.rstrip("0123456789")
    filled = [word for name, word in words.items() if name.rstrip("0123456789") == pool]
    mentioned = [word for word in filled if word != words[slot]]
    return mentioned, [word for word in scenes.POOLS[pool] if word not in filled]


# -------------------------------------------------------------------------------------- facts


def fact_question(relations: Sequence[tables.Relation]) -> Rule:
    """A fact of one of the tables, asked forwards or backwards, with four options."""
    # A table counts by its number of facts, so that every fact is as likely as any other.
    weights = [len(relation.pairs) for relation in relations]

    def rule(rng: random.Random) -> Draft:
        relation = rng.choices(relations, weights)[0]
        subject, object_ = rng.choice(relation.pairs)
        wording = rng.choice(relation.forward + relation.backward)
        stem = wording.format(s=subject, o=object_)
        if wording in relation.forward:
            right, wrong = object_, relation.wrong_objects(subject)
        else:
            right, wrong = subject, relation.wrong_subjects(object_)
        return letter_question(rng, stem, right, wrong, f"{subject}={object_}")

    return rule


_JUDGEMENTS = (
    "判断正误：{}。请回答“正确”或“错误”。",
    "下面的说法对吗？{}。请回答“正确”或“错误”。",
    "“{}”，这句话正确还是错误？",
)


def judgement(rng: random.Random) -> Draft:
    """A statement of history, as it is or with a wrong object of the same kind."""
    weights = [len(relation.pairs) for relation in tables.HISTORY]
    relation = rng.choices(tables.HISTORY, weights)[0]
    subject, object_ = rng.choice(relation.pairs)
    fact = f"{subject}={object_}"
    true = rng.random() < 0.5
    if not true:
        # Exchange the part that is a name or a date, so that the sentence stays a sentence.
        if relation.statement.startswith("{s}") or relation.statement.startswith("“{s}"):
            object_ = rng.choice(relation.wrong_objects(subject))
        else:
            subject = rng.choice(relation.wrong_subjects(object_))
    statement = relation.statement.format(s=subject, o=object_)
    gold = "正确" if true else "错误"
    return one_turn(rng.choice(_JUDGEMENTS).format(statement), gold, facts=(fact,))


def dynasty_order(rng: random.Random) -> Draft:
    """Which of four dynasties was founded first or last."""
    chosen = rng.sample(tables.DYNASTIES, 4)
    in_order = sorted(chosen, key=tables.DYNASTIES.index)
    place, word = rng.choice(((0, "最早"), (-1, "最晚")))
    stem = rng.choice(("下列朝代中，建立{}的是：", "按先后顺序，下面哪个朝代建立得{}？")).format(
        word
    )
    names = [d if len(d) > 1 else f"{d}朝" for d in in_order]
    right = names.pop(place)
    return letter_question(rng, stem, right, names)


_NEXT_LINE = (
    "补写下句：{}，____。",
    "《{title}》中，“{}”的下一句是什么？",
    "{author}的诗句“{}，____”，请填空。",
    "请写出“{}”的下句。",
    "填空：{}，____。（{author}《{title}》）",
)
_LINE_BEFORE = (
    "补写上句：____，{}。",
    "《{title}》中，“{}”的上一句是什么？",
    "{author}的诗句“____，{}”，请填空。",
    "请写出“{}”的上句。",
    "填空：____，{}。（{author}《{title}》）",
)


def couplet_blank(rng: random.Random) -> Draft:
    """The other line of a classical couplet."""
    first, second, title, author, _ = rng.choice(tables.POEMS)
    if rng.random() < 0.5:
        wordings, shown, gold = _NEXT_LINE, first, second
    else:
        wordings, shown, gold = _LINE_BEFORE, second, first
    text = rng.choice(wordings).format(shown, title=title, author=author)
    return one_turn(text, gold, facts=(first,))


def idiom_blank(rng: random.Random) -> Draft:
    """Two characters of an idiom, of which the meaning is given or not."""
    idiom, meaning = rng.choice(tables.IDIOMS)
    hidden = idiom[:2] if rng.random() < 0.5 else idiom[2:]
    shown = idiom.replace(hidden, "____", 1)
    wording = rng.choice(
        (
            "把成语补充完整：{}",
            "补全成语“{}”，只写横线上的两个字。",
            "成语填空：{}（意思是{meaning}）",
            "表示“{meaning}”的成语是“{}”，请填上所缺的字。",
        )
    )
    return one_turn(wording.format(shown, meaning=meaning), hidden, facts=(idiom,))


POEM_RELATIONS = (
    tables.Relation(
        tuple((f"{first}，{second}", author) for first, second, _, author, _ in tables.POEMS),
        ("“{s}”的作者是：", "诗句“{s}”是谁写的？", "写下“{s}”的诗人是："),
        ("下列诗句中，{o}写的是：",),
    ),
    tables.Relation(
        tuple(
            (f"{first}，{second}", f"《{title}》") for first, second, title, _, _ in tables.POEMS
        ),
        ("“{s}”出自：", "诗句“{s}”选自哪首诗？"),
        ("下列诗句中，出自{o}的是：",),
    ),
)

# ------------------------------------------------------------------------------------ scenes

MULTI_TURN, THREE_OPTIONS = 0.2, 0.25  # shares of the dialogues


def _about_dialogue(multi_turn: bool) -> Rule:
    def rule(rng: random.Random) -> Draft:
        scene = rng.choice(scenes.SCENES)
        a, b = rng.choice(scenes.SPEAKERS)
        words = fill_slots(rng, scene.lines)
        spoken = "\n".join(
            f"{(a, b)[i % 2]}：{line.format_map(words)}" for i, line in enumerate(scene.lines)
        )
        # "男的" for the man; "男的的姐姐" would say it twice.
        called = {"a": a + "的" * (a in "男女"), "b": b + "的" * (b in "男女")}
        turns = []
        for question, slot in rng.sample(scene.questions, 1 + multi_turn):
            stem = question.format_map(words | called).replace("的的", "的")
            mentioned, others = alternatives(words, slot)
            rng.shuffle(others)
            options = 3 if rng.random() < THREE_OPTIONS else 4
            wrong = (mentioned + others)[: options - 1]
            turns.append(letter_turn(rng, stem, words[slot], wrong, options))
        (first, letter), *more = turns
        keys = (spoken, *(question_key(question) for question, _ in more))
        return Draft(((f"{spoken}\n{first}", letter), *more), keys)

    return rule


def conduct(rng: random.Random) -> Draft:
    """Which of four acts are right, or wrong, in a situation: one to four of them."""
    situation = rng.choice(tuple(scenes.CONDUCT))
    right, wrong = scenes.CONDUCT[situation]
    asks_right = rng.random() < 0.7
    number = rng.choices((1, 2, 3, 4), (3, 4, 4, 1))[0]
    asked, other = (right, wrong) if asks_right else (wrong, right)
    gold = set(rng.sample(asked, number))
    acts = [*sorted(gold), *rng.sample(other, 4 - number)]
    rng.shuffle(acts)
    wording = rng.choice(
        (
            "{}下列做法{}的有：",
            "不定项选择题：{}下列行为{}的是：",
            "{}下面哪些做法是{}的？（可多选）",
        )
    )
    word = rng.choice(("恰当", "正确", "可取") if asks_right else ("不恰当", "错误", "不可取"))
    text = wording.format(situation, word) + lettered(acts)
    letters = "".join(letter for letter, a in zip(LETTERS, acts, strict=True) if a in gold)
    return one_turn(text, letters, facts=(situation,))


def verse(rng: random.Random) -> Draft:
    """Four lines on a topic with two images to order; worse: other images, another topic."""
    topic, other_topic = rng.sample(tuple(scenes.VERSE), 2)
    images = rng.sample(tuple(scenes.VERSE[topic]), 4)
    other_images = rng.sample(tuple(scenes.VERSE[other_topic]), 2)
    words = {"topic": topic, "first": images[0], "second": images[1]}
    wording = rng.choice(scenes.VERSE_REQUESTS)
    request = wording.format_map(fill_slots(rng, (wording,), words))
    gold, near, far = (
        "\n".join(scenes.VERSE[t][image] for image in pair)
        for t, pair in ((topic, images[:2]), (topic, images[2:]), (other_topic, other_images))
    )
    return one_turn(request, gold, wrong=(near, far))


def short_text(rng: random.Random) -> Draft:
    """A notice, note or letter to order; worse: other particulars, another form."""
    form, other_form = rng.sample(tuple(scenes.FORMS), 2)
    requests, body = scenes.FORMS[form]
    request, other_body = rng.choice(requests), scenes.FORMS[other_form][1]
    words = fill_slots(rng, (request, body))
    while (near := body.format_map(fill_slots(rng, (body,)))) == body.format_map(words):
        pass
    far = other_body.format_map(fill_slots(rng, (other_body,), words))
    return one_turn(request.format_map(words), body.format_map(words), wrong=(near, far))


_ROLE_REQUESTS = (
    "请你扮演{name}：{card}。请始终用{name}的口吻说话。\n{visitor}：{question}",
    "现在你是{name}，{card}。\n{visitor}对你说：“{question}”",
    "角色扮演。你的角色：{name}（{card}）。\n{visitor}：{question}",
)


def _persona_chat(multi_turn: bool) -> Rule:
    def rule(rng: random.Random) -> Draft:
        persona, other = rng.sample(scenes.PERSONAS, 2)
        visitor = rng.choice(scenes.POOLS["name"])
        topics = tuple(scenes.VISITOR_QUESTIONS)
        *two, third = rng.sample(topics, 3)
        first, second = sorted(two, key=topics.index)  # a greeting comes before a farewell
        opening = rng.choice(_ROLE_REQUESTS).format(
            name=persona.name,
            card=persona.card,
            visitor=visitor,
            question=rng.choice(scenes.VISITOR_QUESTIONS[first]),
        )
        turns = [(opening, persona.replies[first])]
        asked = first
        if multi_turn:
            asked = second
            link, question = (
                rng.choice(said) for said in (scenes.LINKS, scenes.VISITOR_QUESTIONS[second])
            )
            turns.append((f"{visitor}：{link}{question}", persona.replies[second]))
        wrong = (persona.replies[third], other.replies[asked])
        return Draft(tuple(turns), tuple(question_key(user) for user, _ in turns), wrong=wrong)

    return rule


# ------------------------------------------------------------------------------ out of domain


def five_shot(
    demonstrations: Sequence[tuple[str, str, Sequence[str]]], relations: Sequence[tables.Relation]
) -> Rule:
    """Five fixed pairs of a question and its letter, then a question of the tables."""
    shown = []
    for number, (stem, right, wrong) in enumerate(demonstrations):
        fixed = random.Random(f"demonstration/{number}")
        shown.append(letter_turn(fixed, stem, right, wrong))
    ask = fact_question(relations)

    def rule(rng: random.Random) -> Draft:
        draft = ask(rng)
        return Draft((*shown, *draft.turns), draft.keys, draft.facts)

    return rule


# A share of each kind of question; the kinds together make an ability.
Kinds = tuple[tuple[float, Rule], ...]

FACT_KINDS: dict[str, Kinds] = {
    "biology": ((1.0, fact_question(tables.BIOLOGY)),),
    "history": (
        (0.7, fact_question(tables.HISTORY)),
        (0.1, dynasty_order),
        (0.2, judgement),
    ),
    "chinese": (
        (0.65, fact_question(tables.CHINESE)),
        (0.15, fact_question(POEM_RELATIONS)),
        (0.08, couplet_blank),
        (0.12, idiom_blank),
    ),
}
SCENE_KINDS: dict[str, Kinds] = {
    "understanding": (
        (1 - MULTI_TURN, _about_dialogue(multi_turn=False)),
        (MULTI_TURN, _about_dialogue(multi_turn=True)),
    ),
    "ethics": ((1.0, conduct),),
    "creative_writing": ((0.5, verse), (0.5, short_text)),
    "role_play": (
        (0.75, _persona_chat(multi_turn=False)),
        (0.25, _persona_chat(multi_turn=True)),
    ),
}
OUT_OF_DOMAIN_KINDS: dict[str, Kinds] = {
    f"ceval_{name}_fshot": ((1.0, five_shot(demonstrations, relations)),)
    for name, demonstrations, relations in (
        ("physician", tables.PHYSICIAN_DEMONSTRATIONS, tables.PHYSICIAN),
        ("teacher_qualification", tables.TEACHER_DEMONSTRATIONS, tables.TEACHER),
        ("urban_and_rural_planner", tables.PLANNER_DEMONSTRATIONS, tables.PLANNER),
    )
}
