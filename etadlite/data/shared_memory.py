"""Processes that load videos: the memory through which they hand them over, and their silence."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from etadlite.base.errors import InputError
from etadlite.config import DataSettings


def require_shared_memory(settings: DataSettings, batch_size: int) -> None:
    """Refuse videos that a training could not hand over between processes; see `require_room`."""
    if settings.features is None:
        sample = settings.snippets * 3 * settings.frames * settings.crop**2
        require_room(settings.workers, batch_size * sample)


def require_room(workers: int, batch: int) -> None:
    """Refuse batches of some bytes that loading processes could not hand over.

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


def answered(batches: DataLoader) -> Iterator[Any]:
    """Yield what processes load; end them if none of them answers before the loader's time-out.

    Raises:
        InputError: none answered, or one was killed.
    """
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
            # Otherwise PyTorch's handler raises another error when they end.
            if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for process in loading:
                process.kill()  # one that was stopped would not end otherwise
            what = f"have not answered for {batches.timeout / 60:g} minutes"
            if killed:
                what = f"ended with exit code {killed[0]}, perhaps for lack of memory"
            raise InputError(
                f"the processes that load videos {what}; set data.workers=0, or "
                "training.patience_minutes higher if the disk is that slow, and run this again"
            ) from None
        yield batch
