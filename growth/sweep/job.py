"""One run of a sweep from its lines to its scores, whoever schedules it.

Beside the run's folder, `<name>.sweep.json` is written when the last stage has ended well. It holds
a digest of the commands and of what they read (files by name, size and time). So a sweep that is
started again passes over what is finished, and looks again at what may have changed: the stages
themselves know by content what is theirs, and redo nothing.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from growth.core.errors import InputError
from growth.core.files import Object, is_file, json_line, read_object, write_json
from growth.core.locks import locked
from growth.core.slots import gpu_slots
from growth.data.study import Study, named_study
from growth.runs.layout import now
from growth.sweep.launcher import Launcher
from growth.sweep.plan import Plan, SweepRun
from growth.sweep.stages import Stage, choice_of, outputs, stages

GPU_SLOTS = Path("runs/sweeps/gpus")  # lock files; all sweeps of a checkout share them
FAILED = "failed: "  # begins the line of a log that says how a job ended
_ERROR = "error: "
# In what stages say of a folder that is not this run's, with flags that a sweep sets by itself.
_OF_ANOTHER = ("holds a run of another setting", "holds results of another", "of the study '")


class JobFailed(Exception):
    """A stage of a run failed; the message says which, how, and where its log is."""


def run_job(plan: Plan, run: SweepRun, launcher: Launcher) -> None:
    """Carry out what is missing of a run.

    Raises:
        JobFailed: a stage failed, or another process is at work on the run.
    """
    run.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The log's name stands for the run's lock.
        with locked(run.log, "--run_name", plan.wait):
            if not is_done(plan, run):
                with _own_gpus(plan) as environment:
                    _carry_out(plan, run, launcher, environment)
    except InputError as error:
        raise _failed(run, str(error)) from None
    except OSError as error:  # of a full disk, say, where the stages could still write
        raise _failed(run, f"{error.filename or run.log}: {error.strerror or error}") from None


@contextlib.contextmanager
def _own_gpus(plan: Plan) -> Iterator[dict[str, str]]:
    """Hold the GPUs of a run; what its stages have to be told of them."""
    if not plan.gpus:
        yield {}
        return
    with gpu_slots(plan.gpus, plan.num_processes, GPU_SLOTS) as ids:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(ids)}


def _carry_out(
    plan: Plan, run: SweepRun, launcher: Launcher, environment: Mapping[str, str]
) -> None:
    digest = job_digest(plan, run)  # of before: what changes meanwhile is looked at again
    for stage in stages(plan, run):
        before = stage.log.stat().st_size if is_file(stage.log) else 0
        code = launcher.run(stage, environment)
        if code:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            said = _last_error(stage.log, before)
            if any(mark in said for mark in _OF_ANOTHER):
                said += "; in a sweep that is another --run_name, or the flags and files of before"
            raise _failed(run, f"{stage.name} ended in {how}, see {stage.log}{said}")
    done = {"ended": now(), "digest": digest, "outputs": list(map(str, outputs(plan, run)))}
    write_json(run.record, done)


def _failed(run: SweepRun, how: str) -> JobFailed:
    """The error, noted in the run's log for who schedules by processes."""
    # a full disk, or what is no file, which may be how it failed
    with contextlib.suppress(OSError, InputError):
        is_file(run.log)
        with open(run.log, "a", encoding="utf-8") as log:
            log.write(f"{FAILED}{how}\n")
    return JobFailed(how)


def last_failure(run: SweepRun) -> str | None:
    """How a run's last job failed, by its log; None where it says nothing of that."""
    if not is_file(run.log):
        return None
    last = _last_line(run.log, 0, FAILED)
    return last.removeprefix(FAILED) if last else None


def _last_error(log: Path, start: int) -> str:
    last = _last_line(log, start, _ERROR)
    return f": {last.removeprefix(_ERROR)}" if last else ""


def _last_line(path: Path, start: int, beginning: str) -> str | None:
    with open(path, encoding="utf-8", errors="replace") as file:
        file.seek(start)
        found = [line.rstrip("\n") for line in file if line.startswith(beginning)]
    return found[-1] if found else None


def is_done(plan: Plan, run: SweepRun) -> bool:
    """Whether all stages of a run have ended well, on what there is now."""
    if not is_file(run.record):
        return False
    try:
        record: Object = read_object(run.record)
        choice_of(plan, run)
    except InputError:  # of a disk that failed; the stages look again
        return False
    made = record.get("outputs")
    return (
        record.get("digest") == job_digest(plan, run)
        and isinstance(made, list)
        and all(isinstance(path, str) and os.path.isfile(path) for path in made)
    )


def job_digest(plan: Plan, run: SweepRun) -> str:
    """Of a run's commands and of the files that they read, by name, size and time."""
    study = named_study(plan.study)
    commands = [(stage.script, stage.argv) for stage in _known_stages(plan, run)]
    exams = [str(exam) for exam in plan.benchmarks]
    files = {
        str(path): (status.st_size, status.st_mtime_ns)
        for path in sorted(_inputs(plan, run, study))
        if (status := path.stat())
    }
    others = [exams, plan.benchmark_limit, plan.benchmark_flags, study.digest]
    return hashlib.sha256(json_line([commands, others, files]).encode()).hexdigest()


def _known_stages(plan: Plan, run: SweepRun) -> Iterator[Stage]:
    """The stages whose commands no other stage decides: all but the benchmarks."""
    for stage in stages(plan, run):
        yield stage
        if stage.name == "evaluate":
            return


def _inputs(plan: Plan, run: SweepRun, study: Study) -> Iterator[Path]:
    """The files that a run is made of: the model, the pools, the lines to evaluate on, exams."""
    places = [Path(run.model.name_or_path)]
    places += [plan.data_dir / folder for folder in study.splits.values()]
    if run.setting.recipe is not None:
        places.append(run.setting.recipe)
    recipe = study.recipes.get(run.setting.name)
    pools = {s.pool.path for s in recipe.shares} if recipe else {*_all_pools(study)}
    places += [plan.data_dir / pool for pool in pools]
    places += [exam.data_dir for exam in plan.benchmarks]
    places += [plan.study] if plan.study is not None else []
    for place in places:
        if place.is_dir():
            yield from (path for path in place.rglob("*") if path.is_file())
        elif place.is_file():
            yield place


def _all_pools(study: Study) -> Iterable[str]:
    return {share.pool.path for recipe in study.recipes.values() for share in recipe.shares}
