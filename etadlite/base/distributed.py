"""One training in many processes: who one is among them, and what all of them say together.

Alone, every function here is the identity, so that its callers need not ask how many there are.
`torchrun` starts the processes, and ends the others when one is lost.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from etadlite.base.errors import InputError

Item = TypeVar("Item")

_BUCKET = 2**23
"""Numbers that are summed over the processes at once: 32 MiB of gradient."""


class LostProcessError(RuntimeError):
    """Another process ended or stopped answering."""


def world_size() -> int:
    """The number of processes; 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 for the first."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


@contextmanager
def process_group(device: str, patience: float) -> Iterator[None]:
    """Join the processes that `torchrun` started; alone, nothing happens.

    Args:
        device: of the settings; on `cuda` or `auto` with GPUs each process gets one of its own.
        patience: minutes that one waits for the others before the run ends.

    Raises:
        InputError: there are more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpus = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpus:
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise InputError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes, but {gpus} GPUs here; start one "
                f"process a GPU with --nproc_per_node={gpus}"
            )
        torch.cuda.set_device(local)
    # Numbers on the GPU travel by NCCL, objects and flags by gloo, which waits for no kernel.
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=patience))
    yield
    # Not after an error: where a process is lost, taking leave of it would wait in vain.
    dist.destroy_process_group()


@contextmanager
def _watched() -> Iterator[None]:
    """Call it by its name when a process is lost."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(str(error).strip().splitlines()[0]) from error


def shard(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of a sequence: contiguous, the parts as equal as can be, maybe empty."""
    number, count = rank(), world_size()
    return items[len(items) * number // count : len(items) * (number + 1) // count]


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; it carries no gradient."""
    if world_size() == 1:
        return value
    value = value.detach().clone()
    with _watched():
        dist.all_reduce(value)
    return value


def all_reduce_max(*numbers: int) -> list[int]:
    """The highest of all processes, for each of some numbers."""
    if world_size() == 1:
        return list(numbers)
    value = torch.tensor(numbers)
    with _watched():
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value.tolist()


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes; one that is not there counts as zero.

    The same parameters must be given in the same order everywhere.
    """
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in parameters]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with _watched():
            dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of neighbours with about as many numbers as travel at once."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(map(Tensor.numel, bucket)) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def broadcast_weights(module: nn.Module) -> None:
    """Give every process the first one's weights."""
    if world_size() > 1:
        with _watched():
            for value in module.state_dict().values():
                dist.broadcast(value, src=0)


def broadcast(item: Any) -> Any:
    """What the first process has."""
    if world_size() == 1:
        return item
    items = [item]
    with _watched():
        dist.broadcast_object_list(items, src=0)
    return items[0]


def all_gather(item: Item) -> list[Item]:
    """What every process has, in their order."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    with _watched():
        dist.all_gather_object(items, item)
    return items


def gather(item: Item) -> list[Item]:
    """What every process has, in their order, at the first one; an empty list at the others."""
    if world_size() == 1:
        return [item]
    items: list[Any] | None = [None] * world_size() if is_first() else None
    with _watched():
        dist.gather_object(item, items, dst=0)
    return items or []


def first_reason(reason: str) -> str:
    """The first process's reason that has one; empty where none has."""
    if not all_reduce_max(bool(reason))[0]:
        return ""
    return next(filter(None, all_gather(reason)))


@contextmanager
def raise_together() -> Iterator[None]:
    """An `InputError` in one process is raised in all, so that none waits for it."""
    reason = ""
    try:
        yield
    except InputError as error:
        reason = str(error)
    if reason := first_reason(reason):
        raise InputError(reason)
