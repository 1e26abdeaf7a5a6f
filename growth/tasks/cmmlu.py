"""CMMLU (Li et al. 2023, arXiv 2306.09212): 67 subjects, 11,582 questions, each with four choices.

One user turn holds the prompt, as the published runner writes it: a line that names the subject,
the shots of the subject's dev file with their answers, the question.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.data.abilities import LETTERS
from growth.data.published import CMMLU_SHOTS, read_table
from growth.tasks.benchmark import (
    Benchmark,
    Count,
    Item,
    Messages,
    Subject,
    check_question,
    right_letters,
)

STEM, HUMANITIES, SOCIAL, OTHER = "STEM", "Humanities", "Social Science", "Other"
CHINA = "China specific"
# subject: its name in the prompt, its category, and whether it is one of the China specific ones,
# which are a category besides (the paper's table 1)
SUBJECTS: dict[str, tuple[str, str] | tuple[str, str, bool]] = {
    "agronomy": ("农学", OTHER),
    "anatomy": ("解剖学", STEM),
    "ancient_chinese": ("古汉语", SOCIAL, True),
    "arts": ("艺术学", HUMANITIES),
    "astronomy": ("天文学", STEM),
    "business_ethics": ("商业伦理", SOCIAL),
    "chinese_civil_service_exam": ("中国公务员考试", SOCIAL, True),
    "chinese_driving_rule": ("中国驾驶规则", OTHER, True),
    "chinese_food_culture": ("中国饮食文化", SOCIAL, True),
    "chinese_foreign_policy": ("中国外交政策", SOCIAL, True),
    "chinese_history": ("中国历史", HUMANITIES, True),
    "chinese_literature": ("中国文学", HUMANITIES, True),
    "chinese_teacher_qualification": ("中国教师资格", SOCIAL, True),
    "clinical_knowledge": ("临床知识", OTHER),
    "college_actuarial_science": ("大学精算学", STEM),
    "college_education": ("大学教育学", SOCIAL),
    "college_engineering_hydrology": ("大学工程水文学", STEM),
    "college_law": ("大学法律", HUMANITIES),
    "college_mathematics": ("大学数学", STEM),
    "college_medical_statistics": ("大学医学统计", STEM),
    "college_medicine": ("大学医学", OTHER),
    "computer_science": ("计算机科学", STEM),
    "computer_security": ("计算机安全", OTHER),
    "conceptual_physics": ("概念物理学", STEM),
    "construction_project_management": ("建设工程管理", OTHER, True),
    "economics": ("经济学", SOCIAL),
    "education": ("教育学", SOCIAL),
    "electrical_engineering": ("电气工程", STEM),
    "elementary_chinese": ("小学语文", SOCIAL, True),
    "elementary_commonsense": ("小学常识", OTHER, True),
    "elementary_information_and_technology": ("小学信息技术", OTHER),
    "elementary_mathematics": ("初等数学", STEM),
    "ethnology": ("民族学", SOCIAL, True),
    "food_science": ("食品科学", OTHER),
    "genetics": ("遗传学", STEM),
    "global_facts": ("全球事实", HUMANITIES),
    "high_school_biology": ("高中生物", STEM),
    "high_school_chemistry": ("高中化学", STEM),
    "high_school_geography": ("高中地理", SOCIAL),
    "high_school_mathematics": ("高中数学", STEM),
    "high_school_physics": ("高中物理学", STEM),
    "high_school_politics": ("高中政治", SOCIAL, True),
    "human_sexuality": ("人类性行为", OTHER),
    "international_law": ("国际法学", HUMANITIES),
    "journalism": ("新闻学", SOCIAL),
    "jurisprudence": ("法理学", HUMANITIES),
    "legal_and_moral_basis": ("法律与道德基础", OTHER),
    "logical": ("逻辑学", HUMANITIES),
    "machine_learning": ("机器学习", STEM),
    "management": ("管理学", SOCIAL),
    "marketing": ("市场营销", SOCIAL),
    "marxist_theory": ("马克思主义理论", HUMANITIES),
    "modern_chinese": ("现代汉语", SOCIAL, True),
    "nutrition": ("营养学", OTHER),
    "philosophy": ("哲学", HUMANITIES),
    "professional_accounting": ("专业会计", SOCIAL),
    "professional_law": ("专业法学", HUMANITIES),
    "professional_medicine": ("专业医学", OTHER),
    "professional_psychology": ("专业心理学", SOCIAL),
    "public_relations": ("公共关系", SOCIAL),
    "security_study": ("安全研究", SOCIAL),
    "sociology": ("社会学", SOCIAL),
    "sports_science": ("体育学", OTHER),
    "traditional_chinese_medicine": ("中医中药", OTHER, True),
    "virology": ("病毒学", STEM),
    "world_history": ("世界历史", HUMANITIES),
    "world_religions": ("世界宗教", HUMANITIES),
}
CATEGORIES = {
    category: tuple(name for name, about in SUBJECTS.items() if about[1] == category)
    for category in (STEM, HUMANITIES, SOCIAL, OTHER)
} | {CHINA: tuple(name for name, about in SUBJECTS.items() if about[2:])}
HEADER = "以下是关于{}的单项选择题，请直接给出正确答案的选项。"
_OPTIONS = tuple("ABCDEFGH")  # columns; a question with more than four is not asked
# Tokens that the published runner counts with a piece of a prompt.
BOS, BLANK_LINE = 1, 2
COLUMNS = ("Question", *LETTERS, "Answer")


class CMMLU(Benchmark):
    """The benchmark; a setting is a number of shots, `0-shot` to `5-shot`."""

    name = "cmmlu"
    title = "CMMLU"
    subjects = tuple(SUBJECTS)
    settings = tuple(f"{shots}-shot" for shots in range(CMMLU_SHOTS + 1))
    categories = CATEGORIES
    place_field = "row"

    def read(self, data_dir: Path, name: str) -> Subject:
        """A subject's dev and test questions."""
        dev, test = self.files(data_dir, name)
        (items, problems), (shots, of_shots) = _items(test), _items(dev)
        return Subject(name, items, shots[:CMMLU_SHOTS], (*problems, *of_shots))

    def files(self, data_dir: Path, name: str) -> list[Path]:
        """The files that `read` reads."""
        return [data_dir / split / f"{name}.csv" for split in ("dev", "test")]

    def shots_wanted(self, setting: str) -> int:
        """As many as its name says."""
        return self.shots(setting)

    def shots(self, setting: str) -> int:
        """How many shots a setting has."""
        return int(setting.removesuffix("-shot"))

    def shots_of(self, subject: Subject, setting: str) -> list[Item]:
        """The first of the dev file."""
        return subject.shots[: self.shots(setting)]

    def _header(self, subject: Subject) -> str:
        return HEADER.format(SUBJECTS[subject.name][0])

    def _shots(self, subject: Subject, setting: str) -> list[str]:
        return [self.text(shot) + shot.gold for shot in self.shots_of(subject, setting)]

    def fitting_shots(
        self, subject: Subject, item: Item, setting: str, max_length: int, count: Count
    ) -> list[int] | None:
        """As published: all but the longest until the rest fits, those of one length together.

        The published runner adds up the tokens of each piece of the prompt, encoded alone with a
        BOS. Shots that fill the room to its last token do not fit.
        """
        room = max_length - (BOS + count(self._header(subject)) + BLANK_LINE)
        room -= BOS + count(self.text(item))
        if room < 0:
            return None
        costs = [BOS + count(shot) + BLANK_LINE for shot in self._shots(subject, setting)]
        kept = list(range(len(costs)))
        while kept and sum(costs[i] for i in kept) >= room:
            longest = max(costs[i] for i in kept)
            kept = [i for i in kept if costs[i] != longest]
        return kept

    def messages(self, subject: Subject, item: Item, setting: str, kept: Sequence[int]) -> Messages:
        """One user turn."""
        shots = self._shots(subject, setting)
        prompt = "\n\n".join([self._header(subject), *(shots[i] for i in kept), self.text(item)])
        return [{"role": "user", "content": prompt}]

    def shortest(self, subject: Subject, item: Item, setting: str) -> Messages:
        """The question without the line that names the subject, as published."""
        return [{"role": "user", "content": self.text(item)}]

    def text(self, item: Item) -> str:
        """A question, its choices, and the words that ask for the answer."""
        choices = "".join(
            f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=True)
        )
        return f"题目：{item.question}{choices}\n答案是："

    def dumped(
        self, name: str, setting: str, item: Item, max_length: int, messages: Messages
    ) -> dict[str, Any]:
        """The prompt as a text."""
        return {
            "subject": name,
            "row": item.place,
            "shots": self.shots(setting),
            "max_length": max_length,
            "prompt": messages[0]["content"],
            "label": item.gold,
        }


def _items(path: Path) -> tuple[list[Item], list[str]]:
    """The questions of a CSV file, and what in it is none, named by its place.

    Raises:
        InputError: not a CSV file with the columns of CMMLU, or without a question.
    """
    header, *rows = read_table(path) or [[]]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    items, problems = [], []
    for number, row in enumerate(rows):
        try:
            items.append(_item(header, row, number))
        except ValueError as error:
            problems.append(f"{path}: question {number} (from 0) is left out: {error}")
    if not items:
        reasons = "".join(f"; {problem}" for problem in problems[:1])
        raise InputError(f"{path}: holds no question{reasons}; fetch it again")
    return items, problems


def _item(header: list[str], row: list[str], number: int) -> Item:
    """The question of a row.

    Raises:
        ValueError: it is none with four choices of which one is right.
    """
    if not any(cell.strip() for cell in row):
        raise ValueError("a blank row")
    if len(row) != len(header):
        raise ValueError(f"it has {len(row)} fields, the header {len(header)}")
    cells = dict(zip(header, row, strict=True))
    options = [name for name in header if name in _OPTIONS and cells[name].strip()]
    if options != list(LETTERS):
        raise ValueError(f"it has the options {', '.join(options) or 'none'}; expected A, B, C, D")
    check_question(cells["Question"], [cells[letter] for letter in LETTERS])
    gold = right_letters(cells["Answer"])
    if gold not in tuple(LETTERS):
        raise ValueError(f"it has the answer {cells['Answer']!r}; expected one of A, B, C, D")
    return Item(number, cells["Question"], tuple(cells[letter] for letter in LETTERS), gold)
