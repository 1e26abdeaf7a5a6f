"""The checkpoints of a run: which are complete, which can be resumed, which are candidates."""

import shutil
from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import read_json

TRAINER_STATE = "trainer_state.json"
CHECKPOINT = "checkpoint-"
# Patterns of what the Trainer, FSDP and DeepSpeed keep of the optimizer.
_OPTIMIZER_STATE = ("optimizer.pt", "optimizer.bin", "global_step*")
_FSDP_WEIGHTS = ("pytorch_model_fsdp.bin",)  # the weights a second time
FIRST_EPOCH = 5  # earlier checkpoints are no candidates (paper section 4.2)


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the Trainer wrote of a checkpoint: `global_step`, `epoch` ...

    Raises:
        InputError: the checkpoint is incomplete.
    """
    return read_json(checkpoint / TRAINER_STATE)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, by the record inside it."""
    return int(trainer_state(checkpoint)["global_step"])


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the Trainer writes its state last."""
    try:
        return checkpoint_step(checkpoint) >= 0
    except (InputError, KeyError, TypeError, ValueError):
        return False


def checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, by step."""
    found = [path for path in run_dir.glob(f"{CHECKPOINT}*") if is_complete(path)]
    return sorted(found, key=checkpoint_step)


def check_resumable(checkpoint: Path) -> None:
    """Only the newest checkpoint of a run can be resumed exactly.

    Raises:
        InputError: `checkpoint` holds no state of the optimizer.
    """
    if not any(True for pattern in _OPTIMIZER_STATE for _ in checkpoint.glob(pattern)):
        raise InputError(
            f"--resume {checkpoint}: has no optimizer state, which only a run's newest checkpoint "
            "keeps, so the run can't be resumed exactly; train it anew in another --output_dir"
        )


def drop_resume_state(checkpoint: Path) -> None:
    """Remove what a checkpoint holds only for resuming: twice the size of its weights, or more."""
    for pattern in (*_OPTIMIZER_STATE, *_FSDP_WEIGHTS):
        for path in checkpoint.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def first_candidate_epoch(epochs: int) -> int:
    """The epoch whose checkpoint is the first candidate; epoch 1 of a run that is shorter."""
    return FIRST_EPOCH if epochs >= FIRST_EPOCH else 1


def epoch_of(checkpoint: Path) -> int:
    """The epoch that a checkpoint closes."""
    return round(trainer_state(checkpoint)["epoch"])


def candidates(run_dir: Path, epochs: int) -> list[Path]:
    """The checkpoints of a run that selection considers, by step.

    Raises:
        InputError: there is none.
    """
    first = first_candidate_epoch(epochs)
    found = [path for path in checkpoints(run_dir) if epoch_of(path) >= first]
    if not found:
        raise InputError(
            f"{run_dir}: no complete checkpoint from epoch {first} on; resume it with --resume"
        )
    return found
