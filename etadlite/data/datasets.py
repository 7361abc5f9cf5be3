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
from etadlite.data.annotations import Action, VideoAnnotation
from etadlite.data.split import manifest_file, read_split
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import Video
from etadlite.data.video_files import video_file

if TYPE_CHECKING:
    from etadlite.data.windows import Window


RECOLOURED = 2**18  # values at once


class Sample(NamedTuple):
    """One video, or a window of one."""

    name: str
    inputs: Tensor  # snippets, uint8 [N, 3, F, H, W], or those that were read, or features [C, T]
    actions: Tensor  # [A, 2] start and end in cells
    labels: Tensor  # [A] class numbers; all 0 if the detector predicts no classes
    grid: TimeGrid
    duration: float  # seconds of the whole video
    seed: int = 0  # of every random draw that training makes for this sample
    index: int = -1  # in its data set
    rows: Tensor | None = None  # [K] the snippets that were read; None: all


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
    rows: list[Tensor | None] = []  # that were read; None: all  # noqa: RUF012
    failed: dict[str, str] = {}  # videos that could not be read, and why  # noqa: RUF012
    error: InputError | None = None  # ends the work, see `etadlite.data.loading`


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of samples."""
    if not samples:
        return Batch([], torch.empty(0), [], [], [], [], [])
    names, inputs, *rest = zip(*samples, strict=True)
    if all(sample.rows is None for sample in samples):
        together = torch.stack(inputs)
    else:  # pages of memory that nothing is written to take no room
        size = len(samples), samples[0].grid.cells, *inputs[0].shape[1:]
        together = torch.empty(size, dtype=inputs[0].dtype)
        for place, sample in zip(together, samples, strict=True):
            place[slice(None) if sample.rows is None else sample.rows] = sample.inputs
    return Batch(list(names), together, *map(list, rest))


Picks = Callable[[int, int, Tensor], Tensor | None]
"""Index of a sample, seed, actions [A, 2] in cells -> the snippets [K] that are read; None: all."""


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
        InputError: the subset is empty, a label is no class, videos have no file or the same one,
            windows are asked for but an annotation gives no number of frames, or training has no
            window.
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
        self.picks: Picks | None = None  # where not all snippets will be needed
        self.folder = settings.videos if channels is None else settings.features
        videos = read_split(settings, training=training, classes=classes)
        paths = {video.name: self.find(video.name) for video in videos}
        shared = len({*paths.values()}) < len(paths)
        if shared or None in paths.values() or manifest_file(self.folder).exists():
            from etadlite.data.manifest import with_usable_files

            videos = with_usable_files(
                videos, paths, self.folder, channels, allow_missing=settings.allow_missing
            )
        self.videos = videos
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

    def read(
        self, video: VideoAnnotation, window: "Window | None", rows: Tensor | None = None
    ) -> Tensor:
        """Return the detector's input for a video or a window of it, or these snippets alone."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.parts)

    def name(self, index: int) -> str:
        """Return the name of the video that a sample belongs to."""
        return self.parts[index].video.name

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Return a sample; training gives a `SampleKey`, whose seed decides all random draws."""
        if not isinstance(key, SampleKey):
            return self._sample(self.parts[key])._replace(index=key)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(key.seed)
            return self._sample(self.parts[key.index], *key)

    def _parts_of(self, video: VideoAnnotation) -> Iterator[Part]:
        settings, stride = self.settings, self.settings.window_stride
        if stride is None:
            shortest = settings.min_action * video.duration if self.training else -1.0
            yield Part(video, [a for a in video.actions if a.end - a.start > shortest])
            return
        from etadlite.data.windows import windows_with_actions

        for window, actions in windows_with_actions(video, settings, stride):
            if actions or not self.training:
                yield Part(video, actions, window)

    def _sample(self, part: Part, index: int = -1, seed: int = 0) -> Sample:
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
        rows = None if self.picks is None or index < 0 else self.picks(index, seed, actions)
        inputs = self.read(video, part.window, rows)
        about = grid, video.duration, seed, index, rows
        return Sample(video.name, inputs, actions, labels, *about)


class VideoDataset(AnnotatedVideos):
    """Snippets, uint8 [N, 3, F, H, W], from video files.

    Windows count frames as the annotations do; a file of another rate is read at the same moments.
    """

    def read(
        self, video: VideoAnnotation, window: "Window | None", rows: Tensor | None = None
    ) -> Tensor:
        if window is None:
            return self.cut(self.decode(video, rows))
        from etadlite.data.windows import decode_window, require_length

        file = Video(self.file_of(video))
        require_length(file, video, self.settings)
        how = {"frames": video.frames, "rows": rows}
        return decode_window(file, window, self.settings, self.cut, **how)

    def cut(self, frames: Tensor) -> Tensor:
        """Cut a square out of frames [N, 3, F, H, W]; in training, augment it."""
        settings = self.settings
        if not self.training:
            return centre_crop(frames, settings.crop)
        return augment(frames, settings.crop, flip=settings.flip, jitter=settings.jitter)

    def decode(self, video: VideoAnnotation, rows: Tensor | None = None) -> Tensor:
        """Return snippets of a video at the decoding size, from the cache if there is one."""
        path, settings = self.file_of(video), self.settings
        if settings.cache is None:
            return decode_snippets(Video(path), settings, rows)
        size = "x".join(map(str, settings.decode_size))
        place = f"{settings.snippets}x{settings.frames}x{settings.frame_step}_{size}"
        place += "" if settings.snippet_rule == "cells" else f"_{settings.snippet_rule}"
        place += "" if settings.resize == "decoder" else f"_{settings.resize}"
        cached = inside(settings.cache / place, f"{video.name}.npy")
        origin = made_from("frames", path)  # a file of the cache ends with it
        shape = (settings.snippets, 3, settings.frames, *settings.decode_size)
        frames = _cached(cached, origin, shape, rows)
        if frames is None:
            frames = decode_snippets(Video(path), settings).numpy()
            with written_whole(cached) as draft:
                np.save(draft, frames)
                with draft.open("ab") as file:
                    file.write(origin)
            frames = frames if rows is None else frames[rows.numpy()]
        return torch.from_numpy(frames)


def _cached(
    path: Path, origin: bytes, shape: tuple[int, ...], rows: Tensor | None = None
) -> np.ndarray | None:
    """Return frames of a cache file; None if it is absent, broken, or of something else."""
    try:
        with path.open("rb") as file:
            file.seek(-len(origin), os.SEEK_END)
            fits = file.read() == origin
            file.seek(0)
            wanted, how = (file, None) if rows is None else (path, "r")  # mapped, read in part
            frames = np.load(wanted, mmap_mode=how) if fits else None
    except StoppedError:
        raise
    except Exception:  # whatever is wrong with it, it is made again
        return None
    if frames is None or (frames.shape, frames.dtype) != (shape, np.uint8):
        return None
    return frames if rows is None else frames[rows.numpy()]


def centre_crop(frames: Tensor, side: int) -> Tensor:
    """Cut the central square out of frames [..., H, W] -> [..., side, side]."""
    return v2.functional.center_crop(frames, [side, side])


def augment(frames: Tensor, side: int, *, flip: bool, jitter: float) -> Tensor:
    """Crop, mirror and recolour frames, uint8 [N, 3, F, H, W], all of a video the same way.

    `flip` mirrors half of the videos, which is wrong if left and right tell classes apart.
    `jitter`, 0..1, is the strength of the changes of brightness, contrast and saturation.
    """
    frames = v2.RandomCrop(side)(frames)
    if flip:
        frames = v2.RandomHorizontalFlip()(frames)
    if jitter:
        colours = v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter)
        frames = _recoloured(frames, colours)
    return frames


def _recoloured(frames: Tensor, colours: v2.ColorJitter) -> Tensor:
    """Recolour frames [N, 3, F, H, W], all with one draw.

    A few at a time stay in the processor's cache, which takes a fraction of the time.
    """
    drawn = colours.make_params([frames.transpose(1, 2)])
    found = torch.empty(frames.shape, dtype=frames.dtype)
    axis = 0 if len(frames) > 1 else 2
    rows = max(1, RECOLOURED * frames.shape[axis] // frames.numel())
    for part, place in zip(frames.split(rows, axis), found.split(rows, axis), strict=True):
        # The transform takes pictures as [..., 3, H, W].
        place.copy_(colours.transform(part.transpose(1, 2), drawn).transpose(1, 2))
    return found


def decode_snippets(video: Video, settings: DataSettings, rows: Tensor | None = None) -> Tensor:
    """Read the snippets of a whole video, or some of them: uint8 [N, 3, F, H, W]."""
    return video.snippets(
        settings.snippets,
        settings.frames,
        settings.decode_size,
        settings.frame_step,
        rule=settings.snippet_rule,
        resize=settings.resize,
        decoder=settings.decoder,
        rows=None if rows is None else rows.numpy(),
    )
