"""Run the study on one or several models: build, tune and evaluate each setting, draw the curves.

    python scripts/sweep.py --model_size 7b --model_name_or_path MODEL --data_types 'curated-*' \\
        --seeds 0,1,2 --benchmarks cmmlu --gpus 0,1,2,3

`bash scripts/run_sweep.sh` starts it. Each model, setting and seed is a run of its own in
runs/runs-<size>/<setting>/<name>. Everything is checked before anything starts. A run that fails is
tried once more and keeps no other from its turn; after an interruption the same command resumes.
Prints a line per run, then the paths of the report and of the overview figure.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("growth") is None:
    sys.stderr.write(
        "error: the package growth is not installed in this Python; run "
        "`source .venv/bin/activate`, or the three install lines of README.md first\n"
    )
    sys.exit(2)

from growth.core.cli import (
    add_options,
    argument_parser,
    given_options,
    options_from,
    run_script,
)
from growth.core.options import (
    LOCAL,
    SLURM,
    DecodingOptions,
    EngineOptions,
    Hyperparameters,
    LoraOptions,
    ModelOptions,
    PredictionOptions,
    StudyOptions,
    SweepOptions,
)
from growth.core.workers import available_cores
from growth.data.study import named_study
from growth.scoring.checkpoint_selection import description
from growth.sweep import checks
from growth.sweep.job import JobFailed, is_done
from growth.sweep.launcher import Launcher, ends_by_signal
from growth.sweep.local import run_beside, run_locally
from growth.sweep.outline import outline
from growth.sweep.plan import Exam, Model, Plan, Setting, SweepRun, make_runs, run_names
from growth.sweep.progress import Progress
from growth.sweep.snakemake import PROFILE, run_by_snakemake
from growth.sweep.stages import choice_of, closing_stages

# Flags whose values are flags themselves.
_OF_FLAGS = ("--train_flags", "--predict_flags")
# What the sweep says itself.
_FIXED = ("model_name_or_path", "eval_data_path", "split", "pred_data_path", "model_size", "tag")
_THREADS = "OMP_NUM_THREADS"  # of a process, read by torch and by torchrun
_CALLER = "GROWTH_CALLER"  # the folder in which the user called scripts/run_sweep.sh


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags, check everything, carry out the runs, then report and draw."""
    parser = argument_parser(__doc__)
    add_options(parser, SweepOptions)
    add_options(parser, StudyOptions)
    args = parser.parse_args(list(_joined(sys.argv[1:] if argv is None else argv)))
    options = options_from(args, SweepOptions)
    share_cores(options)
    launcher = Launcher()
    with ends_by_signal(launcher):
        plan = checked_plan(options, args.study, launcher)
        if options.dry_run:
            lines, can_be = outline(plan, launcher, conditions_of(plan, options))
            print(*lines, sep="\n")
            sys.exit(0 if can_be else 1)
        failed = carry_out(plan, options, launcher)
        drawn = report_and_plot(plan, options, launcher)
    if failed or not drawn:
        sys.exit(1)


def share_cores(options: SweepOptions) -> None:
    """Give each of the runs at the same time its share of the processors, as far as nobody said.

    Otherwise each takes all of them, and on CPUs they mostly wait for each other.
    """
    jobs = jobs_of(options, 1)
    if jobs > 1 and options.executor != SLURM:
        share = available_cores() // (jobs * options.num_processes)
        os.environ.setdefault(_THREADS, str(max(1, share)))


def _joined(words: Sequence[str]) -> Iterator[str]:
    """`--train_flags "--resume"` as one word: argparse would take the value for a flag."""
    left = iter(words)
    for word in left:
        value = next(left, None) if word in _OF_FLAGS else None
        yield word if value is None else f"{word}={value}"


def checked_plan(options: SweepOptions, study_flag: Path | None, launcher: Launcher) -> Plan:
    """The plan of what was asked for.

    Raises:
        InputError: something would fail later; all that is wrong is named.
    """
    study = named_study(study_flag)
    words = {name: checks.words_of(getattr(options, name), name) for name in flag_parsers()}
    train, predict = (flag_parsers()[name].parse_args(words[name]) for name in words)
    problems = checks.Problems()
    seeds: list[int] = problems.of(lambda: checks.seeds_of(options.seeds), [])
    models: list[Model] = problems.of(lambda: [of_caller(m) for m in checks.models_of(options)], [])
    settings: list[Setting] = problems.of(lambda: checks.settings_of(study, options), [])
    exams: tuple[Exam, ...] = problems.of(lambda: checks.exams_of(options), ())
    gpus: tuple[str, ...] = problems.of(
        lambda: checks.gpus_of(options, lambda: launcher.call(checks.count_gpus)), ()
    )
    names = run_names(options.run_name, seeds)
    problems.of(lambda: checks.check_run_names(names.values()), None)
    problems.of(lambda: checks.check_executor(options), None)
    problems.of(lambda: checks.check_evaluation_lines(study, options.data_dir), None)
    problems.check()
    # Last, as it takes the imports.
    how = options_from(train, ModelOptions)
    launcher.call(checks.check_models_and_exams, models, how, exams, options.benchmark_limit)
    plan = Plan(
        runs=make_runs(models, settings, names),
        study=study_flag,
        data_dir=options.data_dir,
        valid=study.splits["valid"],
        build_dir=options.build_dir,
        train_flags=words["train_flags"],
        predict_flags=words["predict_flags"],
        benchmarks=exams,
        benchmark_limit=options.benchmark_limit,
        benchmark_flags=tuple(benchmark_flags(predict)),
        keep_checkpoints=options.keep_checkpoints,
        limit=predict.limit,
        num_processes=options.num_processes,
        gpus=gpus,
        # A job of SLURM may outlive its sweep; that of the next one waits for it.
        wait=options.wait or options.executor == SLURM,
    )
    if not plan.wait and not options.dry_run:
        checks.check_unlocked(plan.runs)
    return plan


def flag_parsers() -> dict[str, argparse.ArgumentParser]:
    """What --train_flags and --predict_flags may hold: all that the sweep does not say itself."""
    train = argument_parser("Flags of train/finetune.py, but for those that a sweep sets.")
    add_options(train, Hyperparameters, leave_out=("seed",))
    add_options(train, LoraOptions, prefix="lora_")
    predict = argument_parser("Flags of evaluate/run.py, but for those that a sweep sets.")
    add_options(predict, PredictionOptions, leave_out=_FIXED)
    add_options(predict, DecodingOptions)
    for parser in (train, predict):
        add_options(parser, ModelOptions)
    add_options(train, EngineOptions)
    parsers = {"train_flags": train, "predict_flags": predict}
    for name, parser in parsers.items():
        parser.prog, parser.usage = (
            f"--{name}",
            f"--{name} 'FLAGS'; --{name} --help lists them",
        )
    return parsers


def benchmark_flags(predict: argparse.Namespace) -> Iterator[str]:
    """Flags of prediction that the benchmarks take as well."""
    if predict.precision is not None:
        yield from ("--precision", predict.precision)
    if predict.base_model is not None:
        yield from ("--base_model", predict.base_model)
    for name in ("as_published", "trust_remote_code"):
        if getattr(predict, name):
            yield f"--{name}"


def is_elsewhere() -> bool:
    """Whether the caller of the wrapper is not in the repository's folder."""
    return Path(os.environ.get(_CALLER, ".")).resolve() != Path.cwd()


def of_caller(model: Model) -> Model:
    """A model whose relative path is the caller's, where it is there."""
    path = Path(os.environ.get(_CALLER, "."), model.name_or_path)
    if is_elsewhere() and path.exists():
        return dataclasses.replace(model, name_or_path=str(path))
    return model


def to_caller(path: str) -> str:
    """A path of an output, absolute where the caller is elsewhere."""
    return str(Path(path).resolve()) if is_elsewhere() else path


def conditions_of(plan: Plan, options: SweepOptions) -> dict[str, Any]:
    """What flags say of all runs, as far as it costs."""
    train = flag_parsers()["train_flags"].parse_args(plan.train_flags)
    return {
        "given": given_options(train, Hyperparameters),
        "model": options_from(train, ModelOptions),
        "lora": options_from(train, LoraOptions, prefix="lora_") if train.lora_rank else None,
        "engine": options_from(train, EngineOptions),
        "jobs": jobs_of(options, len(plan.runs)),
        "elsewhere": options.executor == SLURM,
    }


def carry_out(plan: Plan, options: SweepOptions, launcher: Launcher) -> int:
    """Carry out the runs, a line each as they end; returns how many failed."""
    began, failed, count = time.monotonic(), {}, 0
    jobs = jobs_of(options, len(plan.runs))
    done = {run for run in plan.runs if is_done(plan, run)}
    progress = Progress(plan.runs, done)
    before = f", {len(done)} of them done" if done else ""
    print(
        f"runs: {len(plan.runs)}{before}, {jobs} at a time; logs: {plan.runs[0].log} and so on",
        flush=True,
    )

    def ended(run: SweepRun, failure: JobFailed | None) -> None:
        nonlocal count
        count += 1
        seconds = time.monotonic() - began
        left = progress.ended(run, seconds, failed=failure is not None)
        place = f"{count} of {len(plan.runs)}" + (f", about {left:.0f} s left" if left else "")
        said = f"[{seconds:.0f} s, {place}] {label(plan, run)}: "
        if failure is None:
            said += f"chosen: {description(choice_of(plan, run))}"
        else:
            failed[run] = failure
            said += f"failed: {failure}"
        print(said, file=sys.stderr if failure else sys.stdout, flush=True)

    if options.executor == LOCAL:
        run_locally(plan, jobs, launcher, ended)
    else:
        profile = options.profile or PROFILE
        run_by_snakemake(plan, jobs, options.executor, profile, ended, options.wait)
    if failed:
        print(f"{len(failed)} of {count} runs failed; the same command tries them again:")
        for run, failure in failed.items():
            print(f"  {run.place}: {failure}")
    return len(failed)


def jobs_of(options: SweepOptions, runs: int) -> int:
    """How many of so many runs are carried out at the same time."""
    if options.jobs is not None:
        return options.jobs
    if options.executor == SLURM:
        return runs
    return max(1, len(checks.listed([options.gpus or ""])) // options.num_processes)


def label(plan: Plan, run: SweepRun) -> str:
    """A run in short: its setting, where that says it all."""
    of_setting = [other for other in plan.runs if other.setting == run.setting]
    return run.setting.name if len(of_setting) == 1 else str(run.place)


def report_and_plot(plan: Plan, options: SweepOptions, launcher: Launcher) -> bool:
    """Write the report and the figures, print the path of each; whether both are there."""
    whole = True
    # On a cluster this machine is one that others log in to.
    jobs = 1 if options.executor == SLURM else jobs_of(options, len(plan.runs))
    with tempfile.TemporaryDirectory() as folder:
        last = closing_stages(plan.study, Path(folder))
        for stage, code in zip(last, run_beside(last, jobs, launcher), strict=True):
            printed = stage.log.read_text(encoding="utf-8").splitlines()
            if code:
                print(*printed[-1:], file=sys.stderr)
                whole = False
            else:
                # the page, which comes before its numbers; the overview, which is drawn last
                print(to_caller([line for line in printed if line.endswith((".html", ".png"))][-1]))
    return whole


if __name__ == "__main__":
    run_script(main)
