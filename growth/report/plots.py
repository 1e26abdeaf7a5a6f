"""Growth points -> figures. The functions take data and an `ax` and return it; no file is read.

Figures are matplotlib's `Figure` objects, drawn by Agg; no state of pyplot is touched.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from growth.core.errors import InputError
from growth.core.files import replacing, write_text
from growth.data.abilities import ABILITIES, ABILITY_NAMES, OUT_OF_DOMAIN, ability_of
from growth.report.curves import (
    AVERAGE,
    CURATED,
    OOD_AVERAGE,
    OTHER,
    SIGMA,
    SYNTHETIC,
    sizes_of,
    smooth,
)

OVERALL, VERSUS, OOD, ALL = "overall", "curated_vs_synthetic-", "ood", "all"
PLOT_TYPES = (OVERALL, f"{VERSUS}7b", f"{VERSUS}13b", OOD, ALL)
OVERVIEW = "overview"
SMOOTHED = f"smoothed (sigma {SIGMA}), points raw"
TICKS = {10: "10", 40: "40", 160: "160", 640: "640", 2560: "2,560", 10000: "10k", 40960: "41k"}
# Okabe and Ito's palette, told apart with any colour vision; a marker a colour for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "<", ">")
OTHER_MARKERS = {"reconstruct": "*", "maximum": "P", "mix-2560": "X", "mix-40960": "p"}
Dashes = tuple[float, tuple[float, ...]]  # offset; lengths on and off
DASHES: Dashes = (0, (4, 1.6))
CURVE_ORDER = 3  # bands lie below, points above
CHANCE = {"color": "0.35", "linestyle": (0, (1.5, 1.5)), "linewidth": 1.3}
GREY = "0.35"
LEGEND = {"loc": "outside lower center", "frameon": False, "handlelength": 3.2}
Style = tuple[str, str]  # colour, marker


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
            for _, curve in _curves(self.points, by_ability=True):
                for key in ("score", "low", "high"):
                    ys = smooth(_log4(curve["samples"]), curve[key], steps=1)[1]
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


def size_styles(sizes: Sequence[str]) -> dict[str, Style]:
    """Colour and marker of each model size, by its place among all sizes."""
    return {
        size: (COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        for place, size in enumerate(sizes)
    }


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


def growth_curve(
    points: pd.DataFrame, ax: Axes, styles: dict[str, Style], smoothed: bool = False
) -> Axes:
    """Draw the growth of one ability: a curve a model size and source, bands, points, chance.

    Args:
        points: rows of one ability, as `growth.report.curves.growth_points` gives them.
        ax: where to draw.
        styles: colour and marker of each model size.
        smoothed: draw curves and bands smoothed; the points stay where they are.
    """
    for (model_size, source), curve in _curves(points):
        draw_curve(curve, ax, styles[model_size], source, smoothed)
    for _, point in points[points["source"] == OTHER].iterrows():
        colour = styles[point["model_size"]][0]
        ax.vlines(point["samples"], point["low"], point["high"], colour, alpha=0.5, linewidth=1)
        ax.plot(
            point["samples"],
            point["score"],
            OTHER_MARKERS[point["data_type"]],
            color=colour,
            markersize=11,
            markeredgecolor="black",
            zorder=CURVE_ORDER + 2,
        )
    # One line, unless the runs were asked different questions.
    for chance in points.dropna(subset="chance").groupby(points["chance"].round(1))["chance"].max():
        ax.axhline(chance, **CHANCE, zorder=2.6, clip_on=False, label="chance")
    decorate(ax, points)
    return ax


def draw_curve(
    curve: pd.DataFrame, ax: Axes, style: Style, source: str, smoothed: bool = False
) -> Axes:
    """Draw one curve with its band and every run's raw score; full lines are curated data."""
    colour, marker = style
    samples = curve["samples"].to_numpy(float)
    lines = {key: (samples, curve[key].to_numpy(float)) for key in ("score", "low", "high")}
    if smoothed:
        for key, (_, ys) in lines.items():
            log_xs, smooth_ys = smooth(_log4(samples), ys)
            lines[key] = (4**log_xs, smooth_ys)
    curated = source == CURATED
    ax.fill_between(
        *lines["low"],
        lines["high"][1],
        color=colour,
        alpha=0.16 if curated else 0.10,
        linewidth=0,
    )
    if len(curve) == 1:  # a band of no width is not seen
        ax.vlines(samples, lines["low"][1], lines["high"][1], colour, alpha=0.5, linewidth=1)
    ax.plot(
        *lines["score"], color=colour, linewidth=2, linestyle=_linestyle(source), zorder=CURVE_ORDER
    )
    for x, scores in zip(samples, curve["run_scores"], strict=True):
        ax.plot(
            [x] * len(scores),
            scores,
            marker,
            color=colour,
            markersize=6 if len(scores) == 1 else 4.5,
            markerfacecolor=colour if curated else "white",
            markeredgewidth=1.3,
            zorder=CURVE_ORDER + 1,
            clip_on=False,  # a point at 0 or 100 is seen whole
        )
    return ax


def _linestyle(source: str) -> str | Dashes:
    return "-" if source == CURATED else DASHES


def decorate(ax: Axes, points: pd.DataFrame) -> Axes:
    """Axes, ticks and range; samples stand at their true places on a log-4 scale."""
    ax.set_xscale("log", base=4)
    ax.xaxis.set_major_locator(FixedLocator(list(TICKS)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(TICKS), labels=list(TICKS.values()))
    largest = max([max(TICKS), *points["samples"]])
    ax.set_xlim(min(TICKS) / 1.7, largest * 1.7)
    ax.set_ylim(0, top_of(points))
    ax.set_xlabel("training samples (log scale)")
    ax.set_ylabel("score (%)")
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["bottom"].set_color("0.75")  # a chance of 0 stays visible on it
    return ax


def top_of(points: pd.DataFrame) -> float:
    """The upper end of the y axis: over everything drawn, at most 100."""
    drawn = [0.0, *(score for scores in points["run_scores"] for score in scores)]
    drawn += [y for key in ("high", "chance") for y in points[key].dropna()]
    return min(100.0, 5 * np.ceil((max(drawn) + 2) / 5))


def legend_handles(points: pd.DataFrame, styles: dict[str, Style]) -> list[Line2D | Patch]:
    """What the legend shows: a line a curve, lone settings, chance."""
    handles: list[Line2D | Patch] = []
    for (model_size, source), _ in _curves(points):
        colour, marker = styles[model_size]
        handles.append(
            Line2D(
                [],
                [],
                label=f"{model_size} {source}",
                color=colour,
                linewidth=2,
                linestyle=_linestyle(source),
                marker=marker,
                markerfacecolor=colour if source == CURATED else "white",
                markeredgewidth=1.3,
            )
        )
    others = set(points.loc[points["source"] == OTHER, "data_type"])
    for data_type, marker in OTHER_MARKERS.items():
        if data_type in others:
            handles.append(
                Line2D([], [], color=GREY, marker=marker, markersize=9, ls="", label=data_type)
            )
    if points["chance"].notna().any():
        handles.append(Line2D([], [], **CHANCE, label="chance"))
    return handles


def _curves(
    points: pd.DataFrame, by_ability: bool = False
) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The points of each (model size, source) that is a curve, samples rising."""
    keys = ["model_size", "source", *(["ability"] if by_ability else [])]
    on_curves = points[points["source"] != OTHER].sort_values("samples", kind="stable")
    order = {size: place for place, size in enumerate(sizes_of(points))}
    return sorted(
        on_curves.groupby(keys, sort=False), key=lambda item: (item[0][1], order[item[0][0]])
    )


def _log4(samples: Iterable[float]) -> np.ndarray:
    return np.log(np.asarray(samples, float)) / np.log(4)
