"""The frames of snippets that are spread evenly over a video or lie at a fixed stride."""

from typing import Literal

import numpy as np

from etadlite.base.errors import InputError

SnippetRule = Literal["cells", "ends"]


def snippet_frames(
    num_frames: int, snippets: int, length: int, step: int = 1, *, rule: SnippetRule = "cells"
) -> np.ndarray:
    """Choose the frames of N snippets that are spread evenly over a video: indices, int64 [N, F].

    Frame k fills [k, k+1) on the frame axis, and snippet n has the F frames ``first, first + step,
    ..., first + (F - 1) * step``. The rule says where ``first`` lies:

    - "cells" (this project's definition): the video is cut into N equal cells, and the middle of a
      snippet lies on the middle of cell n, ``(n + 1/2) * num_frames / N``. If that falls between
      two frames, ``first`` is rounded to the nearest frame, halves upwards. So a video of N * F
      frames is cut into its N snippets without gap or overlap.
    - "ends" (as in the released ETAD code): the first snippet starts with the video, the last ends
      with it, and the others start evenly between them, rounded to the nearest frame, halves to
      the even one. At the ends, the middle of a snippet is up to half a snippet away from the
      middle of its cell.

    Indices outside the video become its first or last frame. N is `snippets`, F is `length`.

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


def clip_frames(frames: int, length: int, stride: int) -> np.ndarray:
    """Choose the frames of all clips that fit into a video: ascending indices, int64 [T, F].

    The first clip starts with the video, every other one `stride` frames after the one before. A
    video shorter than a clip has one clip, which repeats the last frame. F is `length`.

    Raises:
        InputError: a number is below 1.
    """
    if min(frames, length, stride) < 1:
        raise InputError(
            f"clips need frames, a length and a stride above 0, not {frames}, {length} and {stride}"
        )
    starts = np.arange(max(frames - length, 0) // stride + 1) * stride
    return (starts[:, None] + np.arange(length)).clip(max=frames - 1)
