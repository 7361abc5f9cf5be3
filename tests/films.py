"""Written videos of many kinds, whose pictures show their numbers: picture k has k as 16 squares.

`KINDS` has a writer for each kind. A writer returns the numbers that players show one after the
other, and when each picture is due, in seconds after the start of the file.
"""

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch

from etadlite.base.errors import InputError
from etadlite.data.other_decoders import load

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a page for every film otherwise

RATE, COUNT = 30, 96
SOUND = "aac", np.float32, "fltp"
# Width and height, pixels, the first number, frames before the first picture, degrees.
LAYOUT = {"size": (64, 64), "pix_fmt": "yuv420p", "first": 0, "late": 0, "rotation": 0}
AAC = 16_000  # samples per second


class Film(NamedTuple):
    """What players show of a file."""

    path: Path
    numbers: np.ndarray  # [F]
    times: np.ndarray  # [F] seconds


def picture(number, width=64, height=64):
    """RGB, uint8 [height, width, 3]; a fixed noise shows what was not decoded."""
    squares = np.array([number >> bit & 1 for bit in range(16)], np.uint8).reshape(4, 4)
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    noise = np.random.default_rng(0).integers(0, 40, (height, width), np.uint8)
    gray = squares[rows[:, None], columns] * np.uint8(200) + noise
    return np.stack([gray] * 3, -1)


def numbers(frames):
    """The numbers that frames [..., 3, H, W] show."""
    gray = frames.float().mean(-3)
    rows, columns = gray.shape[-2] // 4, gray.shape[-1] // 4
    gray = gray[..., : 4 * rows, : 4 * columns]
    squares = gray.unflatten(-1, (4, -1)).unflatten(-3, (4, -1))  # [..., 4, H/4, 4, W/4]
    inner = squares[..., rows // 4 : -(rows // 4), :, columns // 4 : -(columns // 4)]
    white = inner.mean((-3, -1)).flatten(-2) > 118
    return (white.long() << torch.arange(16)).sum(-1).numpy()


def usable(decoder):
    """Skip a test without the decoder."""
    try:
        load(decoder)
    except InputError as error:
        pytest.skip(str(error))


def write(
    path, count=COUNT, *, codec="libx264", rate=RATE, times=None, muxer=None, sound=None, **options
):
    """Write a video of 64x64 pixels, whose options are those of the codec, and of `LAYOUT`.

    `times` in ms make its rate vary; `sound` is seconds of silence.
    """
    layout = {name: options.pop(name, value) for name, value in LAYOUT.items()}
    size, first, late = layout["size"], layout["first"], layout["late"]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.thread_count = layout["pix_fmt"], 1
        stream.options = {name.replace("_", "-"): str(value) for name, value in options.items()}
        if layout["rotation"]:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip(f"PyAV {av.__version__} cannot store the rotation of a video")
            stream.set_display_rotation(layout["rotation"])
        ticks = np.arange(count) + late if times is None else np.asarray(times)
        clock = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
        stream.codec_context.time_base = clock
        # Matroska would start at the samples that prime an AAC decoder.
        audio = ("pcm_s16le", np.int16, "s16") if path.suffix == ".mkv" else SOUND
        noise = container.add_stream(audio[0], rate=AAC) if sound else None
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(picture(first + k, *size), format="rgb24")
            frame.pts, frame.time_base = int(ticks[k]), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if noise:
            for k in range(int(sound * AAC / 1024)):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), audio[1]), audio[2], "mono"
                )
                silence.rate, silence.pts, silence.time_base = AAC, k * 1024, Fraction(1, AAC)
                container.mux(noise.encode(silence))
            container.mux(noise.encode(None))
    return path


def with_hidden(path, codec, mask):
    """Before each key frame a copy of it that is not shown, as encoders store pictures to refer to.

    `mask` are the bits of the first byte that say to show the picture.
    """
    plain = write(path.with_stem("plain"), codec=codec, **VPX)
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in (p for p in given.demux(stream) if p.size):
            if packet.is_keyframe and packet.pts > 0:
                content = bytearray(bytes(packet))
                content[0] &= ~mask
                hidden = av.Packet(bytes(content))
                hidden.stream, hidden.time_base, hidden.duration = copy, packet.time_base, 1
                hidden.pts = hidden.dts = packet.pts - 1
                out.mux(hidden)
            packet.stream = copy
            out.mux(packet)
    return Film(path, np.arange(COUNT), np.arange(COUNT) / RATE)


def even(path, rate=RATE, late=0, count=COUNT, **how):
    write(path, count, rate=rate, late=late, **how)
    return Film(path, np.arange(count), (late + np.arange(count)) / float(rate))


def paused(path, **how):
    """A camera that takes no picture for 1.5 seconds: one behind it may be stored before it."""
    ticks = np.concatenate([np.arange(41), 86 + np.arange(COUNT - 41)])
    write(path, times=np.round(ticks * 100 / 3), **how)
    return Film(path, np.arange(COUNT), ticks / RATE)


VARYING = np.cumsum(np.random.default_rng(0).integers(15, 90, COUNT))
VARYING = VARYING - VARYING[0]


def varying(path, **how):
    write(path, times=VARYING, **how)
    return Film(path, np.arange(COUNT), VARYING / 1000)


def with_gaps(path):
    """AVI writes an empty packet where a picture is left out."""
    ticks = np.concatenate([np.arange(40), 60 + np.arange(COUNT - 40)])
    write(path, times=np.round(ticks * 100 / 3), codec="mpeg4", g=12)
    return Film(path, np.arange(COUNT), ticks / RATE)


def copied(source, target, keep: Callable[[int], bool], shift=0, muxer=None):
    """Copy the packets that are kept (by their number in the file) without encoding them again."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=muxer or {}) as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in given.demux(stream) if p.size):
            if keep(number):
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copy
                out.mux(packet)
    return target


def edited(path, skipped=30, behind=0, late=0):
    """An edit list that starts between two key frames: what lies before is decoded, not shown.

    Of a film that starts late, the first entry of the list is empty.
    """
    write(path, g=24, bf=2, sc_threshold=0, late=late, sound=late and 5.0)
    content = bytearray(path.read_bytes())
    place = content.find(b"elst") + (24 if late else 12)
    length, start = struct.unpack(">ii", content[place : place + 8])
    tick = int(av.open(str(path)).streams.video[0].time_base.denominator) // RATE
    start, length = start + skipped * tick, length + (skipped + behind) * -1000 // RATE
    content[place : place + 8] = struct.pack(">ii", length, start)
    path.write_bytes(content)
    times = (late + np.arange(COUNT - skipped)) / RATE
    return Film(path, np.arange(skipped, COUNT), times)


def trimmed(path):
    """An edit list that leaves out the start and the end, as phones write it."""
    film = edited(path, 30, 20)
    return Film(path, film.numbers[:-20], film.times[:-20])


def cut_between_key_frames(path):
    """A copy of a broadcast that starts between key frames: its first pictures need lost ones."""
    write(path.with_stem("whole"), bf=0, g=24, sc_threshold=0)
    copied(path.with_stem("whole"), path, lambda number: number >= 10)
    return Film(path, np.arange(10, COUNT), np.arange(COUNT - 10) / RATE)


def cut_at_open_gop(path, **how):
    """A copy that starts at a key frame, behind which pictures are stored that lead it.

    They need pictures before the cut, and are due before the start: players show none of them.
    """
    whole = write(path.with_stem("whole"), **how)
    with av.open(str(whole)) as given:
        stream = given.streams.video[0]
        packets = [(p.pts, p.is_keyframe) for p in given.demux(stream) if p.size]
        second = [number for number, (_, key) in enumerate(packets) if key][1]
        key, frame = packets[second][0], round(1 / RATE / stream.time_base)
    shown = (key - packets[0][0]) // frame
    shift = -key if path.suffix == ".mkv" else 0
    muxer = {"avoid_negative_ts": "disabled"}
    copied(whole, path, lambda number: number >= second, shift, muxer)
    return Film(path, np.arange(shown, COUNT), np.arange(COUNT - shown) / RATE)


def cut_copy(path):
    """A copy that starts at a key frame, with sound that starts earlier, as `ffmpeg -ss` leaves."""
    write(path, late=17, sound=3.0, bf=2, g=24)
    return Film(path, np.arange(COUNT), (17 + np.arange(COUNT)) / RATE)


def joined(path, **how):
    """Two recordings, one behind the other: the clock starts again."""
    parts = [path.with_name(f"part{k}{path.suffix}") for k in (0, 1)]
    half = COUNT // 2
    for k, part in enumerate(parts):
        write(part, half, first=k * half, bf=2, g=12, **how)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return Film(path, np.arange(COUNT), np.arange(COUNT) / RATE)


def with_second(path, *, cover=False):
    """A film and another stream of pictures before it: a cover, or behind it: a small one."""
    with av.open(str(path), "w") as container:

        def add(codec, size, pix_fmt):
            stream = container.add_stream(codec, rate=RATE)
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            return stream

        small = add("mjpeg", (32, 32), "yuvj420p") if cover else None
        if small:
            small.disposition = av.stream.Disposition.attached_pic.value
        film = add("libx264", (64, 64), "yuv420p")
        film.options = {"bf": "2", "g": "24"}
        small = small or add("libx264", (32, 32), "yuv420p")
        for k in range(COUNT):
            for stream in (small, film):
                if stream is small and cover and k:
                    continue
                number = 4000 + k if stream is small else k
                shown = picture(number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, RATE)
                container.mux(stream.encode(frame))
        for stream in (small, film):
            container.mux(stream.encode())
    return Film(path, np.arange(COUNT), np.arange(COUNT) / RATE)


B = {"bf": 3, "g": 24, "sc_threshold": 0}
VPX = {"g": 40, "auto_alt_ref": 1, "lag_in_frames": 16, "cpu_used": 4, "deadline": "good"}
X265 = "log-level=none:keyint=24:bframes=3"
OPEN = f"{X265}:open-gop=1:b-adapt=0:scenecut=0"
KINDS: dict[str, Callable[[Path], Film]] = {
    "h264.mp4": lambda path: even(path, **B),
    "h264.mkv": lambda path: even(path, **B),
    "h264.mov": lambda path: even(path, **B),
    "h264.avi": lambda path: even(path, **B),
    "h264.ts": lambda path: even(path, **B),
    "h264.flv": lambda path: even(path, **B),
    "ntsc.mp4": lambda path: even(path, Fraction(30000, 1001), **B),
    "one_key_frame.mp4": lambda path: even(path, g=999, sc_threshold=0),
    "intra.mp4": lambda path: even(path, g=1),
    "open_gop.mp4": lambda path: even(path, x264_params="open-gop=1:keyint=24:bframes=3"),
    "open_gop.ts": lambda path: even(path, x264_params="open-gop=1:keyint=24:bframes=3"),
    "intra_refresh.mp4": lambda path: even(
        path, size=(320, 64), x264_params="intra-refresh=1:keyint=30:bframes=0"
    ),
    "intra_refresh.ts": lambda path: even(
        path, size=(320, 64), x264_params="intra-refresh=1:keyint=30:bframes=0"
    ),
    "fragmented.mp4": lambda path: even(path, muxer={"movflags": "frag_keyframe+empty_moov"}, **B),
    "varying.mp4": lambda path: varying(path, **B),
    "varying.mkv": lambda path: varying(path, **B),
    "gaps.avi": with_gaps,
    "paused.mp4": lambda path: paused(path, bf=2, b_strategy=0, g=30, sc_threshold=0),
    "paused.mkv": lambda path: paused(path, bf=2, b_strategy=0, g=30, sc_threshold=0),
    "late.mp4": lambda path: even(path, late=45, sound=5.0, **B),
    "late.mkv": lambda path: even(path, late=45, sound=5.0, **B),
    "long_sound.mp4": lambda path: even(path, sound=6.0, **B),
    "cut_copy.mp4": cut_copy,
    "cut_open_gop.ts": lambda path: cut_at_open_gop(path, codec="libx265", x265_params=OPEN),
    "cut_open_gop.mkv": lambda path: cut_at_open_gop(path, codec="libx265", x265_params=OPEN),
    "edit_list.mp4": edited,
    "trimmed.mp4": trimmed,
    "late_edit_list.mp4": lambda path: edited(path, late=45),
    "joined.ts": joined,
    "joined.mpg": lambda path: joined(path, codec="mpeg2video", b=2_000_000),
    "joined.mkv": joined,
    "cover.mp4": lambda path: with_second(path, cover=True),
    "two_films.mp4": with_second,
    "two_films.mkv": with_second,
    "rotated.mp4": lambda path: even(path, rotation=90, **B),
    "interlaced.mp4": lambda path: even(path, x264_params="tff=1:keyint=24:bframes=2"),
    "odd.mkv": lambda path: even(path, size=(75, 67), pix_fmt="yuv444p", **B),
    "ten_bit.mp4": lambda path: even(path, pix_fmt="yuv420p10le", **B),
    "hevc.mp4": lambda path: even(path, codec="libx265", x265_params=f"{X265}:open-gop=0"),
    "hevc_open_gop.mp4": lambda path: even(path, codec="libx265", x265_params=f"{X265}:open-gop=1"),
    "hevc_ten_bit.mkv": lambda path: even(
        path, codec="libx265", pix_fmt="yuv420p10le", x265_params=f"{X265}:open-gop=0"
    ),
    "vp8_hidden.webm": lambda path: with_hidden(path, "libvpx", 0x10),
    "vp9_hidden.webm": lambda path: with_hidden(path, "libvpx-vp9", 0x02),
    "vp9.mp4": lambda path: even(path, codec="libvpx-vp9", **VPX),
    "vp9_alpha.webm": lambda path: even(
        path, codec="libvpx-vp9", pix_fmt="yuva420p", **VPX | {"auto_alt_ref": 0}
    ),
    "av1.mp4": lambda path: even(path, codec="libsvtav1", g=24, preset=12),
    "av1.webm": lambda path: even(path, codec="libsvtav1", g=24, preset=12),
    "mpeg4.avi": lambda path: even(path, codec="mpeg4", bf=2, g=24),
    "mpeg4.mp4": lambda path: even(path, codec="mpeg4", bf=2, g=24),
    "mpeg2.mpg": lambda path: even(path, codec="mpeg2video", bf=2, g=24, b=2_000_000),
    "mpeg2.ts": lambda path: even(path, codec="mpeg2video", bf=2, g=24, b=2_000_000),
    "mpeg1.mpg": lambda path: even(path, codec="mpeg1video", bf=2, g=24, b=2_000_000),
    "mjpeg.avi": lambda path: even(path, codec="mjpeg", pix_fmt="yuvj420p"),
    "mjpeg.mov": lambda path: even(path, codec="mjpeg", pix_fmt="yuvj420p"),
    "prores.mov": lambda path: even(path, codec="prores_ks", pix_fmt="yuv422p10le"),
    "prores_alpha.mov": lambda path: even(path, codec="prores_ks", pix_fmt="yuva444p10le"),
    "png_alpha.mov": lambda path: even(path, codec="png", pix_fmt="rgba"),
    "wmv2.wmv": lambda path: even(path, codec="wmv2", g=24, b=2_000_000),
    "flv1.flv": lambda path: even(path, codec="flv", g=24, b=2_000_000),
    "ffv1.mkv": lambda path: even(path, codec="ffv1", g=24),
    "h263.3gp": lambda path: even(path, codec="h263", size=(128, 96), g=24),
}
