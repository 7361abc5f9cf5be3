"""The packets of a video file: how many frames there are, and when each one is shown.

Packets are read without decoding them, which takes about 3 microseconds a frame. Damage inside a
packet shows only when it is decoded.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import av
import numpy as np
from av.error import FFmpegError
from av.format import Flags
from av.stream import Disposition

from etadlite.base.errors import InputError, damage_named
from etadlite.data.listening import listening

# What these streams hold is no film: the cover of a recording, or small pictures of its chapters.
STILLS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
REORDERED = 1.0, 16  # seconds, or frames, by which a packet's time may lie before an earlier one's
GAP = 10.0  # seconds; where a format allows clocks to jump, players close longer pauses
COUNTED = "avi", "mpeg"  # these store the times of some frames only; made-up ones misplace B frames
FASTEST = 1000.0  # frames per second that a camera may take
ROUNDED = 2e-3  # seconds by which containers round the times of a constant frame rate

# Formats whose text names other files. FFmpeg's whitelist has all others.
_LISTS = "concat concatf hls applehttp dash webm_dash_manifest imf sdp rtsp rtp sap"
LISTS = frozenset(_LISTS.split())
# PyAV 19 replaces letters of tags in other encodings by itself, and no longer knows the option.
ANY_TAGS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
FORMATS = ",".join(name for name in av.formats_available if LISTS.isdisjoint(name.split(",")))

Container: TypeAlias = av.container.InputContainer


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds."""

    frames: int  # counted, whatever the container announces
    fps: float  # frames per second; their mean where the rate varies
    width: int  # in pixels, as stored
    height: int
    duration: float  # seconds from the start of the file's clock to the end of the last frame
    note: str = ""  # what is wrong with the file, in words; empty if no fault is known
    start: float = 0.0  # when the first frame is due; players show it from 0 s on


class KeyFrame(NamedTuple):
    """A frame that the file marks as a start: its index, and when it is shown and decoded (ticks).

    A mark alone does not mean that decoding can start there; see `etadlite.data.decoders.decode`.
    """

    frame: int
    shown: int
    decoded: int


class Timeline(NamedTuple):
    """Where the frames of a video lie; frames without ticks are counted from the start."""

    times: np.ndarray  # when each frame is due, and when the last one ends: seconds [F + 1]
    uneven: float  # seconds by which frames lie off a constant rate, at most
    restarts: int  # how often the clock of the file starts again
    ticks: np.ndarray | None  # the same as the decoder says it, ascending [F]; None: unreliable
    keys: list[KeyFrame]  # ascending; none without ticks
    stream: int  # number of the film among the file's streams
    container: str  # the demuxer's name of the file's format
    codec: str  # FFmpeg's name of the codec, such as hevc
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


def open_video(path: Path) -> Container:
    """Open a video file, whatever the encoding of its tags; lists of other files are refused.

    FFmpeg would take `12:30.mp4` without a folder for an address.
    """
    only = {"format_whitelist": FORMATS}
    return av.open(str(path.absolute()), container_options=only, **ANY_TAGS)


class Packets:
    """The packets of a video stream up to the end of the file or to where it is damaged.

    A clock that starts again, as in joined recordings, goes on instead; `restarts` counts this, as
    far as the packets have been read. `start` and `end` are those of all streams, in seconds of the
    file's own numbers; the end is known after the packets of all streams have been read. `marked`
    are the numbers of the packets that the container marks as damaged, as MPEG-TS does where its
    own numbering has a gap; such a gap is no damage where joined recordings meet. `indexed` are the
    frames in the index that the container starts with, 0 if it has none.
    """

    def __init__(
        self, container: Container, stream: av.VideoStream, *, all_of: bool = False
    ) -> None:
        self.container, self.stream = container, stream
        self.streams = container.streams if all_of else (stream,)
        self.tick, self.rate = float(stream.time_base), float(stream.average_rate or 25)
        self.indexed = len(getattr(stream, "index_entries", ()))  # PyAV 15 lacks it
        self.start = (container.start_time or 0) / av.time_base
        self.restarts, self.end = 0, self.start
        self.marked: list[int] = []

    def __iter__(self) -> Iterator[av.Packet]:
        reordered = max(REORDERED[0], REORDERED[1] / self.rate) / self.tick
        jumps = self.container.format.flags & Flags.ts_discont.value
        gap = max(GAP, REORDERED[1] / self.rate) / self.tick if jumps else float("inf")
        shift, latest, count, dts = 0, None, 0, None
        try:
            for packet in self.container.demux(*self.streams):
                pts = packet.pts
                if packet.size and pts is not None:
                    ends = (pts + (packet.duration or 0)) * float(packet.time_base)
                    self.end = max(self.end, ends)
                if not packet.size or packet.stream_index != self.stream.index:
                    continue
                before, dts = dts, packet.dts
                if pts is not None and not packet.is_discard:
                    early = 0 if latest is None else latest - pts
                    # Pictures in the file before a key frame are shown before it.
                    sure = packet.is_keyframe and self.container.format.name not in COUNTED
                    # The picture behind a pause may be stored before one that is shown ahead of it.
                    ordered = None not in (before, dts) and dts >= before
                    if (early > (0 if sure else reordered) and not ordered) or early < -gap:
                        self.restarts += 1
                        self.marked = [number for number in self.marked if number < count - 2]
                        shift += latest - pts + round(1 / self.rate / self.tick)
                        latest = pts
                    latest = pts if latest is None else max(latest, pts)
                if shift:
                    packet.pts = None if pts is None else pts + shift
                    packet.dts = None if dts is None else dts + shift
                self.marked += [count] * packet.is_corrupt
                count += 1
                yield packet
        except FFmpegError:
            return


def films_of(container: Container) -> list[av.VideoStream]:
    """Return the streams that show moving pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & STILLS]


def film_of(container: Container, path: Path) -> av.VideoStream:
    """Return the stream that players show: never a still picture, else as FFmpeg chooses.

    Raises:
        InputError: the file has no such stream, or its codec is unknown.
    """
    films = films_of(container)
    if not films:
        if any(stream.type in ("audio", "subtitle", "video") for stream in container.streams):
            raise InputError(f"{path} holds no pictures that move, only sound, text or a cover")
        raise InputError(f"{path} cannot be read as a video (no streams); it may be cut off")
    best = container.streams.best("video")
    film = best if best in films else films[0]
    if film.codec_context is None:
        raise InputError(f"{path}: nothing here can decode its pictures; convert it to H.264")
    return film


@lru_cache(maxsize=512)  # training opens every video again in every epoch
def _scan(path: Path, size: int, changed: int) -> tuple[VideoInfo, Timeline]:
    """Scan a file that has this size and this time of its last change."""
    with listening(), av.logging.Capture() as reports:
        return _heard(path, reports)


def _heard(path: Path, reports: list[tuple[int, str, str]]) -> tuple[VideoInfo, Timeline]:
    """Scan a file; `reports` are the errors that FFmpeg reports meanwhile."""
    try:
        container = open_video(path)
    except FFmpegError as error:
        why = "it may be cut off or no video"
        if error.errno == errno.EINVAL:
            why = "it is broken, or a list of other files, which are not followed"
        raise InputError(f"{path} cannot be read as a video ({error.strerror}); {why}") from error
    with container:
        kind, stream = container.format.name, film_of(container, path)
        context = stream.codec_context
        codec, packets = context.codec.canonical_name, Packets(container, stream, all_of=True)
        counts = codec in ("vp8", "vp9", "mpeg4")  # a packet of them may show any number
        if counts:
            from etadlite.data.bitstream import pictures_shown
        # Players show no picture before the start: it leads the first key frame, and needs others.
        first = float("-inf") if kind in COUNTED else packets.start - 0.5 / packets.rate
        # Matroska gives no time before its 0.
        unknown = float("-inf" if kind.startswith("matroska") else "inf")
        slots, pictures, waiting, reported = [], [], 0, False
        for packet in packets:
            if reports:
                reported |= any(part == kind for _, part, _ in reports)
                reports.clear()
            slots.append((packet.pts, packet.dts, packet.duration, packet.is_keyframe))
            number = pictures_shown(codec, memoryview(packet)) if counts else 1
            due = unknown if packet.pts is None else packet.pts * packets.tick
            pictures.append(0 if packet.is_discard or due < first else number)
            waiting = max(0, waiting + number - 1)
        shown = [slot for slot, number in zip(slots, pictures, strict=True) if number]
        if max(pictures, default=0) > 1:  # packed ones need the slots of empty packets, too
            shown = slots[: sum(pictures) - waiting]  # one that still waits is never decoded
        frames = len(shown)
        if frames < 2:
            raise InputError(
                f"{path} has {frames} frame{'s' * (frames != 1)} that can be read; "
                "a video needs at least two to show motion"
            )
        if hasattr(packet, "has_sidedata") and packet.has_sidedata("encryption_info"):  # PyAV 16
            raise InputError(f"{path} is encrypted, and its key is not known; get an open copy")
        ticks, keys = _order(packets, shown)
        times = _clock(packets, shown, ticks)
        start, duration = float(times[0]), float(times[-1])
        fps = frames / (duration - start)
        reported |= any(part == kind for _, part, _ in reports)
        note, held = "", len(slots)
        if reported or packets.marked or held != stream.frames or fps > FASTEST:
            from etadlite.data.damage import fault  # intact files rarely need it

            note = fault(packets, held, times, reported=reported, too_fast=fps > FASTEST)
        info = VideoInfo(frames, fps, context.width, context.height, duration, note, start)
        uneven = float(np.abs(times - start - np.arange(frames + 1) / fps).max())
        how = ticks, keys, stream.index, kind, codec, packets.tick
        return info, Timeline(times, uneven, packets.restarts, *how)


def _order(packets: Packets, shown: list) -> tuple[np.ndarray | None, list[KeyFrame]]:
    """Sort the packets that show a picture by their times; return these and the key frames."""
    if packets.container.format.name in COUNTED or any(pts is None for pts, *_ in shown):
        return None, []
    shown.sort(key=lambda packet: packet[0])
    marked = [(frame, slot) for frame, slot in enumerate(shown) if slot[3]]
    keys = [KeyFrame(k, pts, pts if dts is None else dts) for k, (pts, dts, *_) in marked]
    ticks = np.array([pts for pts, *_ in shown], dtype=np.int64)
    return ticks, [] if packets.restarts else keys  # in such a file a time stands twice


def _clock(packets: Packets, shown: list, ticks: np.ndarray | None) -> np.ndarray:
    """Return when each frame is due, and when the last one ends: seconds of the file's clock.

    The clock starts with the file's first stream. A first picture within half a frame of it starts
    the clock, and so does that of a file that does not say when its streams start.
    """
    decoded = [dts for _, dts, *_ in shown]
    # AVI counts pictures as they are decoded; MPEG-PS stores when some of them are shown.
    stored = decoded if packets.container.format.name == "avi" else [pts for pts, *_ in shown]
    first = min((time for time in stored if time is not None), default=packets.start / packets.tick)
    if ticks is None and (None in decoded or len(set(decoded)) < len(decoded)):
        times = np.arange(len(shown) + 1) / packets.rate
    else:  # without ticks, the n-th picture is shown at the n-th time, after a constant delay
        exact = np.sort(decoded) if ticks is None else ticks
        times = (exact - exact[0]) * packets.tick
        times = np.append(times, times[-1] + (shown[-1][2] * packets.tick or 1 / packets.rate))
    start = first * packets.tick - packets.start
    is_late = packets.container.start_time is not None and start > 0.5 / packets.rate
    return times + start if is_late else times
