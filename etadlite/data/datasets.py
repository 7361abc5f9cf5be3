"""Annotated videos as a detector sees them: snippets or features, and actions in cells."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from etadlite.base.errors import InputError, StoppedError
from etadlite.base.files import made_from, written_whole
from etadlite.base.names import inside
from etadlite.config import DataSettings
from etadlite.data.annotations import TOLERANCE, Action, VideoAnnotation
from etadlite.data.split import manifest_file, read_split, without_missing
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import Video
from etadlite.data.video_files import video_file

if TYPE_CHECKING:
    from etadlite.data.windows import Window


class Sample(NamedTuple):
    """One video, or a window of one."""

    name: str
    inputs: Tensor  # snippets, uint8 [N, 3, F, H, W], or features [C, T]
    actions: Tensor  # [A, 2] start and end in cells
    labels: Tensor  # [A] class numbers; all 0 if the detector predicts no classes
    grid: TimeGrid
    duration: float  # seconds of the whole video
    seed: int = 0  # of every random draw that training makes for this sample
    index: int = -1  # in its data set


class SampleKey(NamedTuple):
    """Which sample, and the seed of its random draws."""

    index: int
    seed: int


class Batch(NamedTuple):
    """B samples; B may be 0. `inputs` are stacked, the other fields are lists."""

    names: list[str]
    inputs: Tensor
    actions: list[Tensor]
    labels: list[Tensor]
    grids: list[TimeGrid]
    durations: list[float]
    seeds: list[int]
    indices: list[int] = []  # in the data set  # noqa: RUF012
    failed: dict[str, str] = {}  # videos that could not be read, and why  # noqa: RUF012
    error: InputError | None = None  # ends the work, see `etadlite.data.loading`


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of samples."""
    if not samples:
        return Batch([], torch.empty(0), [], [], [], [], [])
    names, inputs, *rest = zip(*samples, strict=True)
    return Batch(list(names), torch.stack(inputs), *map(list, rest))


class Part(NamedTuple):
    """What a sample is made of: a video, or a window of it, and the actions in it (seconds)."""

    video: VideoAnnotation
    actions: Sequence[Action]
    window: "Window | None" = None


class AnnotatedVideos(Dataset):
    """The videos of one subset, whole or cut into windows (`data.window_stride`).

    A subclass says what is read of a video. Actions of a whole video are clipped to its cells.
    Those of a window are not, as published: with an offset, those at the start of a window start
    before cell 0. In training, windows without actions and actions shorter than `min_action` are
    left out. `videos` are those that have a file, `parts` has one entry for each sample. `channels`
    is C of features, None for videos; `classes` are empty if the detector predicts none.

    Raises:
        InputError: the subset is empty, a label is no class, videos have no file, windows are asked
            for but an annotation gives no number of frames, or training has no window.
    """

    def __init__(
        self,
        settings: DataSettings,
        classes: Sequence[str],
        channels: int | None = None,
        *,
        training: bool,
    ) -> None:
        self.settings = settings
        self.classes = tuple(classes)
        self.channels = channels
        self.training = training
        self.folder = settings.videos if channels is None else settings.features
        videos = read_split(settings, training=training, classes=classes)
        broken: dict[str, str] = {}
        if manifest_file(self.folder).exists():
            from etadlite.data.manifest import broken_files  # once `etadlite check-data` was run

            broken = broken_files(self.folder, channels)
        paths = {video.name: self.find(video.name) for video in videos}
        missing = {
            name: broken[path.name] if path else ""
            for name, path in paths.items()
            if path is None or path.name in broken
        }
        self.videos = without_missing(videos, missing, self.folder, allow=settings.allow_missing)
        self.parts = [part for video in self.videos for part in self._parts_of(video)]
        if not self.parts:
            raise InputError(
                f"{settings.annotations}: no window of {settings.snippets} snippets holds a whole "
                "action; lower data.window_inside or check the annotations"
            )

    def find(self, name: str) -> Path | None:
        """Return the file of a video; None if there is none."""
        return video_file(self.folder, name)

    def file_of(self, video: VideoAnnotation) -> Path:
        """Return the file of a video that had one when the data set was opened."""
        if path := self.find(video.name):
            return path
        raise InputError(f"{self.folder}: the file of {video.name} is gone; get it again")

    def read(self, video: VideoAnnotation, window: "Window | None") -> Tensor:
        """Return the detector's input for a video or for a window of it."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.parts)

    def name(self, index: int) -> str:
        return self.parts[index].video.name

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Return a sample; training gives a `SampleKey`, whose seed decides all random draws."""
        if not isinstance(key, SampleKey):
            return self._sample(self.parts[key])._replace(index=key)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(key.seed)
            return self._sample(self.parts[key.index])._replace(seed=key.seed, index=key.index)

    def _parts_of(self, video: VideoAnnotation) -> Iterator[Part]:
        settings, stride = self.settings, self.settings.window_stride
        if stride is None:
            shortest = settings.min_action * video.duration if self.training else -1.0
            yield Part(video, [a for a in video.actions if a.end - a.start > shortest])
            return
        from etadlite.data.windows import action_frames, actions_inside, windows_of

        actions, fps = action_frames(video), video.frames / video.duration
        size, overlap = settings.snippets, settings.window_overlap
        for window in windows_of(video.frames, size=size, stride=stride, overlap=overlap):
            inside = actions_inside(actions, window, settings.window_inside)
            if inside or not self.training:
                yield Part(video, [Action(a / fps, b / fps, c) for a, b, c in inside], window)

    def _sample(self, part: Part) -> Sample:
        """Return the sample of a part, with draws from torch's global random state."""
        video, settings = part.video, self.settings
        spans = [(action.start, action.end) for action in part.actions]
        seconds = torch.tensor(spans, dtype=torch.float64).reshape(-1, 2)
        if part.window is None:
            grid = TimeGrid.over_video(video.duration, settings.snippets)
            actions = grid.to_cells(seconds).float().clamp(0, grid.cells)
        else:
            fps, stride = video.frames / video.duration, settings.window_stride
            first, offset = part.window.first_frame, settings.window_offset
            grid = TimeGrid.window(first, settings.snippets, stride, fps, offset)
            actions = grid.to_cells(seconds).float()
        numbers = [self.classes.index(a.label) if self.classes else 0 for a in part.actions]
        labels = torch.tensor(numbers, dtype=torch.long)
        inputs = self.read(video, part.window)
        return Sample(video.name, inputs, actions, labels, grid, video.duration)


class FeatureDataset(AnnotatedVideos):
    """Features [C, T] from files [T', C] (see `etadlite.data.features`); training draws a view.

    Those of a whole video are resampled to T cells. In a window, missing ones at the end are
    zeros, as published.
    """

    def find(self, name: str) -> Path | None:
        from etadlite.data.features import find_features  # a training on videos needs none of it

        return find_features(self.folder, name)

    def read(self, video: VideoAnnotation, window: "Window | None") -> Tensor:
        from etadlite.data import features

        views = self.settings.feature_views if self.training else 1
        view = int(torch.randint(views, ())) if views > 1 else 0
        path, cells = self.file_of(video), self.settings.snippets
        if view:
            path = features.view_of(path, view)
        if window is None:
            whole = features.read_features(path, self.channels)
            return whole if whole.shape[1] == cells else features.resize_features(whole, cells)
        stride = self.settings.window_stride
        stored = features.open_features(path, self.channels)
        expected = -(-video.frames // stride)
        # Files end a few features early (the last clip must fit); a wrong stride doubles or halves.
        if abs(len(stored) - expected) > max(16, expected / 3):
            raise InputError(
                f"{path} has {len(stored)} features, but a video of {video.frames} frames has "
                f"about {expected} at data.window_stride={stride}; correct the stride"
            )
        start = window.first_frame // stride
        inside = features.as_features(stored[start : start + window.snippets], path)
        return torch.nn.functional.pad(inside, (0, cells - inside.shape[1]))


class VideoDataset(AnnotatedVideos):
    """Snippets, uint8 [N, 3, F, H, W], from video files.

    Windows count frames as the annotations do; a file of another rate is read at the same moments.
    """

    def read(self, video: VideoAnnotation, window: "Window | None") -> Tensor:
        if window is None:
            return self.cut(self.decode(video))
        file = Video(self.file_of(video))
        duration = file.info.duration
        if abs(duration - video.duration) > max(TOLERANCE, 0.02 * video.duration):
            raise InputError(
                f"{file.path} lasts {duration:.1f} s, but {video.duration:.1f} s by "
                f"{self.settings.annotations}; copy or convert the video again"
            )
        return decode_window(file, window, self.settings, self.cut, frames=video.frames)

    def cut(self, frames: Tensor) -> Tensor:
        """Cut a square out of frames [N, 3, F, H, W]; in training, augment it."""
        settings = self.settings
        if not self.training:
            return centre_crop(frames, settings.crop)
        return augment(frames, settings.crop, flip=settings.flip, jitter=settings.jitter)

    def decode(self, video: VideoAnnotation) -> Tensor:
        """Return the snippets of a video at the decoding size, from the cache if there is one."""
        path, settings = self.file_of(video), self.settings
        if settings.cache is None:
            return decode_snippets(Video(path), settings)
        size = "x".join(map(str, settings.decode_size))
        place = f"{settings.snippets}x{settings.frames}x{settings.frame_step}_{size}"
        place += "" if settings.snippet_rule == "cells" else f"_{settings.snippet_rule}"
        place += "" if settings.resize == "decoder" else f"_{settings.resize}"
        cached = inside(settings.cache / place, f"{video.name}.npy")
        origin = made_from("frames", path)  # a file of the cache ends with it
        shape = (settings.snippets, 3, settings.frames, *settings.decode_size)
        frames = _cached(cached, origin, shape)
        if frames is None:
            frames = decode_snippets(Video(path), settings).numpy()
            with written_whole(cached) as draft:
                np.save(draft, frames)
                with draft.open("ab") as file:
                    file.write(origin)
        return torch.from_numpy(frames)


def _cached(path: Path, origin: bytes, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the frames of a cache file; None if it is absent, broken, or of something else."""
    try:
        with path.open("rb") as file:
            file.seek(-len(origin), os.SEEK_END)
            fits = file.read() == origin
            file.seek(0)
            frames = np.load(file) if fits else None
    except StoppedError:
        raise
    except Exception:  # whatever is wrong with it, it is made again
        return None
    right = frames is not None and (frames.shape, frames.dtype) == (shape, np.uint8)
    return frames if right else None


def centre_crop(frames: Tensor, side: int) -> Tensor:
    """Cut the central square out of frames [..., H, W] -> [..., side, side]."""
    return v2.functional.center_crop(frames, [side, side])


def augment(frames: Tensor, side: int, *, flip: bool, jitter: float) -> Tensor:
    """Crop, mirror and recolour frames, uint8 [N, 3, F, H, W], all of a video the same way.

    `flip` mirrors half of the videos, which is wrong if left and right tell classes apart.
    `jitter`, 0..1, is the strength of the changes of brightness, contrast and saturation.
    """
    steps: list = [v2.RandomCrop(side)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if jitter:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    # The transforms take pictures as [..., 3, H, W].
    return v2.Compose(steps)(frames.transpose(1, 2)).transpose(1, 2)


def decode_snippets(video: Video, settings: DataSettings) -> Tensor:
    """Read the snippets of a whole video: uint8 [N, 3, F, H, W]."""
    return video.snippets(
        settings.snippets,
        settings.frames,
        settings.decode_size,
        settings.frame_step,
        rule=settings.snippet_rule,
        resize=settings.resize,
        decoder=settings.decoder,
    )


def decode_window(
    video: Video,
    window: "Window",
    settings: DataSettings,
    cut: Callable[[Tensor], Tensor],
    *,
    frames: int,
) -> Tensor:
    """Read the snippets of a window, uint8 [N, 3, F, h, w]; beyond the video its end is repeated.

    Every frame is decoded and cut once, even if several snippets share it. `cut` cuts a square out
    of frames [1, 3, U, H, W]; `frames` is the number of frames of the video that the window counts.
    """
    starts = window.first_frame + np.arange(settings.snippets)[:, None] * settings.window_stride
    counted = starts + np.arange(settings.frames) * settings.frame_step  # [N, F]
    wanted = video.counted(counted.clip(0, frames - 1), frames / video.info.duration)
    unique, places = np.unique(wanted, return_inverse=True)
    how = {"resize": settings.resize, "decoder": settings.decoder}
    once = video.frames(unique, settings.decode_size, **how)  # [U, 3, H, W]
    shown = cut(once.transpose(0, 1)[None])[0]  # [3, U, h, w]
    return shown[:, places.reshape(wanted.shape)].transpose(0, 1)


def open_dataset(
    settings: DataSettings, classes: Sequence[str], channels: int, *, training: bool
) -> AnnotatedVideos:
    """Open the training or test data of the settings: features if they are given, else videos.

    Raises:
        InputError: neither is given, or the data cannot be used.
    """
    if settings.features is not None:
        data = FeatureDataset(settings, classes, channels, training=training)
        if settings.videos is not None:
            from etadlite.data.features import refuse_stale

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
