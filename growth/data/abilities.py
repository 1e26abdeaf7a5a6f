"""The ten abilities and the three out-of-domain sets of the study, in one table.

Source: paper section 3 and the published scorer's rules (what an answer looks like, what chance
scores).
"""

from dataclasses import dataclass
from enum import Enum

LETTERS = ("A", "B", "C", "D")


class Kind(Enum):
    """How an ability is asked and its answer read."""

    LETTER = "one letter A-D"
    LETTER_OR_BLANK = "one letter A-D, or Chinese characters for a blank"
    LETTER_OR_TRUTH = "one letter A-D, or true/false"
    LETTER_SET = "a set of letters A-F"
    MATH = "a worked solution with a final answer"
    CHOICE = "the choice of lowest perplexity among three"


@dataclass(frozen=True)
class Ability:
    """One ability: the `type` of its lines, its title on figures, the kind of its questions."""

    name: str
    title: str
    kind: Kind
    out_of_domain: bool = False

    @property
    def question_format(self) -> int:
        """The `question_format` of its valid and test lines: 1 for choices by perplexity."""
        return 1 if self.kind is Kind.CHOICE else 0


ABILITIES = (
    Ability("biology", "Biology", Kind.LETTER),
    Ability("history", "History", Kind.LETTER_OR_TRUTH),
    Ability("chinese", "Chinese", Kind.LETTER_OR_BLANK),
    Ability("understanding", "Dialogue Understanding", Kind.LETTER),
    Ability("reasoning", "Logical Reasoning", Kind.LETTER),
    Ability("math", "Math (chain of thought)", Kind.MATH),
    Ability("ethics", "Ethics", Kind.LETTER_SET),
    Ability("code", "Code Generation", Kind.CHOICE),
    Ability("creative_writing", "Creative Writing", Kind.CHOICE),
    Ability("role_play", "Role-play Chat", Kind.CHOICE),
)
OUT_OF_DOMAIN = (
    Ability("ceval_physician_fshot", "C-Eval Physician", Kind.LETTER, True),
    Ability("ceval_teacher_qualification_fshot", "C-Eval Teacher", Kind.LETTER, True),
    Ability("ceval_urban_and_rural_planner_fshot", "C-Eval Planner", Kind.LETTER, True),
)
ABILITY_NAMES = tuple(ability.name for ability in ABILITIES)
_BY_TYPE = {ability.name: ability for ability in ABILITIES + OUT_OF_DOMAIN} | {
    # DoIT's own files leave the suffix out of their names; lines may leave it out of their type.
    ability.name.removesuffix("_fshot"): ability
    for ability in OUT_OF_DOMAIN
}
KNOWN_TYPES = tuple(_BY_TYPE)


def checked_ability(type_name: str) -> Ability:
    """The ability of a line's `type` that was checked when the line was read."""
    return _BY_TYPE[type_name]


def ability_of(type_name: str) -> Ability | None:
    """The ability that a line's `type` names, or None where there is no such ability."""
    return _BY_TYPE.get(type_name)
