"""LoRA patches: a small folder of changes to a base model, merged into it on loading.

    patch/  adapter_config.json  adapter_model.safetensors  [tokenizer files]

Chinese-LLaMA-Plus is given out so: a patch on LLaMA-1 with a tokenizer of its own, bigger than the
base's, and the embedding and output rows of the grown vocabulary in whole.
"""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel

from growth.command_line import InputError
from growth.files import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
_ROWS = ("embed_tokens.weight", "lm_head.weight")


def is_patch(folder: Path) -> bool:
    """Whether `folder` holds a patch and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def check_patch(folder: Path) -> None:
    """Check that the weights are there, and safe to load.

    Raises:
        InputError: they are not.
    """
    if not (folder / WEIGHTS).is_file():
        found = sorted(path.name for path in folder.glob("adapter_model.*"))
        raise InputError(
            f"{folder}: a LoRA patch without {WEIGHTS}"
            + (
                f" ({', '.join(found)} is there, but a pickle can run code when it is loaded; "
                "convert it to safetensors on a machine you can lose)"
                if found
                else "; fetch it again"
            )
        )


def base_of(folder: Path, base_model: str | None) -> str:
    """The base model of a patch: as asked for, or as the patch says if that is here.

    Here is a folder, a .gguf file, or a model in the hub's cache.

    Raises:
        InputError: neither is there.
    """
    if base_model is not None:
        return base_model
    named = read_json(folder / CONFIG).get("base_model_name_or_path")
    for place in (Path(str(named)), folder / str(named)):
        if named and place.exists():
            return str(place)
    if named and _is_cached(str(named)):
        return str(named)
    raise InputError(
        f"{folder}: a LoRA patch on {named or 'a base model that it does not name'}, which is no "
        "folder here; say where the base model is with --base_model"
    )


def _is_cached(name: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # a path, say
        return False


def has_tokenizer(folder: Path) -> bool:
    """Whether the patch brings a tokenizer; otherwise the base's is meant."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def apply_patch(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`base` with the patch merged into its weights, its vocabulary grown as the patch needs."""
    rows = _rows(folder)
    if rows is not None and rows != base.get_input_embeddings().num_embeddings:
        # all rows come from the patch: what new ones hold until then does not matter
        base.resize_token_embeddings(rows, mean_resizing=False)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload(safe_merge=True)
    return merged.requires_grad_(True)  # PEFT froze the base


def brings_rows(folder: Path) -> bool:
    """Whether the patch has the rows of a whole vocabulary."""
    return _rows(folder) is not None


def _rows(folder: Path) -> int | None:
    """The vocabulary of the embedding or output layer that the patch brings in whole, if any."""
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118, not a dict
            if name.endswith(_ROWS):
                return weights.get_slice(name).get_shape()[0]
    return None
