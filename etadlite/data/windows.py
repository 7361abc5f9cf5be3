"""Windows: a long video as overlapping pieces of equal length, as OpenTAD cuts THUMOS-14."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.annotations import TOLERANCE, Action, VideoAnnotation
from etadlite.data.video import Video


class Window(NamedTuple):
    """Consecutive snippets of a video."""

    first_frame: int  # start of its first snippet
    last_frame: int  # start of its last snippet
    snippets: int  # their number; smaller than asked for if the video is shorter


class FrameAction(NamedTuple):
    """An action in whole frames."""

    start: int
    end: int
    label: str


def windows_of(frames: int, *, size: int, stride: int, overlap: float = 0.5) -> list[Window]:
    """Cut a video of some frames into windows of `size` snippets, which cover every snippet.

    The video's snippets start at frames 0, `stride`, 2 `stride`, ... below its end. A window starts
    every ``size * (1 - overlap)`` snippets, rounded down; there are as many as this step fits into
    the video, and at least one. The window that would pass the end is moved back to it and is the
    last. So a video whose number of snippets is a multiple of the step has its last window twice;
    this is published and kept. Source: OpenTAD's sliding windows.

    Raises:
        InputError: a count is below 1; the overlap leaves no step, or is below 0.5, where the
            published rule can lose the end of a video.
    """
    if min(frames, size, stride) < 1:
        raise InputError(
            f"windows need at least one frame, one snippet and a stride of one frame, not {frames},"
            f" {size} and {stride}"
        )
    step = int(size * (1 - overlap))
    if step < 1 or overlap < 0.5:
        raise InputError(
            f"windows of {size} snippets cannot overlap by {overlap}; choose 0.5 or more, so that "
            "a window starts at least one snippet after the one before"
        )
    snippets = -(-frames // stride)
    windows = []
    for number in range(max(1, snippets // step)):
        whole = number * step + size
        end = min(whole, snippets)
        first = max(0, end - size)
        windows.append(Window(first * stride, (end - 1) * stride, end - first))
        if whole > snippets:
            break
    return windows


def action_frames(video: VideoAnnotation) -> list[FrameAction]:
    """Return a video's actions in whole frames, rounded down, without duplicates, as OpenTAD does.

    Raises:
        InputError: the annotation does not give the number of frames or the duration.
    """
    frames, duration = video.frames, video.duration
    if frames is None or not duration > 0:
        raise InputError(
            f'video {video.name}: windows need its "duration" and its number of frames, "frame"; '
            "add them to the annotations"
        )

    def frame(seconds: float) -> int:
        return int(seconds / duration * frames)  # in this order, so that it rounds as published

    actions = (FrameAction(frame(a.start), frame(a.end), a.label) for a in video.actions)
    return list(dict.fromkeys(actions))


def actions_inside(
    actions: Sequence[FrameAction], window: Window, inside: float
) -> list[FrameAction]:
    """Return the actions of which more than the share `inside` lies in the window, cut to it.

    The window reaches from the start of its first snippet to the start of its last, as in OpenTAD.
    """
    kept = []
    for start, end, label in actions:
        cut = FrameAction(max(start, window.first_frame), min(end, window.last_frame), label)
        if cut.end > cut.start and (cut.end - cut.start) / (end - start) > inside:
            kept.append(cut)
    return kept


def windows_with_actions(
    video: VideoAnnotation, settings: DataSettings, stride: int
) -> Iterator[tuple[Window, list[Action]]]:
    """Yield a video's windows and the actions in them, in seconds; see the functions above."""
    actions, fps = action_frames(video), video.frames / video.duration
    size, overlap = settings.snippets, settings.window_overlap
    for window in windows_of(video.frames, size=size, stride=stride, overlap=overlap):
        inside = actions_inside(actions, window, settings.window_inside)
        yield window, [Action(a / fps, b / fps, c) for a, b, c in inside]


def require_length(file: Video, video: VideoAnnotation, settings: DataSettings) -> None:
    """Refuse a file whose length is not the annotated one, so that frames would be others.

    Raises:
        InputError: they differ by more than 2 %, and more than annotations may be off.
    """
    duration = file.info.duration
    if abs(duration - video.duration) > max(TOLERANCE, 0.02 * video.duration):
        raise InputError(
            f"{file.path} lasts {duration:.1f} s, but {video.duration:.1f} s by "
            f"{settings.annotations}; copy or convert the video again"
        )


def decode_window(
    video: Video,
    window: Window,
    settings: DataSettings,
    cut: Callable[[Tensor], Tensor],
    *,
    frames: int,
    rows: Tensor | None = None,
) -> Tensor:
    """Read the snippets of a window, or some: uint8 [N, 3, F, h, w]; after the video its end stays.

    Every frame is decoded and cut once, even if several snippets share it. `cut` cuts a square out
    of frames [1, 3, U, H, W]; `frames` is the number of frames of the video that the window counts.
    """
    numbers = np.arange(settings.snippets) if rows is None else rows.numpy()
    starts = window.first_frame + numbers[:, None] * settings.window_stride
    counted = starts + np.arange(settings.frames) * settings.frame_step  # [N, F]
    wanted = video.counted(counted.clip(0, frames - 1), frames / video.info.duration)
    unique, places = np.unique(wanted, return_inverse=True)
    how = {"resize": settings.resize, "decoder": settings.decoder}
    once = video.frames(unique, settings.decode_size, **how)  # [U, 3, H, W]
    shown = cut(once.transpose(0, 1)[None])[0]  # [3, U, h, w]
    return shown[:, places.reshape(wanted.shape)].transpose(0, 1)
