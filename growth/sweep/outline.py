"""What a sweep is about to do, in words: what is done already, and what the rest will cost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from growth.data.study import Recipe, Study, named_study, read_recipe
from growth.sweep.job import is_done
from growth.sweep.launcher import Launcher
from growth.sweep.plan import Plan, SweepRun


class Outline(NamedTuple):
    """What a sweep is about to do: `lines` of text, and whether all of its runs `can_be`."""

    lines: list[str]
    can_be: bool


def outline(plan: Plan, launcher: Launcher, conditions: Mapping[str, Any]) -> Outline:
    """What the runs of `plan` that are left will cost.

    Args:
        plan: of the sweep.
        launcher: counting takes the imports.
        conditions: fields of `growth.sweep.costs.Conditions` that flags decide.
    """
    done = [run for run in plan.runs if is_done(plan, run)]
    left = [run for run in plan.runs if run not in done]
    lines = [f"runs: {len(plan.runs)}, {len(done)} of them done"]
    lines += [f"done: {run.place}" for run in done]
    if not left:
        return Outline(lines, True)
    costs: Outline = launcher.call(_costs, plan, left, conditions)
    return Outline(lines + costs.lines, costs.can_be)


def _costs(plan: Plan, runs: Sequence[SweepRun], conditions: Mapping[str, Any]) -> Outline:
    """The table of what runs cost."""
    from growth.sweep.costs import Conditions, PlannedRun, cost_lines, plan_costs

    study = named_study(plan.study)
    planned = [
        PlannedRun(str(run.place), run.model.name_or_path, _recipe(run, study), run.seed)
        for run in runs
    ]
    of_all = Conditions(
        study=study,
        data_dir=plan.data_dir,
        keep_checkpoints=plan.keep_checkpoints,
        num_processes=plan.num_processes,
        probe=True,
        **conditions,
    )
    costs = plan_costs(planned, of_all)
    return Outline(list(cost_lines(costs)), not costs.failed)


def _recipe(run: SweepRun, study: Study) -> Recipe:
    path = run.setting.recipe
    return study.recipe(run.setting.name) if path is None else read_recipe(path, study)
