"""A small English data set as people have them: Alpaca files of three abilities.

It stands in for data of one's own in docs/tutorial.md. Not part of the sample world.
"""

import random
from collections.abc import Callable

AlpacaLine = dict[str, str]  # instruction, input, output
LINES = 400  # of each ability

_GROUPS = {
    "animal": ["tiger", "horse", "rabbit", "spider"],
    "food": ["bread", "cheese", "soup", "honey"],
    "clothes": ["jacket", "sock", "glove", "scarf"],
    "plant": ["oak", "daisy", "cactus", "fern"],
    "tool": ["hammer", "saw", "drill", "wrench"],
}
_PLACES = [
    "barn",
    "kitchen",
    "garden",
    "market",
    "station",
    "river",
    "cellar",
    "school",
    "harbour",
    "attic",
]
_NAMES = ["Tom", "Ann", "Sam", "Eve", "Max", "Lily", "Ben", "Ruth", "Paul", "Kate"]
_GOOD = ["good", "great", "lovely", "happy", "nice", "kind", "warm", "bright", "funny", "fresh"]
_BAD = ["bad", "awful", "sad", "cold", "rude", "dull", "ugly", "mean", "boring", "stale"]
_EVENTS = ["film", "book", "meal", "day", "trip", "song", "hotel", "game", "party", "lesson"]
_THINGS = ["apples", "coins", "books", "shells", "stamps", "cards", "keys", "nuts", "pens", "cups"]


def sorting(rng: random.Random) -> AlpacaLine:
    """Which of five groups a thing belongs to; answered by one letter, A to E."""
    group = rng.randrange(len(_GROUPS))
    thing = rng.choice(list(_GROUPS.values())[group])
    place, name = rng.choice(_PLACES), rng.choice(_NAMES)
    question = rng.choice(
        [
            f"{name} saw a {thing} in the {place}. What kind of thing is it?",
            f"In the {place} there is a {thing}. Where does it belong?",
            f"{name} asks what a {thing} is.",
            f"Sort this for the {place}: {thing}",
        ]
    )
    options = "\n".join(f"{label}. {title}" for label, title in zip("ABCDE", _GROUPS, strict=True))
    return {"instruction": question, "input": options, "output": "ABCDE"[group]}


def mood(rng: random.Random) -> AlpacaLine:
    """Whether somebody liked something; answered by yes or no."""
    liked = rng.random() < 0.5
    first, second = rng.sample(_GOOD if liked else _BAD, 2)
    name, event = rng.choice(_NAMES), rng.choice(_EVENTS)
    said = rng.choice(
        [
            f"{name} says the {event} was {first} and {second}.",
            f"What a {first} {event}, writes {name}, and so {second}!",
            f"The {event} that {name} chose was {first}, even {second}.",
        ]
    )
    question = f"Did {name} like it?"
    return {"instruction": question, "input": said, "output": "yes" if liked else "no"}


def sums(rng: random.Random) -> AlpacaLine:
    """A sum of two numbers up to five in words; answered by a number."""
    first, second = rng.randint(1, 5), rng.randint(1, 5)
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    text = rng.choice(
        [
            f"{name} has {first} {things} and gets {second} more. How many {things} are there?",
            f"There are {first} {things} on the table and {second} in the box. Count them all.",
            f"{first} {things} plus {second} {things}: how many for {name}?",
        ]
    )
    return {"instruction": text, "input": "", "output": str(first + second)}


ABILITIES: dict[str, Callable[[random.Random], AlpacaLine]] = {
    "sorting": sorting,
    "mood": mood,
    "sums": sums,
}


def example_lines(seed: int) -> dict[str, list[AlpacaLine]]:
    """The lines of each ability, no question twice."""
    lines: dict[str, list[AlpacaLine]] = {}
    for name, draw in ABILITIES.items():
        rng = random.Random(f"{seed}/{name}")
        found: dict[tuple[str, str], AlpacaLine] = {}
        while len(found) < LINES:
            line = draw(rng)
            found.setdefault((line["instruction"], line["input"]), line)
        lines[name] = list(found.values())
    return lines
