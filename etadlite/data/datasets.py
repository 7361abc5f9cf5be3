"""Annotated videos as a detector sees them: snippets or features, and actions in cells."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole
from etadlite.config import DataSettings
from etadlite.data.annotations import TOLERANCE, Action, VideoAnnotation
from etadlite.data.augment import augment, centre_crop
from etadlite.data.features import (
    as_features,
    feature_file,
    find_features,
    open_features,
    read_features,
    resize_features,
)
from etadlite.data.manifest import broken_files
from etadlite.data.snippets import window_frames
from etadlite.data.split import read_split, without_missing
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import Video
from etadlite.data.video_files import video_file
from etadlite.data.windows import Window, action_frames, actions_inside, windows_of


class Sample(NamedTuple):
    """One video, or a window of one.

    Attributes:
        name: the video's name in the annotations.
        inputs: snippets, uint8 [N, 3, F, H, W], or features [C, T].
        actions: [A, 2] start and end in cells.
        labels: [A] class numbers; all 0 where the detector tells no classes.
        grid: converts cells to seconds.
        duration: length of the whole video in seconds.
        seed: of everything that training draws for this sample, see `etadlite.base.draws`.
    """

    name: str
    inputs: Tensor
    actions: Tensor
    labels: Tensor
    grid: TimeGrid
    duration: float
    seed: int = 0


class SampleKey(NamedTuple):
    """Which sample, and the seed of what is drawn for it."""

    index: int
    seed: int


class Batch(NamedTuple):
    """B samples, maybe none; `inputs` are stacked, the rest are lists.

    `failed` names the videos that could not be read, with the reason; `error` ends the work, see
    `etadlite.data.unreadable`.
    """

    names: list[str]
    inputs: Tensor
    actions: list[Tensor]
    labels: list[Tensor]
    grids: list[TimeGrid]
    durations: list[float]
    seeds: list[int]
    failed: dict[str, str] = {}  # noqa: RUF012
    error: InputError | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of samples."""
    if not samples:
        return Batch([], torch.empty(0), [], [], [], [], [])
    names, inputs, *rest = zip(*samples, strict=True)
    return Batch(list(names), torch.stack(inputs), *map(list, rest))


class AnnotatedVideos(Dataset):
    """Videos of one subset; a subclass says what is read of a video.

    Attributes:
        channels: C of features; None of snippets.

    Args:
        settings: where the data lie and how they are read.
        classes: names of the classes; empty where the detector tells none.
        training: augment, and drop actions shorter than `min_action`.

    Raises:
        InputError: the subset is empty, a label is no class, or videos have no file.
    """

    channels: int | None = None

    def __init__(self, settings: DataSettings, classes: Sequence[str], *, training: bool) -> None:
        self.settings = settings
        self.classes = tuple(classes)
        self.training = training
        videos = read_split(settings, training=training, classes=classes)
        # As `etadlite check-data` found them.
        broken = broken_files(self.folder, self.channels)
        paths = {video.name: self.find(video.name) for video in videos}
        missing = {
            name: broken[path.name] if path else ""
            for name, path in paths.items()
            if path is None or path.name in broken
        }
        self.videos = without_missing(videos, missing, self.folder, allow=settings.allow_missing)

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

    def name(self, index: int) -> str:
        """The video of a sample."""
        return self.videos[index].name

    def __getitem__(self, key: "int | SampleKey") -> Sample:
        """A sample by its index; in training also by a `SampleKey`, whose seed rules all draws."""
        index, seed = key if isinstance(key, SampleKey) else (key, None)
        if seed is None:
            return self.get(index)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return self.get(index)._replace(seed=seed)

    def get(self, index: int) -> Sample:
        """A sample by its index, with draws from torch's global random state."""
        video = self.videos[index]
        grid = TimeGrid.over_video(video.duration, self.settings.snippets)
        shortest = self.settings.min_action * video.duration if self.training else -1.0
        actions = [a for a in video.actions if a.end - a.start > shortest]
        sample = self.sample(video, self.read(video), actions, grid)
        return sample._replace(actions=sample.actions.clamp(0, grid.cells))

    def sample(
        self, video: VideoAnnotation, inputs: Tensor, actions: Sequence[Action], grid: TimeGrid
    ) -> Sample:
        """The sample of a video, or of a part of it, with these actions."""
        segments = torch.tensor([(a.start, a.end) for a in actions], dtype=torch.float64)
        labels = [self.classes.index(a.label) if self.classes else 0 for a in actions]
        return Sample(
            video.name,
            inputs,
            grid.to_cells(segments.reshape(-1, 2)).float(),
            torch.tensor(labels, dtype=torch.long),
            grid,
            video.duration,
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
        return find_features(self.folder, name)

    def draw(self, video: VideoAnnotation) -> Path:
        """The file of one of the video's views, drawn in training."""
        views = self.settings.feature_views if self.training else 1
        view = int(torch.randint(views, ())) if views > 1 else 0
        path = self.find(video.name) or feature_file(self.folder, video.name)
        return feature_file(self.folder, path.stem, view)

    def read(self, video: VideoAnnotation) -> Tensor:
        features = read_features(self.draw(video), self.channels)
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
        return self.cut(self.decode(video))

    def cut(self, frames: Tensor) -> Tensor:
        """The square that is shown of frames [N, 3, F, H, W]; in training an augmented one."""
        settings = self.settings
        if not self.training:
            return centre_crop(frames, settings.crop)
        return augment(frames, settings.crop, flip=settings.flip, jitter=settings.jitter)

    def decode(self, video: VideoAnnotation) -> Tensor:
        """Snippets of a video at the decoding size, from the cache where there is one."""
        path, settings = self.find(video.name), self.settings
        if settings.cache is None:
            return decode_snippets(Video(path), settings)
        shape = f"{settings.snippets}x{settings.frames}x{settings.frame_step}"
        rule = "" if settings.snippet_rule == "cells" else f"_{settings.snippet_rule}"
        rule += "" if settings.resize == "decoder" else f"_{settings.resize}"
        size = "x".join(map(str, settings.decode_size))
        cached = settings.cache / f"{shape}_{size}{rule}" / f"{video.name}.npy"
        if not cached.exists():
            with written_whole(cached) as draft:
                np.save(draft, decode_snippets(Video(path), settings).numpy())
        return torch.from_numpy(np.load(cached))


class WindowDataset(AnnotatedVideos):
    """Windows of videos; see `etadlite.data.windows`. A subclass says what is read of a window.

    In training there are only windows with actions. Actions are not cut to the cells: with an
    offset those at the start of a window start before cell 0, as published.

    Attributes:
        windows: the video, the window and its actions of every sample.

    Raises:
        InputError: also where an annotation gives no number of frames, or training is left without
            a window.
    """

    def __init__(
        self, settings: DataSettings, classes: Sequence[str], *rest: Any, training: bool
    ) -> None:
        super().__init__(settings, classes, *rest, training=training)
        cut = (settings.snippets, settings.window_stride, settings.window_overlap)
        self.windows = []
        for video in self.videos:
            actions = action_frames(video)
            for window in windows_of(video.frames, size=cut[0], stride=cut[1], overlap=cut[2]):
                inside = actions_inside(actions, window, settings.window_inside)
                if inside or not training:
                    self.windows.append((video, window, inside))
        if not self.windows:
            raise InputError(
                f"{settings.annotations}: no window of {settings.snippets} snippets holds a whole "
                "action; lower data.window_inside or check the annotations"
            )

    def read_window(self, video: VideoAnnotation, window: Window) -> Tensor:
        """What the detector is given of a window."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.windows)

    def name(self, index: int) -> str:
        return self.windows[index][0].name

    def get(self, index: int) -> Sample:
        video, window, inside = self.windows[index]
        settings, fps = self.settings, video.frames / video.duration
        actions = [Action(start / fps, end / fps, label) for start, end, label in inside]
        grid = TimeGrid.window(
            window.first_frame,
            settings.snippets,
            settings.window_stride,
            fps,
            settings.window_offset,
        )
        return self.sample(video, self.read_window(video, window), actions, grid)


class FeatureWindows(WindowDataset, FeatureDataset):
    """Windows of features [C, T]; what is shorter than T ends with zeros, as published."""

    def read_window(self, video: VideoAnnotation, window: Window) -> Tensor:
        """Features [C, T] of a window.

        Raises:
            InputError: the file is not usable, or far shorter or longer than the video.
        """
        path, stride = self.draw(video), self.settings.window_stride
        stored = open_features(path, self.channels, on_disk=True)
        expected = -(-video.frames // stride)
        # Files end some features early, as the last clip must fit; a wrong stride shows as 2 times.
        if abs(len(stored) - expected) > max(16, expected / 3):
            raise InputError(
                f"{path} has {len(stored)} features, but a video of {video.frames} frames has "
                f"about {expected} at data.window_stride={stride}; correct the stride"
            )
        first = window.first_frame // stride
        features = as_features(stored[first : first + window.snippets], path)
        missing = self.settings.snippets - features.shape[1]
        return torch.nn.functional.pad(features, (0, missing))


class VideoWindows(WindowDataset, VideoDataset):
    """Windows of snippets, uint8 [N, 3, F, H, W]; what is shorter than N repeats the last frame.

    Windows count the frames that the annotations count. A file that holds another number of them,
    since it was converted to another rate, is read at the same moments.
    """

    def read_window(self, video: VideoAnnotation, window: Window) -> Tensor:
        """Snippets of a window, see `decode_window`.

        Raises:
            InputError: the file is no video, or of another length than the annotations say.
        """
        settings, file = self.settings, Video(self.find(video.name))
        duration = file.info.duration
        if abs(duration - video.duration) > max(TOLERANCE, 0.02 * video.duration):
            raise InputError(
                f"{file.path} lasts {duration:.1f} s, but {video.duration:.1f} s by "
                f"{settings.annotations}; copy or convert the video again"
            )
        return decode_window(file, window, settings, self.cut, frames=video.frames)


def decode_snippets(video: Video, settings: DataSettings) -> Tensor:
    """Read the snippets of a video that the settings ask for: uint8 [N, 3, F, H, W]."""
    return video.snippets(
        settings.snippets,
        settings.frames,
        settings.decode_size,
        settings.frame_step,
        rule=settings.snippet_rule,
        resize=settings.resize,
    )


def decode_window(
    video: Video,
    window: Window,
    settings: DataSettings,
    cut: Callable[[Tensor], Tensor],
    *,
    frames: int,
) -> Tensor:
    """Snippets of a window, uint8 [N, 3, F, h, w]; what lies beyond the video repeats its end.

    Every frame is decoded and cut once, however many snippets share it.

    Args:
        video: the video.
        window: where the snippets start.
        settings: how many there are, and how they are read.
        cut: the square that is shown of frames [1, 3, U, H, W].
        frames: how many frames the video has where the window was counted.
    """
    wanted = window_frames(
        window.first_frame,
        settings.snippets,
        settings.frames,
        stride=settings.window_stride,
        step=settings.frame_step,
        num_frames=frames,
    )
    wanted = wanted * video.info.frames // frames
    unique, places = np.unique(wanted, return_inverse=True)
    once = video.frames(unique, settings.decode_size, resize=settings.resize)  # [U, 3, H, W]
    shown = cut(once.transpose(0, 1)[None])[0]  # [3, U, h, w]
    return shown[:, places.reshape(wanted.shape)].transpose(0, 1)


def open_dataset(
    settings: DataSettings, classes: Sequence[str], channels: int, *, training: bool
) -> AnnotatedVideos:
    """The training or test data that the settings name: features where given, else videos.

    Raises:
        InputError: neither is given, or what is there is not usable.
    """
    windows = settings.window_stride is not None
    if settings.features is not None:
        kind = FeatureWindows if windows else FeatureDataset
        return kind(settings, classes, channels, training=training)
    if settings.videos is None:
        raise InputError("the settings name no data: give data.videos or data.features")
    if windows and settings.cache is not None:
        raise InputError("data.cache keeps whole videos, not windows: leave it out")
    return (VideoWindows if windows else VideoDataset)(settings, classes, training=training)
