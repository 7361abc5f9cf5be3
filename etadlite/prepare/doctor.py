"""Is this machine ready? Versions, devices, decoders, disk: each OK, or what to do."""

import importlib.metadata
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from etadlite import __version__
from etadlite.data.video import Decoder, read_frames
from etadlite.stickfigures.dataset import write_video


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: its name.
        found: what is there.
        remedy: what to do; empty where all is well.
    """

    what: str
    found: str
    remedy: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Look at everything that a run on this machine, with its files in `folder`, depends on."""
    yield Finding("etadlite", __version__)
    python = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("Python", python, "install Python 3.11 or later" if old else "")
    for package in ("torch", "torchvision", "numpy", "av", "papermill", "jupyterlab"):
        yield _package(package)
    yield _device()
    for decoder in ("pyav", "decord"):
        yield _decoder(decoder)
    free = shutil.disk_usage(folder if folder.exists() else Path.cwd()).free / 2**30
    remedy = "free 3 GiB for generated videos and decoded frames" if free < 3 else ""
    yield Finding("disk", f"{free:.1f} GiB free", remedy)


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "absent", f"pip install {name}")


def _device() -> Finding:
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("device", f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Finding("device", "mps (Apple GPU)")
    return Finding("device", f"cpu, {torch.get_num_threads()} threads: enough for the course")


def _decoder(name: Decoder) -> Finding:
    """Write a small video and read it back; decord may be absent, PyAV must not."""
    if name == "decord":
        try:
            version = importlib.metadata.version("decord")
        except importlib.metadata.PackageNotFoundError:
            return Finding("decord", "absent; PyAV reads everything")
        return Finding("decord", version)
    grey = np.arange(8, dtype=np.uint8) * 30
    frames = np.broadcast_to(grey[:, None, None, None], (8, 64, 64, 3))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "probe.mp4"
            write_video(path, frames)
            back = read_frames(path, np.arange(8), (64, 64), name).float().mean(dim=(1, 2, 3))
    except Exception as error:  # whatever a broken installation raises is what we look for
        return Finding("PyAV", f"failed: {error}", "pip install --force-reinstall av")
    if float((back - torch.from_numpy(grey.astype("float32"))).abs().max()) > 8:
        return Finding("PyAV", "reads wrong frames", "pip install --force-reinstall av")
    return Finding("PyAV", "writes and reads H.264")
