"""Checkpoints: the weights of a system and the settings that it was trained with."""

from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly, load_weights, save_weights
from etadlite.config import Settings, flat, read_settings
from etadlite.model.system import System, require_room


def save_checkpoint(path: Path, system: System, settings: Settings) -> None:
    """Write the weights of a system as safetensors, with the settings in the metadata."""
    save_weights(path, system, {"settings": settings.model_dump_json()})


def checkpoint_settings(path: Path) -> Settings:
    """Read the settings that a checkpoint was trained with.

    Raises:
        InputError: the file is missing, broken, or no checkpoint of a run.
    """
    _, metadata = load_weights(path)
    if "settings" not in metadata:
        raise InputError(f"{path} holds weights but no settings: it is no checkpoint of a run")
    return read_settings(metadata["settings"], str(path))


def load_checkpoint(path: Path, settings: Settings) -> System:
    """Build the system of `settings` with the weights of a checkpoint.

    The checkpoint is one of a run, or a published one that `etadlite convert` has written.

    Raises:
        InputError: the checkpoint belongs to another model; the differing settings, or else the
            differing weights, are named.
    """
    weights, metadata = load_weights(path)
    if "family" not in metadata:  # of a run, which keeps its settings
        ours, theirs = _model_settings(settings), _model_settings(checkpoint_settings(path))
        different = [
            f"{name} is {theirs[name]} there and {ours[name]} here"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if different:
            raise InputError(f"{path} is a checkpoint of another config: {'; '.join(different)}")
    require_room(settings)
    system = System(settings, pretrained=False)
    load_exactly(system, weights, str(path))
    return system


def _model_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that the shapes of the weights depend on."""
    return {
        "encoder.name": "features" if settings.data.features else settings.encoder.name,
        **flat(settings.detector.model_dump(exclude={"precision"}), "detector."),
        "data.snippets": settings.data.snippets,
        "stages": len(settings.losses.stage_positive_iou),
    }
