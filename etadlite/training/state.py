"""The state of a training on disk: all that it takes to go on as if it had never stopped.

Random states are not part of it: every draw follows from the run's seed and the position in the
training, see `etadlite.base.draws` and `etadlite.data.loading`.
"""

import json
import os
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
from etadlite.config import Settings, flat
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

    The peak of activations, besides weights and the batch, is measured in the third step, or in the
    last if there are fewer.
    """

    epoch: int = 0  # finished epochs; an epoch is finished once its test is
    step: int = 0  # finished steps of the present epoch
    steps: int = 0  # finished steps of all epochs
    records: int = 0  # lines of the run's metrics
    skipped: int = 0  # steps without an update, because loss or gradient were not finite
    suspects: list[list[str]] = field(default_factory=list)  # videos of the latest such steps
    failed: dict[str, str] = field(default_factory=dict)  # unreadable videos -> the reason
    chunk_size: int | None = None  # snippets encoded at once since memory ran out
    peak_activation_bytes: int = 0
    seconds_per_step: float = 0.0  # median, without the first steps and without loading
    waited: float = 0.0  # seconds in which steps waited for their videos
    worked: float = 0.0  # seconds that the steps took

    @property
    def waiting_share(self) -> float:
        """The share of the time so far in which steps waited for their videos."""
        return self.waited / (self.waited + self.worked)


@dataclass
class Training:
    """A training: the settings that it follows from, and all that changes while it runs.

    `explain` is called where memory runs out, with the settings and numbers of snippets that are
    encoded at once; it returns what is known of the memory that they need, in words.
    """

    settings: Settings  # as asked for
    settled: Settings  # the same with the fastest choice in place of `auto`
    system: System
    optimizer: torch.optim.Optimizer
    samples: int  # of an epoch
    progress: Progress
    explain: Callable[[Settings, Sequence[int]], str] = lambda settings, chunks: ""

    @property
    def videos_per_second(self) -> float:
        """The speed so far, including the time that steps waited for their videos."""
        at = self.progress
        return at.steps * self.settings.training.batch_size / (at.waited + at.worked)


def save_state(path: Path, training: Training) -> None:
    """Write the state, whole or not at all; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written; an older state is still there.
    """
    tensors = {f"system.{name}": value for name, value in training.system.state_dict().items()}
    for index, values in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "progress": asdict(training.progress),
        "samples": training.samples,
        "settled": training.settled.model_dump(mode="json"),
        "settings": training.settings.model_dump(mode="json"),
    }
    metadata = {name: json.dumps(value) for name, value in about.items()}
    with written_whole(path) as draft:
        try:
            save_file(tensors, draft, metadata)
        except SafetensorError as error:  # a failed write has no class of its own there
            raise OSError(str(error)) from error
        with draft.open("rb") as file:
            os.fsync(file.fileno())


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
