"""A comparison as people read it: a table of text, a figure; and the files that hold it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from growth.core.files import write_json, write_text
from growth.data.study import AVERAGE, OOD_AVERAGE
from growth.report.comparison import Comparison, Side
from growth.report.fonts import DEFAULT_FONTS, Fonts, fonts_for
from growth.report.paired import LEVEL, Spread
from growth.report.style import CHANCE, COLOURS, GREY, NORMAL, wrapped, write_figure
from growth.report.values import SCORE, VALUES

NAME = "compare"  # of the files, less .csv, .json, .png
LEGEND = (
    "A and B in per cent, the rest but p in points; Holm p: corrected for the abilities together; "
    "could show: the smallest difference that p below 0.05 would be found for in 4 studies of 5"
)
_LONGEST = 44  # characters of a title beside the figure or in the table


def write_comparison(
    folder: Path,
    comparison: Comparison,
    formats: Sequence[str] = ("png",),
    fonts: Fonts = DEFAULT_FONTS,
) -> list[Path]:
    """Write compare.csv, compare.json and the figure in each format; returns where."""
    table, numbers = (folder / f"{NAME}.{end}" for end in ("csv", "json"))
    write_text(table, comparison.rows.to_csv(index=False, float_format="%.6g"))
    write_json(numbers, comparison.as_json())
    draw = partial(forest_plot, comparison, fonts)
    return [table, numbers, *write_figure(draw, folder / NAME, formats, fonts)]


def fonts_of_comparison(comparison: Comparison) -> Fonts:
    """The fonts that its figure needs."""
    sides, rows = (described(comparison.a), described(comparison.b)), comparison.rows
    return fonts_for([*sides, *rows["title"], *rows["ability"]])


def described(side: Side) -> str:
    """What a side is: how many repeats, with which seeds."""
    seeds = ", ".join("?" if seed is None else str(seed) for seed in side.seeds)
    if len(side.repeats) == 1:
        return f"{side.label} (1 run, seed {seeds})"
    return f"{side.label} ({len(side.repeats)} runs, seeds {seeds})"


def comparison_table(comparison: Comparison) -> str:
    """The rows as a table of text; per cent, A less B, with 95 % intervals."""
    lines = [f"A  {described(comparison.a)}", f"B  {described(comparison.b)}"]
    if comparison.value != SCORE:
        lines.append(f"compared: {VALUES[comparison.value].title}")
    if comparison.limit is not None:
        lines.append(f"limit {comparison.limit}: smoke runs, not a result")
    titles = [short_title(title) for title in comparison.rows["title"]]
    width = max(map(len, [*titles, "out of domain"])) + 2
    lines.append(
        f"{'ability':<{width}}{'questions':>9}{'clusters':>10}{'A':>8}{'B':>8}{'A - B':>8}"
        f"{'95 % interval':>18}{'p':>9}{'Holm p':>9}{'could show':>12}"
    )
    out_of_domain = False
    for title, row in zip(titles, comparison.rows.to_dict("records"), strict=True):
        if row["out_of_domain"] and not out_of_domain:
            out_of_domain = True
            lines.append("out of domain")
        interval = f"[{row['low']:+.1f}, {row['high']:+.1f}]"
        corrected = "" if pd.isna(row["p_holm"]) else _p(row["p_holm"])
        lines.append(
            f"{title:<{width}}{row['questions']:>9,}{row['clusters']:>10,}{row['score_a']:>8.1f}"
            f"{row['score_b']:>8.1f}{row['difference']:>+8.1f}{interval:>18}{_p(row['p']):>9}"
            f"{corrected:>9}{row['detectable']:>12.1f}"
        )
    if comparison.spread is not None:
        lines.append(_spread_line(comparison.spread))
    return "\n".join([*lines, LEGEND])


def _spread_line(spread: Spread) -> str:
    between, within = spread.df[0], float(spread.df[1])
    freedom = f"{within:.0f}" if within >= 10 else f"{within:.1f}"
    return (
        f"do the abilities differ by unlike amounts? Welch's F({between}, {freedom}) = "
        f"{float(spread.f):.2f}, p = {_p(float(spread.p))}; their true differences have a standard "
        f"deviation of about {100 * float(spread.sd):.1f} points"
    )


def _p(value: float) -> str:
    return "< .0001" if value < 1e-4 else f"{value:.4f}".lstrip("0") if value < 1 else "1"


def short_title(title: str) -> str:
    """A title that leaves a figure or table room, its beginning where it is long."""
    return title if len(title) <= _LONGEST else f"{title[: _LONGEST - 1]}…"


def forest_plot(comparison: Comparison, fonts: Fonts = DEFAULT_FONTS) -> Figure:
    """Every difference with its interval, a row each; filled where Holm's p is below 0.05."""
    rows = comparison.rows.to_dict("records")
    figure = Figure(figsize=(7.2, 1.5 + 0.32 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for place, row in enumerate(rows):
        is_mean = row["ability"] in (AVERAGE, OOD_AVERAGE)
        p = row["p"] if is_mean else row["p_holm"]
        colour = GREY if p >= LEVEL else COLOURS[0] if row["difference"] > 0 else COLOURS[1]
        ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8)
        ax.plot(
            row["difference"],
            place,
            "D" if is_mean else "o",
            color=colour,
            markerfacecolor=colour if p < LEVEL else "white",
            markersize=7 if is_mean else 6,
        )
        if is_mean and place + 1 < len(rows):
            ax.axhline(place + 0.5, color="0.85", linewidth=0.8)
    ax.axvline(0, **CHANCE)
    ax.set_yticks(
        range(len(rows)),
        labels=[short_title(fonts.title(row["title"], row["ability"])) for row in rows],
    )
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(7))
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    a, b = comparison.a, comparison.b
    ax.set_xlabel("A less B, points of per cent")
    heading = [f"A {described(a)}", f"B {described(b)}"]
    if comparison.value != SCORE:
        heading.append(VALUES[comparison.value].title)
    if comparison.limit is not None:
        heading.append(f"limit {comparison.limit}: smoke runs, not a result")
    one_each = len(a.paths | b.paths) == 2
    heading.append(
        "95 % intervals; filled: p below 0.05, abilities by Holm"
        + ("; training noise is not in them" if one_each else "")
    )
    text = wrapped(fonts.drawable("\n".join(heading)), figure.get_figwidth(), NORMAL)
    figure.suptitle(text, fontsize=NORMAL, x=0.01, ha="left")
    return figure
