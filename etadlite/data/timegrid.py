"""Seconds, frames and cells: the one place that converts between them.

A detector sees time as T cells, numbered 0..T-1; a position in cells is a real number in 0..T, and
cell t covers [t, t+1). Annotations and predictions speak seconds, videos speak frames.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeVar

import numpy as np
import torch

from etadlite.base.errors import InputError

Position = TypeVar("Position", float, np.ndarray, torch.Tensor)
SnippetRule = Literal["cells", "ends"]


@dataclass(frozen=True)
class TimeGrid:
    """T cells of equal length laid over a video or over a window of it.

    Positions outside the grid convert as well: nothing is clipped here.

    Attributes:
        cells: T, the number of cells.
        seconds_per_cell: length of a cell in seconds.
        start: where cell position 0 lies, in seconds.

    Raises:
        InputError: there is no cell, or the cells have no length.
    """

    cells: int
    seconds_per_cell: float
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise InputError(f"a time grid needs at least one cell, not {self.cells}")
        if not (isfinite(self.seconds_per_cell) and self.seconds_per_cell > 0):
            raise InputError(
                f"a cell of a time grid must last longer than 0 s, not {self.seconds_per_cell}"
            )

    @classmethod
    def over_video(cls, duration: float, cells: int) -> "TimeGrid":
        """Spread the cells over a whole video, whatever its length (as done for ActivityNet).

        Args:
            duration: length of the video in seconds.
            cells: T.

        Raises:
            InputError: duration or cells is not above zero.
        """
        return cls(cells, duration / max(cells, 1))

    @classmethod
    def window(
        cls, first_frame: int, cells: int, stride: float, fps: float, offset: float = 0
    ) -> "TimeGrid":
        """Cells a fixed number of frames apart (as done for THUMOS-14).

        Cell position c is frame ``first_frame + offset + c * stride``, hence
        ``c = (seconds * fps - offset - first_frame) / stride``: OpenTAD's convention, except that
        it first cuts the boundaries of its training actions down to whole frames.

        Args:
            first_frame: the frame at which the window starts.
            cells: T.
            stride: frames from one cell to the next.
            fps: frames a second.
            offset: frames from the start of the window to position 0. Features of clips of 16
                frames at a stride of 4 have 8: a feature stands for the middle of its clip.

        Raises:
            InputError: cells, stride or fps is not above zero.
        """
        if not (isfinite(fps) and fps > 0):
            raise InputError(f"a window needs a frame rate above 0, not {fps}")
        return cls(cells, stride / fps, (first_frame + offset) / fps)

    def to_cells(self, seconds: Position) -> Position:
        """Convert positions (any shape) from seconds to cells."""
        return (seconds - self.start) / self.seconds_per_cell

    def to_seconds(self, cells: Position) -> Position:
        """Convert positions (any shape) from cells to seconds."""
        return cells * self.seconds_per_cell + self.start


def snippet_frames(
    num_frames: int, snippets: int, length: int, step: int = 1, *, rule: SnippetRule = "cells"
) -> np.ndarray:
    """Choose the frames of N snippets that are spread evenly over a video.

    Frame k fills [k, k+1) on the frame axis, and snippet n has the F frames ``first, first + step,
    ..., first + (F - 1) * step``. Two rules say where ``first`` lies:

    - "cells" (this project's definition): the video is cut into N equal cells of
      ``num_frames / N`` frames, and the middle of a snippet lies on the middle of cell n,
      ``(n + 1/2) * num_frames / N``. Where that falls between two frames, ``first`` is rounded to
      the nearest frame, halves upwards. So a video of N * F frames is cut into its N snippets
      without gap or overlap.
    - "ends" (as in the released ETAD code): the first snippet starts with the video, the last ends
      with it, and the others start evenly between them, rounded to the nearest frame, halves to
      the even one. At the ends a snippet's middle is then up to half a snippet away from that of
      its cell.

    A long video leaves gaps between snippets, in a short one they overlap. Indices outside the
    video are moved to its first or last frame.

    Args:
        num_frames: frames of the video.
        snippets: N.
        length: F, frames of a snippet.
        step: distance between two frames of a snippet, in frames.
        rule: "cells" or "ends".

    Returns:
        Frame indices, int64 [N, F], each row in ascending order.

    Raises:
        InputError: an argument is below 1.
    """
    given = {"num_frames": num_frames, "snippets": snippets, "length": length, "step": step}
    for name, value in given.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1 to choose the frames of snippets")
    span = (length - 1) * step
    if rule == "ends":
        room = max(num_frames - span - 1, 0)
        first = np.round(np.arange(snippets) * (room / max(snippets - 1, 1))).astype(np.int64)
    else:
        # Twice the middle, over twice the cell count: integers, so that rounding is exact.
        middles = (2 * np.arange(snippets, dtype=np.int64) + 1) * num_frames
        first = (middles - snippets * span) // (2 * snippets)
    frames = first[:, None] + step * np.arange(length, dtype=np.int64)
    return frames.clip(0, num_frames - 1)
