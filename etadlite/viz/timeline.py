"""Detections over time: a timeline with frames, and a video that shows its detections."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw, ImageFont

from etadlite.base.files import written_whole
from etadlite.data.video import Video
from etadlite.viz.style import colours_of, legend_outside, plain, tidy

Segments = Sequence[Mapping[str, Any]]
TICK = Fraction(1, 90_000)  # MPEG's clock; every frame keeps its own time
SMALLEST_SIDE = 320  # pixels; nobody could read the text in a smaller picture


def draw_timeline(
    frames: np.ndarray,
    duration: float,
    rows: Mapping[str, Segments],
    *,
    title: str = "",
    top: int = 12,
    labels: Sequence[str] = (),
) -> Figure:
    """Draw frames of a video above rows of segments, on one axis of seconds.

    The frames, uint8 [F, H, W, 3], are spread evenly over the video. A row is name -> segments,
    {"segment": [start s, end s], "label"} each. Detections also have a "score", which is written on
    the bar and shown as its opacity; the `top` best of a row are shown. `labels` are all classes,
    so that each keeps its colour in all pictures; by default those that occur. If a label does not
    fit its bar, a legend below explains the colours.
    """
    chosen = {name: best(segments, top) for name, segments in rows.items()}
    shown = [item for segments in chosen.values() for item in segments]
    occurring = sorted({item["label"] for item in shown})
    colours = colours_of(labels or occurring)
    figure = draw_rows(chosen, colours, duration, 1.2 if len(frames) else 0.01, sharex=True)
    _draw_frames(figure.axes[0], frames, duration)
    if any(_too_long(item, duration) for item in shown):
        bars = [Patch(color=colours[label], label=label) for label in occurring]
        figure.set_figheight(figure.get_figheight() + 0.25 * -(-len(bars) // 6))
        legend_outside(figure, "lower center", handles=bars, ncols=6, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return plain(figure)


def draw_rows(
    rows: Mapping[str, Segments],
    colours: Mapping[str, str],
    duration: float,
    above: float,
    *,
    sharex: bool = False,
) -> Figure:
    """Draw rows of segments over an axis of seconds, below an empty axis `above` inches high."""
    lanes = {name: lanes_of(segments) for name, segments in rows.items()}
    heights = [above, *(0.34 * (max(lane, default=0) + 1) + 0.12 for lane in lanes.values())]
    figure = Figure(figsize=(12, sum(heights) + 0.9), layout="constrained")
    figure.subplots(len(heights), 1, height_ratios=heights, sharex=sharex)
    for axis, (name, segments) in zip(figure.axes[1:], rows.items(), strict=True):
        for item, lane in zip(segments, lanes[name], strict=True):
            _draw_segment(axis, item, lane, colours[item["label"]])
        axis.set(ylim=(max(lanes[name], default=0) + 0.6, -0.6), yticks=[], xlim=(0, duration))
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        tidy(axis, "x", hidden=("top", "right", "left"))
    figure.axes[-1].set_xlabel("time (s)")
    return plain(figure)


def best(segments: Segments, top: int) -> list[Mapping[str, Any]]:
    """Return the `top` best detections, or all true actions, which have no score."""
    scored = [item for item in segments if "score" in item]
    return sorted(scored, key=lambda item: -item["score"])[:top] if scored else list(segments)


def caption(item: Mapping[str, Any]) -> str:
    """Return the label of a segment, and its score if it has one."""
    return f"{item['label']} {item['score']:.2f}" if "score" in item else item["label"]


def lanes_of(segments: Segments) -> list[int]:
    """Return a lane for every segment, so that no two segments in a lane overlap."""
    lanes: list[int] = []
    for start, end in (item["segment"] for item in segments):
        taken = {
            lane
            for lane, other in zip(lanes, segments, strict=False)
            if start < other["segment"][1] and other["segment"][0] < end
        }
        lanes.append(next(lane for lane in count() if lane not in taken))
    return lanes


def _too_long(item: Mapping[str, Any], duration: float) -> bool:
    """Return True if a bar is narrower than its label, which takes about 0.06 inches a letter."""
    start, end = item["segment"]
    return 0.06 * len(item["label"]) > 11 * (end - start) / duration


def _draw_frames(axis: Axes, frames: np.ndarray, duration: float) -> None:
    width = duration / max(len(frames), 1)
    for index, frame in enumerate(frames):
        axis.imshow(frame, extent=(index * width, (index + 1) * width, 0, 1), aspect="auto")
    axis.set(xlim=(0, duration), ylim=(0, 1), yticks=[])
    axis.tick_params(bottom=False)
    axis.spines[:].set_visible(False)


def _draw_segment(axis: Axes, item: Mapping[str, Any], lane: int, colour: str) -> None:
    start, end = item["segment"]
    alpha = 0.25 + 0.65 * float(np.clip(item["score"], 0, 1)) if "score" in item else 0.9
    (bar,) = axis.barh(lane, end - start, left=start, height=0.86, color=colour, alpha=alpha)
    text = axis.text(start, lane, f" {caption(item)}", va="center", fontsize=7, clip_on=True)
    text.set_clip_path(bar)  # a short bar shows the beginning of its text


def write_annotated(
    video: Video, target: Path, detections: Segments, labels: Sequence[str] = ()
) -> Path:
    """Write a video with its detections as MP4 (H.264, no sound), frame by frame.

    A bar below the picture shows all detections of the video, and a line in it marks the present
    moment. The picture shows label and score of what is detected at that moment. Frames keep their
    times, and a video that is stored on its side is turned upright. A picture whose longer side is
    below 320 pixels is enlarged, and an odd column or row is cut off. `labels` are all classes, so
    that each keeps its colour; by default those that occur.
    """
    duration = video.info.duration
    colours = colours_of(labels or sorted({item["label"] for item in detections}))
    with written_whole(target) as draft, av.open(draft, "w") as container:
        stream, bar = None, None
        for index, frame in video:
            picture, now = _upright(frame), float(video.times[index])
            if stream is None:
                now = 0.0  # players show the first picture from the start on
                width, height = picture.width // 2 * 2, picture.height // 2 * 2
                bar = _bar(width, duration, detections, colours)
                rate = Fraction(video.info.fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate)
                stream.width, stream.height = width, height + bar.height
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
                stream.options = {"preset": "veryfast"}
            sheet = Image.new("RGB", (stream.width, stream.height))
            sheet.paste(picture, (0, 0))
            sheet.paste(bar, (0, height))
            at = min(now / duration, 1) * (width - 1)
            ImageDraw.Draw(sheet).line([(at, height), (at, sheet.height)], fill="white", width=2)
            current = [d for d in detections if d["segment"][0] <= now < d["segment"][1]]
            _write_captions(sheet, current, colours)
            written = av.VideoFrame.from_image(sheet)
            written.pts, written.time_base = round(now / TICK), TICK
            container.mux(stream.encode(written))
        container.mux(stream.encode())
    return target


def _upright(frame: av.VideoFrame) -> Image.Image:
    picture = frame.to_image()
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    scale = -(-SMALLEST_SIDE // max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale)) if scale > 1 else picture


def _font(width: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=max(13, width // 45))


def _bar(
    width: int, duration: float, detections: Segments, colours: Mapping[str, str]
) -> Image.Image:
    """Draw the whole video as a bar, with overlapping detections below each other."""
    ordered: list[Mapping[str, Any]] = sorted(detections, key=lambda item: item["segment"])
    lanes, font = lanes_of(ordered), _font(width)
    line = 2 * (font.getbbox("Ag")[3] // 2 + 3)
    bar = Image.new("RGB", (width, line * (max(lanes, default=0) + 1) + 4), "#202020")
    for lane, item in zip(lanes, ordered, strict=True):
        start, end = item["segment"]
        left, right = start / duration * width, max(end / duration * width, 1)
        # The text is cut where the bar ends.
        room = Image.new("RGB", (max(round(right - left), 1), line - 2), colours[item["label"]])
        ImageDraw.Draw(room).text((3, 0), caption(item), fill="black", font=font)
        bar.paste(room, (round(left), 2 + lane * line))
    return bar


def _write_captions(sheet: Image.Image, current: Segments, colours: Mapping[str, str]) -> None:
    draw, font, top = ImageDraw.Draw(sheet), _font(sheet.width), 4
    for item in current:
        left, upper, right, lower = draw.textbbox((8, top + 2), caption(item), font=font)
        draw.rectangle([left - 4, upper - 3, right + 4, lower + 3], fill=colours[item["label"]])
        draw.text((8, top + 2), caption(item), fill="black", font=font)
        top = lower + 6
