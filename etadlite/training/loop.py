"""The training loop: from settings to a trained system, alone or with other processes."""

import errno
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from etadlite.base import distributed
from etadlite.base.devices import resolve_device
from etadlite.base.errors import InputError, StoppedError
from etadlite.base.files import disk_is_full
from etadlite.config import Settings, TrainingSettings
from etadlite.data.datasets import AnnotatedVideos, Batch, open_dataset
from etadlite.data.order import TrainingOrder
from etadlite.data.unreadable import Readable, collate_readable
from etadlite.model.system import System, save_checkpoint, settle_speed
from etadlite.training.activations import SavedActivations
from etadlite.training.bar import training_bar
from etadlite.training.interruption import Interruption, stopped_by
from etadlite.training.state import (
    STATE,
    Progress,
    Training,
    load_state,
    save_state,
    settled_settings,
)
from etadlite.training.step import step_in_memory

SKIPPED_IN_A_ROW = 10
"""So many steps without a finite loss and gradient end a training."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves, besides its files.

    Attributes:
        system: the trained system.
        peak_activation_bytes: the most that autograd held at once besides weights and the batch,
            measured in the third step, or the last of fewer.
        seconds_per_step: median, without the first steps; loading not included.
        videos_per_second: mean over all steps, with the time that they waited for videos.
        waiting_share: of that time, what was waiting.
        skipped_steps: steps without an update, as loss or gradient were not finite.
        unreadable: videos that could not be read, with the reason.
    """

    system: System
    peak_activation_bytes: int
    seconds_per_step: float
    videos_per_second: float
    waiting_share: float
    skipped_steps: int
    unreadable: dict[str, str]


def loader(data: AnnotatedVideos, settings: Settings, *, training: bool) -> DataLoader:
    """This process's batches of a data set: shuffled in training, in order in test.

    A test takes one video at a time: all of its proposals are many already, and memory that is used
    again and again is faster than memory that the system has to hand out.
    """
    if training:
        order = {
            "batch_sampler": TrainingOrder(len(data), settings.training.batch_size, settings.seed)
        }
    else:
        order = {"sampler": distributed.shard(range(len(data))), "batch_size": 1}
    return DataLoader(
        Readable(data),
        **order,
        collate_fn=collate_readable,
        num_workers=settings.data.workers,
        persistent_workers=training and settings.data.workers > 0,
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


def set_learning_rates(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, epoch: float
) -> None:
    """Give every group of `make_optimizer` its rate at a (fractional) epoch."""
    factor = learning_rate_factor(settings, epoch)
    rates = (settings.detector_lr, settings.encoder_lr)
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate * factor


def train(
    settings: Settings,
    *,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    after_epoch: Callable[[System, int], dict[str, Any] | None] = lambda system, epoch: None,
    folder: Path | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train the system that the settings describe, from its beginning.

    Args:
        settings: everything the training depends on.
        log: called with a record of every step.
        after_epoch: called with the system and the number of finished epochs; what it returns is
            logged too.
        folder: where weights and state are written after every epoch, and now and then between.
        progress: show a bar.

    Raises:
        InputError: the data or the settings cannot be used, or ten steps in a row were not finite.
        StoppedError: something ended the training from which it can go on.
    """
    training, data = prepare(settings)
    return run(training, data, log=log, after_epoch=after_epoch, folder=folder, progress=progress)


def prepare(settings: Settings, state: Path | None = None) -> tuple[Training, AnnotatedVideos]:
    """A training at its beginning, or where the one that left a state was, and its videos.

    Raises:
        InputError: the data, the settings or the state cannot be used.
    """
    device = resolve_device(settings.device)
    with distributed.raise_together():
        data = open_split(settings, training=True)
        settled = settings
        if state is not None:
            settled = settled_settings(state, settings)
        elif distributed.is_first():
            settled = settle_speed(settings, device)
    settled = distributed.broadcast(settled)
    with distributed.raise_together():
        torch.manual_seed(settings.seed)
        system = System(settled).to(device)
        optimizer = make_optimizer(system, settings.training)
        training = Training(settings, settled, system, optimizer, len(data), Progress())
        if state is not None:
            load_state(state, training)
            if _too_many(training, data):  # that ended it; they may have been repaired
                training.progress.failed = {}
    distributed.broadcast_weights(system)
    return training, data


def run(
    training: Training,
    data: AnnotatedVideos,
    *,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    after_epoch: Callable[[System, int], dict[str, Any] | None] = lambda system, epoch: None,
    folder: Path | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train from where the training is to its end; see `train`."""
    settings, system, at = training.settled, training.system, training.progress
    batches = loader(data, settings, training=True)
    length, epochs = len(batches), settings.training.epochs
    measured = min(at.steps + 2, epochs * length - 1)
    seconds: list[float] = []
    saved = time.monotonic()

    def note(record: dict[str, Any]) -> None:
        log(record)
        at.records += 1

    with (
        Interruption() as interruption,
        _state_left(training, folder),
        training_bar(epochs * length, at.steps, shown=progress and distributed.is_first()) as bar,
    ):
        while at.epoch < epochs:
            system.train()
            # 1. The videos of the next step: all processes go on, or all stop.
            asked = time.perf_counter()
            for batch in _next_batches(training, batches, data, interruption):
                # 2. The learning rates at the middle of the step, so that none is ever zero.
                middle = (at.steps + 0.5) / length
                set_learning_rates(training.optimizer, settings.training, middle)
                # 3. The step.
                started = time.perf_counter()
                at.waited += started - asked
                if at.steps == measured:
                    with SavedActivations(system, batch.inputs) as activations:
                        record = step_in_memory(training, batch)
                    at.peak_activation_bytes = activations.peak_bytes
                else:
                    record = step_in_memory(training, batch)
                seconds.append(time.perf_counter() - started)
                at.worked += seconds[-1]
                at.seconds_per_step = statistics.median(seconds[3:] or seconds)
                at.step += 1
                at.steps += 1
                # 4. What it gave.
                record = _checked(training, batch, record)
                note({"step": at.steps, "epoch": at.steps / length, **record})
                bar.set_postfix(loss=f"{record.get('loss', float('nan')):.2f}", refresh=False)
                bar.update()
                # 5. From here it can go on.
                if time.monotonic() - saved >= 60 * settings.training.checkpoint_minutes:
                    _save(training, folder)
                    saved = time.monotonic()
                asked = time.perf_counter()
            # 6. An epoch is over: its weights, and perhaps a test.
            _save(training, folder)
            if folder is not None and distributed.is_first():
                save_checkpoint(folder / "checkpoint.safetensors", system, training.settings)
            saved = time.monotonic()
            with interruption.at_once():
                tested = after_epoch(system, at.epoch + 1)
            if tested is not None:
                note({"step": at.steps, "epoch": at.epoch + 1, **tested})
            at.epoch, at.step = at.epoch + 1, 0
    taken = at.waited + at.worked
    return TrainingResult(
        system,
        at.peak_activation_bytes,
        at.seconds_per_step,
        at.steps * settings.training.batch_size / taken,
        at.waited / taken,
        at.skipped,
        dict(at.failed),
    )


def _next_batches(
    training: Training, batches: DataLoader, data: AnnotatedVideos, interruption: Interruption
) -> Iterator[Batch]:
    """The batches that are left of the present epoch.

    Raises:
        StoppedError: by a signal, or as the videos cannot be read; in all processes.
    """
    at = training.progress
    batches.batch_sampler.epoch, batches.batch_sampler.first_step = at.epoch, at.step
    remaining, left = iter(batches), len(batches) - at.step
    for _ in range(left):
        batch, lost = Batch([], torch.empty(0), [], [], [], [], []), ""
        try:
            batch = next(remaining)
        except (InputError, OSError, RuntimeError) as error:
            # One that a data loading process raised arrives wrapped in that process's traceback.
            lost = str(error).strip().rpartition("Error: ")[2] or repr(error)
            if not interruption.received and not isinstance(error, InputError):
                raise
        new = {name: why for name, why in batch.failed.items() if name not in at.failed}
        signal, some_lost, some_new = distributed.all_reduce_max(
            interruption.received, bool(lost), bool(new)
        )
        if signal:
            raise stopped_by(signal)
        if some_new:
            for found in distributed.all_gather(new):
                at.failed |= found
        if some_lost:
            raise _without_data(training, distributed.first_reason(lost))
        if _too_many(training, data):
            names = ", ".join(list(at.failed)[:10]) + (", ..." if len(at.failed) > 10 else "")
            name, reason = next(iter(at.failed.items()))
            raise _without_data(
                training,
                f"{len(at.failed)} of {len(data.videos)} training videos cannot be read, more "
                f"than training.max_unreadable allows: {names}; {name}: {reason}",
            )
        yield batch


def _too_many(training: Training, data: AnnotatedVideos) -> bool:
    """Whether more videos than may be cannot be read."""
    allowed = training.settings.training.max_unreadable * len(data.videos)
    return len(training.progress.failed) > allowed


def _without_data(training: Training, reason: str) -> InputError | StoppedError:
    """What ends a training whose videos cannot be read; one that began can go on later."""
    return StoppedError(reason, 2) if training.progress.steps else InputError(reason)


def _checked(training: Training, batch: Batch, record: dict[str, float]) -> dict[str, Any]:
    """The record of a step; one that was not finite is counted.

    Raises:
        InputError: it was the tenth in a row.
    """
    at = training.progress
    if all(map(isfinite, record.values())):
        at.suspects = []
        return record
    at.skipped += 1
    names = [name for part in distributed.all_gather(batch.names) for name in part]
    at.suspects = [*at.suspects, names]
    if len(at.suspects) == SKIPPED_IN_A_ROW:
        videos = ", ".join(dict.fromkeys(name for names in at.suspects for name in names))
        raise InputError(
            f"loss or gradient of {SKIPPED_IN_A_ROW} steps in a row were not finite, with the "
            f"videos {videos}; lower training.detector_lr and training.encoder_lr, set "
            "training.clip_norm, or check these videos"
        )
    return {"skipped": at.skipped, "videos": names}


def _save(training: Training, folder: Path | None) -> None:
    if folder is not None and distributed.is_first():
        save_state(folder / STATE, training)


@contextmanager
def _state_left(training: Training, folder: Path | None) -> Iterator[None]:
    """What stops the training between two updates leaves a state, where one can be written."""
    keep, lost = True, False
    try:
        yield
        return
    except StoppedError as error:
        reason, code, cause = str(error), error.code, error
    except distributed.LostProcessError as error:
        reason, code, cause, lost = "another process of this training was lost", 1, error, True
    except OSError as error:
        where = error.filename or folder
        if disk_is_full(error):
            reason = f"the disk of {where} is full"
        elif error.errno in (errno.EIO, errno.ESTALE, errno.EROFS):
            reason = f"{where} cannot be written any more ({error.strerror})"
        else:
            raise
        code, cause = 1, error
        keep = False  # perhaps the last record is lost, so its step is done again
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        # PyTorch says so wherever the step happens to be, perhaps between two of its updates.
        reason = f"a process that loads videos died ({str(error).strip().splitlines()[0]})"
        code, cause, keep = 1, error, False
    if folder is None:
        raise StoppedError(reason, code, everywhere=lost) from cause
    if keep and distributed.is_first():
        try:
            _save(training, folder)
        except OSError as error:
            reason += f", and its state cannot be saved ({error.strerror})"
    where = "its last saved step" if (folder / STATE).exists() else "its beginning"
    raise StoppedError(
        f"{reason}; {folder} goes on from {where}", code, folder, everywhere=lost
    ) from cause
