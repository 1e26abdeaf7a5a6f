"""Growth curves in the panels of a figure: the functions take data and an `ax` and return it."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation, Transform

from growth.data.study import OTHER, Study
from growth.report.curves import sizes_of, smooth
from growth.report.fonts import DEFAULT_FONTS, Fonts
from growth.report.growth_law import STEP
from growth.report.laws import law_lines, law_of
from growth.report.style import (
    BAND_ALPHA,
    BAND_ORDER,
    BAR_ORDER,
    BAR_WIDTH,
    CHANCE,
    CHANCE_ORDER,
    CURVE_ORDER,
    DODGE,
    EDGE_ALPHA,
    EDGE_WIDTH,
    FILLS,
    LINE_WIDTH,
    LINES,
    LONE_MARK,
    MOST_BANDS,
    MOST_CURVES,
    NORMAL,
    OTHER_MARKERS,
    PALE,
    RUN_MARK,
    SMALL,
    legend_below,
    marks_of,
    style_of,
    wrapped,
)
from growth.report.values import LOSS, SCORE, VALUES, value_of

Style = tuple[str, str]  # colour, marker
Name = tuple[str, str]  # of a curve: model size, source
T = TypeVar("T")
# How points are joined: by straight lines, as published, or by the law that is fitted to them.
Join = Literal["raw", "smooth", "law"]
AXIS = "training samples (log scale)"
_LAW_PLACES = 60  # at which a law is drawn
_PAD = 0.45  # on both sides of the ticks, in units of the axis: steps of four times the samples
_LABEL = 28  # points that the label of a tick takes
_SETTING = 13  # points that a setting on no curve takes at least
_LONGEST = 1.4  # inches of the names of settings and series at the axes
_LEGEND = 4.0  # inches of a line of the legend
_USED = 0.8  # of the room at a place, by marks side by side


@dataclass(frozen=True)
class Look:
    """How the parts of a study look on every figure.

    Attributes:
        sizes: colour and marker of each model size, by its place among all sizes.
        lines: of each series one of `LINES`; `FILLS` has how its points are filled.
        markers: of each setting that is on no curve.
        ticks: numbers of samples that the axis marks.
        value: what is drawn, one of `VALUES`.
        fonts: that names and titles are drawn with.
    """

    sizes: Mapping[str, Style]
    lines: Mapping[str, str]
    markers: Mapping[str, str]
    ticks: tuple[int, ...]
    value: str = SCORE
    fonts: Fonts = DEFAULT_FONTS


def look_of(study: Study, points: pd.DataFrame, fonts: Fonts = DEFAULT_FONTS) -> Look:
    """How `study` looks in all figures of these points."""
    lone = [r for r in study.recipes.values() if not r.series and r.same_as == r.name]
    ticks = sorted({r.samples for r in study.recipes.values() if r.series})
    drawn = points.loc[points["source"] != OTHER, "samples"]
    if len(drawn):  # sizes that have no results yet take no room
        ticks = [samples for samples in ticks if drawn.min() <= samples <= drawn.max()]
    return Look(
        {size: style_of(place) for place, size in enumerate(sizes_of(points))},
        {name: series.line for name, series in study.series.items()},
        {
            recipe.name: recipe.marker or OTHER_MARKERS[place % len(OTHER_MARKERS)]
            for place, recipe in enumerate(lone)
        },
        tuple(ticks),
        value_of(points),
        fonts,
    )


@dataclass(frozen=True)
class Frame:
    """What the panels of one figure have in common.

    Attributes:
        panels: what each shows: the curves (size, source), and (size, `OTHER`) for settings on no
            curve; with how far to the right their marks stand of their places, in points. All is in
            one, or where there are too many curves a few series in each, or a few sizes of one.
        bands: whether intervals are bands; bars otherwise.
        ends: of the axis of samples: left, where the part of the curves ends, right.
        lone: where settings that are on no curve stand on it, right of all curves.
        names: of these settings, as they are drawn.
        least: of the ratio of two ticks that are both labelled.
        inches: that a panel is wide.
    """

    panels: tuple[Mapping[Name, float], ...]
    bands: bool
    ends: tuple[float, float, float]
    lone: Mapping[str, float]
    names: tuple[str, ...]
    least: float
    inches: float

    @property
    def below(self) -> float:
        """Inches that what stands below the axis takes, about."""
        return 0.5 + max((len(name) * 0.6 * SMALL / 72 for name in self.names), default=0)


def frame_of(points: pd.DataFrame, look: Look, inches: float, join: Join = "raw") -> Frame:
    """The frame of a figure of these points whose curves are `inches` wide in each panel."""
    on_curve = points["source"] != OTHER
    panels = _panels([(size, source) for (size, source), _ in curves_of(points)])
    most = max(map(len, panels))
    bands = most <= MOST_BANDS
    reached = points.loc[on_curve, "samples"] * (STEP if join == "law" else 1)
    samples = [*look.ticks, *reached] or [1]
    left, end = min(samples) / 4**_PAD, max(samples) * 4**_PAD
    unit = 72 * inches / float(log4([end / left])[0])  # points of a step of four times
    step = 0.0 if bands else min(DODGE, _USED * unit / most)
    lone = _lone(panels, points[~on_curve], look)
    room = max(_SETTING, DODGE * (max(map(len, lone)) + 1))
    settings = [name for name in look.markers if name in set(points["data_type"])]
    places = {name: end * 4 ** ((i + 0.5) * room / unit) for i, name in enumerate(settings)}
    right = end * 4 ** (len(settings) * room / unit)
    return Frame(
        tuple(
            _side_by_side(curves, step) | _side_by_side(marks, DODGE)
            for curves, marks in zip(panels, lone, strict=True)
        ),
        bands,
        (left, end, right),
        places,
        tuple(wrapped(look.fonts.drawable(name), _LONGEST, SMALL, 1) for name in settings),
        4 ** (_LABEL / unit),
        inches + len(settings) * room / 72,
    )


def _side_by_side(names: Sequence[Name], step: float) -> dict[Name, float]:
    """How far to the right each stands of the middle of all, in points."""
    return {name: step * (place - (len(names) - 1) / 2) for place, name in enumerate(names)}


def _lone(
    panels: Sequence[Sequence[Name]], points: pd.DataFrame, look: Look
) -> list[tuple[Name, ...]]:
    """The models of each panel that have points on no curve; in the last those without a curve."""
    sizes = [size for size in look.sizes if size in set(points["model_size"])]
    there = [{size for size, _ in panel} for panel in panels]
    there[-1] |= set(sizes) - set().union(*there)
    return [tuple((size, OTHER) for size in sizes if size in own) for own in there]


def _panels(names: Sequence[Name]) -> tuple[tuple[Name, ...], ...]:
    """The curves in as few panels as have `MOST_CURVES` or fewer each, series kept together."""
    sources = list(dict.fromkeys(source for _, source in names))
    if len(names) <= MOST_CURVES:
        return (tuple(names),)
    most = max(sum(of == source for _, of in names) for source in sources)
    if most <= MOST_CURVES:
        groups = _parts(sources, MOST_CURVES // most)
        return tuple(tuple(name for name in names if name[1] in group) for group in groups)
    of_each = ([name for name in names if name[1] == source] for source in sources)
    return tuple(tuple(part) for own in of_each for part in _parts(own, MOST_CURVES))


def _parts(parts: Sequence[T], most: int) -> list[Sequence[T]]:
    """A sequence in as few pieces as have `most` items or fewer, about as long as each other."""
    pieces = math.ceil(len(parts) / most)
    ends = [round(len(parts) * place / pieces) for place in range(pieces + 1)]
    return [parts[start:end] for start, end in itertools.pairwise(ends)]


def growth_figure(
    points: pd.DataFrame, look: Look, join: Join = "raw", inches: float = 4.6
) -> Figure:
    """The growth of one ability: a panel, or one below the other where there are many curves.

    Args:
        points: rows of one ability, as `growth.report.curves.growth_points` gives them.
        look: of the study.
        join: how points are joined.
        inches: that the curves are wide.
    """
    frame = frame_of(points, look, inches, join)
    height = frame.below + (3.1 if len(frame.panels) == 1 else 2.1 * len(frame.panels))
    figure = Figure(figsize=(frame.inches + 0.8, height), layout="constrained")
    axes = figure.subplots(len(frame.panels), squeeze=False)
    for panel, ax in zip(frame.panels, axes[:, 0], strict=True):
        growth_curve(points, ax, look, frame, panel, join)
        if ax is not axes[-1, 0]:
            without_samples(ax)
    legend_below(figure, legend_handles(points, look))
    return figure


def growth_curve(
    points: pd.DataFrame,
    ax: Axes,
    look: Look,
    frame: Frame,
    panel: Mapping[Name, float],
    join: Join = "raw",
) -> Axes:
    """Draw the growth of one ability: a curve a model size and source, intervals, runs, chance.

    Args:
        points: rows of one ability, as `growth.report.curves.growth_points` gives them.
        ax: where to draw.
        look: of the study.
        frame: of the figure.
        panel: what is drawn, one of the frame's.
        join: how points are joined; they stay where they are. With "law" their intervals are bars.
    """
    for (model_size, source), curve in curves_of(points):
        if (model_size, source) in panel:
            shift = _shifted(ax, panel[model_size, source])
            line = look.lines[source]
            draw_curve(curve, ax, look.sizes[model_size], line, join, frame.bands, shift)
    alone = points[points["source"] == OTHER].groupby(["model_size", "data_type"], sort=False)
    for names, point in alone:
        model_size, setting = map(str, names)
        if (model_size, OTHER) in panel:
            shift = _shifted(ax, panel[model_size, OTHER])
            own = point.assign(samples=frame.lone[setting])
            draw_lone(own, ax, look.sizes[model_size][0], look.markers[setting], shift)
    # One line, unless the runs were asked different questions.
    for chance in points.dropna(subset="chance").groupby(points["chance"].round(1))["chance"].max():
        ax.axhline(chance, **CHANCE, zorder=CHANCE_ORDER, clip_on=False, label="chance")
    decorate(ax, points, look, frame)
    if len(frame.panels) > 1:
        sources = ", ".join(dict.fromkeys(source for _, source in panel if source != OTHER))
        sources = wrapped(look.fonts.drawable(sources), _LONGEST, NORMAL, 2)
        ax.set_ylabel(f"{sources}\n{ax.get_ylabel()}")
    return ax


def without_samples(ax: Axes) -> None:
    """Leave the labels of the axis of samples to the panel below."""
    ax.set_xlabel("")
    ax.tick_params(axis="x", labelbottom=False)


def _shifted(ax: Axes, right: float) -> Transform:
    """The coordinates of the data, some points further right."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.transData + ScaledTranslation(right / 72, 0, figure.dpi_scale_trans)


def draw_curve(
    curve: pd.DataFrame,
    ax: Axes,
    style: Style,
    line: str,
    join: Join,
    bands: bool,
    shift: Transform,
) -> Axes:
    """Draw one curve with its intervals and every run's raw score; `line` is one of `LINES`.

    A law goes on to `STEP` times the largest size.
    """
    colour, marker = style
    samples = curve["samples"].to_numpy(float)
    lines = {key: (samples, curve[key].to_numpy(float)) for key in ("score", "low", "high")}
    barred = np.full(len(curve), join == "law" or not bands) | _alone(lines["low"][1])
    law = law_of(curve) if join == "law" else None
    if join == "smooth":
        for key, (_, ys) in lines.items():
            log_xs, smooth_ys = smooth(log4(samples), ys)
            lines[key] = (4**log_xs, smooth_ys)
    if law is not None:
        xs = np.geomspace(samples[0], STEP * samples[-1], _LAW_PLACES)
        found = law_lines(law, xs)
        lines = {"score": (xs, found["law"])}
        lines |= {end: (xs, found[f"law_{end}"]) for end in ("low", "high")}
    if law is not None or not barred.all():
        between: dict[str, Any] = {
            "color": colour,
            "zorder": BAND_ORDER,
            "linewidth": 0,
            "transform": shift,
        }
        alpha = BAND_ALPHA if bands else BAND_ALPHA / 2
        ax.fill_between(*lines["low"], lines["high"][1], alpha=alpha, **between)
        edge = between | {"linewidth": EDGE_WIDTH, "alpha": EDGE_ALPHA, "linestyle": LINES[line]}
        for end in ("low", "high"):
            ax.plot(*lines[end], **edge)
    draw_bars(curve, ax, colour, shift, barred)
    drawn: dict[str, Any] = {"color": colour, "linewidth": LINE_WIDTH, "linestyle": LINES[line]}
    ax.plot(*lines["score"], **drawn, zorder=CURVE_ORDER, transform=shift)
    marks = marks_of(marker, colour, FILLS[line])
    marks["clip_on"] = False  # a point at 0 or 100 is seen whole
    ax.plot(samples, curve["score"], ls="", **marks, zorder=CURVE_ORDER + 1, transform=shift)
    return ax


def _alone(low: np.ndarray) -> np.ndarray:
    """Which points have an interval and no neighbour with one: a band there has no width."""
    known = np.pad(~np.isnan(low), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def draw_lone(points: pd.DataFrame, ax: Axes, colour: str, marker: str, shift: Transform) -> Axes:
    """Draw a model's score of a setting that is on no curve, with its interval and runs."""
    draw_bars(points, ax, colour, shift)
    marks = marks_of(marker, colour, "full", LONE_MARK)
    marks |= {"markeredgecolor": "black", "markeredgewidth": 0.5, "clip_on": False}
    places = points["samples"], points["score"]
    ax.plot(*places, ls="", **marks, zorder=CURVE_ORDER + 1, transform=shift)
    return ax


def draw_bars(
    points: pd.DataFrame,
    ax: Axes,
    colour: str,
    shift: Transform,
    barred: np.ndarray | None = None,
) -> None:
    """The interval of each point, or of those `barred`; a dash for each of several runs."""
    below: dict[str, Any] = {"color": colour, "zorder": BAR_ORDER, "transform": shift}
    shown = points if barred is None else points[barred]
    ax.vlines(shown["samples"], shown["low"], shown["high"], linewidth=BAR_WIDTH, **below)
    for x, scores in zip(points["samples"], points["run_scores"], strict=True):
        if len(scores) > 1:
            dash: dict[str, Any] = {
                "marker": "_",
                "markersize": RUN_MARK,
                "ls": "",
                "clip_on": False,
            }
            ax.plot([x] * len(scores), scores, **dash, **below)


def decorate(ax: Axes, points: pd.DataFrame, look: Look, frame: Frame) -> Axes:
    """Axes, ticks and range; samples stand at their true places on a log-4 scale."""
    ax.set_xscale("log", base=4)
    labelled = _labelled(look.ticks, frame.least)
    places = [*labelled, *frame.lone.values()]
    names = [*map(_tick_label, labelled), *frame.names]
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(FixedLocator([t for t in look.ticks if t not in labelled]))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(places, labels=names)
    for label in ax.get_xticklabels()[len(labelled) :]:
        label.set_rotation(90)
    left, end, right = frame.ends
    ax.set_xlim(left, right)
    if frame.lone:
        ax.axvspan(end, right, color=PALE, linewidth=0, zorder=0)
    ax.set_ylim(*range_of(points))
    ax.set_xlabel(AXIS)
    figure = ax.get_figure(root=True)
    assert figure is not None
    # straight below the numbers, also where names of settings reach further down
    below = ax.transAxes + ScaledTranslation(0, -2.4 * SMALL / 72, figure.dpi_scale_trans)
    middle = float(log4([end / left])[0] / log4([right / left])[0]) / 2
    ax.xaxis.set_label_coords(middle, 0, transform=below)
    ax.xaxis.label.set_verticalalignment("top")
    ax.set_ylabel(VALUES[look.value].axis)
    ax.grid(axis="y")
    ax.spines["bottom"].set_color("0.75")  # a chance of 0 stays visible on it
    return ax


def _labelled(ticks: Sequence[int], least: float) -> tuple[int, ...]:
    """Both ends of `ticks`, and those between that stand off by a factor of `least`."""
    if len(ticks) < 2:
        return tuple(ticks)
    kept = [ticks[0]]
    for tick in ticks[1:-1]:
        if tick >= kept[-1] * least and tick * least <= ticks[-1]:
            kept.append(tick)
    return (*kept, ticks[-1])


def _tick_label(samples: int) -> str:
    return f"{samples:,}" if samples < 10000 else f"{samples / 1000:.0f}k"


def range_of(points: pd.DataFrame) -> tuple[float, float]:
    """The ends of the y axis: per cents from 0 to above all that is measured, at most to 100;
    losses from below it, as small differences count.

    The intervals of losses take up to half of the panel: two runs say so little about the noise
    that theirs would make a flat line of any curve. What leaves the panel is wider than it.
    """
    runs = [score for scores in points["run_scores"] for score in scores]
    ends = [y for key in ("low", "high", "chance") for y in points[key].dropna()]
    if value_of(points) != LOSS:
        return 0.0, min(100.0, 5 * np.ceil((max([0.0, *runs, *ends]) + 2) / 5))
    least, most = min(runs), max(runs)
    margin = 0.05 * (most - least) or 0.05 * most or 1.0
    room = (most - least) / 2
    low = max(least - room, min([least, *ends])) - margin
    return max(0.0, low), min(most + room, max([most, *ends])) + margin


def legend_handles(points: pd.DataFrame, look: Look) -> list[Artist]:
    """What the legend shows: a line a curve, models on no curve, chance.

    Settings on no curve are named at the axis.
    """
    handles: list[Artist] = []
    for (model_size, source), _ in curves_of(points):
        colour, marker = look.sizes[model_size]
        line = look.lines[source]
        drawn: dict[str, Any] = {"linewidth": LINE_WIDTH, "linestyle": LINES[line]}
        label = wrapped(look.fonts.drawable(f"{model_size} {source}"), _LEGEND, NORMAL)
        handles.append(
            Line2D([], [], label=label, **drawn, **marks_of(marker, colour, FILLS[line]))
        )
    on_curves = set(points.loc[points["source"] != OTHER, "model_size"])
    for model_size in sizes_of(points):
        if model_size not in on_curves:
            colour, _ = look.sizes[model_size]
            handles.append(
                Patch(color=colour, label=wrapped(look.fonts.drawable(model_size), _LEGEND, NORMAL))
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
