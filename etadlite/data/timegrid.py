"""Seconds, frames and cells: the one place that converts between them.

A detector sees time as T cells, numbered 0..T-1. A position in cells is a real number in 0..T, and
cell t covers [t, t+1). Annotations and predictions use seconds, videos use frames.
"""

from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import numpy as np
import torch

from etadlite.base.errors import InputError

Position = TypeVar("Position", float, np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class TimeGrid:
    """T cells of equal length over a video or a window of it; nothing is clipped to them.

    Raises:
        InputError: there is no cell, or the cells have no length.
    """

    cells: int  # T
    seconds_per_cell: float
    start: float = 0.0  # the time of cell position 0, in seconds

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise InputError(f"a time grid needs at least one cell, not {self.cells}")
        if not (isfinite(self.seconds_per_cell) and self.seconds_per_cell > 0):
            raise InputError(
                f"a cell of a time grid must last longer than 0 s, not {self.seconds_per_cell}"
            )

    @classmethod
    def over_video(cls, duration: float, cells: int) -> "TimeGrid":
        """Spread the cells over a whole video of any duration in seconds, as for ActivityNet."""
        return cls(cells, duration / max(cells, 1))

    @classmethod
    def window(
        cls, first_frame: int, cells: int, stride: float, fps: float, offset: float = 0
    ) -> "TimeGrid":
        """Make cells that lie a fixed number of frames apart, as for THUMOS-14.

        Cell position c is frame ``first_frame + offset + c * stride``, so
        ``c = (seconds * fps - offset - first_frame) / stride``. This is OpenTAD's convention,
        except that OpenTAD first rounds the boundaries of training actions down to whole frames.

        For features of clips of 16 frames the offset is 8: they stand for the middle of their clip.
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
