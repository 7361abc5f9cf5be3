"""The training loop: from settings to a run directory."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from etadlite.config import Settings, TrainingSettings
from etadlite.data.datasets import AnnotatedVideos, Batch, collate, open_dataset
from etadlite.draws import Draws
from etadlite.memory import SavedActivations
from etadlite.training.losses import detection_loss
from etadlite.training.system import System, resolve_device, save_checkpoint
from etadlite.training.targets import make_targets


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves, besides its files.

    Attributes:
        system: the trained system.
        peak_activation_bytes: the most that autograd held at once besides weights and the batch,
            measured in the third step, or the last of fewer.
        seconds_per_step: median, without the first steps; loading not included.
    """

    system: System
    peak_activation_bytes: int
    seconds_per_step: float


def loader(data: AnnotatedVideos, settings: Settings, *, training: bool) -> DataLoader:
    """Batches of a data set: shuffled in training, in order in test."""
    order = torch.Generator().manual_seed(settings.seed)
    return DataLoader(
        data,
        batch_size=settings.training.batch_size,
        shuffle=training,
        collate_fn=collate,
        num_workers=settings.data.workers,
        generator=order,
        persistent_workers=settings.data.workers > 0,
    )


def open_split(settings: Settings, *, training: bool) -> AnnotatedVideos:
    """The training or the test videos of the settings."""
    detector = settings.detector
    return open_dataset(settings.data, detector.classes, detector.in_channels, training=training)


def learning_rate_factor(settings: TrainingSettings, epoch: float) -> float:
    """By how much the rates are multiplied at a (fractional) epoch."""
    if epoch < settings.warmup_epochs:
        return epoch / settings.warmup_epochs
    if settings.schedule == "step":
        return 0.1 if epoch >= settings.step_epoch else 1.0
    share = (epoch - settings.warmup_epochs) / (settings.epochs - settings.warmup_epochs)
    return (1 + cos(pi * share)) / 2


def make_optimizer(system: System, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser with one group for the detector and one for what is trained of the encoder."""
    groups = [{"params": list(system.detector.parameters()), "lr": settings.detector_lr}]
    if system.encoder is not None and system.encoder.ratio > 0:
        trained = [p for p in system.encoder.parameters() if p.requires_grad]
        groups.append({"params": trained, "lr": settings.encoder_lr})
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer]
    return kind(groups, weight_decay=settings.weight_decay)


def train_step(
    system: System, batch: Batch, optimizer: torch.optim.Optimizer, settings: Settings
) -> dict[str, float]:
    """One step: sampled proposals, loss, the gradient of sampled snippets, update.

    Returns:
        The loss's parts, their sum as `loss`, and the gradient's norm before clipping.
    """
    device = system.proposals.device
    draws = Draws(batch.seeds, device)
    actions = [actions.to(device) for actions in batch.actions]
    proposals = system.sample_proposals(draws, actions)
    output = system(batch.inputs, proposals, draws, actions)
    targets = make_targets(
        actions,
        [labels.to(device) for labels in batch.labels],
        proposals,
        settings.data.snippets,
        len(settings.detector.classes),
    )
    parts = detection_loss(output, targets, settings.losses)
    loss = torch.stack(list(parts.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    limit = settings.training.clip_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(system.parameters(), limit)
    optimizer.step()
    values = parts | {"loss": loss, "gradient_norm": norm}
    return {name: float(value.detach()) for name, value in values.items()}


def train(
    settings: Settings,
    *,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    after_epoch: Callable[[System, int], None] = lambda system, epoch: None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train the system that the settings describe.

    Args:
        settings: everything the training depends on.
        log: called with a record of every step.
        after_epoch: called with the system and the number of finished epochs.
        checkpoint: where the weights are written after every epoch.
        progress: show a bar.

    Raises:
        InputError: the data or the settings cannot be used.
    """
    torch.manual_seed(settings.seed)
    device = resolve_device(settings.device)
    batches = loader(open_split(settings, training=True), settings, training=True)
    system = System(settings).to(device)
    optimizer = make_optimizer(system, settings.training)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    total = settings.training.epochs * len(batches)
    steps, peak, seconds = 0, 0, []
    with tqdm(total=total, desc="train", unit="step", disable=not progress) as bar:
        for epoch in range(settings.training.epochs):
            system.train()
            for batch in batches:
                middle = (steps + 0.5) / len(batches)  # so that no step has a rate of 0
                factor = learning_rate_factor(settings.training, middle)
                for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                    group["lr"] = rate * factor
                started = time.perf_counter()
                if steps == min(2, total - 1):
                    with SavedActivations(system, batch.inputs) as saved:
                        record = train_step(system, batch, optimizer, settings)
                    peak = saved.peak_bytes
                else:
                    record = train_step(system, batch, optimizer, settings)
                seconds.append(time.perf_counter() - started)
                steps += 1
                log({"step": steps, "epoch": steps / len(batches), **record})
                bar.set_postfix(loss=f"{record['loss']:.2f}")
                bar.update()
            if checkpoint is not None:
                save_checkpoint(checkpoint, system, settings)
            after_epoch(system, epoch + 1)
    return TrainingResult(system, peak, statistics.median(seconds[3:] or seconds))
