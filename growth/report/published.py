"""The paper's own numbers on the public benchmarks, for comparison with those of one's own runs."""

from typing import Any

from growth.data.study import Study

# Columns in the paper's order: benchmark, setting of ours, heading.
MEASURES = (
    ("agieval", "zero-shot", "AGIEval 0-shot"),
    ("cmmlu", "0-shot", "CMMLU 0-shot"),
    ("agieval", "few-shot", "AGIEval few-shot"),
    ("cmmlu", "5-shot", "CMMLU 5-shot"),
)
SOURCE = "Dynamics of Instruction Tuning (arXiv 2310.19651), models of 7b, accuracy in per cent"
MODEL_SIZE = "7b"
EPOCHS = (5, 10, 15)
# By setting, for each of `MEASURES` the accuracy after each of `EPOCHS`.
_ACCURACY = {
    "baseline": (
        (31.59, 34.64, 34.76),
        (35.46, 36.75, 36.34),
        (28.71, 31.01, 30.27),
        (34.50, 35.14, 34.29),
    ),
    "reconstruct": (
        (35.82, 35.43, 35.18),
        (35.77, 36.85, 36.76),
        (33.66, 32.27, 32.65),
        (35.12, 35.89, 35.79),
    ),
    "maximum": (
        (36.41, 37.61, 38.85),
        (37.74, 37.28, 37.53),
        (33.37, 33.57, 33.35),
        (37.02, 37.16, 37.13),
    ),
    "mix-2560": (
        (37.08, 39.21, 39.88),
        (37.30, 37.74, 37.74),
        (34.11, 34.07, 34.00),
        (36.91, 36.87, 36.46),
    ),
    "mix-40960": (
        (32.69, 34.43, 34.38),
        (33.98, 36.20, 35.34),
        (30.06, 31.65, 31.41),
        (34.07, 35.06, 35.17),
    ),
}


def published_rows(study: Study) -> list[dict[str, Any]]:
    """A row for each setting and epoch that the paper reports; none for other studies.

    Returns:
        `setting`, the study's name for those lines; `data_type`, the paper's; `model_size`;
        `epoch`; `scores`, by heading of `MEASURES`.
    """
    if not study.is_published:
        return []
    headings = [heading for *_, heading in MEASURES]
    return [
        {
            "setting": study.recipe(data_type).same_as,
            "data_type": data_type,
            "model_size": MODEL_SIZE,
            "epoch": epoch,
            "scores": dict(zip(headings, (measure[i] for measure in accuracy), strict=True)),
        }
        for data_type, accuracy in _ACCURACY.items()
        for i, epoch in enumerate(EPOCHS)
    ]
