"""Is this machine ready? Versions, device, memory, decoders and disk, with remedies if needed."""

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
from etadlite.base.devices import free_memory, use_allowed_cores
from etadlite.base.gpu import gpus
from etadlite.data.video import read_frames
from etadlite.stickfigures.dataset import write_video

REINSTALL = "pip install --force-reinstall av"


class Diagnosis(NamedTuple):
    """The state of one thing that a run depends on; `remedy` is empty if all is well."""

    what: str
    found: str
    remedy: str = ""


def examine(folder: Path) -> Iterator[Diagnosis]:
    """Yield the state of all that a run on this machine, with its files in `folder`, depends on."""
    yield Diagnosis("etadlite", __version__)
    remedy = "install Python 3.11 or later" if sys.version_info < (3, 11) else ""
    yield Diagnosis("Python", platform.python_version(), remedy)
    for package in ("torch", "torchvision", "numpy", "av", "papermill", "jupyterlab"):
        version = _version(package)
        yield Diagnosis(package, version or "absent", "" if version else f"pip install {package}")
    yield Diagnosis("device", _device())
    free = free_memory() / 2**30
    remedy = "a notebook needs 1 GiB: close programs, or raise the container's limit"
    yield Diagnosis("memory", f"{free:.1f} GiB free", remedy if free < 1 else "")
    yield _pyav()
    for other in ("decord", "torchcodec"):
        yield Diagnosis(other, _version(other) or "absent; PyAV reads everything")
    free = shutil.disk_usage(folder if folder.exists() else Path.cwd()).free / 2**30
    remedy = "free 3 GiB for generated videos and decoded frames" if free < 3 else ""
    yield Diagnosis("disk", f"{free:.1f} GiB free", remedy)


def _version(package: str) -> str:
    """Return the version of an installed package, or an empty text."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _device() -> str:
    if gpus():
        from etadlite.base.gpu import describe_gpu

        return f"cuda: {describe_gpu()}"
    if torch.backends.mps.is_available():
        return "mps (Apple GPU)"
    use_allowed_cores()
    return f"cpu (threads: {torch.get_num_threads()}): enough for the course"


def _pyav() -> Diagnosis:
    """Write a small video and read it back."""
    grey = np.arange(8, dtype=np.uint8) * 30
    frames = np.broadcast_to(grey[:, None, None, None], (8, 64, 64, 3))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "probe.mp4"
            write_video(path, frames)
            back = read_frames(path, np.arange(8), (64, 64)).float().mean(dim=(1, 2, 3))
    except Exception as error:  # a broken installation may raise anything
        return Diagnosis("PyAV", f"failed: {error}", REINSTALL)
    if np.abs(back.numpy() - grey).max() > 8:
        return Diagnosis("PyAV", "reads wrong frames", REINSTALL)
    return Diagnosis("PyAV", "writes and reads H.264")
