"""Fit a law to each growth curve: <output_dir>/laws.csv and predictions.csv, 90 % intervals on all.

    python evaluate/fit.py --results_path evaluate/results/test

Reads results as plot.py does, or any CSV file of scores or losses (--points). Prints a line a
curve: grows, saturated, flat, declines, or can't be told, and what four times its largest size
would give, with a 90 % interval. --hold_out K leaves out each curve's K largest sizes and prints
how well they are predicted, beside "stays as it is" and a line in log samples. docs/laws.md has the
formula, the priors and what the words mean.

--design fits the law in amounts to runs on several mixtures instead (data/design.py): which data
helps which ability, in transference.csv and .png, and how much data each takes, in complexity.csv
(docs/plan.md).
"""

import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import add_options, argument_parser, options_from, run_script
from growth.core.errors import InputError
from growth.core.files import check_writable
from growth.core.locks import locked
from growth.core.options import (
    FigureOptions,
    LawOptions,
    MixtureOptions,
    OutputOptions,
    StudyOptions,
)
from growth.report.plot_types import formats_of
from growth.runs.layout import results_folders

if TYPE_CHECKING:
    from growth.report.growth_law import Curve


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, read the curves, then fit and write, or hold out and print."""
    parser = argument_parser(__doc__)
    for group in (LawOptions, FigureOptions, StudyOptions, OutputOptions):
        add_options(parser, group)
    add_options(parser, MixtureOptions, leave_out=("results_path", "selection_path"))
    args = parser.parse_args(argv)
    options, source = options_from(args, LawOptions), options_from(args, MixtureOptions)
    check_mixtures(options, source)
    formats = formats_of(args.format)
    if options.points and (options.results_path or args.study or options.selection_path):
        raise InputError(
            f"--points {options.points}: beside --results_path, --selection_path or --study, which "
            "it replaces; give one of the two"
        )
    if options.hold_out:
        hold_out(options, args.study)
        return
    check_writable(options.output_dir, "--output_dir")
    with locked(options.output_dir, "--output_dir", args.wait):
        if options.design or source.mixtures:
            write_transference(options, source, args.study, formats)
        else:
            write_laws(options, args.study)


def check_mixtures(options: LawOptions, source: MixtureOptions) -> None:
    """Flags of designs and of curves exclude each other.

    Raises:
        InputError: both are there.
    """
    designed = "mixtures" if source.mixtures else "design" if options.design else None
    if designed:
        given = [name for name in ("points", "hold_out", "sizes") if getattr(options, name)]
        if given:
            raise InputError(f"--{designed}: goes without --{given[0]}, which is about curves")
    elif given := [name for name in ("model_size", "value") if getattr(source, name)]:
        raise InputError(f"--{given[0]}: needs --design, as curves of all sizes get a law")


def read_curves(options: LawOptions, study: Path | None) -> "list[Curve]":
    """The curves that the flags name; a note on each that is left out goes to stderr."""
    from growth.report.laws import curves_of_points, curves_of_results

    if options.points:
        found = curves_of_points(options.points)
    else:
        found = curves_of_results(*results_folders(options), study)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    return found.curves


def hold_out(options: LawOptions, study: Path | None) -> None:
    """Print what was predicted of the sizes that are left out; then errors and coverage."""
    from growth.report.laws import held_out_lines, held_out_points, held_out_table

    points = held_out_points(read_curves(options, study), options.hold_out or 1, options.seed)
    print(*held_out_lines(points), sep="\n")
    table = held_out_table(points)
    print(
        "errors: points for scores, per cent for losses; coverage: of the 90 % intervals, per cent"
    )
    print(table.to_string(index=False, float_format="%.2f"))


def write_laws(options: LawOptions, study: Path | None) -> None:
    """Fit all curves, write both tables, print a line a curve."""
    from tqdm import tqdm

    from growth.report.growth_law import fit
    from growth.report.laws import (
        SUMMARY,
        laws_table,
        predictions_table,
        sizes_asked,
        summary,
        write_table,
    )

    sizes = sizes_asked(options.sizes)
    curves = tqdm(read_curves(options, study), "fit", unit="curve", delay=10)
    posteriors = [fit(curve, options.seed) for curve in curves]
    write_table(options.output_dir / "laws.csv", laws_table(posteriors))
    write_table(options.output_dir / "predictions.csv", predictions_table(posteriors, sizes))
    print(SUMMARY, *map(summary, posteriors), sep="\n")
    print(options.output_dir / "laws.csv", options.output_dir / "predictions.csv", sep="\n")


def write_transference(
    options: LawOptions, source: MixtureOptions, study: Path | None, formats: Sequence[str]
) -> None:
    """Fit the law in amounts; write both tables and the figure, print them."""
    from growth.planning.amounts import FEW_MIXTURES, fit_amounts
    from growth.planning.measured import LOSS, measured
    from growth.planning.transference import (
        SHOWN,
        complexity_table,
        transference_figure,
        transference_table,
    )
    from growth.report.fonts import fonts_for
    from growth.report.laws import write_table
    from growth.report.style import write_figure

    found = measured(source, study, source.value or LOSS)
    names = found.measured.names
    if len(names) < 2:
        raise InputError(
            f"--design: which data helps which ability needs two abilities, and there is only "
            f"{names[0]}; fit its curve without --design (--points for a CSV file)"
        )
    few = [] if found.measured.is_design else [FEW_MIXTURES]
    titles = {a.name: a.heading for a in found.study.abilities} if found.study else {}
    fonts = fonts_for([*names, *titles, *titles.values()])
    for note in [*found.notes, *few, *fonts.notes()]:
        print(f"note: {note}", file=sys.stderr)
    laws = fit_amounts(found.measured, options.seed)
    table = transference_table(laws, names)
    paths = [options.output_dir / name for name in ("transference.csv", "complexity.csv")]
    write_table(paths[0], table)
    write_table(paths[1], complexity_table(laws))
    draw = partial(transference_figure, table, titles, fonts)
    paths += write_figure(draw, options.output_dir / "transference", formats, fonts)
    kind = "per cent" if found.measured.outcomes[0].is_score else "nats"
    print(
        f"half_way: lines, the others' included, to half of the gain; start: the untuned model's "
        f"value ({kind}); _low and _high: 90 % intervals"
    )
    print(complexity_table(laws).to_string(index=False, float_format="%.4g"))
    print(
        "value: what a line of source is worth to ability, per line of its own; where it is certain"
    )
    helps = table[table["low"] > SHOWN].sort_values("value", ascending=False)
    print(helps.to_string(index=False, float_format="%.3g") if len(helps) else "no help is certain")
    print(*paths, sep="\n")


if __name__ == "__main__":
    run_script(main)
