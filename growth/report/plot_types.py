"""Which figures there are; without what draws them, so that flags are answered at once."""

from growth.core.errors import InputError
from growth.data.study import Study

OVERALL, OOD, OVERVIEW, ALL = "overall", "ood", "overview", "all"
FORMATS = ("png", "svg", "pdf")  # that figures can be written in
SIGMA = 0.8  # of the published figures' Gaussian filter, in points of a curve


def versus_types(study: Study) -> dict[str, tuple[str, str]]:
    """Plot types less the model size that compare the first series with another one."""
    first, *others = study.series or [""]
    return {f"{first}_vs_{other}-": (first, other) for other in others}


def plot_types(study: Study) -> list[str]:
    """The plot types of a study; the sizes are examples."""
    versus = [f"{prefix}{size}" for prefix in versus_types(study) for size in ("7b", "13b")]
    return [OVERALL, *versus, OOD, OVERVIEW, ALL]


def check_plot_type(plot_type: str, study: Study) -> None:
    """Only the study's plot types pass, with any model size.

    Raises:
        InputError: there is no such plot type; it lists those there are.
    """
    versus = versus_types(study)
    if plot_type in (OVERALL, OOD, OVERVIEW, ALL) or any(
        plot_type.startswith(prefix) and plot_type != prefix for prefix in versus
    ):
        return
    any_size = f" ({'<size>, '.join(versus)}<size> takes any model size that was scored)"
    raise InputError(
        f"--plot_type {plot_type}: no such plot. Plots: {', '.join(plot_types(study))}"
        + (any_size if versus else "")
    )


def formats_of(text: str) -> tuple[str, ...]:
    """The formats that a value of --format names, between commas.

    Raises:
        InputError: one of them is none of `FORMATS`.
    """
    formats = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in formats:
        if name not in FORMATS:
            raise InputError(
                f"--format {text}: {name!r} is no format of figures; expected "
                f"{', '.join(FORMATS)}, or several of them between commas"
            )
    return formats
