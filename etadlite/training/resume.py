"""A training that goes on: its state is read, and compared with the settings and data of today."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights
from etadlite.config import Settings, flat
from etadlite.training.state import Progress, Training

MAY_DIFFER = (
    "device",
    "data.annotations",
    "data.videos",
    "data.features",
    "data.cache",
    "data.workers",
    "encoder.weights",
    "encoder.checkpointing",
    "encoder.chunk_size",
    "training.checkpoint_minutes",
    "training.max_unreadable",
    "training.memory",
    "training.patience_minutes",
    "training.test_every",
)
"""Settings that a resumed training may change: where things lie, and how, not what, is computed."""


def settled_settings(path: Path, settings: Settings) -> Settings:
    """Return the settings with the choices in place of `auto` that a saved state was trained with.

    Raises:
        InputError: the file is no state, or one of other settings; those that differ are named.
    """
    about = _metadata(path)
    refuse_other_settings(about["settings"], settings, path)
    settled = flat(about["settled"])
    return settings.changed(
        {name: settled[name] for name in ("encoder.channels_last", "training.precision")}
    )


def load_state(path: Path, training: Training) -> None:
    """Bring a training to a saved state.

    Raises:
        InputError: the file is no state, or one of other settings or data.
    """
    tensors, about = load_weights(path)[0], _metadata(path)
    if about["samples"] != training.samples:
        raise InputError(
            f"{path} was left by a training on {about['samples']} samples, but here are "
            f"{training.samples}; resume with the same annotations and files"
        )
    load_exactly(training.system, _below(tensors, "system."), str(path))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer.").items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.progress = Progress(**about["progress"])
    encoder, smaller = training.system.encoder, training.progress.chunk_size
    if smaller is not None and encoder is not None:
        encoder.chunk_size = min(encoder.chunk_size, smaller)


def bank_of_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what a saved state holds of a feature bank: rows, and what they depend on.

    Raises:
        InputError: the file is no state, or one without a bank.
    """
    about = _metadata(path).get("bank")
    if about is None:
        raise InputError(f"{path} holds no rows of a feature bank; start a new run")
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("bank.")]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}, about


def refuse_other_settings(theirs: Mapping[str, Any], settings: Settings, source: Path) -> None:
    """Raise an InputError that names the settings, with both values, if a run has others."""
    ours, before = flat(settings.model_dump(mode="json")), flat(theirs)
    # A setting that the older run does not know has its default there.
    different = [
        f"{name} is {before[name]} there and {value} here"
        for name, value in ours.items()
        if name in before and name not in MAY_DIFFER and before[name] != value
    ]
    if different:
        raise InputError(
            f"{source} is of a run with other settings: {'; '.join(different)}; give the same to "
            "resume it, or leave --resume out to start a new run"
        )


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
    except (OSError, SafetensorError, ValueError):
        metadata = {}
    if metadata.keys() >= {"settings", "settled", "samples", "progress"}:
        return metadata
    raise InputError(f"{path} is no state of a training that can be resumed")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with a prefix, by the rest of their name."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
