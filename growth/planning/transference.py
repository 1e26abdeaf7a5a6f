"""What helps what: transference between abilities and the complexity of each, as tables and figure.

The definitions are docs/plan.md's.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from growth.planning.amounts import AmountLaw
from growth.report.comparison_output import short_title
from growth.report.fonts import DEFAULT_FONTS, Fonts
from growth.report.growth_law import interval

CELL = 0.75  # inches
LETTER, USUAL = 0.1, 24  # inches of a letter of a title, and letters that there is room for
SHOWN = 0.05  # intervals that reach no further show no help; their number is grey


def transference_table(laws: Sequence[AmountLaw], names: Sequence[str]) -> pd.DataFrame:
    """A row a pair: what a line of `source` is worth to `ability`, per line of its own.

    Args:
        laws: of each ability.
        names: of the abilities that the lines are of.

    Returns:
        Columns ability, source, value, low, high (90 %); an ability's own lines are left out.
    """
    rows = []
    for law in laws:
        draws = law.transference
        for place, source in enumerate(names):
            if place != law.own:
                low, value, high = interval(draws[:, place])
                row = {"ability": law.ability, "source": source}
                rows.append(row | {"value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def complexity_table(laws: Sequence[AmountLaw]) -> pd.DataFrame:
    """A row an ability: lines to half of its gain, and its value untuned, with 90 % intervals."""
    rows = []
    for law in laws:
        row: dict[str, object] = {"ability": law.ability}
        for name in ("half_way", "start"):
            found = interval(getattr(law, name))
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | {"noise": law.noise, "help": law.help})
    return pd.DataFrame(rows)


def transference_figure(
    table: pd.DataFrame, titles: dict[str, str], fonts: Fonts = DEFAULT_FONTS
) -> Figure:
    """The matrix of a `transference_table`: a row an ability, a column whose lines help it."""
    names = list(dict.fromkeys([*table["ability"], *table["source"]]))
    rows = [name for name in names if name in set(table["ability"])]
    values = np.full((len(rows), len(names)), np.nan)
    labels = {name: short_title(fonts.title(titles.get(name, name), name)) for name in names}
    room = 2 + LETTER * max(0, max(map(len, labels.values())) - USUAL)
    side = room + CELL * len(names), room + CELL * len(rows)
    figure = Figure(figsize=side, layout="constrained")
    axes = figure.subplots()
    for pair in table.to_dict("records"):
        i, j = rows.index(pair["ability"]), names.index(pair["source"])
        values[i, j] = pair["value"]
        known = pair["low"] > SHOWN
        text = f"{pair['value']:.2f}\n{pair['low']:.2f}–{pair['high']:.2f}"
        colour = "0.35" if not known else "white" if pair["value"] > 0.5 else "black"
        weight = "bold" if known else "normal"
        axes.text(j, i, text, ha="center", va="center", size=7, color=colour, weight=weight)
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), [labels[n] for n in names], rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [labels[n] for n in rows])
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xlabel("lines of")
    axes.set_ylabel("worth to, per line of its own")
    figure.colorbar(image, shrink=0.7, label="transference (90 % interval below; bold: above 0.05)")
    return figure
