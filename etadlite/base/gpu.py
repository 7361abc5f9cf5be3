"""What is done on NVIDIA GPUs alone: which one, its memory, and copies to it beside the work."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor


def gpus() -> int:
    """Return the number of NVIDIA GPUs of this machine."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_of_process(*, choose: bool = False) -> torch.device:
    """Return the GPU of this process among those of the machine; `choose` also makes it "cuda"."""
    gpu = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if choose:
        torch.cuda.set_device(gpu)
    return gpu


def describe_gpu() -> str:
    """Return the name and the memory of the first GPU."""
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"


def gpu_memory(device: torch.device) -> tuple[Callable[[], int], Callable[[], Any]]:
    """Return two functions for a GPU: the most bytes that tensors took, and forgetting it."""
    reset = torch.cuda.reset_peak_memory_stats
    return partial(torch.cuda.max_memory_allocated, device), partial(reset, device)


def release_memory() -> None:
    """Give a GPU's memory that holds no tensor back, so that pieces of other sizes fit."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def copied_ahead(parts: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield tensors of the host on a GPU; the next one is copied while the last one is used.

    The copies have a stream of their own. The stream that uses them waits for each, and the memory
    of each is not used again before that stream is done with it.
    """
    copying, using = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def fetch() -> Tensor | None:
        part = next(parts, None)
        with torch.cuda.stream(copying):
            return None if part is None else part.pin_memory().to(device, non_blocking=True)

    ahead = fetch()
    while ahead is not None:
        using.wait_stream(copying)
        part = ahead
        part.record_stream(using)
        ahead = fetch()
        yield part
