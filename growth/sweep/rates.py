"""How fast a model is tuned here: by earlier runs of it, or by a few steps of the real loss."""

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from growth.core.device import Compute
from growth.core.options import Hyperparameters
from growth.data.study import Study
from growth.model.chat_tokenizer import ChatTokenizer
from growth.model.loading import load_model
from growth.model.lora import add_lora, without_adapters
from growth.model.source import Source
from growth.packing.batches import token_lengths
from growth.packing.forward import supports_packing
from growth.packing.loss import bound_of_logits
from growth.packing.token_store import Example
from growth.report.training_runs import cost_of, read_training_runs
from growth.training.memory import plan_memory
from growth.training.step import Engine, StepLoss

PROBE_STEPS = 3  # of which the first, which sets up its kernels, does not count
CHEAP = 10**8  # parameters up to which a probe takes seconds


@dataclass(frozen=True)
class Rate:
    """How fast a model is tuned.

    Attributes:
        tokens_per_second: in optimizer steps, over all processes of a run.
        seconds_per_epoch: besides steps: validation, checkpoint, start-up; None where not known.
        device: that it was measured on.
        source: of the numbers, in words.
    """

    tokens_per_second: float
    seconds_per_epoch: float | None
    device: str
    source: str

    def seconds(self, tokens: float, epochs: int) -> float:
        """Of a run that is trained on so many tokens in all."""
        return tokens / self.tokens_per_second + epochs * (self.seconds_per_epoch or 0.0)


def device_of(described: str) -> str:
    """The device and precision of `Compute.describe`, without the reason for it."""
    return described.partition(": ")[0]


def earlier_rate(runs_dir: Path, study: Study, parameters: int, device: str | None) -> Rate | None:
    """The rate of the runs of a model that there are; None without any.

    A model is known by the number of its parameters, those of adapters included: what it costs
    does not depend on their values.

    Args:
        runs_dir: folder of runs, at any depth.
        study: that they are of.
        parameters: of the model.
        device: as `device_of` names it; None for that of the newest run.
    """
    known = [
        (run.record, cost)
        for run in read_training_runs(runs_dir, study)[0].values()
        if run.record["parameters"] == parameters and (cost := cost_of(run))["step_seconds"]
    ]
    if device is None and known:
        device = device_of(max(known, key=lambda run: str(run[0]["started"]))[0]["device"])
    known = [(record, cost) for record, cost in known if device_of(record["device"]) == device]
    if not known or device is None:
        return None
    # A run that was resumed has pauses between its start and its end.
    unbroken = [c for record, c in known if c["seconds"] is not None and "resumed" not in record]
    besides = sum(cost["seconds"] - cost["step_seconds"] for cost in unbroken)
    epochs = sum(cost["epochs"] for cost in unbroken)
    return Rate(
        sum(cost["tokens_trained"] for _, cost in known)
        / sum(cost["step_seconds"] for _, cost in known),
        max(0.0, besides / epochs) if epochs else None,
        device,
        f"{len(known)} earlier run{'s' if len(known) > 1 else ''}",
    )


class _ProbeEngine(Engine):
    """One process, in the precision that the Trainer would compute in."""

    def __init__(self, compute: Compute) -> None:
        self.device, self._compute = compute.device, compute

    def step_context(self) -> contextlib.AbstractContextManager:
        """Autocast around a step."""
        if self._compute.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self._compute.dtype)


def probe_rate(
    source: Source,
    chat: ChatTokenizer,
    examples: Sequence[Example],
    hyperparameters: Hyperparameters,
    compute: Compute,
) -> Rate:
    """The rate of `PROBE_STEPS` optimizer steps in this process; nothing is written.

    Args:
        source: of the model, which is loaded.
        chat: its tokenizer.
        examples: to learn from, a step's at a time, from the beginning again where they end.
        hyperparameters: of the runs.
        compute: on what.

    Raises:
        InputError: the model can't be loaded.
    """
    h, adapted = hyperparameters, hyperparameters.lora is not None
    model = load_model(source, compute.dtype if adapted else torch.float32, chat)
    trained = add_lora(model, h.lora, chat, source.name) if h.lora is not None else model
    base = without_adapters(trained)
    packed = supports_packing(base)
    if packed:
        base.set_attn_implementation(h.attn_implementation)
    plan = plan_memory(trained, compute, max(token_lengths(examples)))
    tokens = plan.tokens_per_micro_batch
    at_once = bound_of_logits(trained, packed, tokens, compute.device)
    trained.to(compute.device)  # type: ignore[arg-type] # its decorator hides the method's type
    trained.train()
    step_loss = StepLoss(packed, tokens, h.batch_size, chat.pad_id, at_once, _ProbeEngine(compute))
    optimizer = torch.optim.AdamW(
        [p for p in trained.parameters() if p.requires_grad], lr=h.learning_rate, fused=True
    )
    tokens, seconds, endless = 0, 0.0, itertools.cycle(examples)
    for step in range(PROBE_STEPS):
        samples = list(itertools.islice(endless, min(h.total_batch_size, len(examples))))
        began = time.perf_counter()
        loss, measures = step_loss.backward(trained, samples)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        if step:
            tokens += measures.tokens
            seconds += time.perf_counter() - began
    steps = f"a probe of {PROBE_STEPS} steps, without validation and checkpoints"
    return Rate(tokens / seconds, None, device_of(compute.describe()), steps)
