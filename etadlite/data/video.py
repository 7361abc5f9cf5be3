"""A video file as one object: what it holds, when its frames are shown, and its frames."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch

from etadlite.base.errors import InputError, damage_named
from etadlite.base.files import made_from
from etadlite.data.decoders import Resize, VideoWarning, decode, pyav_pictures
from etadlite.data.packets import ROUNDED, VideoInfo, scan
from etadlite.data.snippets import SnippetRule, snippet_frames

__all__ = ["Decoder", "Resize", "Video", "VideoInfo", "VideoWarning", "probe", "read_frames"]

Decoder = Literal["auto", "pyav", "decord", "torchcodec"]


class Video:
    """A video file, `path`, whose frames have been counted and ordered.

    `info` is what it holds, `timeline` where its frames lie, `state` tells this version of the file
    from a later one.

    Iterating yields index and decoded frame (`av.VideoFrame`, as stored) of every frame that can be
    decoded. The file is open only while it is decoded; a `Video` may be sent to another process.

    Raises:
        InputError: there is no such file, it is no video, or it has fewer than two frames.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.info, self.timeline = scan(self.path)
        self.state = made_from("", self.path)

    @property
    def times(self) -> np.ndarray:
        """When each frame is due, and when the last one ends: seconds [F + 1].

        This is the clock that players show: it starts with the file, which may be before the first
        picture, keeps uneven rates, follows edit lists, and goes on where a stream's clock starts
        again. All other times of the package are on this clock.
        """
        return self.timeline.times

    def shown_at(self, seconds: np.ndarray | float) -> np.ndarray:
        """Return the index of the frame that players show at each moment [...] of the clock.

        The first frame is shown from the start on, the last one to the end.
        """
        if self.timeline.uneven <= ROUNDED:
            due = (np.asarray(seconds) - self.info.start) * self.info.fps
            shown = np.floor(due + 1e-6).astype(np.int64)
        else:  # containers round times to milliseconds
            shown = np.searchsorted(self.times[:-1], np.asarray(seconds) + 1e-3, "right") - 1
        return shown.clip(0, self.info.frames - 1)

    @property
    def count(self) -> int:
        """The number of frames at the file's mean rate from the start to the end of its clock."""
        return round(self.info.duration * self.info.fps)

    def counted(self, frames: np.ndarray, rate: float) -> np.ndarray:
        """Return the indices of frames that are counted at a rate from the start of the clock.

        A counted frame is what players show in its middle. Where the file has this rate throughout,
        and a picture from the start on, these are its own frames.
        """
        return self.shown_at((frames + 0.5) / rate)

    def __iter__(self) -> Iterator[tuple[int, av.VideoFrame]]:
        every = decode(self.path, self.timeline, np.arange(self.info.frames))
        return ((decoded.index, decoded.frame) for decoded in every)

    def frames(
        self,
        indices: np.ndarray,
        size: tuple[int, int],
        *,
        resize: Resize = "decoder",
        decoder: Decoder = "auto",
    ) -> torch.Tensor:
        """Read frames by their indices [...] in any order: RGB, uint8 [..., 3, H, W].

        The picture is turned upright and stretched to `size`, height and width in pixels. `resize`
        "decoder" decodes to this size; "after", as published, decodes in full and then samples
        between the four nearest pixels, which takes longer. The nearest frame stands in for one
        that cannot be decoded. All decoders give the same frames. "auto" is PyAV: no other is
        faster in most uses (tests/benchmarks/README.md), and PyAV alone reads every file, resizes
        "after" and says what is damaged.

        A `VideoWarning` says that the file is cut off or that frames are replaced or damaged.

        Raises:
            InputError: an index lies outside the video, its frames cannot be decoded, it has
                changed since it was opened or is still being written, or the decoder is absent or
                does not read this file correctly.
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
        decoder: Decoder = "auto",
        rows: np.ndarray | None = None,
    ) -> torch.Tensor:
        """Read snippets that are spread evenly over the video: RGB, uint8 [N, 3, F, H, W].

        Of N snippets, `rows` names those that are read; None: all.

        `snippet_frames` says where they lie and explains the arguments; it counts frames at the
        file's mean rate from the start of its clock. For the others, errors and warnings see
        `frames`. Memory is the result and a few frames.
        """
        counted = snippet_frames(self.count, snippets, length, step, rule=rule)
        counted = counted if rows is None else counted[rows]
        indices = self.counted(counted, self.info.fps)
        out = torch.empty((len(counted), 3, length, *size), dtype=torch.uint8)
        self._fill(out.transpose(1, 2), indices, resize, decoder)
        return out

    def strip(self, count: int = 12, height: int = 96) -> np.ndarray:
        """Read frames that are spread evenly over the video, for pictures: uint8 [F, H, W, 3]."""
        indices = self.counted(np.arange(count), count / self.info.duration)
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
        where = self.path, self.timeline, wanted, tuple(out.shape[-2:])

        def put(pictures: Iterator[np.ndarray]) -> None:
            for number, picture in enumerate(pictures):
                for place in np.argwhere(inverse == number):
                    pixels[tuple(place)] = picture

        with damage_named(f"{self.path} cannot be decoded", "copy or download it again"):
            if decoder in ("auto", "pyav") or resize == "after":
                put(pyav_pictures(*where, resize))
            else:
                from etadlite.data.other_decoders import other_pictures  # few runs need it

                put(other_pictures(decoder, *where))
        if made_from("", self.path) != self.state:  # the frames of this version lie elsewhere
            raise InputError(f"{self.path} changed meanwhile; run this again when it is complete")


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
    decoder: Decoder = "auto",
    *,
    resize: Resize = "decoder",
) -> torch.Tensor:
    """Read frames of a file by their index: uint8 [..., 3, H, W]; see `Video.frames`."""
    return Video(path).frames(indices, size, decoder=decoder, resize=resize)
