"""How all figures look: colours, lines, marks, sizes and fonts; and how they become files.

Everything is drawn with what is said here and matplotlib's defaults, whatever the settings of the
machine are, so that the same numbers give the same bytes. Colours differ in lightness, and each
goes with a mark of its own, so that curves can be told apart in grey and with any colour vision.
"""

import math
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from growth.core.files import replacing
from growth.report.fonts import DEFAULT_FONTS, Fonts

# The first four are Paul Tol's high-contrast scheme (https://sronpersonalpages.nl/~pault/), which
# keeps apart with any colour vision and in grey: no two are within 20 of lightness (of 100). The
# others are of his muted scheme, for studies of many models.
COLOURS = ("#004488", "#BB5566", "#DDAA33", "#000000", "#44AA99", "#882255", "#88CCEE")
# One more than colours, so that both repeat together after 56 models only.
MARKERS = ("o", "s", "^", "D", "v", "p", "<", ">")
OTHER_MARKERS = ("*", "P", "X", "h", "d", "8")  # of settings that are on no curve
# offset; lengths on and off
LINES: Mapping[str, Any] = {
    "solid": "-",
    "dashed": (0, (4, 1.6)),
    "dotted": (0, (1, 1.2)),
    "dashdot": (0, (6, 1.5, 1, 1.5)),
}
# How much of its marks is filled: series look different where lines end.
FILLS: Mapping[str, Any] = {
    "solid": "full",
    "dashed": "none",
    "dotted": "left",
    "dashdot": "bottom",
}
GREY = "0.35"
PALE = "0.955"  # behind what is on no curve
CHANCE: dict[str, Any] = {"color": GREY, "linestyle": (0, (1.5, 1.5)), "linewidth": 1.2}
# Layers; the grid lies below all of them.
BAND_ORDER, CHANCE_ORDER, BAR_ORDER, CURVE_ORDER = 2.0, 2.2, 2.5, 3
MOST_BANDS = 2  # that lie over each other and can still be told apart
MOST_CURVES = 4  # of one panel
BAND_ALPHA, EDGE_ALPHA = 0.14, 0.6
LINE_WIDTH, BAR_WIDTH, EDGE_WIDTH = 1.7, 1.1, 0.7
MARK, LONE_MARK, RUN_MARK = 4.5, 6.0, 5.0  # points across: of a mean, a lone setting, a run
DODGE = 5.0  # points between the marks of two models at one place, where there is room
SMALL, NORMAL, LARGE = 8, 9, 11  # points of the fonts
STYLE: Mapping[str, Any] = {
    "font.size": NORMAL,
    "axes.titlesize": NORMAL + 1,
    "axes.titleweight": "bold",
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": NORMAL,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "figure.titlesize": LARGE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.8,
    "savefig.dpi": 200,
    # a title or name of one's own may hold dollar signs, and none of ours is a formula
    "text.parse_math": False,
    # the ids of an SVG follow from its content; glyphs are paths, so that no reader lacks a font
    "svg.hashsalt": "growth",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # text that can be searched; journals refuse fonts of type 3
}
# What files would say of when and with what they were made.
_NO_METADATA: Mapping[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_EM, _BOLD_EM = 0.53, 0.64  # the mean width of a character, in sizes of the font


@contextmanager
def figure_style(fonts: Fonts = DEFAULT_FONTS, **more: object) -> Iterator[None]:
    """Draw in this style, whatever the machine's settings are; `more` goes over it."""
    settings = {name.replace("__", "."): value for name, value in more.items()}
    with matplotlib.style.context(["default", {**STYLE, **settings}]), fonts.used():
        yield


def write_figure(
    draw: Callable[[], Figure],
    stem: Path,
    formats: Sequence[str] = ("png",),
    fonts: Fonts = DEFAULT_FONTS,
) -> list[Path]:
    """Draw a figure and write it in each format; the same numbers give the same bytes.

    Args:
        draw: gives the figure; it is called within the style.
        stem: the files' path less their ending.
        formats: of png, svg and pdf.
        fonts: that its texts need.

    Returns:
        The paths, in the order of `formats`.
    """
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    with figure_style(fonts):
        figure = draw()
        for path, kind in zip(paths, formats, strict=True):
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=_NO_METADATA[kind])
    return paths


def style_of(place: int) -> tuple[str, str]:
    """Colour and marker of the model at this place among all, the smallest first."""
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def marks_of(marker: str, colour: str, fill: str, size: float = MARK) -> dict[str, Any]:
    """What `Line2D` takes to draw marks; `fill` is one of matplotlib's fill styles."""
    return {
        "marker": marker,
        "color": colour,
        "markersize": size,
        "fillstyle": "full" if fill == "none" else fill,
        "markerfacecolor": "white" if fill == "none" else colour,
        "markerfacecoloralt": "white",
        "markeredgewidth": 1.1,
    }


def wrapped(text: str, inches: float, size: float, lines: int = 9, bold: bool = False) -> str:
    """A text in lines that have room in a width; what is left over of it is an ellipsis.

    Widths are estimated: in Chinese, Japanese or Korean characters are as wide as the font is high.
    """
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    em = 1.0 if wide else _BOLD_EM if bold else _EM
    width = max(4, int(72 * inches / (size * em)))
    drawn = [line for part in text.split("\n") for line in textwrap.wrap(part, width)]
    if len(drawn) > lines:
        drawn[lines - 1 :] = [f"{drawn[lines - 1][: width - 1]}…"]
    return "\n".join(drawn)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below everything, in as many columns as there is room; the figure grows by it."""
    rows = 0
    while True:
        rows += 1
        columns = math.ceil(len(handles) / rows)
        legend = figure.legend(handles=handles, ncols=columns, loc="outside lower center")
        box = legend.get_window_extent()
        if columns <= 1 or box.width <= figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()
