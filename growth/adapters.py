"""LoRA (arXiv 2106.09685): adapters to train, and adapter folders to load.

Besides the low-rank matrices, the rows of the control tokens learn in full: most vocabularies lack
them, so that their rows start untrained.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import PreTrainedModel

from growth.chat import ChatTokenizer
from growth.command_line import InputError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ALL_LINEAR = "all-linear"
DEFAULT_DROPOUT = 0.05
DEFAULT_LEARNING_RATE = 1e-4  # full fine-tuning's is too small for matrices that start at zero


@dataclass(frozen=True)
class Lora:
    """`rank` of the matrices; their product counts `alpha / rank`; `dropout` on their input.

    `target_modules`: names of linear layers, or "all-linear" for all but the output layer.
    """

    rank: int
    alpha: float
    dropout: float = DEFAULT_DROPOUT
    target_modules: str | tuple[str, ...] = ALL_LINEAR


def add_lora(
    model: PreTrainedModel, lora: Lora, chat: ChatTokenizer, name_or_path: str
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


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters instead of a model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_of(folder: Path) -> str:
    """The model that the adapters in `folder` were trained on, as their config names it.

    Raises:
        InputError: the config is broken, names none, or the adapters' weights are not there.
    """
    path = folder / ADAPTER_CONFIG
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise InputError(f"{path}: names no base_model_name_or_path; was it written by peft?")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder}: incomplete, there is no {ADAPTER_WEIGHTS} in it")
    return base


def merge_adapters(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`model` with the adapters in `folder` added to its weights, in the precision it has.

    Raises:
        InputError: the adapters are not for this model.
    """
    try:
        config = PeftConfig.from_pretrained(str(folder))
        # Refuses a pickle that would stand in for the safetensors.
        with safe_open(folder / ADAPTER_WEIGHTS, "pt"):
            pass
        adapted = PeftModel.from_pretrained(model, str(folder), config=config)
        return adapted.merge_and_unload()
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{folder}: its adapters can't be added to {config_name(model)} ({reason})"
        ) from error


def config_name(model: PreTrainedModel) -> str:
    """What a model is called in messages."""
    return model.config.name_or_path or type(model).__name__
