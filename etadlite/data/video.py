"""Video files: what they hold, and their frames at the size a network wants.

Every call opens the file, decodes with one thread and closes it again: an open reader costs memory
and does not survive a fork. A frame is found by its presentation time, not by counting, so a
damaged frame costs that frame and shifts no other.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from etadlite.data.timegrid import snippet_frames
from etadlite.errors import InputError

Decoder = Literal["pyav", "decord"]

# From version 17 on PyAV resizes with a thread for each core, which costs more than it brings here.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class VideoWarning(UserWarning):
    """A video is damaged but could be used: the message says what is missing."""


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


class _Key(NamedTuple):
    """A frame at which decoding can start: its index and its two times in the file."""

    frame: int
    shown: int
    decoded: int


class _Timeline(NamedTuple):
    """Where the frames lie: their times, ascending [frames], or None without times; key frames."""

    times: np.ndarray | None
    keys: list[_Key]
    codec: str


def probe(path: Path | str, decode: bool = False) -> VideoInfo:
    """Say what a video file holds, counting its frames.

    Counting reads the file's packets without decoding them: some 3 microseconds a frame. Damage
    inside packets shows only when they are decoded.

    Args:
        path: the file.
        decode: decode the whole video as well, and put frames that cannot be decoded in the note.

    Raises:
        InputError: there is no such file, it is no video, or it has less than two frames.

    Warns:
        VideoWarning: the file is damaged or cut off; the `note` says the same.
    """
    info, timeline = _scan(Path(path))
    if decode:
        decoded = sum(1 for _ in _ascending(_decode(info, timeline, np.arange(info.frames))))
        _require_motion(info.path, decoded)
        if decoded < info.frames:
            damage = f"{info.frames - decoded} of {info.frames} frames cannot be decoded"
            info = VideoInfo(**{**vars(info), "note": "; ".join(filter(None, (info.note, damage)))})
    if info.note:
        warnings.warn(f"{info.path}: {info.note}", VideoWarning, stacklevel=2)
    return info


def read_frames(
    path: Path | str, indices: np.ndarray, size: tuple[int, int], decoder: Decoder = "pyav"
) -> torch.Tensor:
    """Read frames by their index.

    A frame that cannot be decoded is replaced by the nearest one that can.

    Args:
        path: the video file.
        indices: frame indices, integers [...], in any order, repeated or not.
        size: height and width to decode at, in pixels; the picture is stretched to it.
        decoder: "pyav", or "decord", which is used where it can read the file correctly.

    Returns:
        RGB frames, uint8 [..., 3, H, W].

    Raises:
        InputError: the file is no video of two frames or more, or an index lies outside of it.

    Warns:
        VideoWarning: the file is cut off, or frames had to be replaced.
    """
    info, timeline = _scan(Path(path))
    indices = np.asarray(indices)
    if indices.size and not (indices.min() >= 0 and indices.max() < info.frames):
        raise InputError(
            f"{path} has the frames 0 to {info.frames - 1}, but frames "
            f"{indices.min()} to {indices.max()} were asked for"
        )
    out = torch.empty((indices.size, 3, *size), dtype=torch.uint8)
    _fill(out, indices.reshape(-1), info, timeline, decoder)
    return out.reshape(*indices.shape, 3, *size)


def read_snippets(
    path: Path | str,
    snippets: int,
    length: int,
    size: tuple[int, int],
    step: int = 1,
    *,
    decoder: Decoder = "pyav",
) -> torch.Tensor:
    """Read N snippets of F frames that are spread evenly over a video.

    Which frames these are says `etadlite.data.timegrid.snippet_frames`; for all else see
    `read_frames`. Memory is the result and a few frames.

    Args:
        path: the video file.
        snippets: N.
        length: F, frames of a snippet.
        size: height and width to decode at, in pixels.
        step: distance between two frames of a snippet, in frames.
        decoder: as in `read_frames`.

    Returns:
        RGB snippets, uint8 [N, 3, F, H, W].

    Raises:
        InputError: the file is no video of two frames or more.

    Warns:
        VideoWarning: the file is cut off, or frames had to be replaced.
    """
    info, timeline = _scan(Path(path))
    indices = snippet_frames(info.frames, snippets, length, step)
    out = torch.empty((snippets, 3, length, *size), dtype=torch.uint8)
    _fill(out.transpose(1, 2), indices, info, timeline, decoder)
    return out


def _scan(path: Path) -> tuple[VideoInfo, _Timeline]:
    """Read the packets of a video without decoding them."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such video file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; copy or download the video again")
    try:
        container = av.open(str(path))
    except FFmpegError as error:
        raise InputError(
            f"{path} cannot be read as a video ({error.strerror}); it may be cut off or no video"
        ) from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path} holds no pictures, only sound or text")
        stream = container.streams.video[0]
        packets = [
            (packet.pts, packet.dts, packet.duration, packet.is_keyframe)
            for packet in _packets(container, stream)
            if packet.size and not packet.is_discard
        ]
        _require_motion(path, len(packets))
        announced, length = stream.frames, container.duration
        rate, tick = float(stream.average_rate or 25), float(stream.time_base)
        context = stream.codec_context
        width, height, codec = context.width, context.height, context.name

    frames, duration, times, keys = len(packets), len(packets) / rate, None, []
    if all(pts is not None and dts is not None for pts, dts, _, _ in packets):
        packets.sort(key=lambda packet: packet[0])
        times = np.array([packet[0] for packet in packets], dtype=np.int64)
        keys = [_Key(k, pts, dts) for k, (pts, dts, _, key) in enumerate(packets) if key]
        last = packets[-1][2] * tick if packets[-1][2] else 1 / rate
        duration = float(times[-1] - times[0]) * tick + last
    note = ""
    if announced > frames:
        note = f"the file announces {announced} frames but holds {frames}; it may be cut off"
    elif length and length / av.time_base > duration * 1.05 + 1:
        note = (
            f"the file announces {length / av.time_base:.1f} s but its pictures end after "
            f"{duration:.1f} s; it may be cut off"
        )
    info = VideoInfo(path, frames, frames / duration, width, height, duration, note)
    return info, _Timeline(times, keys, codec)


def _require_motion(path: Path, frames: int) -> None:
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


Indexed = tuple[int, av.VideoFrame]


def _decode(
    info: VideoInfo, timeline: _Timeline, wanted: np.ndarray, seek: bool = True
) -> Iterator[Indexed]:
    """Decode the wanted frames, ascending, with those on the way to them.

    Where a key frame allows it, frames that nobody wants are jumped over. After a jump only frames
    from the key frame on are right; earlier ones are never wanted there.
    """
    with av.open(str(info.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        count = 0
        for key, last in _runs(timeline, wanted) if seek else [(None, int(wanted[-1]))]:
            if key is not None:
                container.seek(key.decoded, stream=stream)
            for packet in _packets(container, stream):
                if key is not None and not (packet.is_keyframe and packet.pts <= key.shown):
                    # The file's index is wrong: decode all from the start instead.
                    yield from _decode(info, timeline, wanted, seek=False)
                    return
                key = None  # noqa: PLW2901 (only the first packet after a jump is checked)
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


def _runs(timeline: _Timeline, wanted: np.ndarray) -> list[tuple[_Key | None, int]]:
    """Cut the wanted frames into runs: the key frame to jump to first (or None), the last frame."""
    starts = np.array([key.frame for key in timeline.keys], dtype=np.int64)
    nearest = np.searchsorted(starts, wanted, "right") - 1
    runs: list[tuple[_Key | None, int]] = []
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


def _ascending(frames: Iterator[Indexed]) -> Iterator[Indexed]:
    before = -1
    for index, frame in frames:
        if index > before:
            before = index
            yield index, frame


def _fill(
    out: torch.Tensor, indices: np.ndarray, info: VideoInfo, timeline: _Timeline, decoder: Decoder
) -> None:
    """Write the frames `indices` [...] into `out` [..., 3, H, W]."""
    if info.note:
        warnings.warn(f"{info.path}: {info.note}", VideoWarning, stacklevel=3)
    if not indices.size:
        return
    wanted, inverse = np.unique(indices, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    places = np.split(order, np.cumsum(np.bincount(inverse.reshape(-1)))[:-1])

    pixels = np.moveaxis(out.numpy(), -3, -1)  # a view on the result, [..., H, W, 3]

    def put(number: int, picture: np.ndarray) -> None:
        for place in places[number]:
            pixels[np.unravel_index(place, indices.shape)] = picture

    height, width = out.shape[-2:]
    if decoder == "decord" and _fill_with_decord(put, wanted, (height, width), info, timeline):
        return

    reformatter = VideoReformatter()

    def picture(frame: av.VideoFrame) -> np.ndarray:
        options = {"interpolation": "BILINEAR", **ONE_THREAD}
        return reformatter.reformat(frame, width, height, "rgb24", **options).to_ndarray()

    number, decoded, replaced, before = 0, 0, 0, None
    for index, frame in _ascending(_decode(info, timeline, wanted)):
        while number < len(wanted) and wanted[number] <= index:
            near = frame
            if wanted[number] < index:  # that frame is damaged
                replaced += 1
                if before and wanted[number] - before[0] <= index - wanted[number]:
                    near = before[1]
            put(number, picture(near))
            number += 1
        before = index, frame
        decoded += 1
    if before is None or decoded < min(2, len(wanted)):
        raise InputError(
            f"{info.path}: {decoded} of the {len(wanted)} frames asked for can be decoded; "
            "copy or download the video again"
        )
    for rest in range(number, len(wanted)):
        put(rest, picture(before[1]))
        replaced += 1
    if replaced:
        warnings.warn(
            f"{info.path}: {replaced} of {len(wanted)} frames cannot be decoded; "
            "the nearest that can stand in for them",
            VideoWarning,
            stacklevel=3,
        )


def _fill_with_decord(
    put: Callable[[int, np.ndarray], None],
    wanted: np.ndarray,
    size: tuple[int, int],
    info: VideoInfo,
    timeline: _Timeline,
) -> bool:
    """Put the wanted frames with decord; say whether that worked.

    It does not where decord finds another number of frames (it may wait for them for ever) or
    fails, and is not tried on HEVC, where after a jump it can return wrong frames unnoticed.
    """
    if timeline.codec == "hevc":
        return False
    try:
        import decord  # noqa: PLC0415 (not every platform has it)

        reader = decord.VideoReader(str(info.path), width=size[1], height=size[0], num_threads=1)
        if len(reader) != info.frames:
            return False
        for start in range(0, len(wanted), 16):
            batch = reader.get_batch(wanted[start : start + 16]).asnumpy()
            for number, picture in enumerate(batch, start):
                put(number, picture)
    except ImportError:
        return False
    except Exception as error:
        if isinstance(error, RuntimeError) or type(error).__name__ == "DECORDError":
            return False
        raise
    return True
