"""What every benchmark's JSON says of the machine it ran on."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Device, threads and versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    names = ("etadlite", "torch", "torchvision", "numpy")
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_report(path: Path | None, found: dict[str, Any]) -> None:
    """Write what was found with the machine beside it; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine()} | found, indent=1) + "\n")
