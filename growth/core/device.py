"""The device and precision to compute with, selected automatically."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from growth.core.distributed import distributed_state
from growth.core.errors import InputError
from growth.core.options import AUTO, Hyperparameters
from growth.core.workers import peak_resident_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device and a precision ("fp32", "bf16", "fp16"), with the reason for it."""

    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the precision."""
        return DTYPES[self.precision]

    def describe(self) -> str:
        """One line for the log."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = "" if self.device.type == "cuda" else f", {torch.get_num_threads()} threads"
        return f"computing on {name}{threads} in {self.precision}: {self.reason}"


def peak_memory(device: torch.device) -> int:
    """The most memory that this process has held, in bytes: on its GPU, or else in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_memory()


def choose_compute(precision: str = Hyperparameters.precision) -> Compute:
    """The GPU where there is one, else the CPU; bf16 where its matrix products are the fast ones.

    Args:
        precision: one of `growth.core.options.PRECISIONS`; AUTO chooses.
    """
    compute = _chosen(precision)
    if compute.device.type == "cpu":
        # fp32 means fp32: at "medium", CPUs with AMX would round the factors to bf16, and on those
        # with AVX-512 alone fp32 is slower than at "highest" (LOG.md, 2026-11-26).
        torch.set_float32_matmul_precision("highest")
    return compute


def _chosen(precision: str) -> Compute:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(distributed_state().local_rank)
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    if precision != AUTO:
        return Compute(device, precision, "as asked for")
    if cuda:
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Compute(device, "bf16", "this GPU computes bf16 natively")
        return Compute(device, "fp16", "this GPU has no bf16")
    if _cpu_has_fast_bf16():
        return Compute(device, "bf16", "this CPU multiplies bf16 matrices natively")
    return Compute(device, "fp32", "this CPU has no bf16 matrix instructions")


def _cpu_has_fast_bf16() -> bool:
    # torch has no public function for these; a release without the private one counts as no.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@contextlib.contextmanager
def out_of_memory_explained(remedy: str) -> Iterator[None]:
    """Say that memory ran out, and what to do, where the block ends in that.

    Raises:
        InputError: memory ran out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(_out_of_memory(error, remedy)) from None
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # torch's own has no class for the CPU's
            raise
        raise InputError(_out_of_memory(error, remedy)) from None


def _out_of_memory(error: BaseException, remedy: str) -> str:
    said = str(error).partition("\n")[0].rstrip(". ")
    return f"out of memory{f' ({said})' if said else ''}; {remedy}"
