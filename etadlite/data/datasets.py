"""Annotated videos as a detector sees them: snippets or features, and actions in cells."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from etadlite.config import DataSettings
from etadlite.data.annotations import VideoAnnotation, read_annotations
from etadlite.data.augment import augment, centre_crop
from etadlite.data.features import feature_file, read_features, resize_features
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import read_snippets
from etadlite.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


class Sample(NamedTuple):
    """One video.

    Attributes:
        name: the video's name in the annotations.
        inputs: snippets, uint8 [N, 3, F, H, W], or features [C, T].
        actions: [A, 2] start and end in cells.
        labels: [A] class numbers; all 0 where the detector tells no classes.
        grid: converts cells to seconds.
    """

    name: str
    inputs: Tensor
    actions: Tensor
    labels: Tensor
    grid: TimeGrid


class Batch(NamedTuple):
    """B samples; `inputs` are stacked, the rest are lists."""

    names: list[str]
    inputs: Tensor
    actions: list[Tensor]
    labels: list[Tensor]
    grids: list[TimeGrid]


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of samples."""
    names, inputs, actions, labels, grids = zip(*samples, strict=True)
    return Batch(list(names), torch.stack(inputs), list(actions), list(labels), list(grids))


class AnnotatedVideos(Dataset):
    """Videos of one subset; a subclass says what is read of a video.

    Args:
        settings: where the data lie and how they are read.
        classes: names of the classes; empty where the detector tells none.
        training: augment, and drop actions shorter than `min_action`.

    Raises:
        InputError: the subset is empty, a label is no class, or videos have no file.
    """

    def __init__(self, settings: DataSettings, classes: Sequence[str], *, training: bool) -> None:
        self.settings = settings
        self.classes = tuple(classes)
        self.training = training
        subset = settings.train_subset if training else settings.test_subset
        annotated = read_annotations(settings.annotations, subset, classes or None)
        self.videos = list(annotated.values())
        missing = [video.name for video in self.videos if self.find(video.name) is None]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(self.videos)} videos in the subset {subset} have no "
                f"file in {self.folder}, the first is {missing[0]}; complete the folder"
            )

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        raise NotImplementedError

    def find(self, name: str) -> Path | None:
        """The file of a video, None if there is none."""
        raise NotImplementedError

    def read(self, video: VideoAnnotation) -> Tensor:
        """What the detector is given of a video."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Sample:
        video = self.videos[index]
        grid = TimeGrid.over_video(video.duration, self.settings.snippets)
        shortest = self.settings.min_action * video.duration if self.training else 0.0
        actions = [a for a in video.actions if a.end - a.start >= shortest]
        segments = torch.tensor([(a.start, a.end) for a in actions]).reshape(-1, 2)
        labels = [self.classes.index(a.label) if self.classes else 0 for a in actions]
        return Sample(
            video.name,
            self.read(video),
            grid.to_cells(segments).clamp(0, grid.cells),
            torch.tensor(labels, dtype=torch.long),
            grid,
        )


class FeatureDataset(AnnotatedVideos):
    """Features [C, T] from files [T', C]; see `AnnotatedVideos` and `etadlite.data.features`."""

    def __init__(
        self, settings: DataSettings, classes: Sequence[str], channels: int, *, training: bool
    ) -> None:
        self.channels = channels
        super().__init__(settings, classes, training=training)

    @property
    def folder(self) -> Path:
        return self.settings.features

    def find(self, name: str) -> Path | None:
        path = feature_file(self.folder, name)
        return path if path.exists() else None

    def read(self, video: VideoAnnotation) -> Tensor:
        views = self.settings.feature_views if self.training else 1
        view = int(torch.randint(views, ())) if views > 1 else 0
        features = read_features(feature_file(self.folder, video.name, view), self.channels)
        if features.shape[1] == self.settings.snippets:
            return features
        return resize_features(features, self.settings.snippets)


class VideoDataset(AnnotatedVideos):
    """Snippets, uint8 [N, 3, F, H, W], from video files; see `AnnotatedVideos`."""

    @property
    def folder(self) -> Path:
        return self.settings.videos

    def find(self, name: str) -> Path | None:
        return video_file(self.folder, name)

    def read(self, video: VideoAnnotation) -> Tensor:
        settings, frames = self.settings, self.decode(video)
        if not self.training:
            return centre_crop(frames, settings.crop)
        return augment(frames, settings.crop, flip=settings.flip, jitter=settings.jitter)

    def decode(self, video: VideoAnnotation) -> Tensor:
        """Snippets of a video at the decoding size, from the cache where there is one."""
        path = self.find(video.name)
        if self.settings.cache is None:
            return decode_snippets(path, self.settings)
        shape = f"{self.settings.snippets}x{self.settings.frames}x{self.settings.frame_step}"
        size = "x".join(map(str, self.settings.decode_size))
        cached = self.settings.cache / f"{shape}_{size}" / f"{video.name}.npy"
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            draft = cached.with_name(f"{cached.name}.{os.getpid()}.part")
            with draft.open("wb") as file:
                np.save(file, decode_snippets(path, self.settings).numpy())
            draft.replace(cached)
        return torch.from_numpy(np.load(cached))


def video_file(folder: Path, name: str) -> Path | None:
    """The file of a video, whatever its suffix; None if there is none."""
    paths = (folder / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def decode_snippets(path: Path, settings: DataSettings) -> Tensor:
    """The snippets of a file as the settings ask for: uint8 [N, 3, F, H, W]."""
    return read_snippets(
        path, settings.snippets, settings.frames, settings.decode_size, settings.frame_step
    )


def open_dataset(
    settings: DataSettings, classes: Sequence[str], channels: int, *, training: bool
) -> AnnotatedVideos:
    """The training or test data that the settings name: features where given, else videos.

    Raises:
        InputError: neither is given, or what is there is not usable.
    """
    if settings.features is not None:
        return FeatureDataset(settings, classes, channels, training=training)
    if settings.videos is not None:
        return VideoDataset(settings, classes, training=training)
    raise InputError("the settings name no data: give data.videos or data.features")
