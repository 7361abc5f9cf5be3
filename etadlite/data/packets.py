"""The packets of a video file: how many frames there are, and when each one is shown.

Packets are read without decoding them, which takes about 3 microseconds a frame. Damage inside a
packet shows only when it is decoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError

from etadlite.base.errors import InputError, damage_named


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds."""

    frames: int  # counted, whatever the container announces
    fps: float  # frames per second; their mean where the rate varies
    width: int  # in pixels, as stored
    height: int
    duration: float  # seconds from the start of the first frame to the end of the last
    note: str = ""  # what is wrong with the file, in words; empty if no fault is known


class KeyFrame(NamedTuple):
    """A frame at which decoding can start: its index, and when it is shown and decoded (ticks)."""

    frame: int
    shown: int
    decoded: int


class Timeline(NamedTuple):
    """Where the frames of a video lie; frames without times are counted from the start."""

    times: np.ndarray | None  # when each frame is shown, ascending ticks [F]; None: not in the file
    keys: list[KeyFrame]  # ascending; none without times
    container: str  # the demuxer's name of the file's format
    codec: str  # the decoder's name
    tick: float  # seconds


def scan(path: Path) -> tuple[VideoInfo, Timeline]:
    """Count and order the frames of a video by its packets.

    Raises:
        InputError: there is no such file, it is no video, or it has fewer than two frames.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such video file")
    state = path.stat()
    if state.st_size == 0:
        raise InputError(f"{path} is empty; copy or download the video again")
    with damage_named(f"{path} cannot be read as a video", "copy or download it again"):
        return _scan(path, state.st_size, state.st_mtime_ns)


def packets_of(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet]:
    """Yield the packets up to the end of the file or to where it is damaged."""
    try:
        yield from container.demux(stream)
    except FFmpegError:
        return


@lru_cache(maxsize=512)  # training opens every video again in every epoch
def _scan(path: Path, size: int, changed: int) -> tuple[VideoInfo, Timeline]:
    """Scan a file that has this size and this time of its last change."""
    try:
        container = av.open(str(path), metadata_errors="replace")
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
        if stream.codec_context is None:
            raise InputError(f"{path} has a codec that is unknown here; convert it to H.264")
        packets, hidden = [], 0
        for packet in packets_of(container, stream):
            if packet.size and packet.is_discard:  # the container says not to show it
                hidden += 1
            elif packet.size:
                packets.append((packet.pts, packet.dts, packet.duration, packet.is_keyframe))
        frames = len(packets)
        if frames < 2:
            raise InputError(
                f"{path} has {frames} frame{'s' * (frames != 1)} that can be read; "
                "a video needs at least two to show motion"
            )
        announced, length = stream.frames, container.duration
        rate, tick = float(stream.average_rate or 25), float(stream.time_base)
        width, height = stream.codec_context.width, stream.codec_context.height
        kind, codec = container.format.name, stream.codec_context.name
    duration, times, keys = frames / rate, None, []
    # In AVI and MPEG-PS not every frame's time is stored; made-up times misplace B frames.
    if kind not in ("avi", "mpeg") and all(pts is not None for pts, _, _, _ in packets):
        packets.sort(key=lambda packet: packet[0])
        times = np.array([packet[0] for packet in packets], dtype=np.int64)
        keys = [
            KeyFrame(k, pts, pts if dts is None else dts)
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
    info = VideoInfo(frames, frames / duration, width, height, duration, note)
    return info, Timeline(times, keys, kind, codec, tick)
