"""The state of a training on disk: all that it takes to go on as if it had never stopped.

Random states are not part of it: every draw follows from the run's seed and the position in the
training, see `etadlite.base.draws` and `etadlite.data.loading`.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from etadlite.base.files import written_whole
from etadlite.config import Settings
from etadlite.model.system import System

STATE = "state.safetensors"
BANK_FILES = BANK, ABOUT = "bank.npy", "bank.json"  # beside the state, see `etadlite.training.bank`


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
    resumed: Path | None = None  # the state that it goes on from
    bank: Any = None  # a `FeatureBank`, where `sampling.others` says so
    explain: Callable[[Settings, Sequence[int]], str] = lambda settings, chunks: ""

    @property
    def videos_per_second(self) -> float:
        """The speed so far, including the time that steps waited for their videos."""
        at = self.progress
        return at.steps * self.settings.training.batch_size / (at.waited + at.worked)


def save_state(path: Path, training: Training) -> None:
    """Write the state, whole or not at all; it is on the disk when this returns.

    The state also has the rows of a feature bank that changed since the last one. Once it is
    written, they are written to the bank's file, too.

    Raises:
        OSError: it cannot be written; an older state is still there.
    """
    tensors = {f"system.{name}": value for name, value in training.system.state_dict().items()}
    for index, values in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    bank, changes = training.bank, {}
    if bank is not None:
        changes = bank.changes()
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "progress": asdict(training.progress),
        "samples": training.samples,
        "settled": training.settled.model_dump(mode="json"),
        "settings": training.settings.model_dump(mode="json"),
    }
    if bank is not None:
        about["bank"] = bank.about
    metadata = {name: json.dumps(value) for name, value in about.items()}
    with written_whole(path) as draft:
        try:
            save_file(tensors | changes, draft, metadata)
        except SafetensorError as error:  # a failed write has no class of its own there
            raise OSError(str(error)) from error
        with draft.open("rb") as file:
            os.fsync(file.fileno())
    if bank is not None:
        bank.write(changes)
