"""A video file, frame by frame: its timeline, and the frames somebody wants of it.

A frame is found by its presentation time, not by counting, so that a damaged frame costs that frame
and shifts no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError

from etadlite.base.errors import InputError


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: the file.
        frames: number of frames, counted, whatever the container announces.
        fps: frames a second, their mean where the rate varies.
        width: stored width in pixels.
        height: stored height in pixels.
        duration: from the first frame to the end of the last, in seconds: frames / fps.
        note: what is wrong with the file, in words; empty if nothing is known to be.
    """

    path: Path
    frames: int
    fps: float
    width: int
    height: int
    duration: float
    note: str = ""


class Key(NamedTuple):
    """A frame at which decoding can start: its index, and when it is shown and decoded (ticks)."""

    frame: int
    shown: int
    decoded: int


class Timeline(NamedTuple):
    """Where the frames of a video lie.

    Attributes:
        times: when each frame is shown, ascending ticks [frames]; None where the file cannot tell,
            so that frames must be counted from the start.
        keys: the key frames, ascending; none where frames must be counted.
        container: the demuxer's name of the file's format.
        codec: the decoder's name.
        tick: seconds.
    """

    times: np.ndarray | None
    keys: list[Key]
    container: str
    codec: str
    tick: float


def scan(path: Path) -> tuple[VideoInfo, Timeline]:
    """Count and order the frames of a video by its packets, without decoding them.

    Raises:
        InputError: there is no such file, it is no video, or it has less than two frames.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such video file")
    state = path.stat()
    if state.st_size == 0:
        raise InputError(f"{path} is empty; copy or download the video again")
    return _scan(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=512)  # many windows are read of a video, and every video in every epoch
def _scan(path: Path, size: int, changed: int) -> tuple[VideoInfo, Timeline]:
    """Scan a file in a certain state."""
    try:
        container = av.open(str(path))
    except FFmpegError as error:
        raise InputError(
            f"{path} cannot be read as a video ({error.strerror}); it may be cut off or no video"
        ) from error
    with container:
        if not container.streams.video:
            if container.streams.audio or container.streams.subtitles:
                raise InputError(f"{path} holds no pictures, only sound or text")
            raise InputError(f"{path} cannot be read as a video (no streams); it may be cut off")
        stream = container.streams.video[0]
        packets, hidden = [], 0
        for packet in _packets(container, stream):
            if packet.size and packet.is_discard:  # the container says not to show it
                hidden += 1
            elif packet.size:
                packets.append((packet.pts, packet.dts, packet.duration, packet.is_keyframe))
        require_motion(path, len(packets))
        announced, length = stream.frames, container.duration
        rate, tick = float(stream.average_rate or 25), float(stream.time_base)
        context = stream.codec_context
        width, height = context.width, context.height
        kind, codec = container.format.name, context.name

    frames, duration, times, keys = len(packets), len(packets) / rate, None, []
    # In AVI and MPEG-PS not every frame's time is stored; those made up misplace B frames.
    if kind not in ("avi", "mpeg") and all(pts is not None for pts, _, _, _ in packets):
        packets.sort(key=lambda packet: packet[0])
        times = np.array([packet[0] for packet in packets], dtype=np.int64)
        keys = [
            Key(k, pts, pts if dts is None else dts)
            for k, (pts, dts, _, key) in enumerate(packets)
            if key
        ]
        last = packets[-1][2] * tick if packets[-1][2] else 1 / rate
        duration = float(times[-1] - times[0]) * tick + last
    note = ""
    if announced > frames + hidden:
        note = (
            f"the file announces {announced} frames but holds {frames + hidden}; it may be cut off"
        )
    elif length and length / av.time_base > duration * 1.05 + 1:
        note = (
            f"the file announces {length / av.time_base:.1f} s but its pictures end after "
            f"{duration:.1f} s; it may be cut off"
        )
    info = VideoInfo(path, frames, frames / duration, width, height, duration, note)
    return info, Timeline(times, keys, kind, codec, tick)


def require_motion(path: Path, frames: int) -> None:
    """Refuse a video that cannot show motion."""
    if frames < 2:
        raise InputError(
            f"{path} has {frames} frame{'s' * (frames != 1)} that can be read; "
            "a video needs at least two to show motion"
        )


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yield the packets up to the end of the file or to where it is damaged."""
    try:
        yield from container.demux(stream)
    except FFmpegError:
        return


def decode_frames(
    path: Path, timeline: Timeline, wanted: np.ndarray
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode the wanted frames of a video, and those on the way to them.

    Where a key frame allows it, frames that nobody wants are jumped over. After a jump only frames
    from the key frame on are right; earlier ones are never wanted there. Frames that cannot be
    decoded are left out.

    Args:
        path: the video file.
        timeline: what `scan` found in it.
        wanted: frame indices, strictly ascending, at least one.

    Yields:
        Index and picture of each decoded frame, by strictly ascending index.
    """
    before = -1
    for index, frame in _decode(path, timeline, wanted, _runs(timeline, wanted)):
        if index > before:
            before = index
            yield index, frame


def _decode(
    path: Path, timeline: Timeline, wanted: np.ndarray, runs: list[tuple[Key | None, int]]
) -> Iterator[tuple[int, av.VideoFrame]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        count = 0
        for key, last in runs:
            if key is not None and not _jump(container, stream, key):
                yield from _decode(path, timeline, wanted, [(None, int(wanted[-1]))])
                return
            for packet in _packets(container, stream):
                try:
                    decoded = packet.decode()
                except FFmpegError:
                    continue
                index = -1
                for frame in decoded:
                    index = count
                    if timeline.times is not None and frame.pts is not None:
                        index = int(np.searchsorted(timeline.times, frame.pts, "right")) - 1
                    count += 1
                    yield index, frame
                if index >= last:
                    break


def _jump(container: av.container.InputContainer, stream: av.VideoStream, key: Key) -> bool:
    """Jump to a key frame; say whether the file's own index led there or before it."""
    try:
        container.seek(key.decoded, stream=stream)
        packet = next(_packets(container, stream))
        landed = packet.is_keyframe and packet.pts is not None and packet.pts <= key.shown
        container.seek(key.decoded, stream=stream)
    except (FFmpegError, StopIteration):
        return False
    return landed


def _runs(timeline: Timeline, wanted: np.ndarray) -> list[tuple[Key | None, int]]:
    """Cut the wanted frames into runs: the key frame to jump to first (or None), the last frame."""
    starts = np.array([key.frame for key in timeline.keys], dtype=np.int64)
    nearest = np.searchsorted(starts, wanted, "right") - 1
    runs: list[tuple[Key | None, int]] = []
    before = -1
    for k, frame in zip(nearest.tolist(), wanted.tolist(), strict=True):
        if k >= 0 and timeline.keys[k].frame - before > 16:  # fewer are decoded faster than jumped
            runs.append((timeline.keys[k], frame))
        elif runs:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((None, frame))
        before = frame
    return runs
