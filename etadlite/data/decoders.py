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
from typing import Literal, NamedTuple

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from etadlite.base.errors import InputError
from etadlite.data.listening import listening
from etadlite.data.packets import Container, KeyFrame, Packets, Timeline, open_video

Resize = Literal["decoder", "after"]

# From version 17 on PyAV resizes with one thread per core, which costs more than it gains here.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
NEED_OTHERS = PictureType.P, PictureType.B  # pictures at which decoding cannot start
HARMLESS = "mmco: "  # H.264 reports that a picture to forget is not there, as behind a jump
CHECKED = {"err_detect": "crccheck"}  # checksums of pictures, which HEVC may have
FEWER_ARE_DECODED = 16  # decoding so few frames on the way is faster than a jump to a key frame


class VideoWarning(UserWarning):
    """A video is damaged but can be used: the message says what is missing."""


class Decoded(NamedTuple):
    """A frame that could be decoded."""

    index: int  # of the frame in the video
    frame: av.VideoFrame
    corrupt: bool  # the decoder marks it, or reports an error of its packet
    doubted: bool  # something before it is damaged


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
    number, decoded, replaced, corrupt, behind = 0, 0, 0, 0, 0
    before: Decoded | None = None
    for frame in with_doubts(decode(path, timeline, wanted)):
        while number < len(wanted) and wanted[number] <= frame.index:
            nearest = frame
            if wanted[number] < frame.index:  # that frame is damaged
                replaced += 1
                if before and wanted[number] - before.index <= frame.index - wanted[number]:
                    nearest = before
            corrupt += nearest.corrupt
            behind += nearest.doubted
            yield picture(nearest.frame)
            number += 1
        before = frame
        decoded += 1
    if before is None or decoded < min(2, len(wanted)):
        raise InputError(
            f"{path}: {decoded} of the {len(wanted)} frames asked for can be decoded; "
            "copy or download the video again"
        )
    for _ in wanted[number:]:
        yield picture(before.frame)
        replaced += 1
    if replaced or corrupt or behind:
        from etadlite.data.damage import damaged_frames

        said = damaged_frames(replaced, corrupt, behind, len(wanted))
        warnings.warn(f"{path}: {said}", VideoWarning, stacklevel=5)


def with_doubts(frames: Iterable[Decoded]) -> Iterator[Decoded]:
    """Mark the frames, by ascending index, that may be wrong although they aren't corrupt.

    The decoder knows the frame that is damaged, but not those that are predicted from it, nor those
    that are predicted from a lost one. An intra picture needs no others and ends the doubt, but not
    right behind a lost picture that is never shown: VP9 may predict later ones from others still.
    """
    before, doubted = -1, False
    for decoded in frames:
        index, frame, corrupt, behind = decoded
        doubted = behind or (frame.pict_type in NEED_OTHERS and (doubted or index > before + 1))
        yield decoded._replace(doubted=doubted and not corrupt)
        before, doubted = index, doubted or corrupt


def decode(path: Path, timeline: Timeline, wanted: np.ndarray) -> Iterator[Decoded]:
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
        stream.codec_context.options = CHECKED
        for starts, last in _runs(timeline, wanted):
            lost = needs_others = False
            for key in starts:
                first, lost = (key.frame, True) if key else (0, False)
                landed = key is None or _jump(container, stream, key)
                for decoded in _frames(container, stream, timeline.ticks) if landed else ():
                    index = decoded.index
                    if index < first:
                        continue
                    if lost:
                        needs_others = decoded.frame.pict_type in NEED_OTHERS
                        if index > first or needs_others or decoded.corrupt:
                            break
                        lost = False
                    if index > before:
                        before = index
                        yield decoded
                    if index >= last:
                        break
                if not lost or needs_others:
                    break
            if lost:
                again = decode(path, timeline._replace(keys=[]), wanted)
                yield from (decoded for decoded in again if decoded.index > before)
                return


def _frames(
    container: Container, stream: av.VideoStream, ticks: np.ndarray | None
) -> Iterator[Decoded]:
    """Decode from where the file stands; the frames are counted from there without ticks.

    An error that the decoder reports and goes on from is of the frame that has the packet's time;
    without ticks, of the next frame.
    """
    count, latest, reported, behind = 0, -1, set[int | None](), False
    with listening():
        for packet in chain(Packets(container, stream), (None,)):
            with av.logging.Capture() as reports:
                try:
                    decoded = stream.codec_context.decode(packet)
                except FFmpegError:
                    decoded = None
            if decoded is None or any(not what.startswith(HARMLESS) for *_, what in reports):
                from etadlite.data.damage import is_hidden

                behind |= is_hidden(packet, ticks)
                if decoded is None:
                    count += 1  # the picture of this packet
                else:
                    reported.add(packet.pts if packet and ticks is not None else None)
            for frame in decoded or ():
                index = count if ticks is None else -1  # without a time: before the start
                if ticks is not None and frame.pts is not None:
                    first = int(np.searchsorted(ticks, frame.pts))
                    end = int(np.searchsorted(ticks, frame.pts, "right"))
                    index = latest = min(max(first, latest + 1), end - 1)  # several share a time
                count += 1
                corrupt = frame.is_corrupt or not reported.isdisjoint((frame.pts, None))
                reported -= {None}
                yield Decoded(index, frame, corrupt, behind)
                behind = False


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
