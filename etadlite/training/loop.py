"""The training loop: from settings to a trained system, alone or with other processes."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import cos, isfinite, pi
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader

from etadlite.base import distributed
from etadlite.base.devices import resolve_device
from etadlite.base.errors import InputError, StoppedError
from etadlite.config import Settings, TrainingSettings
from etadlite.data import loading
from etadlite.data.datasets import AnnotatedVideos, Batch, collate
from etadlite.encoders.build import settle_speed
from etadlite.model.checkpoint import save_checkpoint
from etadlite.model.system import System, require_room
from etadlite.training.activations import SavedActivations
from etadlite.training.bar import training_bar
from etadlite.training.interruption import Interruption, stopped_by
from etadlite.training.state import STATE, Progress, Training, save_state
from etadlite.training.step import step_in_memory

SKIPPED_IN_A_ROW = 10  # so many steps without a finite loss and gradient end a training

_LOADING: WeakSet[BaseProcess] = WeakSet()  # the processes that load videos


class _Loader(DataLoader):
    """A DataLoader that notes its processes, so that a dead one is known by its exit code."""

    def __iter__(self) -> Any:
        loading.watch_processes()
        others = set(multiprocessing.active_children())
        batches = super().__iter__()
        _LOADING.update(set(multiprocessing.active_children()) - others)
        return loading.raise_errors(batches)


def loader(data: AnnotatedVideos, settings: Settings, *, training: bool) -> DataLoader:
    """Return this process's batches of a data set: shuffled in training, in order in a test.

    A test takes one video at a time: its proposals are many already, and memory that is used again
    is faster than memory that the system has to provide.
    """
    if training:
        steps = loading.TrainingOrder(len(data), settings.training.batch_size, settings.seed)
        order: dict[str, Any] = {"batch_sampler": steps}
    else:
        order = {"sampler": distributed.shard(range(len(data))), "batch_size": 1}
    return _Loader(
        loading.Readable(data),
        **order,
        collate_fn=loading.collate_readable,
        num_workers=settings.data.workers,
        persistent_workers=training and settings.data.workers > 0,
        timeout=60 * settings.training.patience_minutes if settings.data.workers else 0,
    )


def open_split(settings: Settings, *, training: bool) -> AnnotatedVideos:
    """Open the training or the test videos of the settings."""
    expected = settings.detector.classes, settings.detector.in_channels
    return loading.open_dataset(settings.data, *expected, training=training)


def learning_rate_factor(settings: TrainingSettings, epoch: float) -> float:
    """Return the factor of the learning rates at a (fractional) epoch."""
    if epoch < settings.warmup_epochs:
        return epoch / settings.warmup_epochs
    if settings.schedule == "step":
        return 0.1 if epoch >= settings.step_epoch else 1.0
    share = (epoch - settings.warmup_epochs) / (settings.epochs - settings.warmup_epochs)
    return (1 + cos(pi * share)) / 2


def make_optimizer(system: System, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Make the optimiser: a group for the detector, and one for the encoder if it is trained."""
    groups = [{"params": list(system.detector.parameters()), "lr": settings.detector_lr}]
    if system.encoder is not None and system.encoder.ratio > 0:
        trained = [p for p in system.encoder.parameters() if p.requires_grad]
        groups.append({"params": trained, "lr": settings.encoder_lr})
    for group in groups:
        group["initial_lr"] = group["lr"]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer]
    # Not fused: on CPUs that kernel mixes elements up, without a word, where a weight and its
    # averages differ in their layout, as they do after a resume (torch 2.15).
    return kind(groups, weight_decay=settings.weight_decay)


def train(settings: Settings, **options: Any) -> Training:
    """Train the system that the settings describe from its beginning, with the options of `run`.

    Raises:
        InputError: the data or the settings cannot be used, or ten steps in a row were not finite.
        StoppedError: something ended the training, which can be resumed.
    """
    return run(*prepare(settings), **options)


def prepare(settings: Settings, state: Path | None = None) -> tuple[Training, AnnotatedVideos]:
    """Return a training at its beginning, or at a saved state, and its videos.

    Raises:
        InputError: the data, the settings or the state cannot be used.
    """
    device = resolve_device(settings.device)
    with distributed.raise_together():
        require_room(settings)
        if settings.data.workers:
            from etadlite.data.shared_memory import require_shared_memory

            require_shared_memory(settings.data, settings.training.batch_size)
        data = open_split(settings, training=True)
        settled = settings
        if state is not None:
            from etadlite.training.resume import load_state, settled_settings

            settled = settled_settings(state, settings)
        elif distributed.is_first():
            settled = settle_speed(settings, device)
    settled = distributed.broadcast(settled)
    with distributed.raise_together():
        torch.manual_seed(settings.seed)
        system = System(settled).to(device)
        if settings.sampling.others == "bank":
            from etadlite.training.bank import require_bank

            require_bank(settings, system.encoder)
        optimizer = make_optimizer(system, settings.training)
        training = Training(settings, settled, system, optimizer, len(data), Progress(), state)
        if state is not None:
            load_state(state, training)
            if _too_many(training, data):  # that ended the run; they may have been repaired
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
) -> Training:
    """Go on with a training to the end; it is changed, and returned. The errors are as in `train`.

    `log` gets a record of every step. `after_epoch` gets the system and the number of finished
    epochs; the record that it may return is logged, too. Weights and state are written to `folder`,
    if there is one, after every epoch, and the state also every `training.checkpoint_minutes`.
    `progress` shows a bar.
    """
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
        _saved_when_stopped(training, folder),
        training_bar(epochs * length, at.steps, shown=progress and distributed.is_first()) as bar,
    ):
        if settings.sampling.others == "bank":
            given = folder, data, _next_batches(training, batches, data, interruption)
            batches = _open_bank(training, *given, progress=progress)
        while at.epoch < epochs:
            system.train()
            # 1. The videos of the next step: all processes go on, or all stop.
            asked = time.perf_counter()
            for batch in _next_batches(training, batches, data, interruption):
                # 2. The learning rates at the middle of the step, so that none is ever zero.
                factor = learning_rate_factor(settings.training, (at.steps + 0.5) / length)
                for group in training.optimizer.param_groups:
                    group["lr"] = factor * group["initial_lr"]
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
                # 4. Its record.
                record = _checked(training, batch, record)
                note({"step": at.steps, "epoch": at.steps / length, **record})
                bar.set_postfix(loss=f"{record.get('loss', float('nan')):.2f}", refresh=False)
                bar.update()
                # 5. The state, from time to time.
                if time.monotonic() - saved >= 60 * settings.training.checkpoint_minutes:
                    _save(training, folder)
                    saved = time.monotonic()
                asked = time.perf_counter()
            # 6. The epoch is over: state, weights, and a test if one is due.
            _save(training, folder)
            if folder is not None and distributed.is_first():
                save_checkpoint(folder / "checkpoint.safetensors", system, training.settings)
            saved = time.monotonic()
            with interruption.at_once():
                tested = after_epoch(system, at.epoch + 1)
            if tested is not None:
                note({"step": at.steps, "epoch": at.epoch + 1, **tested})
            at.epoch, at.step = at.epoch + 1, 0
    return training


def _open_bank(
    training: Training, folder: Path | None, data: AnnotatedVideos, *given: Any, progress: bool
) -> DataLoader:
    """Open the feature bank, see `open_bank`; the state beside it is the first that knows it.

    The result loads what the steps need beside the bank.
    """
    from etadlite.training.bank import open_bank

    training.bank = open_bank(training, folder, data, *given, progress=progress)
    _save(training, folder)
    return loader(data, training.settled, training=True)


def _next_batches(
    training: Training, batches: DataLoader, data: AnnotatedVideos, interruption: Interruption
) -> Iterator[Batch]:
    """Yield the epoch's remaining batches; signals and unreadable videos stop all processes."""
    at, order = training.progress, batches.batch_sampler
    assert isinstance(order, loading.TrainingOrder)
    order.epoch, order.first_step = at.epoch, at.step
    remaining: Iterator[Batch] | None = None
    for _ in range(at.step, len(batches)):
        batch, lost, asked = collate([]), "", time.monotonic()
        try:
            if not interruption.received:
                remaining = remaining or iter(batches)
                with interruption.at_once():  # PyTorch would wait for processes that ended, too
                    batch = next(remaining)
        except InputError as error:
            lost = str(error)
        except StoppedError:
            assert interruption.received
        except (OSError, RuntimeError):
            # A signal may have ended the loading processes, too; or none of them answers.
            if not interruption.received and time.monotonic() - asked < batches.timeout:
                raise
            if not interruption.received:
                from etadlite.data.shared_memory import given_up, silence

                lost = given_up(_LOADING, silence(batches))
        new = {name: why for name, why in batch.failed.items() if name not in at.failed}
        signal, some_lost, some_new = distributed.all_reduce_max(
            interruption.received, bool(lost), bool(new)
        )
        if signal:
            raise stopped_by(signal)
        if some_new:
            for found in distributed.all_gather(new):
                at.failed |= found
        if some_lost or _too_many(training, data):
            from etadlite.training.stopping import without_videos

            raise without_videos(training, distributed.first_reason(lost), len(data.videos))
        yield batch


def _too_many(training: Training, data: AnnotatedVideos) -> bool:
    allowed = training.settings.training.max_unreadable * len(data.videos)
    return len(training.progress.failed) > allowed


def _checked(training: Training, batch: Batch, record: dict[str, float]) -> dict[str, Any]:
    """Return the record of a step; count one that is not finite, and refuse the tenth in a row."""
    at = training.progress
    if all(map(isfinite, record.values())):
        at.suspects = []
        return record
    at.skipped += 1
    names = [name for part in distributed.all_gather(batch.names) for name in part]
    at.suspects = [*at.suspects, names]
    if len(at.suspects) == SKIPPED_IN_A_ROW:
        from etadlite.training.stopping import never_finite

        raise InputError(never_finite(at.suspects))
    return {"skipped": at.skipped, "videos": names}


def _save(training: Training, folder: Path | None) -> None:
    unfilled = training.settled.sampling.others == "bank" and training.bank is None
    if folder is not None and distributed.is_first() and not unfilled:
        save_state(folder / STATE, training)


@contextmanager
def _saved_when_stopped(training: Training, folder: Path | None) -> Iterator[None]:
    """Save the state when something stops the training, and raise a `StoppedError` that says so."""
    failed_before = {process for process in _LOADING if process.exitcode}
    try:
        yield
    except (StoppedError, OSError, RuntimeError) as error:
        loading.let_processes_end()  # those of the test may die beside those of the training
        from etadlite.training.stopping import stopped  # few trainings are stopped

        died = any(p.exitcode for p in _LOADING if p not in failed_before)
        if _LOADING:
            from etadlite.data.shared_memory import end_all

            end_all(_LOADING)
        if (stop := stopped(error, lambda: _save(training, folder), folder, died=died)) is None:
            raise
        raise stop from error
