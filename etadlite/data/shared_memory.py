"""The memory through which loading processes hand videos over."""

import os
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.config import DataSettings


def require_shared_memory(settings: DataSettings, batch_size: int) -> None:
    """Refuse videos that loading processes could not hand over, such as in a small container.

    Raises:
        InputError: the shared memory is too small; the sentence says how to enlarge it.
    """
    shared = Path("/dev/shm")
    if settings.features is not None or not shared.is_dir():
        return
    # Each process prepares two batches in advance, and one is in use.
    sample = settings.snippets * 3 * settings.frames * settings.crop**2
    room = os.statvfs(shared)
    needed, free = (2 * settings.workers + 1) * batch_size * sample, room.f_bavail * room.f_frsize
    if needed > free:
        raise InputError(
            f"data.workers={settings.workers} may need {needed / 2**20:,.0f} MiB of shared memory, "
            f"but /dev/shm has {free / 2**20:,.0f} MiB; set data.workers=0, or give it more, such "
            "as with docker run --shm-size=8g"
        )
