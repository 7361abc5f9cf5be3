"""Generated data: stick figures in eight actions that differ by motion only."""

from etadlite.data.stickfigures.dataset import (
    SIZES,
    Size,
    make_dataset,
    render_video,
    studio_clips,
    write_video,
)
from etadlite.data.stickfigures.motion import CLASSES, FPS, IDLE, plan_timeline
from etadlite.data.stickfigures.scene import STUDIO, TARGET, SceneSettings, render

__all__ = [
    "CLASSES",
    "FPS",
    "IDLE",
    "SIZES",
    "STUDIO",
    "TARGET",
    "SceneSettings",
    "Size",
    "make_dataset",
    "plan_timeline",
    "render",
    "render_video",
    "studio_clips",
    "write_video",
]
