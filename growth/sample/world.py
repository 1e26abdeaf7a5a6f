"""The sample world: a small data set in DoIT's format and layout, made from tables and rules.

Which file a question may go to is decided by `splits`, so that every file is drawn on its own: it
depends on the seed alone, not on the other files.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from growth.core.files import write_json_lines
from growth.core.workers import worker_pool
from growth.data.abilities import LETTERS
from growth.data.study import published_study
from growth.sample.puzzles import PUZZLE_KINDS
from growth.sample.rules import FACT_KINDS, OUT_OF_DOMAIN_KINDS, SCENE_KINDS, Draft, Kinds, Rule
from growth.sample.scenes import (
    SYNTHETIC_ANSWER_CLOSERS,
    SYNTHETIC_ANSWER_OPENERS,
    SYNTHETIC_CLOSERS,
    SYNTHETIC_LETTER_ANSWERS,
    SYNTHETIC_OPENERS,
)
from growth.sample.splits import split_of

KINDS: dict[str, Kinds] = FACT_KINDS | SCENE_KINDS | PUZZLE_KINDS

LINES_1000, LINES_SYNTHETIC = 1000, 40960
# Of an ability, and of an out-of-domain set. Valid lines only choose among checkpoints.
LINES_HELD_OUT: Mapping[str, tuple[int, int]] = {"valid": (50, 10), "test": (100, 40)}
ABILITY_NAMES = tuple(ability.name for ability in published_study().in_domain)
# As much as `reconstruct` asks for (1,306 of chinese), and some more.
LINES_FULL = dict.fromkeys(ABILITY_NAMES, 1400) | dict.fromkeys(
    ("creative_writing", "ethics", "role_play"), 1000
)

# A kind of question is tried so often before another; it is used up for a file if all are in vain.
_TRIES_A_KIND, _ROUNDS = 400, 50

# The imitations are wrong this often, and cut short this often.
_WRONG, _CUT = 0.3, 0.05


def write_sample(output_dir: Path, seed: int) -> dict[str, int]:
    """Write the sample set below `output_dir`; a file of the same name is replaced.

    Args:
        output_dir: gets `curated/{1000,full,valid,test}` and `synthetic/40960`.
        seed: of everything; the same seed gives the same bytes.

    Returns:
        The lines of each file, by its path relative to `output_dir`.
    """
    counts: dict[str, int] = {}
    with tqdm(desc="sample", unit="line") as bar:
        for path, records in sample_files(seed):
            write_json_lines(output_dir / path, records)
            counts[path] = len(records)
            bar.update(len(records))
    return counts


def sample_files(seed: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every file of the sample: its relative path and its lines. All processors draw."""
    full = [(name, "curated", count) for name, count in LINES_FULL.items()]
    held_out = [
        (name, split, of_ability if name in KINDS else of_set)
        for split, (of_ability, of_set) in LINES_HELD_OUT.items()
        for name in (*KINDS, *OUT_OF_DOMAIN_KINDS)
    ]
    abilities = random.Random(f"{seed}/synthetic").choices(ABILITY_NAMES, k=LINES_SYNTHETIC)
    shares = Counter(abilities)
    with worker_pool() as pool:
        seeds = itertools.repeat(seed)
        curated = pool.map(curated_lines, *zip(*full, *held_out, strict=True), seeds)
        imitations = pool.map(imitated_drafts, shares, shares.values(), seeds)
        for name, _, _ in full:
            lines = next(curated)
            yield f"curated/1000/{name}_1000.json", lines[:LINES_1000]
            yield f"curated/full/{name}_full.json", lines
        for name, split, _ in held_out:
            yield f"curated/{split}/{name}_{split}.json", next(curated)
        drafts = dict(zip(shares, map(iter, imitations), strict=True))
    lines = [_line(next(drafts[name]), i, "synthetic") for i, name in enumerate(abilities)]
    yield f"synthetic/{LINES_SYNTHETIC}/synthetic_{LINES_SYNTHETIC}.json", lines


def curated_lines(name: str, split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """The lines of one ability for `curated` (training), `valid` or `test`.

    Args:
        name: an ability, or an out-of-domain set.
        split: where the questions may come from.
        count: number of lines.
        seed: of the drawing.
    """
    rng = random.Random(f"{seed}/{split}/{name}")
    kinds = list((KINDS | OUT_OF_DOMAIN_KINDS)[name])
    ability = published_study().ability_of(name)
    chosen_by_perplexity = split != "curated" and ability and ability.is_choice
    lines: list[dict[str, Any]] = []
    seen: set[str] = set()
    golds: Counter[str] = Counter()
    for index in range(count):
        draft = _draw(rng, kinds, split, seed, seen, golds)
        golds[draft.gold] += 1
        line = _line(draft, index, name)
        if chosen_by_perplexity:
            line |= {"question_format": 1, "choices": [draft.gold, *draft.wrong]}
        if draft.answer is not None:
            line["answer"] = draft.answer
        lines.append(line)
    return lines


def imitated_drafts(name: str, count: int, seed: int) -> list[Draft]:
    """The part of the synthetic file that imitates an ability: talkative and often wrong."""
    rng = random.Random(f"{seed}/synthetic/{name}")
    kinds, seen = list(KINDS[name]), set[str]()
    drafts = (_draw(rng, kinds, "synthetic", seed, seen) for _ in range(count))
    return [_imitation(rng, draft) for draft in drafts]


def _draw(
    rng: random.Random,
    kinds: list[tuple[float, Rule]],
    split: str,
    seed: int,
    seen: set[str],
    golds: Mapping[str, int] = MappingProxyType({}),
) -> Draft:
    """A question that may go to `split` and is not among `seen`; it is added to them.

    Nor is its gold a letter that `golds` counts more often than another: who always gives the same
    letter shall score what guessing does. A kind of question that is used up leaves `kinds`.
    """
    fewest = min(golds.get(letter, 0) for letter in LETTERS)
    for _ in range(_ROUNDS):
        kind = rng.choices(kinds, [share for share, _ in kinds])[0]
        used_up = True
        for _ in range(_TRIES_A_KIND):
            draft = kind[1](rng)
            if seen.intersection(draft.keys) or split_of(draft, seed) != split:
                continue
            if draft.gold not in LETTERS or golds.get(draft.gold, 0) <= fewest:
                seen.update(draft.keys)
                return draft
            used_up = False  # only this letter is not to be had
        if used_up:
            kinds.remove(kind)
        if not kinds:
            break
    raise AssertionError(f"no question is left for {split}: more facts or wordings are needed")


def _line(draft: Draft, index: int, type_name: str) -> dict[str, Any]:
    messages = [
        {"role": role, "content": text}
        for turn in draft.turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {"messages": messages, "idx": index, "type": type_name, "question_format": 0}


def _imitation(rng: random.Random, draft: Draft) -> Draft:
    """The question in other clothes, with an answer that is wordy, now and then wrong or cut."""
    (first, first_answer), *more = draft.turns
    first = rng.choice(SYNTHETIC_OPENERS) + first + rng.choice(SYNTHETIC_CLOSERS)
    turns = [(first, first_answer), *more]
    user, gold = turns[-1]
    wrong = rng.random() < _WRONG
    if gold in LETTERS:
        letter = rng.choice(LETTERS[:3]) if wrong else gold
        answer = rng.choice(SYNTHETIC_LETTER_ANSWERS).format(letter)
    else:
        answer = _wrong_text(rng, draft) if wrong else gold
        answer = (
            rng.choice(SYNTHETIC_ANSWER_OPENERS) + answer + rng.choice(SYNTHETIC_ANSWER_CLOSERS)
        )
    if rng.random() < _CUT:
        answer = answer[: max(1, len(answer) * 2 // 3)]
    return Draft((*turns[:-1], (user, answer)), draft.keys)


def _wrong_text(rng: random.Random, draft: Draft) -> str:
    """A worse answer, of the kind that the gold answer is."""
    if draft.wrong:
        return rng.choice(draft.wrong)
    if draft.answer is not None:
        return f"答案是{rng.randint(1, 99)}。"
    if set(draft.gold) <= set(LETTERS):
        return "".join(sorted(rng.sample(LETTERS, rng.randint(1, 4))))
    return {"正确": "错误", "错误": "正确"}.get(draft.gold, "我不太确定。")
