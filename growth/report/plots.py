"""Growth points -> figures and their numbers: which there are, and what stands around the curves.

Figures are matplotlib's `Figure` objects, drawn by Agg; no state of pyplot is touched.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from growth.core.files import write_text
from growth.data.study import AVERAGE, OOD_AVERAGE, OTHER, Study
from growth.report.axes import (
    Join,
    Look,
    curves_of,
    frame_of,
    growth_curve,
    growth_figure,
    legend_handles,
    log4,
    look_of,
    range_of,
    without_samples,
)
from growth.report.curves import sizes_of, smooth
from growth.report.fonts import DEFAULT_FONTS, Fonts, fonts_for
from growth.report.laws import law_lines, law_of
from growth.report.plot_types import ALL, OOD, OVERALL, OVERVIEW, SIGMA, versus_types
from growth.report.style import GREY, LARGE, NORMAL, legend_below, wrapped, write_figure
from growth.report.values import LOSS, SCORE, VALUES, value_of, value_suffix

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PANEL, _HEIGHT, _STACKED = 1.9, 2.0, 1.6  # inches: of the curves in a panel of the overview
_MARGIN = 0.7  # inches left of the axis and right of it
_WIDEST = 12.0  # inches that the overview is wide at most, unless a panel is
# What figures say of lines and bands that don't join the points.
JOINED: Mapping[Join, str] = {
    "raw": "",
    "smooth": f"smoothed (sigma {SIGMA}), points raw",
    "law": "line and band: fitted law with its 90 % interval",
}
_JOINED_COLUMNS: Mapping[Join, tuple[str, ...]] = {
    "raw": (),
    "smooth": ("smoothed_score", "smoothed_low", "smoothed_high"),
    "law": ("law", "law_low", "law_high"),
}


@dataclass(frozen=True)
class Drawing:
    """One figure to be: its place, the numbers drawn, and the function that draws them.

    It can be pickled, so that processes can share the drawing.
    """

    folder: str
    stem: str
    points: pd.DataFrame
    draw: Callable[[], Figure]
    fonts: Fonts = DEFAULT_FONTS

    def table(self, join: Join) -> pd.DataFrame:
        """The numbers drawn, for a CSV: with those of the smoothed curves or the laws, if drawn.

        The columns score and run_scores bear the name of the value that is drawn.
        """
        table = self.points.drop(columns=["parts", "value"]).copy()
        for column in ("run_scores", "checkpoints"):
            table[column] = [" ".join(map(str, values)) for values in table[column]]
        for name in _JOINED_COLUMNS[join]:
            table[name] = np.nan
        for _, curve in curves_of(self.points, by_ability=True):
            for name, ys in _joined_at(curve, join).items():
                table.loc[curve.index, name] = ys.round(4)
        value = value_of(self.points)
        own = {} if value == SCORE else {"score": value, "run_scores": f"run_{value}"}
        return table.rename(columns=own)

    def write(self, plots_path: Path, join: Join, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Write the numbers, and the figure in each format, below `plots_path`; returns where."""
        stem = plots_path / self.folder / self.stem
        numbers = stem.with_name(f"{stem.name}.csv")
        write_text(numbers, self.table(join).to_csv(index=False))
        return [numbers, *write_figure(self.draw, stem, formats, self.fonts)]


def _joined_at(curve: pd.DataFrame, join: Join) -> dict[str, np.ndarray]:
    """The heights of the line and the band of a curve at its points, if they are not its own."""
    if join == "law" and (posterior := law_of(curve)) is not None:
        return law_lines(posterior, curve["samples"].to_numpy(float))
    if join == "smooth":
        places = log4(curve["samples"])
        keys = ("score", "low", "high")
        return {f"smoothed_{key}": smooth(places, curve[key], steps=1)[1] for key in keys}
    return {}


def drawings(
    points: pd.DataFrame,
    plot_type: str,
    study: Study,
    join: Join = "raw",
    fonts: Fonts = DEFAULT_FONTS,
) -> list[Drawing]:
    """The figures of a plot type, in the order of the abilities; empty when it has no data.

    Args:
        points: as `growth.report.curves.growth_points` gives them.
        plot_type: one that `check_plot_type` lets pass.
        study: whose results they are.
        join: how points are joined.
        fonts: as `fonts_of` gives them.
    """
    look = look_of(study, points, fonts)
    if plot_type == ALL:
        versus = [f"{prefix}{size}" for prefix in versus_types(study) for size in look.sizes]
        kinds = (OVERALL, *versus, OOD, OVERVIEW)
        parts = [drawings(points, part, study, join, fonts) for part in kinds]
        return [drawing for part in parts for drawing in part]
    if plot_type == OVERVIEW:
        return _overview(points, study, look, join, fonts)
    abilities = (*(ability.name for ability in study.in_domain), AVERAGE)
    series = list(study.series)
    if plot_type == OVERALL:
        chosen = points[points["source"].isin((*series[:1], OTHER))]
        about = f"{series[0]} data" if series else "all data"
    elif plot_type == OOD:
        chosen = points[points["source"].isin(series)]
        abilities = (*(ability.name for ability in study.out_of_domain), OOD_AVERAGE)
        about = f"out of domain, {_joined(series)} data"
    else:
        prefix, size = _versus_of(plot_type, study, set(points["model_size"]))
        pair = versus_types(study)[prefix]
        chosen = points[(points["model_size"] == size) & points["source"].isin(pair)]
        if pair[1] not in set(chosen["source"]):
            return []
        about = f"{pair[0]} against {pair[1]} data, {size}"

    def drawing(ability: str) -> Drawing:
        own = chosen[chosen["ability"] == ability]
        title = fonts.title(title_of(ability, study, _common(own["parts"])), ability)
        return Drawing(
            plot_type,
            ability + value_suffix(own) + limit_suffix(own),
            own,
            partial(ability_figure, own, title, fonts.drawable(about), look, join),
            fonts,
        )

    present = set(chosen["ability"])
    return [drawing(ability) for ability in abilities if ability in present]


def fonts_of(points: pd.DataFrame, study: Study) -> Fonts:
    """The fonts that figures of these points need, for the names and titles of the study."""
    abilities = [text for ability in study.abilities for text in (ability.name, ability.heading)]
    return fonts_for([*abilities, *study.series, *study.recipes, *sizes_of(points)])


def _versus_of(plot_type: str, study: Study, sizes: Collection[str]) -> tuple[str, str]:
    """The prefix and the model size of a plot type that compares two series.

    Where a series' name begins with another one's (c and c-7), the size says which of them is
    meant: one that there are points of, else the rest behind the longest prefix.
    """
    prefixes = [prefix for prefix in versus_types(study) if plot_type.startswith(prefix)]
    readings = [(prefix, plot_type.removeprefix(prefix)) for prefix in prefixes]
    return max(readings, key=lambda reading: (reading[1] in sizes, len(reading[0])))


def title_of(ability: str, study: Study, parts: int = 0) -> str:
    """The title of an ability, or of an average over `parts` of them."""
    if ability in (AVERAGE, OOD_AVERAGE):
        of, what = (
            (study.in_domain, "abilities")
            if ability == AVERAGE
            else (study.out_of_domain, "OOD sets")
        )
        some = "" if parts in (0, len(of)) else f"{parts} of "
        return f"Average of {some}the {_number(len(of))} {what}"
    known = study.ability_of(ability)
    return known.heading if known else ability


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _joined(names: Sequence[str]) -> str:
    *first, last = names or [""]
    return f"{', '.join(first)} and {last}" if first else last


def limit_suffix(points: pd.DataFrame) -> str:
    """What file names of cut-short results carry: -limit5."""
    limits = _limits(points)
    return f"-limit{'-'.join(map(str, limits))}" if limits else ""


def limit_warning(points: pd.DataFrame) -> str:
    """What titles of cut-short results say."""
    limits = _limits(points)
    return f"limit {', '.join(map(str, limits))}: smoke run, not a result" if limits else ""


def _limits(points: pd.DataFrame) -> list[int]:
    return sorted({int(limit) for limit in points["limit"] if not pd.isna(limit)})


def ability_figure(points: pd.DataFrame, title: str, about: str, look: Look, join: Join) -> Figure:
    """One ability on a page of its own; `about` says which data is shown."""
    figure = growth_figure(points, look, join)
    value = value_of(points)
    # The loss is of other lines than the questions.
    questions = 0 if value == LOSS else _common(points["n"])
    parts = [about, "" if value == SCORE else VALUES[value].title]
    parts.append(f"{questions:,} questions" if questions else "")
    below = ["; ".join(filter(None, parts)), band_of(points, look, join), JOINED[join]]
    room = figure.get_figwidth() - _MARGIN
    notes = wrapped("\n".join(filter(None, below)), room, NORMAL)
    heading = "\n".join(filter(None, [title, limit_warning(points)]))
    ax = figure.axes[0]
    ax.set_title(
        wrapped(heading, room, LARGE, bold=True),
        pad=8 + 1.3 * NORMAL * len(notes.splitlines()),
        fontsize=LARGE,
        loc="left",
    )
    above: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "color": GREY,
    }
    ax.annotate(notes, xy=(0, 1), xytext=(0, 7), **above)
    return figure


def band_of(points: pd.DataFrame, look: Look, join: Join = "raw") -> str:
    """What the intervals of a figure are, and which noise is not in them."""
    bands = frame_of(points, look, 1, join).bands and join != "law"
    what, several = "band" if bands else "bars", points["runs"] > 1
    of_questions = points["sd_questions"].notna().any()
    if not several.any() and not of_questions:
        return "one seed: how noisy it is, is not known"
    if not several.any():
        return f"{what}: 95 % interval of the questions; one seed: training noise is not in it"
    if not of_questions:
        said = f"{what}: 95 % interval of training noise, where there are several seeds"
    elif several.all():
        said = f"{what}: 95 % interval of questions and training"
    else:
        said = f"{what}: 95 % interval, with training noise at several seeds only"
    return f"{said}; marks: means, dashes: runs"


def _common(numbers: Iterable[int]) -> int:
    """The number that all of them are; 0 when they differ."""
    different = set(numbers)
    return int(different.pop()) if len(different) == 1 else 0


def _overview(
    points: pd.DataFrame, study: Study, look: Look, join: Join, fonts: Fonts
) -> list[Drawing]:
    order = {ability.name: place for place, ability in enumerate(study.in_domain)}
    own = points[points["ability"].isin(list(order))]
    if own.empty:
        return []
    own = own.sort_values("ability", key=lambda column: column.map(order), kind="stable")
    titles = {
        ability.name: fonts.title(ability.heading, ability.name) for ability in study.in_domain
    }
    stem = OVERVIEW + value_suffix(own) + limit_suffix(own)
    return [Drawing(ALL, stem, own, partial(overview_figure, own, titles, look, join), fonts)]


def overview_figure(
    points: pd.DataFrame, titles: Mapping[str, str], look: Look, join: Join
) -> Figure:
    """All abilities side by side, on one scale.

    Args:
        points: as `growth.report.curves.growth_points` gives them.
        titles: of the abilities, in their order.
        look: of the study.
        join: how points are joined.
    """
    frame = frame_of(points, look, _PANEL, join)
    columns = max(1, int((_WIDEST - _MARGIN) / frame.inches))
    rows = math.ceil(len(titles) / columns)
    columns = math.ceil(len(titles) / rows)
    parts = len(frame.panels)
    lowest = 1 if len(titles) % columns == 0 else 2  # rows of panels with nothing below them
    height = lowest * frame.below + rows * (_HEIGHT if parts == 1 else _STACKED * parts)
    width = max(_MARGIN + columns * frame.inches, 5.6)
    figure = Figure(figsize=(width, height + 0.5), layout="constrained")
    # Losses of abilities differ too much for one scale.
    one_scale = value_of(points) != LOSS
    axes = figure.subplots(rows * parts, columns, squeeze=False)
    for place, (ability, title) in enumerate(titles.items()):
        row, column = divmod(place, columns)
        stacked = axes[parts * row : parts * (row + 1), column]
        own = points[points["ability"] == ability]
        for panel, ax in zip(frame.panels, stacked, strict=True):
            growth_curve(own, ax, look, frame, panel, join)
            if own.empty:
                ax.text(0.5, 0.5, "no results", transform=ax.transAxes, ha="center", color=GREY)
            if one_scale:
                ax.set_ylim(*range_of(points))
            if column:
                ax.set_ylabel("")
                ax.tick_params(labelleft=not one_scale)
            if ax is not stacked[-1] or place + columns < len(titles):
                without_samples(ax)
        heading = wrapped(title, frame.inches - 0.2, NORMAL + 1, lines=3, bold=True)
        stacked[0].set_title(heading, loc="left")
    for ax in axes[-parts:, len(titles) % columns or columns :].flat:
        ax.set_axis_off()
    many = f"{_number(len(titles))} abilities grow" if len(titles) > 1 else "an ability grows"
    title = f"How {many} with instruction tuning data{_of_value(points)}"
    below = "; ".join(filter(None, [band_of(points, look, join), JOINED[join]]))
    heading = "\n".join(filter(None, [title, below, limit_warning(points)]))
    figure.suptitle(wrapped(heading, width, LARGE))
    legend_below(figure, legend_handles(points, look))
    return figure


def _of_value(points: pd.DataFrame) -> str:
    value = value_of(points)
    return "" if value == SCORE else f": {VALUES[value].title}"
