"""Clips at a fixed stride over whole videos: which frames they show, decoded block by block."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.augment import centre_crop
from etadlite.data.split import VIDEO_SUFFIXES
from etadlite.data.video import Video

BLOCK = 1024
"""Frames that are decoded together: 38 MB at 112x112, and seeking to them costs little."""


class Block(NamedTuple):
    """Consecutive clips of a video.

    Attributes:
        path: the video's file.
        frames: uint8 [3, U, H, W], without repetitions; None after an error.
        clips: for each clip the positions of its frames among these, int64 [n, F].
        last: True for the last block of the video.
        error: why the video cannot be read; empty if it can.
    """

    path: Path
    frames: Tensor | None
    clips: Tensor | None
    last: bool
    error: str = ""


def clip_frames(
    frames: int, length: int, stride: int, *, from_fps: float = 1.0, to_fps: float | None = None
) -> np.ndarray:
    """Choose the frames of all clips that fit into a video.

    The first clip starts with the video, every other one `stride` frames after the one before. A
    video shorter than a clip has one clip, which repeats the last frame. At another rate than the
    file's, frame k is the frame shown at k / to_fps seconds, as in TSP.

    Args:
        frames: number of frames of the file.
        length: F, frames of a clip.
        stride: frames from one clip to the next.
        from_fps: frame rate of the file.
        to_fps: frame rate that `length` and `stride` refer to; None: that of the file.

    Returns:
        Frame indices in the file, int64 [T, F], ascending.

    Raises:
        InputError: a number is not above 0.
    """
    rate = from_fps / to_fps if to_fps else 1.0
    if min(frames, length, stride) < 1 or not rate > 0:
        raise InputError(
            f"clips need frames, a length, a stride and a rate above 0, not {frames}, {length}, "
            f"{stride} and {to_fps}"
        )
    # A rate that differs only by rounding, such as 14.999 from 15, must not lose frames.
    if abs(rate - round(rate)) < 1e-3:
        rate = round(rate)
    shown = np.floor(np.arange(int(np.ceil(frames / rate))) * rate).astype(np.int64)
    starts = np.arange(max(len(shown) - length, 0) // stride + 1) * stride
    clips = (starts[:, None] + np.arange(length)).clip(max=len(shown) - 1)
    return shown[clips].clip(max=frames - 1)


class DenseClips(IterableDataset):
    """All clips of video files, block by block; `clip_frames` explains stride and fps."""

    def __init__(
        self, files: Sequence[Path], settings: DataSettings, stride: int, fps: float | None
    ) -> None:
        self.files = files
        self.settings = settings
        self.stride = stride
        self.fps = fps

    def __iter__(self) -> Iterator[Block]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for path in self.files[first::step]:
            try:
                yield from self.blocks(path)
            except InputError as error:
                yield Block(path, None, None, True, str(error))

    def blocks(self, path: Path) -> Iterator[Block]:
        """Decode one video block by block."""
        settings, video = self.settings, Video(path)
        info = video.info
        clips = clip_frames(
            info.frames, settings.frames, self.stride, from_fps=info.fps, to_fps=self.fps
        )
        together = max(1, BLOCK // self.stride)
        for start in range(0, len(clips), together):
            wanted = clips[start : start + together]
            frames, places = np.unique(wanted, return_inverse=True)
            read = video.frames(frames, settings.decode_size, resize=settings.resize)
            shown = centre_crop(read, settings.crop)
            rows = torch.from_numpy(places.reshape(wanted.shape))
            yield Block(path, shown.transpose(0, 1), rows, start + together >= len(clips))


def video_files(folder: Path) -> list[Path]:
    """The video files of a folder, by name.

    Raises:
        InputError: there is none, or two of them have the same name but for the suffix.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no video ({', '.join(VIDEO_SUFFIXES)})")
    for one, other in pairwise(files):
        if one.stem == other.stem:
            raise InputError(f"{one} and {other.name} would have the same features: remove one")
    return files
