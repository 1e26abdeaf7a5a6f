"""LoRA adapters (arXiv 2106.09685): ours to train, ours and others' to merge into a base model.

    adapter/  adapter_config.json  adapter_model.safetensors  [tokenizer files]

Of ours, besides the low-rank matrices, the rows of the control tokens are trained in full: most
vocabularies lack them, so that their rows start untrained. Chinese-LLaMA-Plus is published as an
adapter of LLaMA-1 with a tokenizer of its own, bigger than the base's, and the whole embedding and
output layers of the grown vocabulary.
"""

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

import re2
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedModel

from growth.core.errors import InputError
from growth.core.files import Object, is_file, read_object
from growth.core.options import ALL_LINEAR, LoraOptions
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.weight_files import tensor_shapes

# peft is imported where there is an adapter: most models have none, and it takes its time.
if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

AdaptedModel: TypeAlias = Union[PreTrainedModel, "PeftModel"]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PLAIN = re.compile(r"[\w.]+")  # what is a name, and no pattern but for its dots
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
) -> "PeftModel":
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
    from peft import LoraConfig, get_peft_model

    control = sorted({chat.user_id, chat.assistant_id, chat.eot_id})
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Where input and output share their rows, peft lets the output follow.
    untied = [layer for layer in (embedding, head) if layer is not None]
    if head is not None and head.weight is embedding.weight:
        untied = [embedding]
    rows = {name: control for name, module in model.named_modules() if module in untied}
    targets = _named(model, lora.target_modules)
    _check_targets(model, lora.target_modules, targets)
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
            f"--lora_target_modules {lora.target_modules}: {error}; the linear layers of this "
            f"model that can be adapted are {_adaptable(model)}"
        ) from None
    local = Path(name_or_path)
    base = str(local.resolve()) if local.exists() else name_or_path
    own: Any = adapted.peft_config["default"]
    own.base_model_name_or_path = base
    # peft keeps a set, which it would write in an order that changes from process to process.
    own.target_modules = sorted(own.target_modules)
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


def _named(model: PreTrainedModel, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """The layers that --lora_target_modules means, by name where it is a pattern."""
    if not isinstance(targets, str) or targets == ALL_LINEAR:
        return targets
    names = (name for name, _ in model.named_modules())
    return _matching(names, targets, "--lora_target_modules")


def _matching(names: Iterable[str], pattern: str, where: str) -> tuple[str, ...]:
    """The names that a regular expression matches whole.

    peft itself matches with `re`, and one pattern of a stranger's adapter can take it years; RE2
    takes time that is linear in the name.

    Raises:
        InputError: the pattern is none that RE2 knows; `where` says where it came from.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options=options)
    except re2.error as error:
        raise InputError(
            f"{where} {pattern[:80]!r}: no regular expression in RE2's syntax ({error}), which has "
            "no look-around and no references back; name the layers instead"
        ) from None
    return tuple(name for name in names if compiled.fullmatch(name))


def _check_targets(
    model: PreTrainedModel, given: str | tuple[str, ...], targets: str | tuple[str, ...]
) -> None:
    """Refuse to adapt the embedding and output layers, and names that are no layer's.

    The vocabulary's rows of control tokens are trained in full; an adapter over the same layer,
    which often is the other one too, would not be the same once it is merged.
    """
    if targets == ALL_LINEAR:
        return  # peft leaves the output layer out
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    names = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(target_modules=names)
    layers = [name for name, _ in model.named_modules()]
    unknown = [  # peft is content if one of them is known
        name
        for name in (() if isinstance(given, str) else given)
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers)
    ]
    if unknown:
        raise InputError(
            f"--lora_target_modules {' '.join(given)}: the model has no layer {unknown[0]!r}; the "
            f"linear layers of this model that can be adapted are {_adaptable(model)}"
        )
    hit = [name for name in _vocabulary_layers(model) if check_target_module_exists(config, name)]
    if hit:
        raise InputError(
            f"--lora_target_modules {given if isinstance(given, str) else ' '.join(given)}: "
            f"{', '.join(hit)} holds the vocabulary, whose rows for control tokens are trained in "
            f"full instead; expected some of {_adaptable(model)}"
        )


def without_adapters(model: AdaptedModel) -> PreTrainedModel:
    """The architecture itself, whose layers adapters may have replaced."""
    if isinstance(model, PreTrainedModel):
        return model
    return cast(PreTrainedModel, model.get_base_model())


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and no model of its own."""
    return is_file(folder / CONFIG) and not is_file(folder / "config.json")


def check_adapter(folder: Path) -> None:
    """Check that the weights are there, safe to load, and can be merged.

    Raises:
        InputError: they are not.
    """
    from peft import PeftType, PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = adapter_config(folder).get("peft_type", PeftType.LORA)
    known = isinstance(kind, str) and kind in list(PeftType)
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType(kind)) if known else None
    if config_class is None or issubclass(config_class, PromptLearningConfig):
        raise InputError(
            f"{folder}: an adapter of the kind {kind} ({CONFIG}), which can't be merged into a "
            "model; expected one that changes weights, such as LORA"
        )
    if (folder / WEIGHTS).is_file():
        if not tensor_shapes(folder / WEIGHTS):
            raise InputError(f"{folder / WEIGHTS}: holds no weights; fetch the adapter again")
    else:
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
    named = adapter_config(folder).get("base_model_name_or_path")
    if isinstance(named, str) and named:
        for place in (Path(named), folder / named):
            if os.path.exists(place):  # which knows names of any length and with any character
                return str(place)
        if _is_cached(named):
            return named
    shown = str(named)[:200] if named else "a base model that it does not name"
    raise InputError(
        f"{folder}: a LoRA adapter of {shown}, which is no folder here; say where the base model "
        "is with --base_model"
    )


def _is_cached(name: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # a path, say
        return False


def adapter_config(folder: Path) -> Object:
    """What an adapter says of itself.

    Raises:
        InputError: its configuration is damaged.
    """
    return read_object(folder / CONFIG, remedy="fetch the adapter again")


def has_tokenizer(folder: Path) -> bool:
    """Whether the adapter has a tokenizer of its own; otherwise the base's is meant."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def merge_adapter(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`base` with the adapter merged into its weights and the vocabulary that the adapter needs."""
    from peft import PeftModel

    rows = _vocabulary_size(folder)
    if rows is not None and rows != base.get_input_embeddings().num_embeddings:
        # all rows come from the adapter: what new ones hold until then does not matter
        base.resize_token_embeddings(rows, mean_resizing=False)
    _untie(base, folder)
    config = _bounded_config(base, folder)
    adapted = PeftModel.from_pretrained(base, str(folder), config=config)
    merged = adapted.merge_and_unload(safe_merge=True)
    return merged.requires_grad_(True)  # PEFT froze the base


def _bounded_config(base: PreTrainedModel, folder: Path) -> "PeftConfig":
    """The configuration of an adapter, with names of layers in place of its patterns."""
    from peft import PeftConfig

    config: Any = PeftConfig.from_pretrained(str(folder))
    names = [name for name, _ in base.named_modules()]
    for field in ("target_modules", "exclude_modules", "feedforward_modules"):
        pattern = getattr(config, field, None)
        if isinstance(pattern, str) and pattern != ALL_LINEAR:
            found = _matching(names, pattern, f"{folder / CONFIG}: {field}")
            if field == "target_modules" and not found:
                raise InputError(
                    f"{folder / CONFIG}: {field} is {pattern[:80]!r}, which matches no layer of "
                    "the base; say what its base is with --base_model"
                )
            setattr(config, field, set(found))
    for field in ("rank_pattern", "alpha_pattern", "n_frequency_pattern"):
        # of several patterns, peft takes the first that matches the end of a name
        by_name: dict[str, Any] = {}
        given = getattr(config, field, None) or {}
        if not isinstance(given, dict):
            raise InputError(f"{folder / CONFIG}: {field} is {given!r}; expected a JSON object")
        for pattern, value in given.items():
            found = _matching(names, rf"(.*\.)?({pattern})", f"{folder / CONFIG}: {field}")
            by_name = {re.escape(name): value for name in found} | by_name
        if given:
            setattr(config, field, by_name)
    for field in ("modules_to_save", "layers_pattern"):
        given = getattr(config, field, None) or ()
        for name in [given] if isinstance(given, str) else given:
            if not isinstance(name, str) or not _PLAIN.fullmatch(name):
                raise InputError(
                    f"{folder / CONFIG}: {field} has {str(name)[:80]!r}; expected names of layers"
                )
    return config


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
    keys = tensor_shapes(folder / WEIGHTS)
    if not any(f".{name}.lora_" in key for name in names for key in keys):
        return
    if adapter_config(folder).get("trainable_token_indices"):
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
    for name, shape in tensor_shapes(folder / WEIGHTS).items():
        for ending, dimension in _VOCABULARY_WEIGHTS.items():
            if name.endswith(ending):
                if len(shape) != 2:
                    raise InputError(
                        f"{folder / WEIGHTS}: {name} has the shape {shape}; expected a row for "
                        "each token; fetch the adapter again"
                    )
                return shape[dimension]
    return None
