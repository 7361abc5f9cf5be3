"""The machine: where to compute, in which precision, and how much memory is free."""

import torch
from torch import Tensor

from etadlite.base.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `mps` stands for.

    Raises:
        InputError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in available.items() if there), "cpu")
    if not available.get(name, True):
        raise InputError(f"there is no {name} device here; use device=cpu or device=auto")
    return torch.device(name)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Return True if `precision` (auto, fp32, bf16) stands for bf16 on this device.

    `auto`, where nothing was measured, is bf16 only on GPUs that compute in it.
    """
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" or (precision == "auto" and on_gpu)


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor of half precision in fp32, any other as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # PyTorch's CPU allocator raises a plain RuntimeError, which only its name tells apart.
    return type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)


def free_memory(device: torch.device | None = None) -> int:
    """Return the bytes that are free on a GPU, or for this machine's processes."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


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
