"""Growth points -> figures and their numbers: which there are, and what stands around the curves.

Figures are matplotlib's `Figure` objects, drawn by Agg; no state of pyplot is touched.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from growth.core.errors import InputError
from growth.core.files import replacing, write_text
from growth.data.abilities import ABILITIES, ABILITY_NAMES, OUT_OF_DOMAIN, ability_of
from growth.report.axes import (
    GREY,
    LEGEND,
    Style,
    curves_of,
    growth_curve,
    legend_handles,
    log4,
    size_styles,
    top_of,
)
from growth.report.curves import SIGMA, sizes_of, smooth
from growth.report.results_table import AVERAGE, CURATED, OOD_AVERAGE, OTHER, SYNTHETIC

OVERALL, VERSUS, OOD, ALL = "overall", "curated_vs_synthetic-", "ood", "all"
PLOT_TYPES = (OVERALL, f"{VERSUS}7b", f"{VERSUS}13b", OOD, ALL)
OVERVIEW = "overview"
SMOOTHED = f"smoothed (sigma {SIGMA}), points raw"


@dataclass(frozen=True)
class Drawing:
    """One figure to be: its place, the numbers drawn, and the function that draws them.

    It can be pickled, so that processes can share the drawing.
    """

    folder: str
    stem: str
    points: pd.DataFrame
    draw: Callable[[], Figure]

    def table(self, smoothed: bool) -> pd.DataFrame:
        """The numbers drawn, for a CSV; with `smoothed`, those of the smoothed curves too."""
        table = self.points.drop(columns="parts").copy()
        for column in ("run_scores", "checkpoints"):
            table[column] = [" ".join(map(str, values)) for values in table[column]]
        if smoothed:
            for key in ("score", "low", "high"):
                table[f"smoothed_{key}"] = np.nan
            for _, curve in curves_of(self.points, by_ability=True):
                for key in ("score", "low", "high"):
                    ys = smooth(log4(curve["samples"]), curve[key], steps=1)[1]
                    table.loc[curve.index, f"smoothed_{key}"] = ys.round(4)
        return table

    def write(self, plots_path: Path, smoothed: bool) -> tuple[Path, Path]:
        """Write the numbers and the figure below `plots_path`; returns where."""
        stem = plots_path / self.folder / self.stem
        numbers, figure = (stem.with_name(stem.name + end) for end in (".csv", ".png"))
        write_text(numbers, self.table(smoothed).to_csv(index=False))
        with replacing(figure) as temporary:
            self.draw().savefig(temporary, format="png", dpi=150)
        return numbers, figure


def drawings(points: pd.DataFrame, plot_type: str, smoothed: bool = False) -> list[Drawing]:
    """The figures of a plot type, in the order of the abilities; empty when it has no data.

    Args:
        points: as `growth.report.curves.growth_points` gives them.
        plot_type: one that `check_plot_type` lets pass.
        smoothed: draw the published look.
    """
    styles = size_styles(sizes_of(points))
    abilities = (*ABILITY_NAMES, AVERAGE)
    if plot_type == OVERALL:
        chosen = points[points["source"].isin((CURATED, OTHER))]
        about = "curated data"
    elif plot_type == OOD:
        chosen = points[points["source"].isin((CURATED, SYNTHETIC))]
        abilities = (*(ability.name for ability in OUT_OF_DOMAIN), OOD_AVERAGE)
        about = "out of domain, curated and synthetic data"
    elif plot_type == ALL:
        sizes = [f"{VERSUS}{size}" for size in styles]
        parts = [drawings(points, part, smoothed) for part in (OVERALL, *sizes, OOD)]
        chosen = points[points["source"] != OTHER]
        return [drawing for part in parts for drawing in part] + _overview(chosen, styles, smoothed)
    else:
        size = plot_type.removeprefix(VERSUS)
        chosen = points[(points["model_size"] == size) & (points["source"] != OTHER)]
        if SYNTHETIC not in set(chosen["source"]):
            return []
        about = f"curated against synthetic data, {size}"

    def drawing(ability: str) -> Drawing:
        own = chosen[chosen["ability"] == ability]
        return Drawing(
            plot_type,
            ability + limit_suffix(own),
            own,
            partial(ability_figure, own, ability, about, styles, smoothed),
        )

    present = set(chosen["ability"])
    return [drawing(ability) for ability in abilities if ability in present]


def check_plot_type(plot_type: str) -> None:
    """Only the published plot types pass, with any model size.

    Raises:
        InputError: there is no such plot type; it lists those there are.
    """
    size = plot_type.removeprefix(VERSUS)
    if plot_type in PLOT_TYPES or (plot_type.startswith(VERSUS) and size):
        return
    raise InputError(
        f"--plot_type {plot_type}: no such plot. Plots: {', '.join(PLOT_TYPES)} "
        f"({VERSUS}<size> takes any model size that was scored)"
    )


def title_of(ability: str, parts: int = 0) -> str:
    """The title of an ability, or of an average over `parts` of them."""
    if ability == AVERAGE:
        whole = parts in (0, len(ABILITIES))
        return f"Average of {'the ten' if whole else f'{parts} of the ten'} abilities"
    if ability == OOD_AVERAGE:
        whole = parts in (0, len(OUT_OF_DOMAIN))
        return f"Average of {'the three' if whole else f'{parts} of the three'} OOD sets"
    known = ability_of(ability)
    return known.title if known else ability


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


def ability_figure(
    points: pd.DataFrame, ability: str, about: str, styles: dict[str, Style], smoothed: bool
) -> Figure:
    """One ability on a page of its own; `about` says which data is shown."""
    figure = Figure(figsize=(6.8, 5), layout="constrained")
    ax = growth_curve(points, figure.subplots(), styles, smoothed)
    heading = [title_of(ability, _common(points["parts"])), limit_warning(points)]
    questions = _common(points["n"])
    band = "band: 95 % interval"
    if (points["runs"] > 1).any():
        band += "; lines: mean of runs"
    below = [
        f"{about}; {questions:,} questions" if questions else about,
        f"{band}; {SMOOTHED}" if smoothed else band,
    ]
    ax.set_title("\n".join(filter(None, heading)), loc="left", pad=36, weight="bold")
    ax.annotate(
        "\n".join(below),
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(0, 7),
        textcoords="offset points",
        fontsize=9.5,
        color=GREY,
    )
    handles = legend_handles(points, styles)
    figure.legend(handles=handles, ncols=4, fontsize=9.5, **LEGEND)
    return figure


def _common(numbers: Iterable[int]) -> int:
    """The number that all of them are; 0 when they differ."""
    different = set(numbers)
    return int(different.pop()) if len(different) == 1 else 0


def _overview(points: pd.DataFrame, styles: dict[str, Style], smoothed: bool) -> list[Drawing]:
    own = points[points["ability"].isin(ABILITY_NAMES)]
    if own.empty:
        return []
    order = {name: place for place, name in enumerate(ABILITY_NAMES)}
    own = own.sort_values("ability", key=lambda column: column.map(order), kind="stable")
    stem = OVERVIEW + limit_suffix(own)
    return [Drawing(ALL, stem, own, partial(overview_figure, own, styles, smoothed))]


def overview_figure(points: pd.DataFrame, styles: dict[str, Style], smoothed: bool) -> Figure:
    """All ten abilities side by side, on one scale."""
    figure = Figure(figsize=(14, 7.2), layout="constrained")
    axes = figure.subplots(2, 5, sharex=True, sharey=True)
    for ability, ax in zip(ABILITIES, axes.flat, strict=True):
        own = points[points["ability"] == ability.name]
        growth_curve(own, ax, styles, smoothed)
        if own.empty:
            ax.text(0.5, 0.5, "no results", transform=ax.transAxes, ha="center", color=GREY)
        ax.set_title(ability.title, loc="left", weight="bold", fontsize=13)
        ax.tick_params(axis="x", labelsize=9)
        ax.label_outer()
    axes[0, 0].set_ylim(0, top_of(points))
    title = "How ten abilities grow with instruction tuning data; band: 95 % interval"
    title = f"{title}; {SMOOTHED}" if smoothed else title
    figure.suptitle("\n".join(filter(None, [title, limit_warning(points)])), fontsize=14)
    handles = legend_handles(points, styles)
    figure.legend(handles=handles, ncols=min(8, len(handles)), fontsize=12, **LEGEND)
    return figure
