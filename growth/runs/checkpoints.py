"""The checkpoints of a run: which are complete, which can be resumed, which are candidates."""

from pathlib import Path
from typing import Any

from growth.core.errors import InputError
from growth.core.files import read_json

TRAINER_STATE = "trainer_state.json"
CHECKPOINT = "checkpoint-"


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


# What a checkpoint holds for going on only; FSDP writes the latter three, the weights once more.
RESUME_STATE = ("optimizer.pt", "optimizer.bin", "pytorch_model_fsdp.bin")
_DEEPSPEED_STATE = ("global_step*",)


def check_resumable(checkpoint: Path) -> None:
    """Only the newest checkpoint of a run can be gone on from exactly.

    Raises:
        InputError: `checkpoint` holds no state of the optimizer.
    """
    known = [*RESUME_STATE[:2], *_DEEPSPEED_STATE]
    if not any(True for name in known for _ in checkpoint.glob(name)):
        raise InputError(
            f"--resume {checkpoint}: has no optimizer state, which only a run's newest checkpoint "
            "keeps, so the run can't go on exactly; train it anew in another --output_dir"
        )


FIRST_EPOCH = 5  # earlier checkpoints are no candidates (paper section 4.2)


def first_candidate_epoch(epochs: int) -> int:
    """The epoch whose checkpoint is the first candidate; the first one's when a run is shorter."""
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
            f"{run_dir}: no complete checkpoint from epoch {first} on; go on training with --resume"
        )
    return found
