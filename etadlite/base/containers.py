"""What Linux lets this process use: the limits of its container, or of its job on a cluster.

A limit belongs to a control group, which is a folder, and binds all groups in that folder. See
"Control Group v2" in Linux's documentation, and "memory.rst" and "sched-bwc.rst" for version 1.
"""

import os
from collections.abc import Iterator
from math import ceil, inf
from pathlib import Path, PurePosixPath

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Versions 2 and 1: a limit, what counts towards it, and what of that is given back where needed.
MEMORY_2 = "memory.max", "memory.current", "inactive_file"
MEMORY_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
CORES = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def memory_left() -> float:
    """Return the bytes that the limits of memory leave; infinity where there is none."""
    left = inf
    for limit, used, cached in (MEMORY_2, MEMORY_1):
        for texts in _read("memory", limit, used, "memory.stat"):
            stat = dict(map(str.split, texts[2].splitlines()))
            left = min(left, int(texts[0]) - int(texts[1]) + int(stat.get(cached, 0)))
    return max(left, 0)


def usable_cores() -> int:
    """Return how many cores this process may keep busy, at least 1."""
    allowed = getattr(os, "sched_getaffinity", None)  # only on Linux
    cores = float(len(allowed(0)) if allowed else os.cpu_count() or 1)
    for files in CORES:
        for texts in _read("cpu", *files):
            quota, period = map(int, " ".join(texts).split())
            cores = min(cores, quota / period if quota > 0 else inf)  # -1 in version 1: no limit
    return ceil(cores)


def _read(controller: str, *files: str) -> Iterator[list[str]]:
    """Yield the texts of these files for each limit that binds this process."""
    for line in OWN.read_text().splitlines() if OWN.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue  # version 2 has one line for all, which names none
        group = PurePosixPath(path)
        for folder in (group, *group.parents):
            paths = [ROOT / controllers / folder.relative_to("/") / file for file in files]
            texts = [path.read_text() for path in paths if path.exists()]
            if len(texts) == len(files) and not texts[0].startswith("max"):  # "max": no limit
                yield texts
