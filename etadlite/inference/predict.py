"""Detections on a video of one's own."""

from pathlib import Path
from typing import Any

import torch

from etadlite.config import Settings
from etadlite.data.augment import centre_crop
from etadlite.data.datasets import decode_snippets
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import probe
from etadlite.errors import InputError
from etadlite.inference.detect import detections_of
from etadlite.training.system import System


@torch.inference_mode()
def predict(video: Path, system: System, settings: Settings) -> list[dict[str, Any]]:
    """Detect actions in a video file.

    Args:
        video: the file.
        system: a trained system with a video encoder.
        settings: those that it was trained with.

    Returns:
        Detections, each {"segment": [start s, end s], "label", "score"}, best first.

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
    info = probe(video)
    frames = centre_crop(decode_snippets(video, settings.data), settings.data.crop)
    system.eval()
    grid = TimeGrid.over_video(info.duration, settings.data.snippets)
    return detections_of(system(frames[None]), [grid], settings)[0]
