"""The checkpoints of a run: which are complete, which can be resumed, which are candidates."""

import dataclasses
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import content_digest, is_file, write_json
from growth.core.schemas import DigestsRecord, TrainerStateRecord, read_record
from growth.model.weight_files import (
    CONFIG,
    SINGLE,
    TOKENIZER_FILES,
    tensor_shapes,
    weight_files,
)

logger = logging.getLogger(__name__)
TRAINER_STATE = "trainer_state.json"
DIGESTS = "digests.json"
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
CHECKPOINT = "checkpoint-"
# Patterns of what the Trainer, FSDP and DeepSpeed keep of the optimizer.
_OPTIMIZER_STATE = ("optimizer.pt", "optimizer.bin", "global_step*")
_SAFETENSORS_TEMPORARY = ".tmp*"
_FSDP_WEIGHTS = ("pytorch_model_fsdp.bin",)  # the weights a second time
PLAIN, FSDP, DEEPSPEED = ENGINES = ("plain", "fsdp", "deepspeed")
_ENGINE_FILES = {
    PLAIN: ("optimizer.pt",),
    FSDP: ("optimizer.bin", *_FSDP_WEIGHTS),
    DEEPSPEED: (),
}
# What the archives of a plain run hold at least; what FSDP's hold depends on the launch.
_ARCHIVED: dict[str, dict[str, type]] = {
    "optimizer.pt": {"state": dict, "param_groups": list},
    "scheduler.pt": {"last_epoch": int, "base_lrs": list},
    "rng_state": {"python": tuple, "numpy": tuple, "cpu": object},  # a tensor
}
FIRST_EPOCH = 5  # earlier checkpoints are no candidates (paper section 4.2)


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the Trainer wrote of a checkpoint: `global_step`, `epoch` ...

    Raises:
        InputError: the checkpoint is incomplete, or the file is damaged.
    """
    # The Trainer writes NaN as such, where a gradient's norm was none.
    remedy = f"{checkpoint.name} is incomplete; remove it, or put the file back"
    return read_record(checkpoint / TRAINER_STATE, TrainerStateRecord, remedy, finite=False)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, by the record inside it."""
    return trainer_state(checkpoint)["global_step"]


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the Trainer writes its state last.

    A checkpoint-N whose state is of another step is none that the Trainer wrote.
    """
    try:
        step = checkpoint_step(checkpoint)
    except InputError:
        return False
    named = checkpoint.resolve().name.removeprefix(CHECKPOINT)
    return not named.isdecimal() or int(named) == step


def checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, by step."""
    found = [path for path in _named_by_step(run_dir) if is_complete(path)]
    return sorted(found, key=checkpoint_step)


def _named_by_step(run_dir: Path) -> list[Path]:
    """What the Trainer may have written; a copy that is called `checkpoint-12 (1)` is none."""
    return [path for path in sorted(run_dir.glob(f"{CHECKPOINT}*")) if _named_step(path) >= 0]


@dataclass(frozen=True)
class ResumeNeeds:
    """What the process that resumes a run reads of a checkpoint.

    Attributes:
        world_size: processes of the launch, each of which has random numbers of its own.
        engine: one of `ENGINES`.
        adapter: whether the weights are a LoRA adapter's.
        loss_scale: whether fp16's loss scale is part of the state.
    """

    world_size: int = 1
    engine: str = PLAIN
    adapter: bool = False
    loss_scale: bool = False

    def rng_files(self) -> list[str]:
        """The files of the processes' random numbers, by rank."""
        if self.world_size == 1:
            return ["rng_state.pth"]
        return [f"rng_state_{rank}.pth" for rank in range(self.world_size)]

    def archives(self) -> list[str]:
        """The files that torch saved."""
        files = ["scheduler.pt", *self.rng_files(), *_ENGINE_FILES[self.engine]]
        return [*files, "scaler.pt"] if self.loss_scale else files


def resume_problems(checkpoint: Path, needs: ResumeNeeds) -> list[str]:
    """Why a run can't be resumed exactly from `checkpoint`: which files are missing or damaged.

    transformers itself begins with a new optimizer, a new schedule or other random numbers where
    one of these files is missing, and says nothing.
    """
    if not is_complete(checkpoint):
        return [f"{TRAINER_STATE} is missing or damaged"]
    # Imported here, as further below: to select a checkpoint needs neither, and they take seconds.
    from transformers import TrainerState

    known = {field.name for field in dataclasses.fields(TrainerState)}
    unknown = sorted(trainer_state(checkpoint).keys() - known)
    found = [f"{TRAINER_STATE} has unknown fields, such as {name[:80]!r}" for name in unknown[:1]]
    for name in needs.archives():
        problem = _archive_problem(checkpoint / name)
        found += [problem] if problem else changed_files(checkpoint, [name])
    if needs.engine == DEEPSPEED:
        shards = [str(p.relative_to(checkpoint)) for p in checkpoint.glob("global_step*/*")]
        found += changed_files(checkpoint, shards) if shards else ["global_step* is missing"]
    others = {path.name for path in checkpoint.glob("rng_state*.pth")} - set(needs.rng_files())
    if others:
        found.append(
            f"{', '.join(sorted(others))} is of another number of processes than the "
            f"{needs.world_size} there are now"
        )
    return found + weight_problems(checkpoint, needs.adapter)


def _archive_problem(path: Path) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    try:
        with zipfile.ZipFile(path) as archive:  # torch's format; reading it compares checksums
            damaged = archive.testzip() is not None
    # What zipfile raises depends on the bytes: UnicodeDecodeError, EOFError, NotImplementedError.
    except Exception:
        damaged = True
    if damaged:
        return f"{path.name} is damaged"
    import torch
    from transformers.trainer_pt_utils import safe_globals

    name = "rng_state" if path.name.startswith("rng_state") else path.name
    try:
        with safe_globals():  # numpy's, of random numbers
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # What unpickling raises depends on the bytes; nothing of ours is called.
    except Exception as error:
        return f"{path.name} is damaged ({type(error).__name__})"
    fields = _ARCHIVED.get(name, {}).items()
    if isinstance(content, dict) and all(isinstance(content.get(key), t) for key, t in fields):
        return None
    return f"{path.name} is none that the Trainer wrote"


def write_digests(checkpoint: Path) -> None:
    """Write down what the files of a checkpoint hold; the Trainer's state comes after it.

    Neither safetensors nor JSON has checksums, and a file of another step is whole.
    """
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    files = {
        str(path.relative_to(checkpoint)): {
            "bytes": path.stat().st_size,
            "xxh3": content_digest(path),
        }
        for path in paths
        # the card is for people, and says when
        if path.name not in (DIGESTS, TRAINER_STATE, "README.md")
    }
    write_json(checkpoint / DIGESTS, {"files": files})


def changed_files(checkpoint: Path, names: Iterable[str]) -> list[str]:
    """Which files of a checkpoint hold something else than was saved; missing ones aside.

    Args:
        checkpoint: of a run; one of an earlier version has no digests, and nothing is known.
        names: of the files.
    """
    if not is_file(checkpoint / DIGESTS):
        return []
    try:
        saved = read_record(checkpoint / DIGESTS, DigestsRecord, "remove it")["files"]
    except InputError:
        return [f"{DIGESTS} is damaged"]
    return [
        f"{name} is not what was saved (see {DIGESTS})"
        for name in names
        if name in saved
        and (checkpoint / name).is_file()
        and (
            (checkpoint / name).stat().st_size != saved[name]["bytes"]
            or content_digest(checkpoint / name) != saved[name]["xxh3"]
        )
    ]


def check_as_saved(folder: Path) -> None:
    """Check that what is loaded of a checkpoint is what training saved; others pass.

    Raises:
        InputError: a file is another.
    """
    if not is_file(folder / DIGESTS):
        return
    loaded = [*weight_files(folder), CONFIG, *_ADAPTER, *TOKENIZER_FILES]
    if changed := changed_files(folder, loaded):
        raise InputError(
            f"{folder}: {', '.join(changed)}; put the file back, or, if the change is meant, "
            f"remove {DIGESTS}"
        )


def weight_problems(checkpoint: Path, adapter: bool) -> list[str]:
    """Which weight files of a checkpoint are missing, damaged, or not those that were saved.

    Args:
        checkpoint: of a run.
        adapter: whether the weights are a LoRA adapter's.
    """
    config, *names = _ADAPTER if adapter else (CONFIG, SINGLE)
    found = changed_files(checkpoint, [config])
    if not adapter:
        try:
            names = weight_files(checkpoint) or names
        except InputError as error:
            return found or [str(error)]
    for name in names:
        if not (checkpoint / name).is_file():
            found.append(f"{name} is missing")
            continue
        try:
            tensor_shapes(checkpoint / name)
        except InputError:
            found.append(f"{name} is damaged")
        else:
            found += changed_files(checkpoint, [name])
    return found


def resumable_checkpoint(run_dir: Path, needs: ResumeNeeds) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that a run can be resumed from exactly; None where there is none yet.

    Returns:
        The checkpoint, and why newer ones are passed over.

    Raises:
        InputError: there are complete checkpoints, and none of them can be resumed exactly.
    """
    passed_over = [
        f"{path.name}: {TRAINER_STATE} is missing or damaged" for path in _incomplete(run_dir)
    ]
    complete = checkpoints(run_dir)
    for checkpoint in reversed(complete):
        problems = resume_problems(checkpoint, needs)
        if not problems:
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint.name}: {', '.join(problems)}")
    if complete:
        whole = [path for path in complete if not weight_problems(path, needs.adapter)]
        last = (
            f"; the weights of {whole[-1].name} are whole, to evaluate or export" if whole else ""
        )
        raise InputError(
            f"--resume {run_dir}: can't be resumed exactly: {'; '.join(passed_over)} (only a run's "
            "newest checkpoint keeps the optimizer's state); resume with the processes and the "
            "engine it was begun with, put the files back, or train anew in another --output_dir"
            + last
        )
    return None, passed_over


def _incomplete(run_dir: Path) -> list[Path]:
    return [path for path in _named_by_step(run_dir) if not is_complete(path)]


def _named_step(checkpoint: Path) -> int:
    """The step in a checkpoint's name, which says it where its record is lost; -1 for none."""
    number = checkpoint.name.removeprefix(CHECKPOINT)
    return int(number) if re.fullmatch(r"0|[1-9][0-9]*", number, re.ASCII) else -1


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint; a kill amid it leaves nothing that looks like a damaged one."""
    outgoing = checkpoint.with_name(f".{checkpoint.name}")
    os.replace(checkpoint, outgoing)
    shutil.rmtree(outgoing)


def drop_resume_state(checkpoint: Path) -> None:
    """Remove what a checkpoint holds only for resuming: twice the size of its weights, or more."""
    for pattern in (*_OPTIMIZER_STATE, *_FSDP_WEIGHTS):
        for path in checkpoint.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def remove_leftovers(run_dir: Path, step: int) -> None:
    """Remove what a kill amid a checkpoint has left in the folder of a run.

    That is half a checkpoint that will be written again or was being removed, the temporary files
    that safetensors writes weights to, and resume state in checkpoints older than that of `step`.

    Args:
        run_dir: nobody else works in it.
        step: of the checkpoint that the run goes on from, 0 for none.
    """
    for path in run_dir.glob(f".{CHECKPOINT}*"):
        shutil.rmtree(path)
    for path in _incomplete(run_dir):
        if _named_step(path) > step:
            shutil.rmtree(path)
    for path in run_dir.glob(f"{CHECKPOINT}*/{_SAFETENSORS_TEMPORARY}"):
        path.unlink()
    for checkpoint in checkpoints(run_dir):
        if checkpoint_step(checkpoint) < step:
            drop_resume_state(checkpoint)


def first_candidate_epoch(epochs: int) -> int:
    """The epoch whose checkpoint is the first candidate; epoch 1 of a run that is shorter."""
    return FIRST_EPOCH if epochs >= FIRST_EPOCH else 1


def epoch_of(checkpoint: Path) -> int:
    """The epoch that a checkpoint closes."""
    return round(trainer_state(checkpoint)["epoch"])


def candidates(run_dir: Path, epochs: int, ended: bool, steps: int | None = None) -> list[Path]:
    """The checkpoints of a run that selection considers, by step.

    Args:
        run_dir: of the run.
        epochs: of the run.
        ended: whether it was trained to its end; if not, the newest may be half there.
        steps: of the run; None where they are not known.

    Raises:
        InputError: there is none, or one is damaged or of no step of the run: selection would be
            among others, in silence.
    """
    first, complete = first_candidate_epoch(epochs), checkpoints(run_dir)
    newest = checkpoint_step(complete[-1]) if complete else 0
    damaged = [p.name for p in _incomplete(run_dir) if ended or _named_step(p) < newest]
    if damaged:
        raise InputError(
            f"{run_dir}: {', '.join(damaged)}: {TRAINER_STATE} is missing or damaged; put it back, "
            "or remove the checkpoint to select among the others"
        )
    if steps is not None and newest > steps:
        raise InputError(
            f"{complete[-1]}: of step {newest}, and the run has {steps}; it is another run's, "
            "remove it to select among the others"
        )
    found = {path.name for path in run_dir.glob(f"{CHECKPOINT}*")}
    if others := sorted(found - {path.name for path in _named_by_step(run_dir)}):
        logger.warning(
            "%s: %s: no checkpoint that training wrote by that name, and no candidate",
            *(run_dir, ", ".join(others[:5])),
        )
    considered = [path for path in complete if epoch_of(path) >= first]
    if not considered:
        raise InputError(
            f"{run_dir}: no complete checkpoint from epoch {first} on; resume it with --resume"
        )
    return considered
