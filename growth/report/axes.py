"""Growth curves on one `ax`: the functions take data and an `ax` and return it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from growth.data.study import OTHER, Study
from growth.report.curves import sizes_of, smooth
from growth.report.growth_law import STEP
from growth.report.laws import law_lines, law_of
from growth.report.values import LOSS, VALUES, value_of

_MOST_TICKS = 7  # labels that have room below the axis of the smallest figure
# Okabe and Ito's palette, distinct with any colour vision; a marker a colour for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "<", ">")
OTHER_MARKERS = ("*", "P", "X", "p", "h", "d")
# offset; lengths on and off
LINES: Mapping[str, Any] = {
    "solid": "-",
    "dashed": (0, (4, 1.6)),
    "dotted": (0, (1, 1.2)),
    "dashdot": (0, (6, 1.5, 1, 1.5)),
}
CURVE_ORDER = 3  # bands lie below, points above
CHANCE: dict[str, Any] = {"color": "0.35", "linestyle": (0, (1.5, 1.5)), "linewidth": 1.3}
GREY = "0.35"
LEGEND: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "handlelength": 3.2}
Style = tuple[str, str]  # colour, marker
# How points are joined: by straight lines, as published, or by the law that is fitted to them.
Join = Literal["raw", "smooth", "law"]
_LAW_PLACES = 60  # at which a law is drawn


@dataclass(frozen=True)
class Look:
    """How the parts of a study look on every figure.

    Attributes:
        sizes: colour and marker of each model size, by its place among all sizes.
        lines: of each series one of `LINES`; points on solid lines are filled.
        markers: of each setting that is on no curve.
        ticks: numbers of samples that the axis labels.
    """

    sizes: Mapping[str, Style]
    lines: Mapping[str, str]
    markers: Mapping[str, str]
    ticks: tuple[int, ...]

    def is_solid(self, series: str) -> bool:
        """Whether its curves are drawn with a solid line and filled points."""
        return self.lines[series] == "solid"


def look_of(study: Study, sizes: Sequence[str]) -> Look:
    """How `study` looks with models of these sizes."""
    lone = [r for r in study.recipes.values() if not r.series and r.same_as == r.name]
    return Look(
        {
            size: (COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
            for place, size in enumerate(sizes)
        },
        {name: series.line for name, series in study.series.items()},
        {
            recipe.name: recipe.marker or OTHER_MARKERS[place % len(OTHER_MARKERS)]
            for place, recipe in enumerate(lone)
        },
        _ticks(sorted({r.samples for r in study.recipes.values() if r.series})),
    )


def _ticks(sizes: Sequence[int]) -> tuple[int, ...]:
    """Those of `sizes` that can all be labelled on a logarithmic axis, the smallest among them."""
    if not sizes:
        return ()
    least = (sizes[-1] / sizes[0]) ** (1 / _MOST_TICKS) if len(sizes) > _MOST_TICKS else 1
    ticks = [sizes[0]]
    for size in sizes[1:]:
        if size >= ticks[-1] * least:
            ticks.append(size)
    return tuple(ticks)


def _tick_label(samples: int) -> str:
    return f"{samples:,}" if samples < 10000 else f"{samples / 1000:.0f}k"


def growth_curve(points: pd.DataFrame, ax: Axes, look: Look, join: Join = "raw") -> Axes:
    """Draw the growth of one ability: a curve a model size and source, bands, points, chance.

    Args:
        points: rows of one ability, as `growth.report.curves.growth_points` gives them.
        ax: where to draw.
        look: of the study.
        join: how points are joined; they stay where they are. With "law" their intervals are bars.
    """
    for (model_size, source), curve in curves_of(points):
        draw_curve(curve, ax, look.sizes[model_size], look.lines[source], join)
    for _, point in points[points["source"] == OTHER].iterrows():
        colour = look.sizes[point["model_size"]][0]
        ax.vlines(point["samples"], point["low"], point["high"], colour, alpha=0.5, linewidth=1)
        ax.plot(
            point["samples"],
            point["score"],
            look.markers[point["data_type"]],
            color=colour,
            markersize=11,
            markeredgecolor="black",
            zorder=CURVE_ORDER + 2,
        )
    # One line, unless the runs were asked different questions.
    for chance in points.dropna(subset="chance").groupby(points["chance"].round(1))["chance"].max():
        ax.axhline(chance, **CHANCE, zorder=2.6, clip_on=False, label="chance")
    decorate(ax, points, look.ticks)
    return ax


def draw_curve(curve: pd.DataFrame, ax: Axes, style: Style, line: str, join: Join = "raw") -> Axes:
    """Draw one curve with its band and every run's raw score; `line` is one of `LINES`.

    A law goes on to `STEP` times the largest size.
    """
    colour, marker = style
    samples = curve["samples"].to_numpy(float)
    lines = {key: (samples, curve[key].to_numpy(float)) for key in ("score", "low", "high")}
    bars = len(curve) == 1  # a band of no width is not seen
    if join == "smooth":
        for key, (_, ys) in lines.items():
            log_xs, smooth_ys = smooth(log4(samples), ys)
            lines[key] = (4**log_xs, smooth_ys)
    if join == "law":
        bars, posterior = True, law_of(curve)
        if posterior is not None:
            xs = np.geomspace(samples[0], STEP * samples[-1], _LAW_PLACES)
            law = law_lines(posterior, xs)
            lines = {"score": (xs, law["law"])}
            lines |= {end: (xs, law[f"law_{end}"]) for end in ("low", "high")}
    solid = line == "solid"
    ax.fill_between(
        *lines["low"],
        lines["high"][1],
        color=colour,
        alpha=0.16 if solid else 0.10,
        linewidth=0,
    )
    if bars:
        ax.vlines(samples, curve["low"], curve["high"], colour, alpha=0.5, linewidth=1)
    ax.plot(*lines["score"], color=colour, linewidth=2, linestyle=LINES[line], zorder=CURVE_ORDER)
    for x, scores in zip(samples, curve["run_scores"], strict=True):
        ax.plot(
            [x] * len(scores),
            scores,
            marker,
            color=colour,
            markersize=6 if len(scores) == 1 else 4.5,
            markerfacecolor=colour if solid else "white",
            markeredgewidth=1.3,
            zorder=CURVE_ORDER + 1,
            clip_on=False,  # a point at 0 or 100 is seen whole
        )
    return ax


def decorate(ax: Axes, points: pd.DataFrame, ticks: Sequence[int]) -> Axes:
    """Axes, ticks and range; samples stand at their true places on a log-4 scale."""
    ax.set_xscale("log", base=4)
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(ticks), labels=list(map(_tick_label, ticks)))
    samples = [*ticks, *points["samples"]]
    if samples:
        ax.set_xlim(min(samples) / 1.7, max(samples) * 1.7)
    ax.set_ylim(*range_of(points))
    ax.set_xlabel("training samples (log scale)")
    ax.set_ylabel(VALUES[value_of(points)].axis)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["bottom"].set_color("0.75")  # a chance of 0 stays visible on it
    return ax


def range_of(points: pd.DataFrame) -> tuple[float, float]:
    """The ends of the y axis: per cents from 0 to above all that is measured, at most to 100;
    losses from below it, as small differences count.
    """
    drawn = [score for scores in points["run_scores"] for score in scores]
    drawn += [y for key in ("low", "high", "chance") for y in points[key].dropna()]
    if value_of(points) != LOSS:
        return 0.0, min(100.0, 5 * np.ceil((max([0.0, *drawn]) + 2) / 5))
    margin = 0.05 * (max(drawn) - min(drawn)) or 0.05 * max(drawn)
    return max(0.0, min(drawn) - margin), max(drawn) + margin


def legend_handles(points: pd.DataFrame, look: Look) -> list[Line2D | Patch]:
    """What the legend shows: a line a curve, lone settings, chance."""
    handles: list[Line2D | Patch] = []
    for (model_size, source), _ in curves_of(points):
        colour, marker = look.sizes[model_size]
        handles.append(
            Line2D(
                [],
                [],
                label=f"{model_size} {source}",
                color=colour,
                linewidth=2,
                linestyle=LINES[look.lines[source]],
                marker=marker,
                markerfacecolor=colour if look.is_solid(source) else "white",
                markeredgewidth=1.3,
            )
        )
    others = set(points.loc[points["source"] == OTHER, "data_type"])
    for data_type, marker in look.markers.items():
        if data_type in others:
            handles.append(
                Line2D([], [], color=GREY, marker=marker, markersize=9, ls="", label=data_type)
            )
    if points["chance"].notna().any():
        handles.append(Line2D([], [], **CHANCE, label="chance"))
    return handles


def curves_of(
    points: pd.DataFrame, by_ability: bool = False
) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The points of each (model size, source) that is a curve, samples rising."""
    keys = ["model_size", "source", *(["ability"] if by_ability else [])]
    on_curves = points[points["source"] != OTHER].sort_values("samples", kind="stable")
    order = {size: place for place, size in enumerate(sizes_of(points))}
    groups = [
        (tuple(map(str, names)), curve) for names, curve in on_curves.groupby(keys, sort=False)
    ]
    return sorted(groups, key=lambda group: (group[0][1], order[group[0][0]]))


def log4(samples: Iterable[float]) -> np.ndarray:
    """Places on the axis of samples, (points,)."""
    return np.log(np.asarray(samples, float)) / np.log(4)
