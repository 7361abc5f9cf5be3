"""Detections in a new video."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from etadlite.base.errors import InputError
from etadlite.config import DataSettings, Settings
from etadlite.data.datasets import centre_crop, decode_snippets
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import Video
from etadlite.inference.detect import detections_of
from etadlite.model.system import System


@torch.inference_mode()
def predict(video: Path | Video, system: System, settings: Settings) -> list[dict[str, Any]]:
    """Detect actions in a video: {"segment": [start s, end s], "label", "score"}, best first.

    The settings are those of the system's training. A system that was trained on windows
    (`data.window_stride`) sees the video in windows, and its detections are merged.

    Raises:
        InputError: the file is no readable video of two frames or more, or the system takes
            features.

    Warns:
        VideoWarning: the file is damaged.
    """
    if system.encoder is None:
        raise InputError(
            f"the checkpoint of {settings.name} was trained on stored features and has no encoder; "
            "predict with a checkpoint that was trained on videos, such as of e2e_stickfigures"
        )
    if not isinstance(video, Video):
        video = Video(video)
    system.eval()
    found = []
    for frames, grid in _inputs(video, settings.data):
        found += detections_of(system(frames[None]), [grid], settings)[0]
    if settings.data.window_stride is not None:
        from etadlite.inference.merge import merge_windows  # few runs need it

        found = merge_windows(found, video.info.duration, settings.inference)
    return found


def _inputs(video: Video, settings: DataSettings) -> Iterator[tuple[Tensor, TimeGrid]]:
    """Yield the inputs of the system, snippets [N, 3, F, H, W] of the video or of its windows."""
    info, cells, stride = video.info, settings.snippets, settings.window_stride
    cut = partial(centre_crop, side=settings.crop)
    if stride is None:
        yield cut(decode_snippets(video, settings)), TimeGrid.over_video(info.duration, cells)
        return
    from etadlite.data.windows import decode_window, windows_of  # few runs need it

    overlap, offset = settings.window_overlap, settings.window_offset
    for window in windows_of(video.count, size=cells, stride=stride, overlap=overlap):
        frames = decode_window(video, window, settings, cut, frames=video.count)
        yield frames, TimeGrid.window(window.first_frame, cells, stride, info.fps, offset)
