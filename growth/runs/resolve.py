"""What a value of --model_name_or_path stands for: a run, a checkpoint of one, or any model."""

import logging
from pathlib import Path

from growth.core.errors import InputError
from growth.model.source import DEFAULT_OPTIONS, Source, find_model, fingerprint
from growth.model.tokenizer_files import tokenizer_fingerprint
from growth.runs.checkpoints import candidates, check_as_saved, epoch_of, trainer_state
from growth.runs.layout import LOSS_BY_ABILITY, RUN_RECORD, UNTUNED, Run, read_run
from growth.runs.record import read_metrics
from growth.runs.retention import REMOVED, check_kept, refuse_removed

logger = logging.getLogger(__name__)


def model_identity(source: Source) -> dict[str, str]:
    """What the record of predictions or answers says of a model's content.

    Raises:
        InputError: it is a checkpoint whose files are no longer those that training saved.
    """
    if source.folder is not None:
        check_as_saved(source.folder)
    return {"fingerprint": fingerprint(source), "tokenizer": tokenizer_fingerprint(source)}


def validation_losses(checkpoint: Path, step: int) -> dict[str, float]:
    """The loss on the validation lines of each ability, as training measured it at a checkpoint.

    Args:
        checkpoint: its folder, in that of its run.
        step: of the optimizer.

    Returns:
        Nats per supervised token, by ability; empty where the run's metrics don't say.
    """
    measured = read_metrics(checkpoint.resolve().parent)
    found = [line for line in measured if line["step"] == step and LOSS_BY_ABILITY in line]
    return found[-1][LOSS_BY_ABILITY] if found else {}


def resolve_models(name: str, model_size: str | None, tag: str | None) -> list[tuple[str, Run]]:
    """The models that a name stands for, with what is known of each.

    Args:
        name: a checkpoint of ours, a run of ours (its candidates for selection), or any model.
        model_size: what to call a model that is not one of our runs, with `tag`.
        tag: likewise.

    Raises:
        InputError: no such model, an incomplete one, or one without a name.
    """
    path = Path(name)
    run = read_run(path)
    if run is not None:
        epochs, ended = run["hyperparameters"]["epochs"], bool(run.get("ended"))
        if check_kept(path, run):
            kept = ", ".join(run[REMOVED]["kept"])
            logger.warning("%s: %s was selected, and is all that is left", path, kept)
        paths = candidates(path, epochs, ended, run["steps"])
    else:
        refuse_removed(name)
        find_model(name)
        run = read_run(path.resolve().parent) if path.is_dir() else None
        paths = [path]
    if run is None:
        if model_size is None or tag is None:
            raise InputError(
                f"{DEFAULT_OPTIONS.origin} {name}: not a checkpoint of one of our runs (there is "
                f"no {RUN_RECORD} with it); say what to call it with --model_size and --tag"
            )
        known: Run = {"model_size": model_size, "data_type": UNTUNED, "timestamp": tag}
        return [(name, known | {"checkpoint": "checkpoint-0", "step": 0, "epoch": 0, "epochs": 0})]
    known = {field: run[field] for field in ("model_size", "data_type", "timestamp", "seed")}
    known |= {"epochs": run["hyperparameters"]["epochs"], "samples": run["train"]["samples"]}
    build = run["train"].get("build") or {}
    if "recipe" in build and build["setting"] == run["data_type"]:
        known["recipe"] = build["recipe"]
    found = []
    for checkpoint in paths:
        find_model(str(checkpoint))
        step = trainer_state(checkpoint)["global_step"]
        place = {"checkpoint": checkpoint.resolve().name, "step": step}
        found.append((str(checkpoint), known | place | {"epoch": epoch_of(checkpoint)}))
    return found
