"""One step of a training, over the videos of all processes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite

import torch
from torch import nn

from etadlite.base import distributed
from etadlite.base.draws import Draws, video_seed
from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.model.system import System
from etadlite.training.losses import detection_loss
from etadlite.training.state import Training
from etadlite.training.targets import Targets, make_targets


class OutOfMemoryError(RuntimeError):
    """Memory ran out in a step, here or in another process."""


def train_step(
    system: System, batch: Batch, optimizer: torch.optim.Optimizer, settings: Settings
) -> dict[str, float]:
    """One step over the videos of all processes; without an update if it is not finite.

    Args:
        system: what is trained.
        batch: this process's videos, maybe none.
        optimizer: of its parameters.
        settings: weights of the losses, and the clipping of the gradient.

    Returns:
        The loss's parts, their sum as `loss`, and the gradient's norm before clipping.

    Raises:
        OutOfMemoryError: in one of the processes; nothing was updated.
    """
    draws = Draws(batch.seeds, system.proposals.device)
    # 1. What the detector says of sampled proposals, and what it should say.
    with _out_of_memory_together():
        output, targets = scored(system, batch, draws, settings)
    # 2. The loss, and its gradient; the encoder's comes from sampled snippets.
    with _out_of_memory_together():
        parts = detection_loss(output, targets, settings.losses, draws)
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
    # 3. Both over the videos of all processes.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    distributed.all_reduce_gradients(parameters)
    values = distributed.all_reduce_sum(torch.stack([*parts.values(), loss]).detach())
    # 4. The update.
    norm = nn.utils.clip_grad_norm_(parameters, settings.training.clip_norm or inf)
    record = dict(
        zip((*parts, "loss", "gradient_norm"), [*values.tolist(), float(norm)], strict=True)
    )
    if all(map(isfinite, record.values())):
        optimizer.step()
    return record


def scored(
    system: System, batch: Batch, draws: Draws, settings: Settings
) -> tuple[DetectorOutput, Targets]:
    """What the system says of sampled proposals of a batch, and what it should say."""
    if not batch.names:
        return _nothing(system, settings)
    device = system.proposals.device
    actions = [actions.to(device) for actions in batch.actions]
    labels = [labels.to(device) for labels in batch.labels]
    proposals = system.sample_proposals(draws, actions)
    output = system(batch.inputs, proposals, draws, actions)
    cells, classes = settings.data.snippets, len(settings.detector.classes)
    return output, make_targets(actions, labels, proposals, cells, classes)


@torch.no_grad()
def _nothing(system: System, settings: Settings) -> tuple[DetectorOutput, Targets]:
    """Output and targets of no video, for a process that has no share of a step."""
    device, cells = system.proposals.device, settings.data.snippets
    proposals = system.proposals[None, :1]
    features = torch.zeros(1, settings.detector.in_channels, cells, device=device)
    output = system.detector(features, proposals)
    stages = [StageOutput(*(part[:0] for part in stage)) for stage in output.stages]
    classes = None if output.classes is None else output.classes[:0]
    none = torch.zeros(0, cells, dtype=torch.long, device=device)
    targets = Targets(output.boundaries[:0], proposals[:0], none)
    return DetectorOutput(output.boundaries[:0], stages, classes), targets


def shortage(error: RuntimeError) -> str:
    """What PyTorch says of memory that ran out; empty of any other error."""
    if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
        return ""
    return str(error).strip().splitlines()[0]


@contextmanager
def _out_of_memory_together() -> Iterator[None]:
    """When memory runs out in one process, all of them raise the same error."""
    reason = ""
    try:
        yield
    except RuntimeError as error:
        reason = shortage(error)
        if not reason:
            raise
    if reason := distributed.first_reason(reason):
        raise OutOfMemoryError(reason)  # not from the other, which holds on to the step's tensors


def step_in_memory(training: Training, batch: Batch) -> dict[str, float]:
    """A step; where memory runs out, the same with half as many snippets encoded at once.

    Raises:
        InputError: memory does not suffice for one snippet at once either.
    """
    at, settings, encoder = training.progress, training.settled, training.system.encoder
    while True:
        # Whatever draws from torch's own state draws the same in a resumed training.
        place = (settings.seed, at.epoch, at.step, 1 + distributed.rank())
        torch.manual_seed(video_seed(*place))
        try:
            return train_step(training.system, batch, training.optimizer, settings)
        except OutOfMemoryError as error:
            reason = str(error)
        training.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if encoder is None or encoder.chunk_size == 1:
            planned = training.explain(settings, (1,))
            raise InputError(_too_little(settings, reason, planned))
        tried, at.chunk_size = encoder.chunk_size, encoder.chunk_size // 2
        encoder.chunk_size = at.chunk_size
        if distributed.is_first():
            planned = training.explain(settings, (tried, at.chunk_size))
            warnings.warn(
                f"memory ran out with {tried} snippets encoded at once ({reason}{planned}); the "
                f"step is repeated, and the training goes on, with {at.chunk_size}",
                stacklevel=2,
            )


def _too_little(settings: Settings, reason: str, planned: str) -> str:
    """What to do where memory does not suffice."""
    names = ["training.batch_size", "sampling.proposal_ratio", "data.snippets"]
    if settings.data.features is None:
        names += ["sampling.snippet_ratio", "data.crop"]
    tree = settings.model_dump(mode="json")
    values = [f"{name} ({tree[name.split('.')[0]][name.split('.')[1]]})" for name in names]
    return (
        f"memory does not suffice for a training step ({reason}{planned}); lower one of "
        f"{', '.join(values)}; `etadlite plan` says what fits"
    )
