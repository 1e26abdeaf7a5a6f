"""DoIT lines: JSON Lines named `.json`, read and checked, with file:line in every complaint.

The format is that of the published data set (its card; README, "Data format").
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from growth.core.errors import InputError
from growth.core.normal_form import fold
from growth.data.abilities import FALSE_WORDS, LETTERS, TRUE_WORDS, Ability, Kind
from growth.data.copies import COUNTED_AGAIN, check_no_copies, find_repeats, warn_of_repeats
from growth.data.lines import Check, Fault, Lines, Record, checked_lines, index_lines, shown
from growth.data.study import Study

# Kinds of which a gold answer that is a letter is read from one letter, any other one otherwise.
_LETTER_OR = (Kind.DOIT_LETTER_OR_BLANK, Kind.DOIT_LETTER_OR_TRUTH)
_LETTER = (Kind.LETTER, Kind.DOIT_DIALOGUE)


def data_files(folder: Path, flag: str) -> list[Path]:
    """Every `*.json` of `folder`, sorted by name, so that no order of a file system shows through.

    Raises:
        InputError: the folder is missing or holds no such file; `flag` says where it came from.
    """
    if not folder.is_dir():
        raise InputError(
            f"{flag} {folder}: no such folder. Give the folder of the *.json files; "
            "`python data/download.py` downloads the published data."
        )
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    if not files:
        raise InputError(f"{flag} {folder}: no *.json file in it")
    return files


def read_records(path: Path, check: Check | None = None) -> list[Record]:
    """Read the lines of one file, each checked; a byte order mark, CRLF and blank lines pass.

    Args:
        path: a file of JSON Lines in UTF-8.
        check: `check_training` (default), or the check of a later use.

    Raises:
        InputError: the file is missing, empty or not UTF-8, or a line is malformed (file:line).
    """
    return [record for _, record in checked_lines(path, check or check_training)]


def read_training_files(folder: Path, flag: str) -> dict[str, Lines]:
    """The lines of every `*.json` of `folder` by file name; `flag` says where it came from.

    Each is checked now and stays in its file. Files that are copies of each other, and lines that
    are repeated, are named in a warning.
    """
    files = {path.name: index_lines(path, check_training) for path in data_files(folder, flag)}
    effect = "these lines are learnt more than once per epoch"
    warn_of_repeats(find_repeats(files), f"{flag} {folder}", effect)
    return files


def read_evaluation_files(
    folder: Path, flag: str, study: Study, limit: int | None = None
) -> dict[str, list[Record]]:
    """The lines of every `*.json` of `folder` by the file's stem, the first `limit` of each.

    They are of abilities of `study`. Lines that are repeated are named in a warning.

    Raises:
        InputError: as `data_files` and `read_records`, or two files are copies of each other;
            `flag` says where the folder came from.
    """
    files = {
        path.name: read_records(path, evaluation_check(study)) for path in data_files(folder, flag)
    }
    where = f"{flag} {folder}"
    warn_of_repeats(check_no_copies(files, where), where, COUNTED_AGAIN)
    return {Path(name).stem: records[:limit] for name, records in files.items()}


def _text(value: object, name: str) -> str:
    """`value` if it is a text that says something."""
    if not isinstance(value, str):
        raise Fault(f"{name} must be a string, found {shown(value)}")
    if not value.strip():
        raise Fault(f"{name} is empty")
    return value


def check_training(record: Record) -> None:
    """What training needs: `messages` in turns, user first, the assistant last, none empty."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        found = shown(messages) if "messages" in record else "none"
        raise Fault(f"`messages` must be a list of user and assistant turns, found {found}")
    for position, message in enumerate(messages):
        name = f"messages[{position}]"
        if not isinstance(message, dict):
            raise Fault(f"{name} must be an object with role and content, found {shown(message)}")
        expected = ("user", "assistant")[position % 2]
        if message.get("role") != expected:
            raise Fault(
                f"{name} has the role {shown(message.get('role'))}, expected {expected!r}: "
                "the turns alternate and the user begins"
            )
        _text(message.get("content"), f"{name}.content")
    if len(messages) % 2:
        raise Fault("the last message must be the assistant's: it is the gold answer")


def evaluation_check(study: Study) -> Check:
    """What prediction and scoring need in addition: a type of `study`, a gold that it allows."""
    return partial(_check_evaluation, study)


def _check_evaluation(study: Study, record: Record) -> None:
    check_training(record)
    ability = study.ability_of(record.get("type"))
    if ability is None:
        name = record.get("type")
        near = difflib.get_close_matches(str(name), study.types, n=1, cutoff=0)
        raise Fault(
            f"unknown type {shown(name)}; nearest: {near[0]}; known in the study {study.name}: "
            + ", ".join(study.types)
        )
    format_ = record.get("question_format", None if study.is_published else ability.question_format)
    if isinstance(format_, bool) or format_ not in (0, 1):
        raise Fault(f"question_format must be 0 or 1, found {shown(format_)}")
    if format_ != ability.question_format:
        raise Fault(
            f"type {ability.name} is asked with question_format {ability.question_format}, "
            f"found {format_}"
        )
    if ability.is_choice:
        _check_choices(record.get("choices"), ability)
    else:
        _check_gold(record, ability)


def _check_choices(choices: object, ability: Ability) -> None:
    found = len(choices) if isinstance(choices, list) else 0
    if found < 2 or found != (ability.choices or found):
        raise Fault(
            f"question_format 1 needs `choices`, {ability.choices or '2 or more'} strings with the "
            f"gold one first, found {found if isinstance(choices, list) else shown(choices)}"
        )
    assert isinstance(choices, list)  # as it has a length
    for position, choice in enumerate(choices):
        _text(choice, f"choices[{position}]")


def _check_gold(record: Record, ability: Ability) -> None:
    if ability.gold:
        value = record.get(ability.gold)
        if not isinstance(value, str):
            raise Fault(
                f"`{ability.gold}`, the gold answer of type {ability.name}, must be a string, "
                f"found {shown(value)}"
            )
    gold, kind = gold_of(record, ability), ability.kind
    if not gold and kind is not Kind.DOIT_MATH:
        raise Fault(f"`{ability.gold}`, the gold answer of type {ability.name}, is empty")
    allowed: tuple[str, ...] | None = {
        **dict.fromkeys(_LETTER, ability.options),
        Kind.DOIT_LETTER_OR_TRUTH: LETTERS + TRUE_WORDS + FALSE_WORDS,
        Kind.TRUTH: ability.true_words + ability.false_words,
    }.get(kind)
    found = gold
    if kind is Kind.TRUTH:  # in any case and width, as it is read
        found, allowed = fold(gold), tuple(map(fold, allowed or ()))
    if allowed is not None and found not in allowed:
        raise Fault(
            f"type {ability.name} allows the gold answers {' '.join(allowed)}, found {shown(gold)}"
        )
    if kind in (Kind.LETTER_SET, Kind.DOIT_LETTER_SET) and not ability.labels_in(gold):
        raise Fault(
            f"type {ability.name} needs some of {' '.join(ability.options)} on the last line of "
            f"the gold answer, found {shown(gold)}"
        )


def gold_of(record: Record, ability: Ability) -> str:
    """The gold answer: the last message, stripped, or the field that the study names."""
    if ability.kind is Kind.DOIT_MATH:
        return record[ability.gold]  # as published, with the spaces it may have
    text = record[ability.gold] if ability.gold else record["messages"][-1]["content"]
    return text.strip()


def reads_letter(record: Record, ability: Ability) -> bool:
    """Whether the score of a generated answer depends on one label and nothing else."""
    return ability.kind in _LETTER or (
        ability.kind in _LETTER_OR and gold_of(record, ability) in LETTERS
    )


def ability_name(record: Record, path: Path, study: Study, by_file: bool = False) -> str:
    """The ability of a training line: its type, else its file's name, whole or less the last part.

    With `by_file` the type does not count.

    Raises:
        InputError: neither names an ability of `study`.
    """
    names = [ability.name for ability in study.in_domain]
    type_name = record.get("type")
    for ability in _named_abilities(None if by_file else type_name, path.stem, study):
        if not ability.out_of_domain:
            return ability.name
    neither = "" if by_file else f"neither its lines' type {shown(type_name)} nor "
    raise InputError(
        f"{path}: {neither}its name is one of the {len(names)} abilities of the study "
        f"{study.name}: {', '.join(names)}"
    )


def line_abilities(files: Mapping[str, Sequence[Record]], study: Study) -> list[str | None]:
    """The ability of each line of these files, by name, in order; None for lines of none.

    By its type, else by its file's name, whole or less the last part, as `ability_name` says.
    """
    found = (
        next(_named_abilities(record.get("type"), Path(name).stem, study), None)
        for name, records in files.items()
        for record in records
    )
    return [None if ability is None else ability.name for ability in found]


def _named_abilities(type_name: object, stem: str, study: Study) -> Iterator[Ability]:
    """The abilities that a line's type, then the name of its file, are names of."""
    for name in (type_name, stem, stem.rpartition("_")[0]):
        ability = study.ability_of(name)
        if ability is not None:
            yield ability


def prediction_check(study: Study) -> Check:
    """What scoring needs in addition: what the model answered."""
    return partial(_check_prediction, study)


def _check_prediction(study: Study, record: Record) -> None:
    _check_evaluation(study, record)
    ability = study.ability(record)
    if ability.is_choice:
        ppl, wanted = record.get("generated_ppl"), len(record["choices"])
        if not isinstance(ppl, list) or len(ppl) != wanted or not _are_numbers(ppl):
            raise Fault(
                f"`generated_ppl` must be {wanted} numbers, found {shown(ppl)}; "
                "evaluate/predict.py writes it"
            )
        return
    if not isinstance(record.get("generated_response"), str):
        raise Fault(
            "`generated_response` must be a string, found "
            f"{shown(record.get('generated_response'))}; evaluate/predict.py writes it"
        )
    logits = record.get("choice_logits")
    if reads_letter(record, ability) and (
        not isinstance(logits, dict) or not _are_numbers(list(map(logits.get, ability.options)))
    ):
        raise Fault(
            f"`choice_logits` must hold a number for each of {' '.join(ability.options)}, found "
            f"{shown(logits)}; evaluate/predict.py writes it"
        )


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
