"""One step of a training, over the videos of all processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite
from typing import TYPE_CHECKING

import torch
from torch import nn

from etadlite.base import distributed
from etadlite.base.devices import is_out_of_memory
from etadlite.base.draws import Draws, video_seed
from etadlite.base.errors import first_line
from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.model.sequential_encoder import Recalled
from etadlite.model.system import System
from etadlite.training.losses import detection_loss
from etadlite.training.state import Training
from etadlite.training.targets import Targets, make_targets

if TYPE_CHECKING:
    from etadlite.training.bank import FeatureBank


class StepOutOfMemoryError(RuntimeError):
    """Memory ran out in a step, in this or in another process; nothing was updated."""


def train_step(
    system: System,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    bank: "FeatureBank | None" = None,
) -> dict[str, float]:
    """Do one step over the videos of all processes; a step that is not finite updates nothing.

    The batch holds this process's videos, maybe none. The features of snippets that carry no
    gradient come from the bank, if there is one. The result has the parts of the loss, their sum as
    `loss`, `gradient_norm` before clipping, and how stale the bank's features were.

    Raises:
        StepOutOfMemoryError: memory ran out in one of the processes.
    """
    draws = Draws(batch.seeds, system.proposals.device)
    recalled = None if bank is None else bank.recall(batch.indices)
    # 1. The detector's output for sampled proposals, and its targets.
    with _out_of_memory_together():
        output, targets = scored(system, batch, draws, settings, recalled)
        if bank is not None and recalled is not None:
            bank.require_read(batch.rows, recalled)
    # 2. The loss and its gradient; the encoder's gradient comes from sampled snippets.
    with _out_of_memory_together():
        parts = detection_loss(output, targets, settings.losses, draws)
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
    # 3. Both are summed over the videos of all processes.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    distributed.all_reduce_gradients(parameters)
    values = distributed.all_reduce_sum(torch.stack([*parts.values(), loss]).detach())
    # 4. The update.
    norm = nn.utils.clip_grad_norm_(parameters, settings.training.clip_norm or inf)
    record = dict(zip((*parts, "loss"), values.tolist(), strict=True))
    record["gradient_norm"] = float(norm)
    if all(map(isfinite, record.values())):
        # Processes may be lost where they meet, so all do before anything is changed.
        if bank is not None and recalled is not None:
            record |= bank.collect(batch.indices, recalled)
        optimizer.step()
        if bank is not None:
            bank.refresh()
    return record


def scored(
    system: System,
    batch: Batch,
    draws: Draws,
    settings: Settings,
    recalled: Recalled | None = None,
) -> tuple[DetectorOutput, Targets]:
    """Return the system's output for sampled proposals of a batch, and its targets."""
    if not batch.names:
        return _of_no_video(system, settings)
    device = system.proposals.device
    actions = [actions.to(device) for actions in batch.actions]
    labels = [labels.to(device) for labels in batch.labels]
    proposals = system.sample_proposals(draws, actions)
    output = system(batch.inputs, proposals, draws, actions, recalled)
    cells, classes = settings.data.snippets, len(settings.detector.classes)
    return output, make_targets(actions, labels, proposals, cells, classes)


@torch.no_grad()
def _of_no_video(system: System, settings: Settings) -> tuple[DetectorOutput, Targets]:
    """Return empty output and targets, for a process that has no video in a step."""
    device, cells = system.proposals.device, settings.data.snippets
    proposals = system.proposals[None, :1]
    features = torch.zeros(1, settings.detector.in_channels, cells, device=device)
    output = system.detector(features, proposals)
    stages = [StageOutput(*(part[:0] for part in stage)) for stage in output.stages]
    classes = None if output.classes is None else output.classes[:0]
    none = torch.zeros(0, cells, dtype=torch.long, device=device)
    targets = Targets(output.boundaries[:0], proposals[:0], none)
    return DetectorOutput(output.boundaries[:0], stages, classes), targets


@contextmanager
def _out_of_memory_together() -> Iterator[None]:
    """When memory runs out in one process, raise the same error in all of them."""
    reason = ""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    if reason := distributed.first_reason(reason):
        # The first error is not its cause: that would hold on to the step's tensors.
        raise StepOutOfMemoryError(reason)


def step_in_memory(training: Training, batch: Batch) -> dict[str, float]:
    """Do a step; where memory runs out, repeat it with half as many snippets encoded at once.

    Raises:
        InputError: memory does not suffice for one snippet at a time either.
    """
    at, settings = training.progress, training.settled
    while True:
        # What draws from torch's global state, as dropout does, draws the same when resumed.
        torch.manual_seed(video_seed(settings.seed, at.epoch, at.step, 1 + distributed.rank()))
        try:
            return train_step(training.system, batch, training.optimizer, settings, training.bank)
        except StepOutOfMemoryError as error:
            reason = str(error)
        from etadlite.training.stopping import encode_fewer_at_once  # few trainings need it

        encode_fewer_at_once(training, reason)
