"""Windows: a long video as overlapping pieces of equal length, as OpenTAD cuts THUMOS-14."""

from collections.abc import Sequence
from typing import NamedTuple

from etadlite.base.errors import InputError
from etadlite.data.annotations import VideoAnnotation


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
