"""LoRA (arXiv 2106.09685): adapters to train. What they leave is loaded as a patch.

Besides the low-rank matrices, the rows of the control tokens learn in full: most vocabularies lack
them, so that their rows start untrained.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from growth.chat import ChatTokenizer
from growth.command_line import InputError

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
