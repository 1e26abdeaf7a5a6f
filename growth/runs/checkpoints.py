"""The checkpoints of a run: which are complete, which can be resumed, which are candidates."""

import dataclasses
import os
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from growth.core.errors import InputError
from growth.core.schemas import TrainerStateRecord, read_record
from growth.model.weight_files import SINGLE, tensor_shapes, weight_files

TRAINER_STATE = "trainer_state.json"
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
    "rng_state": {"python": tuple, "numpy": tuple, "cpu": torch.Tensor},
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
    found = [path for path in run_dir.glob(f"{CHECKPOINT}*") if is_complete(path)]
    return sorted(found, key=checkpoint_step)


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
    known = {field.name for field in dataclasses.fields(TrainerState)}
    unknown = sorted(trainer_state(checkpoint).keys() - known)
    found = [f"{TRAINER_STATE} has unknown fields, such as {name[:80]!r}" for name in unknown[:1]]
    found += [
        problem
        for name in needs.archives()
        if (problem := _archive_problem(checkpoint / name)) is not None
    ]
    if needs.engine == DEEPSPEED and not any(checkpoint.glob("global_step*/*")):
        found.append("global_step* is missing")
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
    except (OSError, zipfile.BadZipFile, zlib.error):
        damaged = True
    if damaged:
        return f"{path.name} is damaged"
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


def weight_problems(checkpoint: Path, adapter: bool) -> list[str]:
    """Which weight files of a checkpoint are missing or damaged, by their headers.

    Args:
        checkpoint: of a run.
        adapter: whether the weights are a LoRA adapter's.
    """
    names = ["adapter_model.safetensors"]
    if not adapter:
        try:
            names = weight_files(checkpoint) or [SINGLE]
        except InputError as error:
            return [str(error)]
    found = []
    for name in names:
        if not (checkpoint / name).is_file():
            found.append(f"{name} is missing")
            continue
        try:
            tensor_shapes(checkpoint / name)
        except InputError:
            found.append(f"{name} is damaged")
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
    return [path for path in sorted(run_dir.glob(f"{CHECKPOINT}*")) if not is_complete(path)]


def _named_step(checkpoint: Path) -> int:
    """The step in a checkpoint's name, which says it where its record is lost; -1 for none."""
    number = checkpoint.name.removeprefix(CHECKPOINT)
    return int(number) if number.isdecimal() else -1


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


def candidates(run_dir: Path, epochs: int, ended: bool) -> list[Path]:
    """The checkpoints of a run that selection considers, by step.

    Args:
        run_dir: of the run.
        epochs: of the run.
        ended: whether it was trained to its end; if not, the newest may be half there.

    Raises:
        InputError: there is none, or one is damaged: selection would be among others, in silence.
    """
    first, complete = first_candidate_epoch(epochs), checkpoints(run_dir)
    newest = checkpoint_step(complete[-1]) if complete else 0
    damaged = [p.name for p in _incomplete(run_dir) if ended or _named_step(p) < newest]
    if damaged:
        raise InputError(
            f"{run_dir}: {', '.join(damaged)}: {TRAINER_STATE} is missing or damaged; put it back, "
            "or remove the checkpoint to select among the others"
        )
    found = [path for path in complete if epoch_of(path) >= first]
    if not found:
        raise InputError(
            f"{run_dir}: no complete checkpoint from epoch {first} on; resume it with --resume"
        )
    return found
