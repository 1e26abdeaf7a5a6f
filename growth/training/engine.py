"""Optimizer steps on accelerate: processes, mixed precision, engines that shard the weights."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from accelerate import (
    Accelerator,
    DistributedType,
    FullyShardedDataParallelPlugin,
    PartialState,
)

from growth.core.device import DTYPES
from growth.packing.loss import casts_kept
from growth.training.step import Engine


class AccelerateEngine(Engine):
    """The engine that the Trainer's accelerator has set up.

    Args:
        accelerator: the Trainer's.
        precision: of matrix products, one of `growth.core.device.DTYPES`.
        loss_context: the Trainer's own context of a forward pass.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        precision: str,
        loss_context: Callable[[], contextlib.AbstractContextManager],
    ) -> None:
        self.accelerator, self.precision = accelerator, precision
        self.world_size, self.device = accelerator.num_processes, accelerator.device
        alone = accelerator.distributed_type == DistributedType.NO
        self.adds_directly = alone and accelerator.scaler is None  # which scales losses by itself
        self._loss_context = loss_context

    def gather(self, counts: torch.Tensor) -> torch.Tensor:
        """Gather over the processes."""
        return self.accelerator.gather(counts)

    @contextlib.contextmanager
    def step_context(self) -> Iterator[None]:
        """Autocast around a step, so that its copies of the weights serve all micro-batches.

        Engines that shard the weights gather them for each: their copies would all be kept.
        """
        sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if self.precision == "fp32" or self.accelerator.distributed_type in sharded:
            yield
            return
        with torch.autocast(self.device.type, DTYPES[self.precision]), casts_kept():
            yield

    def loss_context(self) -> contextlib.AbstractContextManager:
        """The Trainer's."""
        return self._loss_context()

    def begin_round(self, last: bool) -> None:
        """DeepSpeed's engine takes its optimizer step with the last backward pass."""
        self.accelerator.gradient_state._set_sync_gradients(last)

    def backward(self, loss: torch.Tensor) -> None:
        """Backward with the loss scale of fp16, where there is one."""
        self.accelerator.backward(loss)


def enable_fsdp_on_cpu(accelerator: Accelerator, plugin: Mapping[str, Any]) -> bool:
    """Let processes without GPUs shard the model, as processes with GPUs do; True if they do now.

    torch's FSDP2 runs on CPUs, over gloo. accelerate 1.x asks for an accelerator: it drops the
    request without a word, and each process would hold the whole model. So the type of its state is
    set here as it sets it for GPUs. Launches on CPUs, such as the tests', then take the path that
    GPUs take.

    Args:
        accelerator: of a run that asked for FSDP.
        plugin: arguments of `FullyShardedDataParallelPlugin`.
    """
    state = accelerator.state
    if state.distributed_type != DistributedType.MULTI_CPU:
        return False
    # Both: AcceleratorState is filled from PartialState again and again.
    PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)
    return True
