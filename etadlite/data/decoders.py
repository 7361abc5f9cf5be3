"""Wanted frames of a video file as pictures, decoded by PyAV.

It opens the file, decodes with one thread and closes the file again: an open reader costs memory
and does not survive a fork. A frame is found by the time at which it is shown, not by counting, so
that a damaged frame costs that frame and shifts no other.
"""

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from etadlite.base.errors import InputError
from etadlite.data.packets import Container, KeyFrame, Packets, Timeline, open_video

Resize = Literal["decoder", "after"]

# From version 17 on PyAV resizes with one thread per core, which costs more than it gains here.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
NEED_OTHERS = PictureType.P, PictureType.B  # pictures at which decoding cannot start
FEWER_ARE_DECODED = 16  # decoding so few frames on the way is faster than a jump to a key frame


class VideoWarning(UserWarning):
    """A video is damaged but can be used: the message says what is missing."""


def pyav_pictures(
    path: Path, timeline: Timeline, wanted: np.ndarray, size: tuple[int, int], resize: Resize
) -> Iterator[np.ndarray]:
    """Decode frames with PyAV, uint8 [H, W, 3]; see `Video.frames` for `size` and `resize`.

    `wanted` are frame indices, strictly ascending, at least one. The nearest frame stands in for
    one that cannot be decoded.

    Raises:
        InputError: fewer than two of the frames can be decoded.

    Warns:
        VideoWarning: frames are replaced, the decoder marks them as corrupt, or they follow damage.
    """
    picture = partial(_picture, VideoReformatter(), size, resize)
    number, decoded, replaced, corrupt, behind, before = 0, 0, 0, 0, 0, None
    for index, frame, doubted in with_doubts(decode(path, timeline, wanted)):
        while number < len(wanted) and wanted[number] <= index:
            nearest = index, frame, doubted
            if wanted[number] < index:  # that frame is damaged
                replaced += 1
                if before and wanted[number] - before[0] <= index - wanted[number]:
                    nearest = before
            corrupt += nearest[1].is_corrupt
            behind += nearest[2]
            yield picture(nearest[1])
            number += 1
        before = index, frame, doubted
        decoded += 1
    if before is None or decoded < min(2, len(wanted)):
        raise InputError(
            f"{path}: {decoded} of the {len(wanted)} frames asked for can be decoded; "
            "copy or download the video again"
        )
    for _ in wanted[number:]:
        yield picture(before[1])
        replaced += 1
    if said := damage(replaced, corrupt, behind, len(wanted)):
        warnings.warn(f"{path}: {'; '.join(said)}", VideoWarning, stacklevel=5)


def damage(lost: int, corrupt: int, behind: int, frames: int) -> list[str]:
    """Say in words how many of some frames are lost, marked by the decoder, or follow damage."""
    instead = "cannot be decoded; the nearest that can stand in for them"
    marked = "are marked as corrupt by the decoder"
    follow = "follow damage and may show it, up to the next intra picture"
    counts = {instead: lost, marked: corrupt, follow: behind}
    return [f"{count} of {frames} frames {what}" for what, count in counts.items() if count]


def with_doubts(
    frames: Iterable[tuple[int, av.VideoFrame]],
) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """Add to each decoded frame, by ascending index, if it may be wrong although it isn't marked.

    The decoder marks the frame that is damaged, but not those that are predicted from it, nor those
    that are predicted from a lost one. An intra picture needs no others and ends the doubt.
    """
    before, doubted = -1, False
    for index, frame in frames:
        doubted = frame.pict_type in NEED_OTHERS and (doubted or index > before + 1)
        yield index, frame, doubted and not frame.is_corrupt
        before, doubted = index, doubted or frame.is_corrupt


def decode(
    path: Path, timeline: Timeline, wanted: np.ndarray
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode the wanted frames of a video, and those on the way to them, by ascending index.

    Frames that are not wanted are jumped over where the file marks a key frame. If its picture
    turns out to need others (a recovery point of intra refresh), the file is decoded from its start
    instead. Damage of it is concealed with the pictures before it, so that decoding starts at the
    key frame before it. Pictures before a key frame are never wanted behind a jump: they may need
    others, too. Frames that cannot be decoded are left out.
    """
    before = -1
    with open_video(path) as container:
        stream = container.streams[timeline.stream]
        stream.codec_context.thread_count = 1
        for starts, last in _runs(timeline, wanted):
            lost = needs_others = False
            for key in starts:
                first, lost = (key.frame, True) if key else (0, False)
                landed = key is None or _jump(container, stream, key)
                for index, frame in _frames(container, stream, timeline.ticks) if landed else ():
                    if index < first:
                        continue
                    if lost:
                        needs_others = frame.pict_type in NEED_OTHERS
                        if index > first or needs_others or frame.is_corrupt:
                            break
                        lost = False
                    if index > before:
                        before = index
                        yield index, frame
                    if index >= last:
                        break
                if not lost or needs_others:
                    break
            if lost:
                again = decode(path, timeline._replace(keys=[]), wanted)
                yield from ((index, frame) for index, frame in again if index > before)
                return


def _frames(
    container: Container, stream: av.VideoStream, ticks: np.ndarray | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode from where the file stands; yield indices, which are counted without ticks."""
    count = 0
    for packet in chain(Packets(container, stream), (None,)):
        try:
            decoded = stream.codec_context.decode(packet)
        except FFmpegError:
            count += 1  # the picture of this packet
            continue
        for frame in decoded:
            index = count
            if ticks is not None and frame.pts is not None:
                index = int(np.searchsorted(ticks, frame.pts, "right")) - 1
            count += 1
            yield index, frame


def _jump(container: Container, stream: av.VideoStream, key: KeyFrame) -> bool:
    """Jump to a key frame; return True if the file's own index led there or before it.

    Some formats look it up by the time at which it is shown, others by that of decoding.
    """
    for ticks in dict.fromkeys((key.shown, key.decoded)):
        try:
            container.seek(ticks, stream=stream)
            packet = next(iter(Packets(container, stream)))
            landed = packet.is_keyframe and packet.pts is not None and packet.pts <= key.shown
            container.seek(ticks, stream=stream)
        except (FFmpegError, StopIteration):
            continue
        if landed:
            return True
    return False


def _runs(timeline: Timeline, wanted: np.ndarray) -> list[tuple[list[KeyFrame | None], int]]:
    """Cut the wanted frames into runs: where to start, and the last frame.

    A run starts at a key frame, else at the one before it; None is where the file stands.
    """
    keys = np.array([key.frame for key in timeline.keys], dtype=np.int64)
    nearest = np.searchsorted(keys, wanted, "right") - 1
    runs: list[tuple[list[KeyFrame | None], int]] = []
    before = -1
    for k, frame in zip(nearest.tolist(), wanted.tolist(), strict=True):
        if k >= 0 and keys[k] - before > FEWER_ARE_DECODED:
            runs.append(([*timeline.keys[max(k - 1, 0) : k + 1][::-1]], frame))
        elif runs:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append(([None], frame))
        before = frame
    return runs


def _picture(
    reformatter: VideoReformatter, size: tuple[int, int], resize: Resize, frame: av.VideoFrame
) -> np.ndarray:
    """Turn a decoded frame upright and resize it: RGB, uint8 [H, W, 3]."""
    turns = round(frame.rotation / 90)  # counterclockwise
    if resize == "after":
        stored = reformatter.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()
        channels = torch.from_numpy(np.rot90(stored, turns).copy()).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(channels, size, mode="bilinear")
        return resized[0].round().byte().permute(1, 2, 0).numpy()
    height, width = reversed(size) if turns % 2 else size
    options = {"interpolation": "BILINEAR", **ONE_THREAD}
    stored = reformatter.reformat(frame, width, height, "rgb24", **options).to_ndarray()
    return np.rot90(stored, turns)
