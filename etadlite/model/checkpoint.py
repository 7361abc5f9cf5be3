"""Checkpoints: the weights of a system and the settings that it was trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights, save_weights
from etadlite.config import Settings, flat, read_settings
from etadlite.model.system import System, require_room

TRAINED = ("train", "adapter_kind", "adapter_rank", "adapter_layers", "frozen_dtype")
TRAINED += ("frozen_stages",)
"""Settings of the encoder that say which of its weights a checkpoint holds."""


def save_checkpoint(path: Path, system: System, settings: Settings) -> None:
    """Write the weights of a system as safetensors, with the settings in the metadata.

    Where few of the encoder's parameters are trained, the others are left out; the metadata has
    their SHA-256.
    """
    metadata, base = {"settings": settings.model_dump_json()}, set()
    if settings.encoder.train != "all" and system.encoder is not None:
        from etadlite.model.base_weights import base_weights

        base, metadata["base"] = base_weights(system.encoder)
    save_weights(path, system, metadata, base)


def checkpoint_settings(path: Path) -> Settings:
    """Read the settings that a checkpoint was trained with.

    Raises:
        InputError: the file is missing, broken, or no checkpoint of a run.
    """
    return _settings_in(load_weights(path)[1], path)


def load_checkpoint(path: Path, settings: Settings) -> System:
    """Build the system of `settings` with the weights of a checkpoint.

    The checkpoint is one of a run, or a published one that `etadlite convert` has written. What few
    trained parameters stand beside is loaded from `encoder.weights`, and adapters are merged, so
    the system is for inference.

    Raises:
        InputError: the checkpoint belongs to another model; the differing settings, or else the
            differing weights, are named.
    """
    weights, metadata = load_weights(path)
    if "family" not in metadata:  # of a run, which keeps its settings
        run = _settings_in(metadata, path)
        ours, theirs = _model_settings(settings), _model_settings(run)
        different = [
            f"{name} is {theirs[name]} there and {ours[name]} here"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if different:
            raise InputError(f"{path} is a checkpoint of another config: {'; '.join(different)}")
        settings = settings.changed({f"encoder.{k}": getattr(run.encoder, k) for k in TRAINED})
    else:
        settings = settings.changed({"encoder.train": "all", "encoder.frozen_dtype": "fp32"})
    require_room(settings)
    system = System(settings, pretrained="base" in metadata)
    if "base" in metadata and system.encoder is not None:
        from etadlite.model.base_weights import load_beside_base

        load_beside_base(system, weights, metadata["base"], str(path))
    else:
        load_exactly(system, weights, str(path))
    return system


def _settings_in(metadata: Mapping[str, str], path: Path) -> Settings:
    if "settings" not in metadata:
        raise InputError(f"{path} holds weights but no settings: it is no checkpoint of a run")
    return read_settings(metadata["settings"], str(path))


def _model_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that the shapes of the weights depend on."""
    return {
        "encoder.name": "features" if settings.data.features else settings.encoder.name,
        **flat(settings.detector.model_dump(exclude={"precision"}), "detector."),
        "data.snippets": settings.data.snippets,
        "stages": len(settings.losses.stage_positive_iou),
    }
