"""Processes that load videos: the memory through which they hand them over, and their silence."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.loading import let_processes_end, watch_processes


def require_shared_memory(settings: DataSettings, batch_size: int) -> None:
    """Refuse videos that a training could not hand over between processes; see `require_shared`."""
    if settings.features is None:
        sample = settings.snippets * 3 * settings.frames * settings.crop**2
        require_shared(settings.workers, batch_size * sample)


def require_shared(workers: int, batch: int) -> None:
    """Refuse batches of `batch` bytes if loading processes could not hand them over.

    Raises:
        InputError: the shared memory is too small, as in small containers; the sentence says how to
            enlarge it.
    """
    shared = Path("/dev/shm")
    if not (workers and shared.is_dir()):
        return
    # Each process prepares two batches in advance, and one is in use.
    room = os.statvfs(shared)
    needed, free = (2 * workers + 1) * batch, room.f_bavail * room.f_frsize
    if needed > free:
        raise InputError(
            f"data.workers={workers} may need {needed / 2**20:,.0f} MiB of shared memory, "
            f"but /dev/shm has {free / 2**20:,.0f} MiB; set data.workers=0, or give it more, such "
            "as with docker run --shm-size=8g"
        )


def given_up(loading: Iterable[BaseProcess], why: str) -> str:
    """End processes that load videos, and return `why` with a remedy, as one sentence."""
    let_processes_end()
    end_all(loading)
    return (
        f"the processes that load videos {why}; set data.workers=0, or training.patience_minutes "
        "higher if the disk is that slow"
    )


def end_all(loading: Iterable[BaseProcess]) -> None:
    """End processes that load videos; one that dies later would end the next training."""
    for process in loading:
        process.kill()  # one that was stopped would not end otherwise
    for process in loading:
        process.join(5)


def silence(batches: DataLoader) -> str:
    """Say that the processes of a loader have reached its time-out."""
    return f"have not answered for {batches.timeout / 60:g} minutes"


def answered(batches: DataLoader) -> Iterator[Any]:
    """Yield what processes load; end them if none of them answers before the loader's time-out.

    Raises:
        InputError: none answered, or one was killed.
    """
    watch_processes()
    before = set(multiprocessing.active_children())
    remaining = iter(batches)
    loading = set(multiprocessing.active_children()) - before
    while True:
        asked = time.monotonic()
        try:
            batch = next(remaining)
        except StopIteration:
            return
        except RuntimeError:
            killed = [process.exitcode for process in loading if process.exitcode]
            silent = 0 < batches.timeout <= time.monotonic() - asked
            if not (killed or silent):
                raise
            why = silence(batches)
            if killed:
                why = f"ended with exit code {killed[0]}, perhaps for lack of memory"
            raise InputError(f"{given_up(loading, why)}, and run this again") from None
        yield batch
