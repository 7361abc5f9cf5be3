"""The machine: where to compute, in which precision, and how much memory is free.

Whatever differs on an NVIDIA GPU stands here, or in `gpu` if it works there alone: no other file
calls `torch.cuda`.
"""

import os
from ctypes import pythonapi
from typing import NamedTuple, Self

import torch
from torch import Tensor

from etadlite.base.containers import memory_left, usable_cores
from etadlite.base.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `mps` stands for.

    Work will follow, so `keep_freed_memory` and `use_allowed_cores` are called, too.

    Raises:
        InputError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in available.items() if there), "cpu")
    if not available.get(name, True):
        raise InputError(f"there is no {name} device here; use device=cpu or device=auto")
    keep_freed_memory()
    use_allowed_cores()
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let this process keep the memory of tensors that are gone for the tensors that come next.

    On Linux, glibc would soon give it back to the system, which fills a page with zeros before a
    process gets it again. That takes time: see `given back` in tests/benchmarks/engine.py. Nothing
    changes elsewhere.
    """
    if hasattr(pythonapi, "mallopt"):
        pythonapi.mallopt(-4, 0)  # M_MMAP_MAX: large tensors stay in the heap, too
        pythonapi.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def use_allowed_cores() -> None:
    """Let PyTorch use no more threads than a container's limit of cores, which it does not know.

    Threads beyond the limit would wait for each other. Where OMP_NUM_THREADS is set, it counts.
    """
    if "OMP_NUM_THREADS" not in os.environ and (cores := usable_cores()) < torch.get_num_threads():
        torch.set_num_threads(cores)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Return True if `precision` (auto, fp32, bf16) stands for bf16 on this device.

    `auto`, where nothing was measured, is bf16 only on GPUs that compute in it.
    """
    fast = is_gpu(device) and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" or (precision == "auto" and fast)


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor of half precision in fp32, any other as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if memory ran out."""
    # PyTorch's CPU allocator and oneDNN raise a plain RuntimeError, which only words tell apart.
    of_onednn = "could not create a primitive", "could not create a memory object"
    said = str(error).strip()
    plain = type(error) is RuntimeError and ("DefaultCPUAllocator" in said or said in of_onednn)
    return plain or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def free_memory(device: torch.device | None = None) -> int:
    """Return the bytes that are free on a GPU, or on this machine for this process."""
    if device is not None and is_gpu(device):
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(min(psutil.virtual_memory().available, memory_left()))


def require_memory(needed: int, what: str) -> None:
    """Refuse what needs more bytes than are free here, before they are asked for.

    Raises:
        InputError: "`what` of 37.2 GiB, but 10.1 GiB of memory are free; ...".
    """
    free = free_memory()
    if needed > free:
        raise InputError(
            f"{what} of {needed / 2**30:,.1f} GiB, but {free / 2**30:,.1f} GiB of memory are free; "
            "make it smaller, or use a machine with more"
        )


def is_gpu(device: torch.device) -> bool:
    """Return True for an NVIDIA GPU."""
    return device.type == "cuda"


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given; elsewhere nothing is left to wait for."""
    if is_gpu(device):
        torch.cuda.synchronize(device)


class RandomState(NamedTuple):
    """Torch's global random state on the CPU and, for an encoder on another device, on that one."""

    device: torch.device
    states: tuple[Tensor, ...]

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Return the present state."""
        states = [torch.get_rng_state()]
        if is_gpu(device):
            states.append(torch.cuda.get_rng_state(device))
        elif device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return cls(device, tuple(states))

    def restore(self) -> None:
        """Go back to this state."""
        torch.set_rng_state(self.states[0])
        if is_gpu(self.device):
            torch.cuda.set_rng_state(self.states[1], self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(self.states[1])

    def equals(self, other: Self) -> bool:
        """Return True if nothing was drawn between the two."""
        return all(map(torch.equal, self.states, other.states))
