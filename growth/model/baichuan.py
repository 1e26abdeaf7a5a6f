"""Baichuan 1 and 2, without running the code in their folders.

transformers has no Baichuan, and the folders' own code is remote code too old for transformers 5.
The equations are LLaMA's (Baichuan 2 report, arXiv 2309.10305, section 2, and the published model
code) but for:

- `W_pack`: the query, key and value matrices stacked in one, in that order;
- Baichuan 2's output layer ("NormHead"): its rows are scaled to unit length before use;
- 13B: no rotary positions but ALiBi, a penalty of slope x distance on the scores of each head.

So 7B converts to `LlamaForCausalLM` exactly, and is one from then on; a model tuned from it has an
output layer whose rows may grow. 13B converts to `BaichuanAlibiForCausalLM` below.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast

from growth.core.errors import InputError
from growth.core.files import read_object
from growth.model.weight_files import weight_files

MODEL_TYPE = "baichuan"
TOKENIZER_CLASS = "BaichuanTokenizer"
# Only the vocabulary distinguishes the generations: nothing else in config.json differs that the
# output layer depends on.
PLAIN_HEAD_ROWS, UNIT_HEAD_ROWS = 64_000, 125_696
_SHARED_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "hidden_act", "initializer_range", "rms_norm_eps"),
    *("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)


class BaichuanAlibiConfig(LlamaConfig):
    """LLaMA's config; the model adds ALiBi and leaves rotary positions out."""

    model_type = "baichuan_alibi"


class _NoRotation(torch.nn.Module):
    """Takes the place of rotary positions: the identity, cosine 1 and sine 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(
        self, hidden: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ones = hidden.new_ones(1, hidden.shape[1], self.width)
        return ones, torch.zeros_like(ones)


class BaichuanAlibiModel(LlamaModel):
    """LLaMA's layers with ALiBi (Press et al. 2022, arXiv 2108.12409) in the attention mask."""

    config_class = BaichuanAlibiConfig

    def __init__(self, config: BaichuanAlibiConfig) -> None:
        super().__init__(config)
        width = config.hidden_size // config.num_attention_heads
        self.rotary_emb = _NoRotation(width)  # type: ignore[assignment]  # in its place

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPast:
        """As LLaMA's, with `attention_mask` `(batch, tokens)` made a mask that holds the penalties.

        Positions are not used: distances are counted in the row, so that padding on either side
        changes nothing.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        before = past_key_values.get_seq_length() if past_key_values is not None else 0
        mask = alibi_mask(self.config.num_attention_heads, before, inputs_embeds, attention_mask)
        return super().forward(
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **options,
        )


class BaichuanAlibiForCausalLM(LlamaForCausalLM):
    """Baichuan 13B, its output layer as used: rows of Baichuan 2 scaled on loading."""

    config_class = BaichuanAlibiConfig

    def __init__(self, config: BaichuanAlibiConfig) -> None:
        super().__init__(config)
        self.model = BaichuanAlibiModel(config)
        self.post_init()


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: 2^(-8/n), 2^(-16/n) ...; more of those of 2n if n is no power of 2.

    As in the published code of ALiBi. Baichuan 13B has 40 heads: 32 slopes of the one kind and 8 of
    the other.
    """

    def of_power(n: int) -> list[float]:
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    power = 2 ** int(math.log2(heads))
    return of_power(power) + of_power(2 * power)[::2][: heads - power]


def alibi_mask(
    heads: int, before: int, hidden: torch.Tensor, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """What is added to the scores, `(batch, heads, tokens, before + tokens)`.

    -slope x distance to each token before, and the lowest number for those not to be seen.

    Args:
        heads: of attention.
        before: tokens in the cache.
        hidden: `(batch, tokens, width)`, for its shape, type and device.
        attention_mask: `(batch, before + tokens)`, 0 at padding; None for no padding.
    """
    tokens = hidden.shape[1]
    keys = torch.arange(before + tokens, device=hidden.device)
    distance = keys[before:, None] - keys
    slopes = torch.tensor(alibi_slopes(heads), device=hidden.device)
    penalty = (-slopes[:, None, None] * distance).to(hidden.dtype)[None]
    seen = (distance >= 0)[None, None]
    if attention_mask is not None:
        seen = seen & attention_mask[:, None, None].bool()
    # not minus infinity: a row of padding that sees nothing would become NaN
    return torch.where(seen, penalty, torch.finfo(hidden.dtype).min)


def is_baichuan(folder: Path) -> bool:
    """Whether a model's folder is Baichuan's as published."""
    config = folder / "config.json"
    return config.is_file() and read_object(config).get("model_type") == MODEL_TYPE


def converted_config(folder: Path) -> LlamaConfig:
    """The config of what `load_baichuan` makes of `folder`.

    Raises:
        InputError: neither of Baichuan's vocabularies.
    """
    fields = read_object(folder / "config.json")
    rows = fields.get("vocab_size")
    if rows not in (PLAIN_HEAD_ROWS, UNIT_HEAD_ROWS):
        raise InputError(
            f"{folder / 'config.json'}: a Baichuan of vocab_size {rows}; expected "
            f"{PLAIN_HEAD_ROWS:,} (Baichuan 1) or {UNIT_HEAD_ROWS:,} (Baichuan 2), which say how "
            "its output layer is used. Of an extended one, take the model it was made from"
        )
    shared = {name: fields[name] for name in _SHARED_FIELDS if name in fields}
    # 7B says how many rotary positions there are, 13B has none and says model_max_length only
    if positions := fields.get("max_position_embeddings"):
        return LlamaConfig(**shared, max_position_embeddings=positions)
    return BaichuanAlibiConfig(**shared, max_position_embeddings=fields["model_max_length"])


def converted_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Baichuan's weights under LLaMA's names."""
    made: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name.endswith("W_pack.weight"):
            for part, rows in zip(("q_proj", "k_proj", "v_proj"), weight.chunk(3), strict=True):
                made[name.replace("W_pack", part)] = rows.contiguous()
        elif name == "lm_head.weight" and weight.shape[0] == UNIT_HEAD_ROWS:
            made[name] = normalize(weight.float()).to(weight.dtype)
        elif not name.endswith("inv_freq"):  # a constant that Baichuan 1 stored
            made[name] = weight
    return made


def load_baichuan(folder: Path, **arguments: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model in `folder`, and what transformers says of the loading.

    Args:
        folder: with config.json and weights as safetensors.
        arguments: of `from_pretrained`.
    """
    config = converted_config(folder)
    weights: dict[str, torch.Tensor] = {}
    for name in weight_files(folder):
        weights |= load_file(folder / name)
    alibi = isinstance(config, BaichuanAlibiConfig)
    architecture = BaichuanAlibiForCausalLM if alibi else LlamaForCausalLM
    loaded: Any = architecture.from_pretrained(
        None,
        config=config,
        state_dict=converted_weights(weights),
        output_loading_info=True,
        **arguments,
    )
    return loaded


AutoConfig.register(BaichuanAlibiConfig.model_type, BaichuanAlibiConfig)
AutoModelForCausalLM.register(BaichuanAlibiConfig, BaichuanAlibiForCausalLM)
