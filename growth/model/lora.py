"""LoRA adapters (arXiv 2106.09685): ours to train, ours and others' to merge into a base model.

    adapter/  adapter_config.json  adapter_model.safetensors  [tokenizer files]

Of ours, besides the low-rank matrices, the rows of the control tokens learn in full: most
vocabularies lack them, so that their rows start untrained. Chinese-LLaMA-Plus is given out as an
adapter of LLaMA-1 with a tokenizer of its own, bigger than the base's, and the embedding and output
rows of the grown vocabulary in whole.
"""

import warnings
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.core.files import read_json
from growth.core.options import LoraOptions
from growth.model.chat_tokenizer import ChatTokenizer


def add_lora(
    model: PreTrainedModel, lora: LoraOptions, chat: ChatTokenizer, name_or_path: str
) -> PeftModel:
    """`model` with adapters that train, in fp32, and everything else frozen.

    `name_or_path` is where the model was loaded from, for those who load the adapters.

    Raises:
        InputError: no linear layer of `model` has one of the target names.
    """
    control = sorted({chat.user_id, chat.assistant_id, chat.eot_id})
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Where input and output share their rows, peft lets the output follow.
    untied = [layer for layer in (embedding, head) if layer is not None]
    if head is not None and head.weight is embedding.weight:
        untied = [embedding]
    rows = {name: control for name, module in model.named_modules() if module in untied}
    targets = lora.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        trainable_token_indices=rows,
    )
    try:
        with warnings.catch_warnings():
            # peft asks transformers under a name that is on its way out.
            warnings.simplefilter("ignore", FutureWarning)
            adapted = get_peft_model(model, config)
    except ValueError as error:
        names = {n.rsplit(".")[-1] for n, m in model.named_modules() if type(m) is torch.nn.Linear}
        raise InputError(
            f"--lora_target_modules {targets}: {error}; the linear layers of this model are "
            f"{', '.join(sorted(names))}"
        ) from None
    local = Path(name_or_path)
    base = str(local.resolve()) if local.exists() else name_or_path
    adapted.peft_config["default"].base_model_name_or_path = base
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
_ROWS = ("embed_tokens.weight", "lm_head.weight")


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a patch and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def check_adapter(folder: Path) -> None:
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


def merge_adapter(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
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
