"""A video file as one object: what it holds, when its frames are shown, and its frames."""

import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch

from etadlite.base.errors import InputError, damage_named
from etadlite.data.decoders import (
    Resize,
    UnfitDecoderError,
    VideoWarning,
    decode,
    decord_pictures,
    pyav_pictures,
)
from etadlite.data.packets import VideoInfo, scan
from etadlite.data.snippets import SnippetRule, snippet_frames

__all__ = ["Decoder", "Resize", "Video", "VideoInfo", "VideoWarning", "probe", "read_frames"]

Decoder = Literal["pyav", "decord"]


class Video:
    """A video file, `path`, whose frames have been counted and ordered; `info` is what it holds.

    Iterating yields index and decoded frame (`av.VideoFrame`, as stored) of every frame that can be
    decoded. The file is open only while it is decoded; a `Video` may be sent to another process.

    Raises:
        InputError: there is no such file, it is no video, or it has fewer than two frames.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.info, self._timeline = scan(self.path)

    @cached_property
    def times(self) -> np.ndarray:
        """When each frame is shown, and when the last one ends: seconds [F + 1].

        They are evenly spread where the rate is constant or the file does not tell the times.
        """
        times = self._timeline.times
        if times is None:
            return np.arange(self.info.frames + 1) / self.info.fps
        return np.append((times - times[0]) * self._timeline.tick, self.info.duration)

    @property
    def unevenness(self) -> float:
        """Seconds by which the frames lie off an even rate, at most."""
        even = np.arange(len(self.times)) / self.info.fps
        return float(np.abs(self.times - even).max())

    def __iter__(self) -> Iterator[tuple[int, av.VideoFrame]]:
        return decode(self.path, self._timeline, np.arange(self.info.frames))

    def frames(
        self,
        indices: np.ndarray,
        size: tuple[int, int],
        *,
        resize: Resize = "decoder",
        decoder: Decoder = "pyav",
    ) -> torch.Tensor:
        """Read frames by their indices [...] in any order: RGB, uint8 [..., 3, H, W].

        The picture is turned upright and stretched to `size`, height and width in pixels. `resize`
        "decoder" decodes to this size; "after", as published, decodes in full and then samples
        between the four nearest pixels, which takes longer. The nearest frame stands in for one
        that cannot be decoded. The decoder "decord" is used where it reads the file correctly.

        A `VideoWarning` says that the file is cut off or that frames are replaced.

        Raises:
            InputError: an index lies outside the video, or its frames cannot be decoded.
        """
        indices = np.asarray(indices)
        if indices.size and not (indices.min() >= 0 and indices.max() < self.info.frames):
            raise InputError(
                f"{self.path} has the frames 0 to {self.info.frames - 1}, but frames "
                f"{indices.min()} to {indices.max()} were asked for"
            )
        out = torch.empty((*indices.shape, 3, *size), dtype=torch.uint8)
        self._fill(out, indices, resize, decoder)
        return out

    def snippets(
        self,
        snippets: int,
        length: int,
        size: tuple[int, int],
        step: int = 1,
        *,
        rule: SnippetRule = "cells",
        resize: Resize = "decoder",
        decoder: Decoder = "pyav",
    ) -> torch.Tensor:
        """Read snippets that are spread evenly over the video: RGB, uint8 [N, 3, F, H, W].

        `snippet_frames` says which frames these are and explains the arguments; for the others,
        errors and warnings see `frames`. Memory is the result and a few frames.
        """
        indices = snippet_frames(self.info.frames, snippets, length, step, rule=rule)
        out = torch.empty((snippets, 3, length, *size), dtype=torch.uint8)
        self._fill(out.transpose(1, 2), indices, resize, decoder)
        return out

    def strip(self, count: int = 12, height: int = 96) -> np.ndarray:
        """Read frames that are spread evenly over the video, for pictures: uint8 [F, H, W, 3]."""
        indices = ((np.arange(count) + 0.5) * self.info.frames / count).astype(int)
        width = max(2, round(height * self.info.width / self.info.height))
        return self.frames(indices, (height, width)).permute(0, 2, 3, 1).numpy()

    def _fill(
        self, out: torch.Tensor, indices: np.ndarray, resize: Resize, decoder: Decoder
    ) -> None:
        """Write the frames `indices` [...] into `out` [..., 3, H, W]."""
        if self.info.note:
            warnings.warn(f"{self.path}: {self.info.note}", VideoWarning, stacklevel=3)
        if not indices.size:
            return
        wanted, inverse = np.unique(indices, return_inverse=True)
        inverse = inverse.reshape(indices.shape)
        pixels = np.moveaxis(out.numpy(), -3, -1)  # a view of the result, [..., H, W, 3]
        where = self.path, self._timeline, wanted, tuple(out.shape[-2:])

        def put(pictures: Iterator[np.ndarray]) -> None:
            for number, picture in enumerate(pictures):
                for place in np.argwhere(inverse == number):
                    pixels[tuple(place)] = picture

        if decoder == "decord" and resize == "decoder":
            try:
                return put(decord_pictures(*where))
            except UnfitDecoderError:
                pass
        with damage_named(f"{self.path} cannot be decoded", "copy or download it again"):
            put(pyav_pictures(*where, resize))


def probe(path: Path | str) -> VideoInfo:
    """Say what a video file holds; see `Video`. A `VideoWarning` says that it is cut off."""
    info = Video(path).info
    if info.note:
        warnings.warn(f"{path}: {info.note}", VideoWarning, stacklevel=2)
    return info


def read_frames(
    path: Path | str,
    indices: np.ndarray,
    size: tuple[int, int],
    decoder: Decoder = "pyav",
    *,
    resize: Resize = "decoder",
) -> torch.Tensor:
    """Read frames of a file by their index: uint8 [..., 3, H, W]; see `Video.frames`."""
    return Video(path).frames(indices, size, decoder=decoder, resize=resize)
