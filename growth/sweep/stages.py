"""The stages of a run of a sweep, as the commands that a user would type."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from growth.core.files import Object
from growth.core.schemas import SelectionRecord, read_record
from growth.runs.layout import RESULTS, RESULTS_SUFFIX, RUN_RECORD, limit_suffix
from growth.sweep.plan import Exam, Plan, SweepRun


@dataclass(frozen=True)
class Stage:
    """A command.

    Attributes:
        name: in a word.
        script: of this repository.
        argv: its flags.
        log: gets what it prints.
        processes: that share its work.
    """

    name: str
    script: str
    argv: tuple[str, ...]
    log: Path
    processes: int = 1


def stages(plan: Plan, run: SweepRun) -> Iterator[Stage]:
    """The stages of a run, in order; each may need what those before have written."""
    yield _build(plan, run)
    yield _train(plan, run)
    yield _evaluate(plan, run)
    for exam in plan.benchmarks:
        yield _benchmark(plan, run, exam, chosen_checkpoint(plan, run))


def closing_stages(study: Path | None, logs: Path) -> list[Stage]:
    """What is made of all runs: the report, and the figures; their logs go to the folder `logs`."""
    flags = ("--wait", *_study(study))
    return [
        Stage("report", "evaluate/report.py", flags, logs / "report.log"),
        Stage("plot", "evaluate/plot.py", ("--plot_type", "all", *flags), logs / "plot.log"),
    ]


def chosen_checkpoint(plan: Plan, run: SweepRun) -> Path:
    """The checkpoint that was chosen on valid.

    Raises:
        InputError: there is no choice, or it is damaged.
    """
    return run.folder / str(choice_of(plan, run)["checkpoint"])


def choice_of(plan: Plan, run: SweepRun) -> Object:
    """What `growth.scoring.checkpoint_selection` wrote of a run; raises as `chosen_checkpoint`."""
    return read_record(run.selection(plan.limit), SelectionRecord, "evaluate the run again")


def outputs(plan: Plan, run: SweepRun) -> list[Path]:
    """The files that say that each stage has ended, once all have."""
    checkpoint = chosen_checkpoint(plan, run).name
    results = f"{checkpoint}{limit_suffix(plan.limit)}{RESULTS_SUFFIX}"
    suffix = limit_suffix(plan.benchmark_limit)
    return [
        run.folder / RUN_RECORD,
        run.selection(plan.limit),
        RESULTS / "test" / run.place / results,
        *(
            Path("evaluate", exam.name, "outputs", run.place, checkpoint, f"results{suffix}.json")
            for exam in plan.benchmarks
        ),
    ]


def _study(study: Path | None) -> tuple[str, ...]:
    return ("--study", str(study)) if study is not None else ()


def _build(plan: Plan, run: SweepRun) -> Stage:
    setting = run.setting
    which = ("--data_type", setting.name)
    if setting.recipe is not None:
        which = ("--recipe", str(setting.recipe))
    where = ("--data_dir", str(plan.data_dir), "--output_dir", str(plan.builds(run.seed)))
    # What two runs share, one waits for.
    argv = (*which, *where, "--seed", str(run.seed), "--wait", *_study(plan.study))
    return Stage("build", "data/build.py", argv, run.log)


def _train(plan: Plan, run: SweepRun) -> Stage:
    argv = (
        *("--data_type", run.setting.name, "--model_size", run.model.size),
        *("--model_name_or_path", run.model.name_or_path, "--seed", str(run.seed)),
        *("--output_dir", str(run.folder), "--resume"),
        *("--train_dir", str(plan.builds(run.seed) / run.setting.name)),
        *("--valid_dir", str(plan.data_dir / plan.valid)),
        *_study(plan.study),
        *plan.train_flags,
    )
    return Stage("train", "train/finetune.py", argv, run.training_log, plan.num_processes)


def _evaluate(plan: Plan, run: SweepRun) -> Stage:
    argv = (
        *("--run_dir", str(run.folder), "--data_dir", str(plan.data_dir), *_study(plan.study)),
        *("--keep_checkpoints", plan.keep_checkpoints, *plan.predict_flags),
    )
    return Stage("evaluate", "evaluate/run.py", argv, run.log, plan.num_processes)


def _benchmark(plan: Plan, run: SweepRun, exam: Exam, checkpoint: Path) -> Stage:
    limit = () if plan.benchmark_limit is None else ("--limit", str(plan.benchmark_limit))
    argv = ("--model_name_or_path", str(checkpoint), "--data_dir", str(exam.data_dir), *limit)
    script = f"evaluate/{exam.name}/run.py"
    return Stage(exam.name, script, (*argv, *plan.benchmark_flags), run.log, plan.num_processes)
