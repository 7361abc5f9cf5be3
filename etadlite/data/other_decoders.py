"""decord and torchcodec, for the files that they read correctly.

Both choose where to start by the container's key frames and decode without a word on damage, so
what a file holds decides whether they may be used; see `unfit`.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from etadlite.base.errors import InputError
from etadlite.data.bitstream import can_start
from etadlite.data.packets import ROUNDED, Packets, Timeline, open_video

TOGETHER = 16  # frames that are decoded at once
INDEXED = ("mov,", "matroska,")  # containers in which both find every frame


def load(name: str) -> Any:
    """Import decord or torchcodec.

    Raises:
        InputError: it is not installed, or lacks FFmpeg's shared libraries.
    """
    needs = {"decord": "", "torchcodec": " and FFmpeg's shared libraries"}[name]
    remedy = f'pip install "etadlite[{name}]"{needs}, or leave data.decoder=auto'
    try:
        if name == "decord":
            import decord

            return decord
        import torchcodec.decoders
        import torchcodec.transforms

        # From version 0.17 on it is imported without FFmpeg, too, and fails only when it is used.
        if getattr(torchcodec._core.ops, "ffmpeg_major_version", "") is None:
            raise RuntimeError
        return torchcodec
    except (ImportError, OSError, RuntimeError) as error:
        why = "it is not installed" if isinstance(error, ImportError) else "its libraries fail"
        raise InputError(f"data.decoder={name} cannot be used: {why}; {remedy}") from None


def unfit(name: str, path: Path, timeline: Timeline) -> str:
    """Say in words why a decoder might return wrong frames of a file; empty if it reads it."""
    if timeline.ticks is None or not timeline.container.startswith(INDEXED):
        return f"it cannot find the frames of {timeline.container} files"
    if timeline.restarts:
        return "the file's clock starts again"
    changed = path.stat().st_mtime_ns
    edited, recovery, leading = _oddities(path, changed, timeline.stream, timeline.codec)
    if recovery:
        return "pictures that are marked as key frames need earlier ones"
    reasons = {
        "it does not follow edit lists": edited,
        "it loses pictures that are shown before a key frame": leading,
        "it cannot decode AV1": timeline.codec == "av1",
    }
    return next((why for why, holds in reasons.items() if holds and name == "decord"), "")


@lru_cache(maxsize=512)
def _oddities(path: Path, changed: int, number: int, codec: str) -> tuple[bool, bool, bool]:
    """Return whether an edit list hides pictures, key frames are none, or come too late.

    A key frame comes too late for pictures that are shown before it and stored behind it.
    """
    edited = recovery = leading = False
    with open_video(path) as container:
        stream, behind = container.streams[number], None
        for packet in Packets(container, stream):
            edited |= packet.is_discard
            if packet.is_keyframe:
                header = stream.codec_context.extradata
                recovery |= not can_start(codec, memoryview(packet), header)
                behind = packet.pts
            if behind is not None:  # a picture without a time lies before the start
                leading |= packet.pts is None or packet.pts < behind
    return edited, recovery, leading


def other_pictures(
    name: str, path: Path, timeline: Timeline, wanted: np.ndarray, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Decode frames, upright and of a size, uint8 [H, W, 3]; `wanted` are ascending indices.

    Raises:
        InputError: the decoder cannot be used, might return wrong frames of this file, or fails.
    """
    module, frames, why = load(name), len(timeline.times) - 1, unfit(name, path, timeline)
    try:
        if not why:
            found, read = (_decord if name == "decord" else _torchcodec)(module, path, size)
            if found != frames:  # it might wait for the others for ever
                why = f"it finds {found} of {frames} frames"
        for start in range(0, 0 if why else len(wanted), TOGETHER):
            indices = wanted[start : start + TOGETHER]
            pictures, times = read(indices.tolist())
            due = (timeline.ticks[indices] - timeline.ticks[0]) * timeline.tick
            if np.abs(times - due).max() > ROUNDED:
                why = "it returns frames of other times"
                break
            yield from pictures
    except Exception as error:
        if not (isinstance(error, RuntimeError) or type(error).__name__ == "DECORDError"):
            raise
        why = "it fails"
    if why:
        raise InputError(
            f"{path}: data.decoder={name} does not read this file correctly ({why}); "
            "leave data.decoder=auto"
        )


def _decord(module: Any, path: Path, size: tuple[int, int]) -> tuple[int, Callable]:
    """Open a file; return the number of its frames, and a function that reads some of them.

    The function also returns when they are due, in seconds after the first one.
    """
    height, width = size
    reader = module.VideoReader(str(path.absolute()), width=width, height=height, num_threads=1)

    def read(indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        times = np.asarray(reader.get_frame_timestamp(indices))[:, 0]
        return reader.get_batch(indices).asnumpy(), times

    return len(reader), read


def _torchcodec(module: Any, path: Path, size: tuple[int, int]) -> tuple[int, Callable]:
    """Open a file as `_decord` does."""
    resize = module.transforms.Resize(size)
    reader = module.decoders.VideoDecoder(
        path.absolute(), dimension_order="NHWC", transforms=[resize]
    )
    first = reader.metadata.begin_stream_seconds

    def read(indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        batch = reader.get_frames_at(indices)
        return batch.data.numpy(), batch.pts_seconds.numpy() - first

    return len(reader), read
