"""Logits of the supervised tokens of a group of samples: packed where the architecture can."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from growth.core.options import VARLEN
from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.packing.attention import attending
from growth.packing.batches import Batch, Example, pack_row, pad_rows
from growth.packing.prefix_attention import PrefixCache

# For checks by trying: two samples, and a prefix of the second. The tolerance is far above float
# error and far below the size of a leak.
PROBE = ((1, 2, 3, 4, 5), (6, 7, 8))
_PROBE_PREFIX = (9, 10, 11)
_PROBE_TOLERANCE = 1e-3
_HALF_TOLERANCE = 0.03  # in 16 bits
# What makes attention or positions differ from some length on: within the probe each is this short.
_LENGTHS = ("sliding_window", "attention_chunk_size", "floor_scale")
_PROBE_LENGTH = 2


class Supervised(NamedTuple):
    """`logits`: `(supervised, vocabulary)`. `targets`: `(supervised,)`. `owners`: `(supervised,)`,
    the index in its group of the sample that each supervised token belongs to.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor


def accepts(model: torch.nn.Module, argument: str) -> bool:
    """Whether the architecture's forward takes an argument of that name."""
    return argument in inspect.signature(model.forward).parameters


def supports_packing(model: PreTrainedModel) -> bool:
    """Find out by trying whether `model` gives packed samples the logits that it gives each alone.

    With a shared prefix, too, and with windows, chunks and the like shorter than the samples, so
    that what happens beyond them is tried at no more cost. Most families read positions and
    attention where transformers lets them be replaced; some don't (ALiBi, attention of their own,
    capped scores), and get padded rows instead.
    """
    if not (accepts(model, "position_ids") and accepts(model, "logits_to_keep")):
        return False
    examples = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)} for ids in PROBE]
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _short_lengths(model), attending(model, VARLEN):
            prefixes = compute_prefixes(model, [_PROBE_PREFIX])
            packed = supervised_logits(model, examples, True, 0, prefixes, (None, 0)).logits
        with torch.no_grad(), _short_lengths(model):
            whole = [examples[0], _with_prefix(_PROBE_PREFIX, examples[1])]
            alone = [supervised_logits(model, [e], packed=False).logits for e in whole]
    except (NotImplementedError, TypeError, ValueError, RuntimeError, KeyError):
        return False
    finally:
        model.train(training)
    expected = torch.cat(alone).float()
    return agree(packed.float(), expected, model.dtype)


def agree(logits: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two computations of the same logits in `dtype` differ by rounding alone."""
    scale = expected.abs().max().clamp(min=1e-6)
    tolerance = _PROBE_TOLERANCE if dtype == torch.float32 else _HALF_TOLERANCE
    return bool((logits - expected).abs().max() <= tolerance * scale)


@contextlib.contextmanager
def _short_lengths(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, windows and chunks are `_PROBE_LENGTH` tokens long."""
    holders: list[Any] = [model.config, model.config.get_text_config(), *model.modules()]
    before = [
        (holder, name, value)
        for holder in {id(holder): holder for holder in holders}.values()
        for name in _LENGTHS
        if type(value := getattr(holder, name, None)) is int and value > _PROBE_LENGTH
    ]
    try:
        for holder, name, _ in before:
            setattr(holder, name, _PROBE_LENGTH)
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


def _with_prefix(prefix: Sequence[int], example: Example) -> Example:
    ids, labels = example["input_ids"], example["labels"].clone()
    labels[0] = IGNORED_LABEL  # the prefix's last token would predict it, and its output isn't read
    return {
        "input_ids": torch.cat([torch.tensor(prefix), ids]),
        "labels": torch.cat([torch.full((len(prefix),), IGNORED_LABEL), labels]),
    }


def compute_prefixes(model: torch.nn.Module, sequences: Sequence[Sequence[int]]) -> PrefixCache:
    """The keys and values of token sequences that several samples begin with.

    Args:
        model: in varlen attention.
        sequences: none of them empty.
    """
    prefixes = PrefixCache([len(ids) for ids in sequences])
    if sequences:
        rows = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)} for ids in sequences]
        batch = _moved(pack_row(rows), model)
        nothing = batch["logit_positions"][:0]  # no output is read
        with last_feed_forward_at(model, nothing):
            model(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                cu_seq_lens_q=batch["boundaries"],
                sample_lengths=prefixes.lengths,
                logits_to_keep=nothing,
                use_cache=False,
                prefixes=prefixes,
            )
    return prefixes


@contextlib.contextmanager
def reading_only(model: PreTrainedModel, token_ids: Sequence[int]) -> Iterator[list[int]]:
    """Within the block, the output layer gives the logits of `token_ids` only.

    Yields their columns in the logits: their own ids where the layer is not a plain one.
    """
    whole = model.get_output_embeddings()
    if type(whole) is not torch.nn.Linear:
        yield list(token_ids)
        return
    subset = torch.nn.Linear(whole.in_features, len(token_ids), device="meta")
    ids = torch.tensor(list(token_ids), device=whole.weight.device)
    subset.weight = torch.nn.Parameter(whole.weight[ids], requires_grad=False)
    bias = None if whole.bias is None else whole.bias[ids]
    subset.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
    model.set_output_embeddings(subset)
    try:
        yield list(range(len(token_ids)))
    finally:
        model.set_output_embeddings(whole)


@contextlib.contextmanager
def last_feed_forward_at(model: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Within the block, the last layer's MLP runs only at `positions` of each row.

    No attention follows it, so nobody reads what it gives elsewhere. For letters, which read one
    position per question, that is 5 % of the time on 12 layers (LOG.md). A training step would gain
    half of that, and has it computed everywhere, as families do that name their layers otherwise.
    """
    decoder = model.get_decoder() if isinstance(model, PreTrainedModel) else None
    layers = getattr(decoder, "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    # A mixture of experts counts tokens, and has no layer of this name.
    if torch.is_grad_enabled() or mlp is None or not hasattr(mlp, "down_proj"):
        yield
        return
    whole: list[torch.Size] = []

    def narrow(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        whole.append(inputs[0].shape)
        return (inputs[0][:, positions],)

    def widen(
        _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        return output.new_zeros(whole.pop()).index_copy_(1, positions, output)

    handles = [mlp.register_forward_pre_hook(narrow), mlp.register_forward_hook(widen)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _moved(batch: Batch, model: torch.nn.Module) -> Batch:
    device = next(model.parameters()).device
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def supervised_logits(
    model: torch.nn.Module,
    examples: Sequence[Example],
    packed: bool,
    pad_id: int = 0,
    prefixes: PrefixCache | None = None,
    prefix_ids: Sequence[int | None] | None = None,
) -> Supervised:
    """The logits of the supervised tokens of a group of samples, on the device of the weights.

    Args:
        model: in varlen attention if `packed`.
        examples: at least one.
        packed: as `supports_packing` says. The output layer then runs only on the positions that
            predict a supervised token.
        pad_id: a token to pad with if not `packed`.
        prefixes: of `compute_prefixes`, for samples to continue if `packed`. The first token of a
            sample is not predicted then either.
        prefix_ids: for each sample the prefix that it continues, or None. Samples of one prefix
            are adjacent.
    """
    if packed:
        batch = pack_row(examples)
        lengths = batch["boundaries"].diff()
        options: dict[str, Any] = {"sample_lengths": lengths.tolist()}
        batch = _moved(batch, model)
        positions = batch["position_ids"]
        if prefixes is not None and prefix_ids is not None:
            known = [
                0 if prefix_id is None else prefixes.lengths[prefix_id] for prefix_id in prefix_ids
            ]
            offsets = torch.tensor(known).repeat_interleave(lengths)
            positions = positions + offsets.to(positions.device)
            options |= {"prefixes": prefixes, "prefix_ids": prefix_ids}
        with last_feed_forward_at(model, batch["logit_positions"]):
            logits = model(
                input_ids=batch["input_ids"],
                position_ids=positions,
                cu_seq_lens_q=batch["boundaries"],
                logits_to_keep=batch["logit_positions"],
                use_cache=False,
                **options,
            ).logits[0]
        owners = (batch["position_ids"][0] == 0).cumsum(0) - 1
        return Supervised(logits, batch["targets"], owners[batch["logit_positions"]])
    batch = _moved(pad_rows(examples, pad_id), model)
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    labels = batch["labels"][:, 1:]
    rows, places = (labels != IGNORED_LABEL).nonzero(as_tuple=True)
    return Supervised(logits[rows, places], labels[rows, places], rows)
