"""Reading the parity fixtures: weights are rebuilt from parameter names by the fixtures' rule."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch


def published_weights(shared: Path, keys_file: str) -> dict[str, torch.Tensor]:
    """The state dict that `keys_file` names."""
    spec = importlib.util.spec_from_file_location("fill", shared / "parity" / "fill.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    keys = json.loads((shared / "parity" / keys_file).read_text())
    return {name: torch.from_numpy(rule.fill(name, shape)) for name, shape in keys.items()}


def fixture(shared: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a fixture."""
    with np.load(shared / "parity" / name) as arrays:
        return dict(arrays)
