"""Pictures of a run: its curves, and timelines of its test videos."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etadlite.base.files import write_json
from etadlite.base.names import inside
from etadlite.config import DataSettings, Settings
from etadlite.data.split import read_split
from etadlite.data.video import Video
from etadlite.data.video_files import video_file
from etadlite.training.recorder import read_metrics
from etadlite.viz.curves import draw_curves
from etadlite.viz.style import readable, save
from etadlite.viz.timeline import draw_timeline


def draw_run_curves(folders: Mapping[str, Path], target: Path) -> Path:
    """Draw the training curves of runs, name -> run directory, into one picture."""
    runs = {name: read_metrics(folder) for name, folder in folders.items()}
    return save(draw_curves(runs), target)


def draw_test_videos(
    settings: Settings, systems: Mapping[str, dict[str, Any]], folder: Path, count: int = 2
) -> list[Path]:
    """Draw timelines of the first test videos: ground truth and each system's detections.

    `systems` are name -> predictions in ActivityNet's structure. The timeline of a video without a
    file, such as for features that others extracted, has no frames.
    """
    predicted = set.intersection(*(set(found["results"]) for found in systems.values()))
    videos = read_split(settings.data, training=False)
    paths = []
    for video in [video for video in videos if video.name in predicted][:count]:
        truth = [{"segment": [a.start, a.end], "label": a.label} for a in video.actions]
        rows = {"true": truth} | {
            name: one_a_moment(predictions["results"][video.name], len(truth) + 2)
            for name, predictions in systems.items()
        }
        figure = draw_timeline(
            frames_of(settings.data, video.name),
            video.duration,
            rows,
            title=f"test video {video.name}",
            labels=settings.detector.classes,
        )
        paths.append(save(figure, inside(folder, f"timeline_{video.name}.png")))
    write_legend(settings.detector.classes, folder)
    return paths


def write_legend(labels: Sequence[str], folder: Path) -> None:
    """Write what the numbers in a folder's pictures mean, if no font has some letters of labels."""
    numbered = {number: label for label, number in readable(labels).items() if number != label}
    if numbered:
        write_json(folder / "labels.json", numbered)


def frames_of(data: DataSettings, name: str) -> np.ndarray:
    """Return a few frames of a video of the data set, see `strip`; none if it has no file."""
    path = video_file(data.videos, name) if data.videos else None
    return strip(path) if path else np.empty((0, 1, 1, 3), np.uint8)


def strip(path: Path, count: int = 12, height: int = 96) -> np.ndarray:
    """Return frames that are spread evenly over a video file, uint8 [F, H, W, 3]."""
    return Video(path).strip(count, height)


def one_a_moment(detections: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Choose the detections that a person wants to see: the best, at most `count` of them.

    None covers another by half, and none scores less than a tenth of the best.
    """
    chosen: list[dict[str, Any]] = []
    for item in detections:
        if len(chosen) == count or item["score"] < 0.1 * detections[0]["score"]:
            break
        start, end = item["segment"]
        if all(
            min(end, last) - max(start, first) < 0.5 * min(end - start, last - first)
            for first, last in (other["segment"] for other in chosen)
        ):
            chosen.append(item)
    return chosen
