"""LoRA adapters (arXiv 2106.09685): ours to train, ours and others' to merge into a base model.

    adapter/  adapter_config.json  adapter_model.safetensors  [tokenizer files]

Of ours, besides the low-rank matrices, the rows of the control tokens are trained in full: most
vocabularies lack them, so that their rows start untrained. Chinese-LLaMA-Plus is published as an
adapter of LLaMA-1 with a tokenizer of its own, bigger than the base's, and the whole embedding and
output layers of the grown vocabulary.
"""

import warnings
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from peft import (
    LoraConfig,
    PeftModel,
    PeftType,
    PromptLearningConfig,
    get_peft_model,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import safe_open
from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.core.files import read_json
from growth.core.options import ALL_LINEAR, LoraOptions
from growth.model.chat_tokenizer import ChatTokenizer

AdaptedModel = PreTrainedModel | PeftModel
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
# Weights that have a row, or a column, for each token: the whole layers, and adapters of them.
_VOCABULARY_WEIGHTS = {
    "embed_tokens.weight": 0,
    "lm_head.weight": 0,
    "embed_tokens.base_layer.weight": 0,
    "lm_head.base_layer.weight": 0,
    "lm_head.lora_B.weight": 0,
    "embed_tokens.lora_embedding_A": 1,
}


def add_lora(
    model: PreTrainedModel, lora: LoraOptions, chat: ChatTokenizer, name_or_path: str
) -> PeftModel:
    """`model` with trainable adapters in fp32 and everything else frozen.

    Args:
        model: to adapt; it is changed in place.
        lora: rank, scale, dropout and layers of the adapters.
        chat: its tokenizer, for the control tokens' rows.
        name_or_path: where the model was loaded from, recorded for loading the adapters.

    Raises:
        InputError: no linear layer of `model` has one of the target names, or one is the
            embedding or output layer.
    """
    control = sorted({chat.user_id, chat.assistant_id, chat.eot_id})
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Where input and output share their rows, peft lets the output follow.
    untied = [layer for layer in (embedding, head) if layer is not None]
    if head is not None and head.weight is embedding.weight:
        untied = [embedding]
    rows = {name: control for name, module in model.named_modules() if module in untied}
    targets = lora.target_modules
    _check_targets(model, targets)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides it by r: any number
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
        raise InputError(
            f"--lora_target_modules {targets}: {error}; the linear layers of this model that can "
            f"be adapted are {_adaptable(model)}"
        ) from None
    local = Path(name_or_path)
    base = str(local.resolve()) if local.exists() else name_or_path
    adapted.peft_config["default"].base_model_name_or_path = base
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _vocabulary_layers(model: PreTrainedModel) -> list[str]:
    """The names of the embedding and output layers in `model`."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [name for name, module in model.named_modules() if module in layers]


def _adaptable(model: PreTrainedModel) -> str:
    vocabulary = _vocabulary_layers(model)
    linear = {n for n, m in model.named_modules() if type(m) is torch.nn.Linear}
    return ", ".join(sorted({name.rsplit(".")[-1] for name in linear.difference(vocabulary)}))


def _check_targets(model: PreTrainedModel, targets: str | tuple[str, ...]) -> None:
    """Refuse to adapt the embedding and output layers.

    Their rows of control tokens are trained in full; an adapter over the same layer, which often is
    the other one too, would not be the same once it is merged.
    """
    if targets == ALL_LINEAR:
        return  # peft leaves the output layer out
    names = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(target_modules=names)
    hit = [name for name in _vocabulary_layers(model) if check_target_module_exists(config, name)]
    if hit:
        raise InputError(
            f"--lora_target_modules {targets if isinstance(targets, str) else ' '.join(targets)}: "
            f"{', '.join(hit)} holds the vocabulary, whose rows for control tokens are trained in "
            f"full instead; expected some of {_adaptable(model)}"
        )


def without_adapters(model: AdaptedModel) -> PreTrainedModel:
    """The architecture itself, whose layers adapters may have replaced."""
    return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def check_adapter(folder: Path) -> None:
    """Check that the weights are there, safe to load, and can be merged.

    Raises:
        InputError: they are not.
    """
    kind = read_json(folder / CONFIG).get("peft_type", PeftType.LORA)
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if config_class is None or issubclass(config_class, PromptLearningConfig):
        raise InputError(
            f"{folder}: an adapter of the kind {kind} ({CONFIG}), which can't be merged into a "
            "model; expected one that changes weights, such as LORA"
        )
    if not (folder / WEIGHTS).is_file():
        found = sorted(path.name for path in folder.glob("adapter_model.*"))
        raise InputError(
            f"{folder}: a LoRA adapter without {WEIGHTS}"
            + (
                f" ({', '.join(found)} is there, but a pickle can run code when it is loaded; "
                "convert it to safetensors on a machine you can lose)"
                if found
                else "; fetch it again"
            )
        )


def base_model_of(folder: Path, base_model: str | None) -> str:
    """The base model of an adapter: `base_model` if given, else the one that the adapter names.

    The latter must be on this machine: a folder, a .gguf file, or a model in the hub's cache.

    Raises:
        InputError: it is not.
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
        f"{folder}: a LoRA adapter of {named or 'a base model that it does not name'}, which is no "
        "folder here; say where the base model is with --base_model"
    )


def _is_cached(name: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # a path, say
        return False


def has_tokenizer(folder: Path) -> bool:
    """Whether the adapter has a tokenizer of its own; otherwise the base's is meant."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def merge_adapter(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`base` with the adapter merged into its weights and the vocabulary that the adapter needs."""
    rows = _vocabulary_size(folder)
    if rows is not None and rows != base.get_input_embeddings().num_embeddings:
        # all rows come from the adapter: what new ones hold until then does not matter
        base.resize_token_embeddings(rows, mean_resizing=False)
    _untie(base, folder)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload(safe_merge=True)
    return merged.requires_grad_(True)  # PEFT froze the base


def _untie(base: PreTrainedModel, folder: Path) -> None:
    """Give the output layer weights of its own if the adapter changes one of two tied layers alone.

    Merged into weights that both layers share, an adapter of one would change the other, too.

    Raises:
        InputError: the adapter also trains rows of the shared weights.
    """
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return
    names = _vocabulary_layers(base)
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        keys = list(weights.keys())
    if not any(f".{name}.lora_" in key for name in names for key in keys):
        return
    if read_json(folder / CONFIG).get("trainable_token_indices"):
        raise InputError(
            f"{folder}: an adapter of {' or '.join(names)} that trains rows of the same, shared "
            "weights as well; it can't be merged as it was trained. Train it again with other "
            "--lora_target_modules"
        )
    head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    base.config.tie_word_embeddings = False


def replaces_vocabulary(folder: Path) -> bool:
    """Whether the adapter changes the whole embedding or output layer of a vocabulary."""
    return _vocabulary_size(folder) is not None


def _vocabulary_size(folder: Path) -> int | None:
    """Rows of the embedding or output layer that the adapter changes; None if it changes none."""
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118, not a dict
            for ending, dimension in _VOCABULARY_WEIGHTS.items():
                if name.endswith(ending):
                    return weights.get_slice(name).get_shape()[dimension]
    return None
