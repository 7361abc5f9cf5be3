"""What is loaded: data sets, their samples in order, and others for videos that cannot be read."""

import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from etadlite.base.distributed import shard
from etadlite.base.draws import video_seed
from etadlite.base.errors import InputError, disk_is_full
from etadlite.config import DataSettings
from etadlite.data.datasets import AnnotatedVideos, Batch, Sample, SampleKey, VideoDataset, collate

IN_A_ROW = 10  # so many unreadable videos in a row mean that all videos are gone


def open_dataset(
    settings: DataSettings, classes: Sequence[str], channels: int, *, training: bool
) -> AnnotatedVideos:
    """Open the training or test data of the settings: features if they are given, else videos.

    Raises:
        InputError: neither is given, or the data cannot be used.
    """
    if settings.features is not None:
        from etadlite.data.features import FeatureDataset, refuse_stale

        data = FeatureDataset(settings, classes, channels, training=training)
        if settings.videos is not None:
            refuse_stale(settings.videos, [data.file_of(video) for video in data.videos])
        return data
    if settings.videos is None:
        raise InputError("the settings name no data: give data.videos or data.features")
    if settings.window_stride is not None and settings.cache is not None:
        raise InputError("data.cache keeps whole videos, not windows: leave it out")
    if settings.decoder not in ("auto", "pyav"):
        from etadlite.data.other_decoders import load

        load(settings.decoder)  # so that its absence is said once, not of every video
    return VideoDataset(settings, classes, training=training)


class TrainingOrder(Sampler[list[SampleKey]]):
    """The samples, with their seeds, of every step of an epoch; each sample comes once.

    Order and seeds follow from the run's seed and the epoch alone. Each of several processes gets
    its shard of a step, which has `batch_size` samples over all of them; the last step may have
    fewer. The next iteration starts at step `first_step` of `epoch`.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.first_step = 0

    def __len__(self) -> int:
        return ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # No sample has this number as its index, so no sample has this seed.
        shuffle = torch.Generator().manual_seed(video_seed(self.seed, self.epoch, self.samples))
        order = torch.randperm(self.samples, generator=shuffle).tolist()
        for step in range(self.first_step, len(self)):
            together = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = shard(together)
            yield [SampleKey(index, video_seed(self.seed, self.epoch, index)) for index in mine]


class Unreadable(NamedTuple):
    """A video that could not be read, and why."""

    name: str
    reason: str


class Readable(Dataset):
    """A data set in which a video that cannot be read is tried once more, and then left out.

    In training another sample, which follows from the seed, replaces it.
    """

    def __init__(self, data: AnnotatedVideos) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: int | SampleKey) -> list[Sample | Unreadable] | InputError:
        """Return what was tried for the key, the sample last if there is one.

        An error that ends the work is returned, not raised: PyTorch would hand an exception of a
        loading process on as a text.
        """
        try:
            tried = [self.read(key)]
            while isinstance(key, SampleKey) and isinstance(tried[-1], Unreadable):
                if len(tried) == IN_A_ROW:
                    return InputError(
                        f"{IN_A_ROW} videos in a row cannot be read; is the data folder still "
                        f"there? The last was {tried[-1].name}: {tried[-1].reason}"
                    )
                other = video_seed(key.seed, len(tried)) % len(self.data)
                tried.append(self.read(SampleKey(other, key.seed)))
        except InputError as error:
            return error
        return tried

    def read(self, key: int | SampleKey) -> Sample | Unreadable:
        """Return the sample, or why it cannot be read even at the second try.

        Raises:
            InputError: the disk is full, which is no fault of the video.
        """
        for _ in range(2):
            try:
                return self.data[key]
            except (OSError, ValueError) as error:  # readers turn damage into an `InputError`
                if isinstance(error, OSError) and disk_is_full(error):
                    raise InputError(
                        f"{error.filename}: the disk of data.cache is full; make room, or leave "
                        "the cache out with data.cache=null"
                    ) from None
                reason = str(error) or type(error).__name__
        index = key.index if isinstance(key, SampleKey) else key
        return Unreadable(self.data.name(index), reason)


def collate_readable(tried: Sequence[list[Sample | Unreadable] | InputError]) -> Batch:
    """Make a batch of the samples that could be read; it may be empty."""
    errors = [item for item in tried if isinstance(item, InputError)]
    items = [item for items in tried if not isinstance(items, InputError) for item in items]
    batch = collate([item for item in items if isinstance(item, Sample)])
    failed = dict(item for item in items if isinstance(item, Unreadable))
    return batch._replace(failed=failed, error=errors[0] if errors else None)


def raise_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches; raise the error that one of them carries."""
    for batch in batches:
        if batch.error is not None:
            raise batch.error
        yield batch


_HANDLERS: list[Any] = []  # PyTorch's, of processes that end, while it is not in place


def let_processes_end() -> None:
    """Keep PyTorch from raising an error, perhaps within a step, when loading processes end.

    It still finds out where it has waited for them up to the time-out.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if callable(handler):
            _HANDLERS.append(handler)


def watch_processes() -> None:
    """Let PyTorch raise an error again when a loading process ends, before new ones start."""
    if _HANDLERS and threading.current_thread() is threading.main_thread():
        multiprocessing.active_children()  # those that have ended until now are forgotten
        signal.signal(signal.SIGCHLD, _HANDLERS.pop())
