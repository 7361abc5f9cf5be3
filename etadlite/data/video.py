"""Video files: what they hold, and their frames at the size a network wants.

Every call opens the file, decodes with one thread and closes it again: an open reader costs memory
and does not survive a fork.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from etadlite.base.errors import InputError
from etadlite.data.decoding import Timeline, VideoInfo, decode_frames, require_motion, scan
from etadlite.data.timegrid import SnippetRule, snippet_frames

__all__ = ["VideoInfo", "VideoWarning", "frame_times", "probe", "read_frames", "read_snippets"]

Decoder = Literal["pyav", "decord"]
Resize = Literal["decoder", "after"]

# From version 17 on PyAV resizes with a thread for each core, which costs more than it brings here.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class VideoWarning(UserWarning):
    """A video is damaged but could be used: the message says what is missing."""


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
    info, timeline = scan(Path(path))
    if decode:
        decoded = sum(1 for _ in decode_frames(info.path, timeline, np.arange(info.frames)))
        require_motion(info.path, decoded)
        if decoded < info.frames:
            damage = f"{info.frames - decoded} of {info.frames} frames cannot be decoded"
            info = replace(info, note=f"{info.note}; {damage}" if info.note else damage)
    if info.note:
        warnings.warn(f"{info.path}: {info.note}", VideoWarning, stacklevel=2)
    return info


def frame_times(path: Path | str) -> np.ndarray:
    """When each frame of a video is shown, and when the last ends: seconds [frames + 1].

    They are evenly spread where the rate is constant or the file does not tell.

    Raises:
        InputError: the file is no video of two frames or more.
    """
    info, timeline = scan(Path(path))
    if timeline.times is None:
        return np.arange(info.frames + 1) / info.fps
    return np.append((timeline.times - timeline.times[0]) * timeline.tick, info.duration)


def read_frames(
    path: Path | str,
    indices: np.ndarray,
    size: tuple[int, int],
    decoder: Decoder = "pyav",
    *,
    resize: Resize = "decoder",
) -> torch.Tensor:
    """Read frames by their index.

    A frame that cannot be decoded is replaced by the nearest one that can. What a camera stored on
    its side is turned upright.

    Args:
        path: the video file.
        indices: frame indices, integers [...], in any order, repeated or not.
        size: height and width to decode at, in pixels; the picture is stretched to it.
        decoder: "pyav", or "decord", which is used where it can read the file correctly.
        resize: "decoder" gives pictures of this size right away; "after" decodes in full and then
            samples between the four nearest pixels, as published, for more time.

    Returns:
        RGB frames, uint8 [..., 3, H, W].

    Raises:
        InputError: the file is no video of two frames or more, or an index lies outside of it.

    Warns:
        VideoWarning: the file is cut off, or frames had to be replaced.
    """
    info, timeline = scan(Path(path))
    indices = np.asarray(indices)
    if indices.size and not (indices.min() >= 0 and indices.max() < info.frames):
        raise InputError(
            f"{path} has the frames 0 to {info.frames - 1}, but frames "
            f"{indices.min()} to {indices.max()} were asked for"
        )
    out = torch.empty((indices.size, 3, *size), dtype=torch.uint8)
    _fill(out, indices.reshape(-1), info, timeline, decoder=decoder, resize=resize)
    return out.reshape(*indices.shape, 3, *size)


def read_snippets(
    path: Path | str,
    snippets: int,
    length: int,
    size: tuple[int, int],
    step: int = 1,
    *,
    rule: SnippetRule = "cells",
    decoder: Decoder = "pyav",
    resize: Resize = "decoder",
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
        rule: where the snippets lie, see `snippet_frames`.
        decoder: as in `read_frames`.
        resize: as in `read_frames`.

    Returns:
        RGB snippets, uint8 [N, 3, F, H, W].

    Raises:
        InputError: the file is no video of two frames or more.

    Warns:
        VideoWarning: the file is cut off, or frames had to be replaced.
    """
    info, timeline = scan(Path(path))
    indices = snippet_frames(info.frames, snippets, length, step, rule=rule)
    out = torch.empty((snippets, 3, length, *size), dtype=torch.uint8)
    _fill(out.transpose(1, 2), indices, info, timeline, decoder=decoder, resize=resize)
    return out


def _fill(
    out: torch.Tensor,
    indices: np.ndarray,
    info: VideoInfo,
    timeline: Timeline,
    *,
    decoder: Decoder,
    resize: Resize,
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
    fast = decoder == "decord" and resize == "decoder"
    if fast and _fill_with_decord(put, wanted, (height, width), info, timeline):
        return

    reformatter = VideoReformatter()

    def picture(frame: av.VideoFrame) -> np.ndarray:
        options = {"interpolation": "BILINEAR", **ONE_THREAD}
        turns = round(frame.rotation / 90)  # counterclockwise
        if resize == "after":
            stored = reformatter.reformat(frame, format="rgb24", **ONE_THREAD).to_ndarray()
            return _sampled(np.rot90(stored, turns), (height, width))
        across, down = (height, width) if turns % 2 else (width, height)
        stored = reformatter.reformat(frame, across, down, "rgb24", **options).to_ndarray()
        return np.rot90(stored, turns) if turns else stored

    number, decoded, replaced, before = 0, 0, 0, None
    for index, frame in decode_frames(info.path, timeline, wanted):
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


def _sampled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture [H, W, 3] at another size, each pixel between the four nearest ones."""
    channels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(channels, size, mode="bilinear")
    return resized[0].round().byte().permute(1, 2, 0).numpy()


def _fill_with_decord(
    put: Callable[[int, np.ndarray], None],
    wanted: np.ndarray,
    size: tuple[int, int],
    info: VideoInfo,
    timeline: Timeline,
) -> bool:
    """Put the wanted frames with decord; say whether that worked.

    It does not where decord finds another number of frames (it may wait for them for ever) or
    fails. It is tried only on MP4 and Matroska files without HEVC: elsewhere it can return wrong
    frames unnoticed.
    """
    if timeline.codec == "hevc" or not timeline.container.startswith(("mov,", "matroska,")):
        return False
    try:
        import decord

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
