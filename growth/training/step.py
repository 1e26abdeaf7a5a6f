"""The loss and the gradients of one optimizer step, whatever engine computes it.

Each process cuts its share of a step's samples into micro-batches. Engines that gather weights or
gradients need every process in every forward and backward pass, so that all processes compute as
many rounds as the one with the most micro-batches; those that have none left compute a dummy:

    process 0    [a b] [c]   [d]        supervised tokens of a ... g, over both processes: n
    process 1    [e]   [f g] dummy      loss = sum of their cross-entropies / n
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.parallel import DistributedDataParallel

from growth.model.chat_tokenizer import IGNORED_LABEL
from growth.packing.batches import (
    Example,
    computed_tokens,
    cut_answers,
    micro_batch_places,
    supervised_tokens,
    taken,
    token_lengths,
)
from growth.packing.loss import sample_losses, summed_loss

# What a process without a micro-batch computes in a round; it counts 0 times.
DUMMY_EXAMPLE: Example = {
    "input_ids": torch.tensor([0, 0]),
    "labels": torch.tensor([IGNORED_LABEL, 0]),
}


def linear_decay(step: int, steps: int, end_factor: float) -> float:
    """The factor on the learning rate: 1 at the first optimizer step, `end_factor` at the last."""
    return 1 - (1 - end_factor) * min(1.0, step / max(1, steps - 1))


def published_rate(step: int, steps: int) -> float:
    """The factor on the learning rate as the published run's engine had it.

    DeepSpeed's WarmupDecayLR (0.9.5) without warm-up steps still makes two, from 0 and by a
    logarithm, and is first asked after the first step: 1, 0, 1, 1, then falling to 2 / (steps - 2).

    Args:
        step: of the optimizer, from 0.
        steps: of the run.
    """
    if step == 0:
        return 1.0  # the optimizer's own
    asked = step - 1
    if asked < 2:
        return math.log(asked + 1) / math.log(2)
    return max(0.0, (steps - asked) / max(1, steps - 2))


def perplexity(loss: float) -> float:
    """The exponential of a mean cross-entropy in nats, bounded so that JSON can hold it."""
    return math.exp(min(loss, 700.0))


@dataclass(frozen=True)
class StepMeasures:
    """Sums over the processes of a step: tokens that are `supervised`, `tokens` in all, tokens
    `computed` (padding included), samples that truncation left with part of their answer
    (`answers_cut`) or none of it (`answers_lost`), and the `seconds` that it took.
    """

    supervised: int = 0
    tokens: int = 0
    computed: int = 1
    answers_cut: int = 0
    answers_lost: int = 0
    seconds: float = 1.0


@dataclass(frozen=True)
class StepShare:
    """A process's share of an optimizer step.

    Attributes:
        micro_batches: of this process; `places`: of their samples in this process's share.
        rounds: the most micro-batches that any process has.
        measures: sums over all processes.
    """

    micro_batches: list[Sequence[Example]]
    places: list[list[int]]
    rounds: int
    measures: StepMeasures


class Engine:
    """How a step is carried out: here by plain torch, in one process, in the model's precision."""

    world_size = 1
    device = torch.device("cpu")
    # Whether nothing but `backward` is done with gradients: they may be added in the forward pass.
    adds_directly = True

    def gather(self, counts: torch.Tensor) -> torch.Tensor:
        """The `counts`, `(1, n)`, of every process, by rank: `(world_size, n)`."""
        return counts

    def step_context(self) -> contextlib.AbstractContextManager:
        """Entered around all micro-batches of a step."""
        return contextlib.nullcontext()

    def loss_context(self) -> contextlib.AbstractContextManager:
        """Entered around the forward pass of a micro-batch."""
        return contextlib.nullcontext()

    def begin_round(self, last: bool) -> None:
        """Called before each micro-batch; `last` if the optimizer steps after it."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`."""
        loss.backward()


@dataclass(frozen=True)
class StepLoss:
    """The loss of optimizer steps: the mean over the supervised tokens of all their samples.

    Attributes:
        packed: as `supports_packing` says of the model; it is in varlen attention then.
        tokens_per_micro_batch: at most, but for a sample that alone is longer.
        samples_per_micro_batch: at most; None for no bound.
        pad_id: a token to pad with where not `packed`.
        logits_at_once: that may exist, where `supports_chunks` says so of the model; None for all
            of a micro-batch.
        engine: that computes.
    """

    packed: bool
    tokens_per_micro_batch: int
    samples_per_micro_batch: int | None = None
    pad_id: int = 0
    logits_at_once: int | None = None
    engine: Engine = field(default_factory=Engine)

    def share(self, examples: Sequence[Example]) -> StepShare:
        """Cut this process's `examples` of a step into micro-batches, and count over processes."""
        lengths = token_lengths(examples)
        limits = self.tokens_per_micro_batch, self.samples_per_micro_batch
        places = list(micro_batch_places(lengths, *limits))
        groups = [taken(examples, group) for group in places]
        counts = [
            len(groups),
            supervised_tokens(examples),
            sum(lengths),
            sum(computed_tokens(group, self.packed) for group in groups),
            *cut_answers(examples),
        ]
        by_process = self.engine.gather(torch.tensor([counts], device=self.engine.device))
        sums = by_process.sum(0).tolist()
        return StepShare(groups, places, int(by_process[:, 0].max()), StepMeasures(*sums[1:]))

    def backward(
        self, model: torch.nn.Module, examples: Sequence[Example]
    ) -> tuple[torch.Tensor, StepMeasures]:
        """Add the gradients of an optimizer step to `model`, micro-batch by micro-batch.

        Args:
            model: in training mode.
            examples: this process's samples of the step.

        Returns:
            This process's part of the step's loss, in nats per supervised token, times the number
            of processes: engines average gradients over processes, and so must be this. And the
            measures, without seconds.
        """
        share = self.share(examples)
        # Data-parallel engines average gradients over processes; the loss is a mean over tokens.
        scale = self.engine.world_size / max(1, share.measures.supervised)
        step_loss = torch.zeros((), device=self.engine.device)
        with self.engine.step_context():
            for turn in range(share.rounds):
                last = turn == share.rounds - 1
                self.engine.begin_round(last)
                with _exchange_gradients(model, last):
                    loss = self.micro_batch(model, share, turn, scale) * scale
                    self.engine.backward(loss)
                step_loss += loss.detach()
        return step_loss, share.measures

    @torch.no_grad()
    def total(
        self, model: torch.nn.Module, examples: Sequence[Example]
    ) -> tuple[torch.Tensor, torch.Tensor, StepMeasures]:
        """This process's losses of `examples`, in nats and float64, without gradients.

        Returns:
            Their sum, that of each example, `(examples,)`, and the measures over all processes.
        """
        share = self.share(examples)
        total = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        by_example = torch.zeros(len(examples), dtype=torch.float64, device=self.engine.device)
        for turn in range(share.rounds):
            if turn >= len(share.micro_batches):
                total += self.micro_batch(model, share, turn)
                continue
            group = list(share.micro_batches[turn])
            with self.engine.loss_context():
                loss, losses = sample_losses(
                    model, group, self.packed, self.pad_id, self.logits_at_once
                )
            total += loss
            by_example[share.places[turn]] = losses
        return total, by_example, share.measures

    def micro_batch(
        self, model: torch.nn.Module, share: StepShare, turn: int, scale: float | None = None
    ) -> torch.Tensor:
        """The summed loss of a round's micro-batch, in nats; 0 where this process has none.

        With a `scale`, which it will be multiplied with, its backward pass must follow.
        """
        factor = scale if self.engine.adds_directly else None
        with self.engine.loss_context():
            if turn < len(share.micro_batches):
                group = list(share.micro_batches[turn])
                options = (self.pad_id, self.logits_at_once, factor)
                return summed_loss(model, group, self.packed, *options)
            return 0 * summed_loss(model, [DUMMY_EXAMPLE], self.packed, self.pad_id)


def _exchange_gradients(model: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """DDP need not exchange gradients before the last round; sharded engines free memory by it."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return contextlib.nullcontext()
