"""A summary -> report.html: one file that needs no network, and no script to be read."""

import base64
import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from growth.report.axes import Join, Look, growth_figure, look_of
from growth.report.plots import JOINED, band_of
from growth.report.style import figure_style
from growth.report.summary import Summary

_TEMPLATE, _SCRIPT, _STYLE = "report.html.jinja", "report.js", "report.css"
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_SHORT = 12  # digits of a digest on the page; report.json has all
_INCHES = 4.2  # that the curves of a figure are wide
_COLUMNS = 8  # settings side by side in one table, which paper has room for
# No page and no SVG can hold these; names of models and settings may.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_COORDINATES = ("d", "x", "y", "width", "height", "transform", "points", "cx", "cy", "r", "viewBox")


def render(summary: Summary, join: Join = "raw") -> str:
    """The page; the same summary gives the same text. `join`: how figures join their points."""
    report = summary.report
    look = look_of(summary.study, summary.points)
    curves = []
    for place, curve in enumerate(report["curves"]):
        own = summary.points[summary.points["ability"] == curve["ability"]]
        figure = curve_figure(own, look, join)
        svg = svg_of(figure, f"f{place}", curve["title"], _described(curve))
        curves.append(
            curve
            | {
                "svg": svg,
                "band": "; ".join(filter(None, [JOINED[join], band_of(own, look, join)])),
            }
        )
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        function.__name__: function for function in (percent, signed, short, duration, size, minute)
    }
    script = (folder / _SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(_TEMPLATE).render(
        report,
        curves=curves,
        laws=join == "law",
        tables=_score_tables(report),
        environments=_environments(report["provenance"]),
        style=Markup((folder / _STYLE).read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
    )


def _printable(value: object) -> object:
    """What an expression of the template becomes."""
    return _UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value


def _drawing_style() -> AbstractContextManager[None]:
    """That of all figures, but text stays text: the reader's fonts count."""
    return figure_style(svg__fonttype="none")


def curve_figure(points: pd.DataFrame, look: Look, join: Join = "raw") -> Figure:
    """The growth of one ability: every size and series, every run's score, intervals, chance."""
    with _drawing_style():
        return growth_figure(points, look, join, _INCHES)


def svg_of(figure: Figure, prefix: str, title: str, description: str) -> Markup:
    """A figure as an SVG element for a page of HTML.

    Args:
        figure: to draw.
        prefix: of the ids, so that several figures can be on one page.
        title: of the figure, for those who can't see it; `description` says what it shows.
        description: a sentence or two.
    """
    file = io.StringIO()
    with _drawing_style(), warnings.catch_warnings():
        # The reader's fonts count, not those of the machine that draws.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(_UNPRINTABLE.sub("\ufffd", file.getvalue()))
    for element in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(element)
    for element in root.iter():
        _shorten(element, prefix)
    labels = {"title": title, "desc": description}
    for place, (name, text) in enumerate(labels.items()):
        element = ElementTree.Element(f"{{{_SVG}}}{name}", {"id": f"{prefix}-{name}"})
        element.text = _UNPRINTABLE.sub("\ufffd", text)
        root.insert(place, element)
    root.attrib |= {"role": "img", "aria-labelledby": f"{prefix}-title {prefix}-desc"}
    for name in ("width", "height"):
        root.attrib.pop(name, None)  # as wide as the page has room
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _shorten(element: ElementTree.Element, prefix: str) -> None:
    """Round coordinates to hundredths of a point; make ids this figure's own, and drop the rest."""
    for name, value in list(element.attrib.items()):
        plain = name.rpartition("}")[2]
        if plain in _COORDINATES:
            element.set(name, re.sub(r"-?\d+\.\d+", _hundredths, value))
        elif plain == "id" and element.tag in (f"{{{_SVG}}}g", f"{{{_SVG}}}svg"):
            del element.attrib[name]  # nothing refers to groups
        elif plain == "id":
            element.set(name, f"{prefix}-{value}")
        elif plain == "href":
            element.set(name, f"#{prefix}-{value.removeprefix('#')}")
        elif "url(#" in value:
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _described(curve: Mapping[str, Any]) -> str:
    """What a figure shows, in words: where each curve begins and ends."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for point in curve["points"]:
        lines.setdefault(f"{point['model_size']} {point['source']}", []).append(point)
    parts = []
    for name, points in lines.items():
        first, *_, last = sorted(points, key=lambda point: point["samples"]) * 2
        part = f"{name}: {first['score']:.1f} at {first['samples']:,} samples"
        if last["samples"] != first["samples"]:
            part += f", {last['score']:.1f} at {last['samples']:,}"
        parts.append(part)
    chance = "" if curve["chance"] is None else f" Chance is {curve['chance']:.1f}."
    return (
        f"Score in per cent against training samples. {'; '.join(parts)}.{chance} The table below "
        "has the numbers."
    )


def _score_tables(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ability x setting, a table a model size and series, in parts that fit on paper."""
    cells: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    samples: dict[str, int] = {}
    for curve in report["curves"]:
        for point in curve["points"]:
            group = cells.setdefault((point["model_size"], point["source"]), {})
            group[curve["ability"], point["setting"]] = point
            samples[point["setting"]] = point["samples"]
    tables = []
    for (model_size, source), group in cells.items():
        settings = sorted({setting for _, setting in group}, key=lambda name: (samples[name], name))
        for start in range(0, len(settings), _COLUMNS):
            part = settings[start : start + _COLUMNS]
            rows = [
                {
                    "title": curve["title"],
                    "chance": curve["chance"],
                    "cells": [group.get((curve["ability"], setting)) for setting in part],
                }
                for curve in report["curves"]
                if any((curve["ability"], setting) in group for setting in part)
            ]
            tables.append(
                {"model_size": model_size, "source": source, "settings": part, "rows": rows}
            )
    return tables


def _environments(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The different commits and versions there are, with a letter or number for each.

    Returns:
        `rows`: `name`, `commit`, `dirty`, `versions`; `results` and `runs`: the name for each row.
    """
    names: dict[tuple[Any, ...], str] = {}
    places: dict[str, list[str]] = {}
    for part in ("results", "runs"):
        for row in provenance[part]:
            made = row["run"] if part == "results" else row
            git, versions = made.get("git") or {}, made.get("versions") or {}
            found = (git.get("commit"), git.get("dirty"), tuple(sorted(versions.items())))
            name = names.setdefault(found, f"E{len(names) + 1}")
            places.setdefault(part, []).append(name)
    rows = [
        {
            "name": name,
            "commit": commit,
            "dirty": dirty,
            "versions": ", ".join(f"{library} {version}" for library, version in versions),
        }
        for (commit, dirty, versions), name in names.items()
    ]
    return {"rows": rows, "results": places.get("results", []), "runs": places.get("runs", [])}


def percent(number: float | None) -> str:
    """A score with one decimal."""
    return "–" if number is None else f"{number:.1f}"


def signed(number: float) -> str:
    """A difference of scores with its sign and one decimal."""
    return f"{number:+.1f}".replace("-", "\u2212")


def short(digest: str | None) -> str:
    """The beginning of a digest."""
    return digest[:_SHORT] if digest else "–"


def duration(seconds: float | None) -> str:
    """A time for people: 8.4 s, 12 min, 3 h 20 min."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


def size(count: float | None) -> str:
    """A number of bytes as GiB."""
    return "–" if count is None else f"{count / 2**30:,.2f} GiB"


def minute(time: str | None) -> str:
    """A time of ISO 8601 to the minute."""
    return time[:16].replace("T", " ") if time else "–"
