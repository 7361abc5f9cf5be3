"""Clips at a fixed stride over whole videos: which frames they show, decoded block by block."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.augment import centre_crop
from etadlite.data.snippets import clip_frames
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
