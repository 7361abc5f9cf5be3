"""One training in many processes: the collectives that it needs.

With a single process every function here is the identity, so callers need not ask. `torchrun`
starts the processes, and ends the others when one is lost.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from etadlite.base.devices import is_gpu
from etadlite.base.errors import InputError, first_line

Item = TypeVar("Item")


class LostProcessError(RuntimeError):
    """Another process ended or stopped answering."""


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Return True in the process that writes and prints."""
    return rank() == 0


def torchrun_rank() -> tuple[int, int]:
    """Return this process's rank and the world size that `torchrun` set; needs no process group."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def local_device(device: torch.device) -> torch.device:
    """Return the GPU of this process among those of the machine; other devices unchanged."""
    if not is_gpu(device):
        return device
    from etadlite.base.gpu import gpu_of_process

    return gpu_of_process()


@contextmanager
def process_group(device: str, patience: float) -> Iterator[Any]:
    """Join the processes that `torchrun` started, and give its store; None without `torchrun`.

    With `cuda`, or `auto` and GPUs, each process gets its own GPU. `patience` is the minutes that a
    process waits for the others before the run ends.

    Raises:
        InputError: there are more processes than GPUs.
    """
    if torchrun_rank()[1] == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        yield None
        return
    from etadlite.base.restarts import join

    yield join(device, timedelta(minutes=patience))
    # Not after an error: if a process is lost, the others would wait here in vain.
    if world_size() > 1:
        dist.destroy_process_group()


def _run(collective: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Run a collective, if there are others; raise a `LostProcessError` where it fails."""
    try:
        return None if world_size() == 1 else collective(*given, **options)
    except RuntimeError as error:
        raise LostProcessError(first_line(error)) from error


def shard(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of a sequence: contiguous, of nearly equal size, maybe empty."""
    first, last = (len(items) * (rank() + n) // world_size() for n in (0, 1))
    return items[first:last]


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without gradient."""
    if world_size() == 1:
        return value
    value = value.detach().clone()
    _run(dist.all_reduce, value)
    return value


def all_reduce_max(*numbers: int) -> list[int]:
    """Return the maximum over all processes of each number."""
    value = torch.tensor(numbers)
    _run(dist.all_reduce, value, dist.ReduceOp.MAX)
    return value.tolist()


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by sums over all processes, which give the parameters in one order."""
    if world_size() == 1:
        return
    pending = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        pending.append(_run(dist.all_reduce, parameter.grad, async_op=True))
    for work in pending:
        _run(work.wait)


def broadcast_weights(module: nn.Module) -> None:
    """Give every process the first one's weights."""
    for value in module.state_dict().values():
        _run(dist.broadcast, value, src=0)


def broadcast(item: Any) -> Any:
    """Return the first process's item."""
    items = [item]
    _run(dist.broadcast_object_list, items, src=0)
    return items[0]


def all_gather(item: Item) -> list[Item]:
    """Return the items of all processes, by rank."""
    items = [item] * world_size()
    _run(dist.all_gather_object, items, item)
    return items


def gather(item: Item) -> list[Item]:
    """Return the items of all processes, by rank, in the first process; else an empty list."""
    items = [item] * world_size() if is_first() else None
    _run(dist.gather_object, item, items, dst=0)
    return items or []


def first_reason(reason: str) -> str:
    """Return the first text over all processes that is not empty; "" if all are empty."""
    if not all_reduce_max(bool(reason))[0]:
        return ""
    return next(filter(None, all_gather(reason)))


@contextmanager
def raise_together() -> Iterator[None]:
    """Raise an `InputError` of one process in all processes, so that none waits for it."""
    reason = ""
    try:
        yield
    except InputError as error:
        reason = str(error)
    if reason := first_reason(reason):
        raise InputError(reason)
