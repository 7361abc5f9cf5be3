"""A video's timeline: frames, what happens, and what was detected."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from etadlite.viz.style import colours_of

Segments = Sequence[Mapping[str, Any]]


def draw_timeline(
    frames: np.ndarray,
    duration: float,
    rows: Mapping[str, Segments],
    *,
    title: str = "",
    top: int = 12,
    labels: Sequence[str] = (),
) -> Figure:
    """Frames of a video above rows of segments on a common axis of seconds.

    Where a label does not fit its bar, a legend below says what the colours mean.

    Args:
        frames: uint8 [n, H, W, 3], spread evenly over the video.
        duration: of the video, in seconds.
        rows: name -> segments, each {"segment": [start s, end s], "label"} and for detections
            {"score"}, which is written on the bar and shown as its opacity.
        title: above the picture.
        top: detections shown a row, the best ones.
        labels: all classes, so that each keeps its colour from picture to picture; by default
            those that occur.

    Returns:
        The figure.
    """
    chosen = {name: best(segments, top) for name, segments in rows.items()}
    lanes = {name: lanes_of(segments) for name, segments in chosen.items()}
    heights = [0.34 * max(max(lane, default=0) + 1, 1) + 0.12 for lane in lanes.values()]
    heights = [1.2 if len(frames) else 0.01, *heights]
    figure = Figure(figsize=(12, sum(heights) + 0.9), layout="constrained")
    axes = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    _draw_frames(axes[0], frames, duration)
    occurring = {item["label"] for segments in chosen.values() for item in segments}
    colours = colours_of(labels or sorted(occurring))
    for axis, (name, segments) in zip(axes[1:], chosen.items(), strict=True):
        draw_row(axis, name, segments, lanes[name], colours=colours, duration=duration)
    axes[-1].set_xlabel("time (s)")
    if any(_too_long(item, duration) for segments in chosen.values() for item in segments):
        bars = [Patch(color=colours[label], label=label) for label in sorted(occurring)]
        figure.set_figheight(figure.get_figheight() + 0.25 * -(-len(bars) // 6))
        figure.legend(handles=bars, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _too_long(item: Mapping[str, Any], duration: float) -> bool:
    """Whether a bar is narrower than its label, by about 0.06 inches a letter."""
    start, end = item["segment"]
    return 0.06 * len(item["label"]) > 11 * (end - start) / duration


def draw_row(
    axis: Axes,
    name: str,
    segments: Segments,
    lanes: Sequence[int],
    *,
    colours: Mapping[str, str],
    duration: float,
) -> None:
    """One row of segments, each in its lane, over an axis of seconds."""
    for item, lane in zip(segments, lanes, strict=True):
        _draw_segment(axis, item, lane, colours[item["label"]])
    axis.set(ylim=(max(lanes, default=0) + 0.6, -0.6), yticks=[], xlim=(0, duration))
    axis.set_ylabel(name, rotation=0, ha="right", va="center")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.grid(axis="x", alpha=0.3)


def best(segments: Segments, top: int) -> list[Mapping[str, Any]]:
    """The `top` best detections; ground truth, which has no score, in full."""
    scored = [item for item in segments if "score" in item]
    if not scored:
        return list(segments)
    return sorted(scored, key=lambda item: -item["score"])[:top]


def lanes_of(segments: Segments) -> list[int]:
    """A lane for every segment, so that none overlaps another of its lane."""
    free: list[float] = []
    lanes = []
    for item in segments:
        taken = [
            lanes[i] for i, other in enumerate(segments[: len(lanes)]) if _overlap(item, other)
        ]
        lanes.append(next(lane for lane in range(len(free) + 1) if lane not in taken))
        free = list(range(max(lanes) + 1))
    return lanes


def _overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a["segment"][0] < b["segment"][1] and b["segment"][0] < a["segment"][1]


def _draw_frames(axis: Axes, frames: np.ndarray, duration: float) -> None:
    width = duration / max(len(frames), 1)
    for index, frame in enumerate(frames):
        axis.imshow(frame, extent=(index * width, (index + 1) * width, 0, 1), aspect="auto")
    axis.set(xlim=(0, duration), ylim=(0, 1), yticks=[])
    axis.tick_params(bottom=False)
    axis.spines[:].set_visible(False)


def _draw_segment(axis: Axes, item: Mapping[str, Any], lane: int, colour: str) -> None:
    start, end = item["segment"]
    score = item.get("score")
    alpha = 0.9 if score is None else 0.25 + 0.65 * min(max(score, 0.0), 1.0)
    (bar,) = axis.barh(lane, end - start, left=start, height=0.86, color=colour, alpha=alpha)
    text = item["label"] if score is None else f"{item['label']} {score:.2f}"
    written = axis.text(start, lane, f" {text}", va="center", fontsize=7, clip_on=True)
    written.set_clip_path(bar)  # a short bar shows the beginning of its text
