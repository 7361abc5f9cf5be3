"""The state of a training on disk: all it takes to go on as if it had never stopped.

Random states are not part of it: every draw follows from the run's seed and the position in the
training, see `etadlite.base.draws` and `etadlite.data.order`.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole
from etadlite.base.weights import load_exactly, load_weights
from etadlite.config import Settings, read_settings
from etadlite.model.system import System

STATE = "state.safetensors"

MAY_DIFFER = (
    "device",
    "data.annotations",
    "data.videos",
    "data.features",
    "data.cache",
    "data.workers",
    "encoder.weights",
    "encoder.chunk_size",
    "training.checkpoint_minutes",
    "training.max_unreadable",
    "training.memory",
    "training.patience_minutes",
    "training.test_every",
)
"""Settings that a resumed training may change: where things lie, and how, not what, is computed."""


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: finished epochs; one counts as finished once its test is.
        step: finished steps of the present epoch.
        steps: finished steps of all epochs.
        records: lines of the run's metrics.
        skipped: steps without an update, as loss or gradient were not finite.
        suspects: the videos of such steps in a row up to now, a list a step.
        failed: videos that could not be read, with the reason.
        chunk_size: snippets encoded at once, where memory ran out with more.
        peak_activation_bytes: see `etadlite.training.loop.TrainingResult`.
        seconds_per_step: likewise.
        waited: seconds in which steps waited for their videos.
        worked: seconds that the steps took.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    records: int = 0
    skipped: int = 0
    suspects: list[list[str]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    chunk_size: int | None = None
    peak_activation_bytes: int = 0
    seconds_per_step: float = 0.0
    waited: float = 0.0
    worked: float = 0.0


@dataclass
class Training:
    """All that changes while a training runs, and the settings it follows from.

    Attributes:
        settings: as asked for.
        settled: the same, with what `auto` was found to stand for.
        system: what is trained.
        optimizer: what trains it.
        samples: number of samples of an epoch.
        progress: how far it is.
        explain: what is known of the memory of a step with each of some numbers of snippets at
            once, said where memory runs out; whoever starts a training may know it.
    """

    settings: Settings
    settled: Settings
    system: System
    optimizer: torch.optim.Optimizer
    samples: int
    progress: Progress
    explain: Callable[[Settings, Sequence[int]], str] = lambda settings, chunks: ""


def save_state(path: Path, training: Training) -> None:
    """Write the state, whole or not at all; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written; the state that was there still is.
    """
    tensors = {f"system.{name}": value for name, value in training.system.state_dict().items()}
    for index, values in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "progress": asdict(training.progress),
        "samples": training.samples,
        "settled": training.settled.model_dump(mode="json"),
    }
    metadata = {"settings": training.settings.model_dump_json()}
    metadata |= {name: json.dumps(value) for name, value in about.items()}
    with written_whole(path) as draft:
        try:
            save_file(tensors, draft, metadata)
        except SafetensorError as error:  # so it says that the disk is full, or gone
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code)) from error
        with draft.open("rb") as file:
            os.fsync(file.fileno())


def settled_settings(path: Path, settings: Settings) -> Settings:
    """What `auto` was found to stand for in the run that left a state, in these settings.

    Raises:
        InputError: the file is no state, or one of other settings; those that differ are named.
    """
    about = _metadata(path)
    refuse_other_settings(json.loads(about["settings"]), settings, path)
    settled = read_settings(json.loads(about["settled"]), str(path))
    encoder = {"channels_last": settled.encoder.channels_last}
    training = {"precision": settled.training.precision}
    return settings.model_copy(
        update={
            "encoder": settings.encoder.model_copy(update=encoder),
            "training": settings.training.model_copy(update=training),
        }
    )


def load_state(path: Path, training: Training) -> None:
    """Put a training where the one that left a state was.

    Raises:
        InputError: the file is no state, or one of other settings or data.
    """
    tensors, about = load_weights(path)[0], _metadata(path)
    if int(about["samples"]) != training.samples:
        raise InputError(
            f"{path} was left by a training on {about['samples']} samples, but here are "
            f"{training.samples}; resume with the same annotations and files"
        )
    load_exactly(training.system, _below(tensors, "system"), str(path))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer").items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.progress = Progress(**json.loads(about["progress"]))
    smaller = training.progress.chunk_size
    if smaller is not None and training.system.encoder is not None:
        encoder = training.system.encoder
        encoder.chunk_size = min(encoder.chunk_size, smaller)


def refuse_other_settings(theirs: Mapping[str, Any], settings: Settings, source: Path) -> None:
    """Refuse to resume a run of other settings.

    Raises:
        InputError: naming those that differ, with both values.
    """
    ours, before = _flat(settings.model_dump(mode="json")), _flat(theirs)
    # A setting that is younger than the run has its default there.
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


def _metadata(path: Path) -> dict[str, str]:
    """What stands beside the tensors."""
    load = "settings", "settled", "samples", "progress"
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except Exception:
            metadata = {}
        if set(load) <= set(metadata):
            return metadata
    raise InputError(f"{path} is no state of a training that can be resumed")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with a prefix, by the rest of their name."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as `section.key` -> value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
