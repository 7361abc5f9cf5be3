"""Processes find each other, also after `torchrun --max-restarts` has started them again.

torchrun keeps one store through all restarts, in which processes leave their addresses; gloo and
NCCL would go to those of a process that is gone and end with "Connection refused" (seen with
PyTorch 2.15; https://github.com/pytorch/pytorch/issues/135712). So the processes of a start agree
on a part of the store that no earlier start has written to. Numbers of restarts cannot name it,
because every machine counts its own. Outside that part, the store holds which run was begun.
"""

import os
import time
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from etadlite.base.devices import is_out_of_memory
from etadlite.base.errors import InputError, StoppedError, first_line
from etadlite.base.gpu import gpu_of_process, gpus

START, RUN = "etadlite/start", "etadlite/run"


def join(device: str, patience: timedelta) -> Store:
    """Join the processes that `torchrun` started, and return its store; see `process_group`."""
    store, rank, size = torchrun_store(patience)
    if size == 1:
        return store
    on_gpus = device == "cuda" or (device == "auto" and gpus() > 0)
    if on_gpus:
        if int(os.environ["LOCAL_RANK"]) >= gpus():
            raise InputError(
                f"there are {os.environ['LOCAL_WORLD_SIZE']} processes but {gpus()} GPUs here; "
                f"start one process per GPU with --nproc_per_node={gpus()}"
            )
        gpu_of_process(choose=True)
    # GPU tensors travel by NCCL; objects and flags travel by gloo, which waits for no kernel.
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    meet(backend, store, rank, size, patience)
    return store


def meet(backend: str, store: Store, rank: int, size: int, patience: timedelta) -> None:
    """Make the process group of the `size` processes of this start.

    Raises:
        StoppedError: another process was lost on the way, or is late.
    """
    try:
        own = part_of_this_start(store, rank, size, patience)
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=patience)
    except (RuntimeError, TimeoutError) as error:
        if is_out_of_memory(error):
            raise
        raise StoppedError(
            f"the {size} processes did not meet ({first_line(error)}); give the command again",
            everywhere=True,
        ) from error


def torchrun_store(patience: timedelta) -> tuple[Store, int, int]:
    """Return the store that torchrun keeps, this process's rank, and the number of processes."""
    return next(iter(rendezvous("env://", timeout=patience)))


def part_of_this_start(store: Store, rank: int, size: int, patience: timedelta) -> Store:
    """Return the part of a store that the `size` processes of this start share with no other.

    Process 0 names it; each of the others asks there until it is answered, because it may have read
    the name that an earlier start left.

    Raises:
        TimeoutError: process 0 does not answer in time.
        RuntimeError: process 0 waits too long for another one.
    """
    mine, end = token_hex(8), time.monotonic() + patience.total_seconds()
    if rank == 0:
        name = mine
        store.set(START, name)
        for other in range(1, size):
            store.set(store.get(f"{name}/{other}").decode(), name)
    else:
        while not store.check([mine]):
            store.set(f"{store.get(START).decode()}/{rank}", mine)
            if time.monotonic() > end:
                raise TimeoutError(f"process 0 did not answer process {rank} within {patience}")
            time.sleep(0.02)
        name = store.get(mine).decode()
    return PrefixStore(name, store)


def remember_run(store: Store, folder: Path) -> None:
    """Keep the directory of the run that this start trains, for a start after it."""
    store.set(RUN, str(folder))


def remembered_run(store: Store) -> str | None:
    """Return the run directory of an earlier start of the same torchrun; None if there is none."""
    if not store.check([RUN]):
        return None
    folder = store.get(RUN).decode()
    return folder if Path(folder).is_dir() else None  # a run that never began is deleted
