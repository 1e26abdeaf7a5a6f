"""Say how many lines of which ability a budget should buy: <output_dir>/plan.toml and plan.csv.

    python evaluate/plan.py --budget 640 --results_path evaluate/results/test

Fits the law in amounts to the results of all runs whose lines are known by ability: growth curves,
and better a design's (data/design.py) too. Prints lines and predicted scores of each ability beside
those of equal shares, and the probability that the plan is better; where there is no evidence, the
plan is equal shares. data/build.py --recipe builds plan.toml. docs/plan.md has the law and its
limits.
"""

import sys
from collections.abc import Sequence
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
from growth.core.files import check_writable, write_text
from growth.core.locks import locked
from growth.core.options import MixtureOptions, OutputOptions, PlanOptions, StudyOptions
from growth.data.study import Study, check_recipe_name, named_study, recipe_text

if TYPE_CHECKING:
    from growth.planning.amounts import Measured
    from growth.planning.plan import Budget, Plan

RECIPE = "plan.toml"
FAR = 4  # times the largest run


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, read, fit, plan, write and print."""
    parser = argument_parser(__doc__)
    for group in (PlanOptions, MixtureOptions, StudyOptions, OutputOptions):
        add_options(parser, group)
    args = parser.parse_args(argv)
    options, source = options_from(args, PlanOptions), options_from(args, MixtureOptions)
    check_writable(options.output_dir, "--output_dir")
    with locked(options.output_dir, "--output_dir", args.wait):
        write_plan(options, source, args.study)


def write_plan(options: PlanOptions, source: MixtureOptions, flag: Path | None) -> None:
    """Write the recipe and the table of the plan; print the table and what it is worth."""
    from growth.planning.amounts import fit_amounts
    from growth.planning.budget import budget_of
    from growth.planning.measured import SCORE, measured
    from growth.planning.plan import make_plan
    from growth.report.laws import write_table

    found = measured(source, flag, source.value or SCORE)
    known = found.study or named_study(flag)
    ours = set(found.measured.names) <= {ability.name for ability in known.in_domain}
    study = known if ours else None
    if study is not None and options.name is not None:
        check_recipe_name(options.name, study, "--name")
    budget = budget_of(options, found.measured.names, study)
    for note in [*found.notes, *beyond(found.measured, budget)]:
        print(f"note: {note}", file=sys.stderr)
    plan = make_plan(fit_amounts(found.measured, options.seed), budget, options.seed)
    table = options.output_dir / "plan.csv"
    write_table(table, plan.table)
    print_plan(plan, budget, options.objective, found.measured.outcomes[0].is_score)
    if plan.moved and study is not None and study.out_of_domain:
        print("the abilities out of domain have no part in it, and may suffer (docs/plan.md)")
    print(table)
    if study is not None:
        print(write_recipe(options, study, budget.names, plan))
    else:
        # One of an earlier plan would be taken for this one's.
        (options.output_dir / RECIPE).unlink(missing_ok=True)
        print("no recipe: these abilities are of no study; --study FILE names one", file=sys.stderr)


def beyond(measured: "Measured", budget: "Budget") -> list[str]:
    """A note where a plan is for many more lines than were measured."""
    largest = max(float(outcome.amounts.sum(1).max()) for outcome in measured.outcomes)
    lines = float(budget.lines(budget.equal()).sum())
    if lines <= FAR * largest:
        return []
    return [
        f"{lines:,.0f} lines in all are {lines / largest:.0f} times the largest run measured "
        f"({largest:,.0f}); predictions so far from it hang on the law"
    ]


def write_recipe(options: PlanOptions, study: Study, names: Sequence[str], plan: "Plan") -> Path:
    """Write the recipe that data/build.py --recipe takes; returns its path."""
    from growth.data.settings import pool_sizes

    pool = study.pool_of_lines(options.pool)
    lines = {name: int(count) for name, count in zip(names, plan.lines, strict=True)}
    distinct = {}
    if (options.data_dir / study.pools[pool].path).exists():
        sizes = pool_sizes(study, pool, options.data_dir)
        distinct = {name: sizes[name] for name, count in lines.items() if count > sizes[name]}
    path = options.output_dir / RECIPE
    about = f"For a budget of {options.budget} (evaluate/plan.py), objective {options.objective}."
    name = options.name or f"plan-{sum(lines.values())}"
    write_text(path, recipe_text(name, pool, lines, distinct, about))
    return path


def print_plan(plan: "Plan", budget: "Budget", objective: str, is_score: bool) -> None:
    """The table for the screen, and a sentence."""
    from growth.planning.budget import MEAN
    from growth.planning.plan import WORST

    costs = ["plan_cost", "equal_cost"] if (budget.cost != 1).any() else []
    shown = plan.table[["ability", "plan_lines", "equal_lines", *costs]].copy()
    for which in ("plan", "equal"):
        low, value, high = (plan.table[f"{which}_{name}"] for name in ("low", "value", "high"))
        shown[f"predicted, {which}"] = [
            f"{v:.4g} ({a:.4g} to {b:.4g})" for v, a, b in zip(value, low, high, strict=True)
        ]
    print(shown.to_string(index=False))
    what = "scores in per cent" if is_score else "losses"
    had = ", those of --have included" if budget.have.any() else ""
    print(f"lines in all{had}; predicted: {what}, in brackets the law's 90 % interval")
    if not plan.moved:
        print("no evidence for anything but equal shares: the plan is equal shares")
        return
    gain, unit = plan.gain, "points" if is_score else "per cent of the loss"
    aims = {MEAN: "the mean", WORST: "the worst ability"}
    aim = aims.get(objective, f"the mean weighted by {objective}")
    print(
        f"by the law, the plan is better than equal shares with probability "
        f"{shown_probability(plan)}: {aim} by {gain.value:.2f} {unit} "
        f"({gain.low:.2f} to {gain.high:.2f}, 90 %)"
    )


def shown_probability(plan: "Plan") -> str:
    """The probability as far as the draws tell: all of them better is no certainty."""
    most = 1 - 1 / (plan.draws + 1)
    return f"above {most:.2f}" if plan.probability > most else f"{plan.probability:.2f}"


if __name__ == "__main__":
    run_script(main)
