"""Where to compute, and in which precision."""

import torch

from etadlite.base.errors import InputError


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` stands for.

    Raises:
        InputError: the device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in available.items() if there), "cpu")
    if not available.get(name, True):
        raise InputError(f"there is no {name} device here; use device=cpu or device=auto")
    return torch.device(name)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether `precision` (auto, fp32, bf16) stands for bf16 on the device.

    An `auto` that was never settled, see `settle_speed`, is bf16 on GPUs that compute in it alone.
    """
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" or (precision == "auto" and on_gpu)
