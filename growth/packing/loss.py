"""The loss of a group of samples, with its output layer in chunks: few logits exist at once.

A vocabulary of 262,144 has a GiB of logits for each 1,024 tokens, and training needs them several
times over: in the loss, its gradient, and the gradient of what made them. Here each chunk of tokens
goes all the way, from its hidden states to their gradient, before the next one begins (as in Liger
Kernel, arXiv 2410.10989, section 3.2, and in cut cross-entropy, arXiv 2411.09009):

    hidden        | chunk 1 | chunk 2 | ...     logits, loss, gradient of the logits: one chunk's
    d hidden      | chunk 1 | chunk 2 | ...     kept, `(tokens, width)`
    d weight      = chunk 1 + chunk 2 + ...     kept, `(vocabulary, width)`

So nothing is computed twice, and the backward pass scales what the forward pass has kept. Where no
engine waits for the gradient of the weights, it is added to what they have already in the forward
pass: another copy of a large vocabulary's weights is saved, at the time when most is in memory.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy, log_softmax, nll_loss
from transformers import PreTrainedModel

from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.model.lora import AdaptedModel
from growth.packing.batches import (
    Example,
    pack_row,
    pad_rows,
    supervised_counts,
    supervised_tokens,
)
from growth.packing.forward import PROBE, agree, supervised_logits
from growth.packing.prefix_attention import PrefixCache

# Where a micro-batch has no more logits, they are computed whole. Elsewhere there are so many at
# once, or those of so many tokens by device: with fewer, the matrix products of a large vocabulary
# are too thin, as its weights and their gradient are read and written once a chunk.
LOGITS_WHOLE = 1 << 23
_TOKENS_AT_ONCE = {"cuda": 2048, "cpu": 256}
_VOCABULARY_BLOCK = {"cuda": 1 << 15, "cpu": 1024}  # rows of the weights' gradient, in 16 bits
_NUMBERS_IN_CACHE = 1 << 20  # fp32, of a CPU
_PROBE_REPEATS = 4
_kept_casts: list[dict[Any, torch.Tensor]] = []  # of the steps that are being computed: one or none


def logits_at_once(vocabulary: int, tokens: int, device: torch.device) -> int | None:
    """The most logits that training lets exist at once; None for all of a micro-batch.

    Args:
        vocabulary: its size.
        tokens: of a micro-batch.
        device: that computes.
    """
    if tokens * vocabulary <= LOGITS_WHOLE:
        return None
    return max(LOGITS_WHOLE, _TOKENS_AT_ONCE[device.type] * vocabulary)


@dataclass(frozen=True)
class Logits:
    """What an architecture makes of its output layer's products: scaled, then capped.

    `scale` x `products`, or with a `cap` (Gemma 2) cap x tanh(scale x products / cap).
    """

    scale: float = 1.0
    cap: float | None = None


class Direct(NamedTuple):
    """Where gradients of the output layer's weights are added at once, and times what."""

    grad: torch.Tensor
    factor: float


class _SummedInChunks(torch.autograd.Function):
    """The cross-entropy of each token, `(tokens,)`, in fp32 and nats; tokens, `rows` at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        logits: Logits,
        rows: int,
        learns: bool,
        direct: Direct | None,
    ) -> torch.Tensor:
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        needs = [learns and needed for needed in ctx.needs_input_grad[:3]]
        grads = [
            torch.zeros_like(tensor, dtype=torch.float32) if needed and tensor is not None else None
            for needed, tensor in zip(needs, (hidden, weight, bias), strict=True)
        ]
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        matrix = _cast(weight, dtype)
        added = None if bias is None else bias.detach().to(dtype)
        chunks = _chunks(len(hidden), rows)
        # One for all chunks: a CPU's system clears the pages of each new one.
        room = matrix.new_empty(max(c.stop - c.start for c in chunks), len(matrix))
        with torch.autocast(device, enabled=False):
            for chunk in chunks:
                part = hidden[chunk].detach().to(dtype)
                products = room[: len(part)]
                if added is None:
                    torch.mm(part, matrix.T, out=products)
                else:
                    torch.addmm(added, part, matrix.T, out=products)
                losses[chunk] = _losses(products, targets[chunk], logits, any(needs))
                if any(needs):
                    _add_gradients(grads, direct, chunk, part, matrix, products)
        ctx.save_for_backward(*grads)
        return losses

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> Any:
        """Scale the gradients of the losses' sum.

        The losses are summed and scaled afterwards, so that the gradient of each is the same.
        """
        (of_losses,) = outputs
        factor = of_losses[0]
        grads = (None if grad is None else grad.mul_(factor) for grad in ctx.saved_tensors)
        return (*grads, None, None, None, None, None)


@contextlib.contextmanager
def casts_kept() -> Iterator[None]:
    """Within the block, an optimizer step's, one 16-bit copy of weights serves all micro-batches.

    As autocast's copies do, of which it is one more where the weights stand in no plain product.
    """
    _kept_casts.append({})
    try:
        yield
    finally:
        _kept_casts.pop()


def _cast(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`weight` in `dtype`, without its gradient."""
    if weight.dtype == dtype or not _kept_casts:
        return weight.detach().to(dtype)
    key = weight.data_ptr(), weight.shape, dtype
    kept = _kept_casts[-1]
    if key not in kept:
        kept[key] = weight.detach().to(dtype)
    return kept[key]


def _chunks(tokens: int, most: int) -> list[slice]:
    """Cut `tokens` into as few chunks of `most` at most as there can be, as even as they can be.

    A remainder of one to three would be inaccurate: a CPU adds up such thin products with a large
    vocabulary number after number (error 1e-5 of fp32's 262,144 terms, else 2e-6).
    """
    count = -(-tokens // most)
    edges = [tokens * number // count for number in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def rows_in_cache(logits: torch.Tensor) -> int:
    """How many rows of logits, `(rows, vocabulary)`, to go through together.

    On a CPU those that stay in its cache, several times as fast as all; on a GPU all.
    """
    rows, vocabulary = logits.shape
    return max(1, rows if logits.is_cuda else _NUMBERS_IN_CACHE // vocabulary)


def _in_cache(
    losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    logits: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """What `losses` makes of the logits and targets of a few rows at a time, `(rows,)`."""
    rows = rows_in_cache(logits)
    parts = zip(logits.split(rows), targets.split(rows), strict=True)
    return torch.cat([losses(part, own) for part, own in parts])


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of each row, `(rows,)`, in fp32 and nats, without gradients.

    Args:
        logits: `(rows, vocabulary)`; `targets`: `(rows,)`.
    """
    return _in_cache(
        lambda part, own: cross_entropy(part.float(), own, reduction="none"), logits, targets
    )


def _losses(
    products: torch.Tensor, targets: torch.Tensor, logits: Logits, learns: bool
) -> torch.Tensor:
    """The losses of a chunk, `(rows,)`; if it `learns`, `products` become their sum's gradient.

    Args:
        products: of hidden states and weights, `(rows, vocabulary)`; written over.
        targets: `(rows,)`.
        logits: what they become.
        learns: whether there is a gradient.
    """
    return _in_cache(
        lambda part, own: _losses_of_rows(part, own, logits, learns), products, targets
    )


def _losses_of_rows(
    products: torch.Tensor, targets: torch.Tensor, logits: Logits, learns: bool
) -> torch.Tensor:
    values, slope = products.float(), None
    if logits.scale != 1.0:
        values = values.mul_(logits.scale)
    if logits.cap is not None:
        values = values.div_(logits.cap).tanh_()
        slope = 1 - values.square() if learns else None
        values = values.mul_(logits.cap)
    values = torch.log_softmax(values, -1, out=values)
    places = targets[:, None]
    losses = -values.gather(1, places).squeeze(1)
    if learns:
        gradient = values.exp_()
        gradient.scatter_add_(1, places, gradient.new_full((1, 1), -1.0).expand_as(places))
        if slope is not None:
            gradient = gradient.mul_(slope)
        if logits.scale != 1.0:
            gradient = gradient.mul_(logits.scale)
        if gradient.dtype != products.dtype:  # else it is there already
            products.copy_(gradient)
    return losses


def _add_gradients(
    grads: Sequence[torch.Tensor | None],
    direct: Direct | None,
    chunk: slice,
    part: torch.Tensor,
    matrix: torch.Tensor,
    gradient: torch.Tensor,
) -> None:
    """Add a chunk's to those of hidden states (its own rows), weights and bias, in fp32."""
    of_hidden, of_weight, of_bias = grads
    factor = 1.0
    if of_hidden is not None:
        of_hidden[chunk] = gradient @ matrix
    if of_bias is not None:
        of_bias.add_(gradient.sum(0))
    if direct is not None:
        of_weight, factor = direct
    if of_weight is None:
        return
    if gradient.dtype == torch.float32:
        of_weight.addmm_(gradient.T, part, alpha=factor)
    else:
        # In blocks that stay in the cache: addition makes a copy of its 16-bit argument in fp32.
        size = _VOCABULARY_BLOCK[part.device.type]
        for start in range(0, len(of_weight), size):
            block = slice(start, start + size)
            of_weight[block].add_(gradient[:, block].T @ part, alpha=factor)


def _logits_of(model: PreTrainedModel) -> Logits:
    """How an architecture of transformers scales and caps its logits, by the fields that say so."""
    config = model.config.get_text_config()
    scale = 1.0 / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
    scale *= getattr(model, "logit_scale", None) or 1.0  # Cohere
    return Logits(scale, getattr(config, "final_logit_softcapping", None))  # Gemma


def _whole_gradient(weight: torch.Tensor) -> torch.Tensor:
    """The gradient of `weight` so far; zeros, and set, where there is none."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


@contextlib.contextmanager
def _losses_as_logits(
    model: PreTrainedModel, targets: torch.Tensor, at_once: int, factor: float | None
) -> Iterator[None]:
    """Within the block, the output layer gives the loss of each token where its logits would be.

    They pass through the rest of the model's forward, and through whatever wraps it: engines that
    gather weights and gradients know them by the forward's output.

    Args:
        model: as `supports_chunks` asks.
        targets: `(batch, tokens)`, the tokens to be predicted at what reaches the output layer, or
            IGNORED_LABEL, where the loss is 0.
        at_once: logits of a chunk, at most.
        factor: as `summed_loss` has it.
    """
    head: Any = model.get_output_embeddings()
    config, logits = model.config.get_text_config(), _logits_of(model)
    rows = max(1, at_once // config.vocab_size)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        wanted = targets.to(hidden.device)
        supervised = wanted != IGNORED_LABEL
        weight, learns = head.weight, torch.is_grad_enabled()
        direct = None
        if factor is not None and learns and weight.requires_grad and weight.is_leaf:
            direct = Direct(_whole_gradient(weight), factor)
        losses = _SummedInChunks.apply(
            hidden[supervised],
            weight if direct is None else weight.detach(),
            getattr(head, "bias", None),
            wanted[supervised],
            logits,
            rows,
            learns,
            direct,
        )
        whole = torch.zeros_like(wanted, dtype=torch.float32)
        return whole.masked_scatter(supervised, losses)[..., None]

    # What the architecture does to its products is done above.
    plain: list[tuple[Any, str, float | None]] = [
        (config, "logits_scaling", 1.0),
        (config, "final_logit_softcapping", None),
        (model, "logit_scale", 1.0),
    ]
    before = [
        (*field[:2], vars(field[0])[field[1]]) for field in plain if field[1] in vars(field[0])
    ]
    try:
        head.forward = forward
        for holder, name, value in plain:
            if name in vars(holder):
                setattr(holder, name, value)
        yield
    finally:
        del head.forward
        for holder, name, value in before:
            setattr(holder, name, value)


@contextlib.contextmanager
def _embedding_adds_directly(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, the embedding's gradient holds the rows of its tokens alone.

    Otherwise each backward pass would fill, and then add, a matrix of the whole vocabulary's zeros.
    The backward pass itself may come after the block. GPUs fill fast, and add rows in any order.
    """
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, torch.nn.Embedding):
        yield
        return
    weight = embedding.weight
    if not weight.requires_grad or not weight.is_cpu:
        yield
        return
    _whole_gradient(weight)  # rows can be added to no other
    before = embedding.sparse
    embedding.sparse = True
    try:
        yield
    finally:
        embedding.sparse = before


def summed_loss(
    model: torch.nn.Module,
    examples: Sequence[Example],
    packed: bool,
    pad_id: int = 0,
    at_once: int | None = None,
    factor: float | None = None,
) -> torch.Tensor:
    """The sum of the cross-entropies of the supervised tokens of `examples`, in nats.

    Args:
        model: in varlen attention if `packed`; whatever wraps it.
        examples: at least one.
        packed: as `supports_packing` says; `pad_id`: to pad with if not.
        at_once: logits that may exist, if `supports_chunks` says so; None for no bound.
        factor: what the loss will be multiplied with before its backward pass, which must follow
            once; the gradient of the output layer's weights may then be there before it. None if
            that isn't known, or an engine waits for the gradient to come.
    """
    chunked = _losses_in_chunks(model, examples, packed, pad_id, at_once, factor)
    if chunked is not None:
        return chunked.losses.sum()
    whole = supervised_logits(model, examples, packed, pad_id)
    return cross_entropy(whole.logits.float(), whole.targets, reduction="sum")


def sample_losses(
    model: torch.nn.Module,
    examples: Sequence[Example],
    packed: bool,
    pad_id: int = 0,
    at_once: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`summed_loss`, bit for bit, and the part of each example, `(examples,)` in float64."""
    chunked = _losses_in_chunks(model, examples, packed, pad_id, at_once, None)
    if chunked is not None:
        by_token = chunked.losses
        total = by_token.sum()
    else:
        logits, targets, _ = supervised_logits(model, examples, packed, pad_id)
        # The two halves of cross_entropy; the costly one once.
        log_probabilities = log_softmax(logits.float(), dim=1)
        by_token = nll_loss(log_probabilities, targets, reduction="none")
        total = nll_loss(log_probabilities, targets, reduction="sum")
    # The tokens of an example are adjacent. No scatter: its order of sums varies on GPUs.
    parts = by_token.double().split(list(supervised_counts(examples)))
    return total, torch.stack([part.sum() for part in parts])


class TokenLosses(NamedTuple):
    """`losses`: `(supervised,)`, in fp32 and nats. `owners`: as `Supervised` has them."""

    losses: torch.Tensor
    owners: torch.Tensor


def losses_of_tokens(
    model: torch.nn.Module,
    examples: Sequence[Example],
    packed: bool,
    pad_id: int = 0,
    at_once: int | None = None,
    prefixes: PrefixCache | None = None,
    prefix_ids: Sequence[int | None] | None = None,
) -> TokenLosses:
    """The cross-entropy of each supervised token, without gradients.

    Args: as of `summed_loss`, and the prefixes of `supervised_logits`.
    """
    shared = prefixes, prefix_ids
    chunked = _losses_in_chunks(model, examples, packed, pad_id, at_once, None, *shared)
    if chunked is not None:
        return chunked
    logits, targets, owners = supervised_logits(model, examples, packed, pad_id, *shared)
    return TokenLosses(token_losses(logits, targets), owners)


def _losses_in_chunks(
    model: torch.nn.Module,
    examples: Sequence[Example],
    packed: bool,
    pad_id: int,
    at_once: int | None,
    factor: float | None,
    prefixes: PrefixCache | None = None,
    prefix_ids: Sequence[int | None] | None = None,
) -> TokenLosses | None:
    """The loss of each supervised token; None where logits are computed whole.

    Args: as of `summed_loss` and `losses_of_tokens`.
    """
    if at_once is None:
        return None
    targets = _targets(examples, packed, pad_id)
    if not (targets != IGNORED_LABEL).any():
        return None
    inner = _architecture(model)
    directly = factor is not None and torch.is_grad_enabled()
    with (
        _embedding_adds_directly(inner) if directly else contextlib.nullcontext(),
        _losses_as_logits(inner, targets, at_once, factor),
    ):
        found = supervised_logits(model, examples, packed, pad_id, prefixes, prefix_ids)
        return TokenLosses(found.logits.squeeze(-1), found.owners)


def _architecture(model: Any) -> PreTrainedModel:
    """The model inside of adapters, and of the engines that share it among processes."""
    while not isinstance(model, PreTrainedModel):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model.module
    return model


def _targets(examples: Sequence[Example], packed: bool, pad_id: int) -> torch.Tensor:
    """`(batch, tokens)`: what each position that reaches the output layer has to predict."""
    if packed:
        return pack_row(examples)["targets"][None]
    labels = pad_rows(examples, pad_id)["labels"]
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED_LABEL)], 1)


def supports_chunks(model: AdaptedModel, packed: bool) -> bool:
    """Find out by trying whether `model` has the same loss and gradients in chunks as whole.

    It has not where its logits are made in other ways than `Logits` knows, or by no plain layer.

    Args:
        model: with or without adapters; in varlen attention if `packed`.
        packed: as `supports_packing` says.
    """
    # Long enough for products that are no thinner than in training, which would round worse.
    probe = [torch.tensor(ids * _PROBE_REPEATS) for ids in PROBE]
    examples = [{"input_ids": ids, "labels": ids} for ids in probe]
    computed = _architecture(model).dtype  # LoRA's own weights are in fp32 even where others aren't
    half = supervised_tokens(examples) // 2 * model.config.get_text_config().vocab_size
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Of a norm, say: gradients of all would take as much memory as the weights.
    smallest = sorted(learning, key=torch.Tensor.numel)[:1]
    found = []
    training = model.training
    model.eval()  # no dropout
    try:
        for at_once in (None, half):
            loss = summed_loss(model, examples, packed, at_once=at_once)
            gradient = torch.autograd.grad(loss, smallest, allow_unused=True) if smallest else ()
            found.append((loss.detach(), *gradient))
    except (
        NotImplementedError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        IndexError,  # too few positions or tokens for the probe
    ):
        return False
    finally:
        model.train(training)
    (theirs, *their_gradients), (ours, *our_gradients) = found
    return agree(ours, theirs, theirs.dtype) and all(
        one is other or agree(one, other, computed)
        for one, other in zip(our_gradients, their_gradients, strict=True)
    )


def bound_of_logits(
    model: AdaptedModel, packed: bool, tokens: int, device: torch.device
) -> int | None:
    """The most logits that training `model` lets exist at once; None for all of a micro-batch.

    Args:
        model: as `supports_chunks` asks, with `packed`.
        tokens: of a micro-batch.
        device: that computes.
    """
    vocabulary = _architecture(model).config.get_text_config().vocab_size
    bound = logits_at_once(vocabulary, tokens, device)
    return bound if bound is not None and supports_chunks(model, packed) else None
