"""Detections over time: a timeline with frames, and a video that shows its detections."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image, ImageColor, ImageDraw

from etadlite.base.display import width
from etadlite.base.files import written_whole
from etadlite.data.video import Video
from etadlite.viz.style import HATCHES, Look, legend_outside, looks_of, plain, readable, tidy

if TYPE_CHECKING:
    from etadlite.viz.fonts import Pen

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
    so that each keeps its look in all pictures; by default those that occur. Label and score are
    written where they have room up to the next bar, else the label alone, else nothing. If a label
    is longer than its bar, a legend below explains the looks.
    """
    chosen = {name: best(segments, top) for name, segments in rows.items()}
    shown = [item for segments in chosen.values() for item in segments]
    occurring = sorted({item["label"] for item in shown})
    looks, names = looks_of(labels or occurring), readable(labels or occurring)
    figure = draw_rows(chosen, looks, names, duration, 1.2 if len(frames) else 0.01, sharex=True)
    _draw_frames(figure.axes[0], frames, duration)
    if any(_too_long(item, names, duration) for item in shown):
        bars = [Patch(label=names[label], **_face(looks[label])) for label in occurring]
        figure.set_figheight(figure.get_figheight() + 0.25 * -(-len(bars) // 6))
        legend_outside(figure, "lower center", handles=bars, ncols=6, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return plain(figure)


def draw_rows(
    rows: Mapping[str, Segments],
    looks: Mapping[str, Look],
    names: Mapping[str, str],
    duration: float,
    above: float,
    *,
    sharex: bool = False,
) -> Figure:
    """Draw rows of segments over an axis of seconds, below an empty axis `above` inches high.

    `names` are how the labels are written, see `readable`.
    """
    lanes = {name: lanes_of(segments) for name, segments in rows.items()}
    heights = [above, *(0.34 * (max(lane, default=0) + 1) + 0.12 for lane in lanes.values())]
    figure = Figure(figsize=(12, sum(heights) + 0.9), layout="constrained")
    figure.subplots(len(heights), 1, height_ratios=heights, sharex=sharex)
    for axis, (name, segments) in zip(figure.axes[1:], rows.items(), strict=True):
        for item, lane in zip(segments, lanes[name], strict=True):
            end = item["segment"][1]
            others = zip(segments, lanes[name], strict=True)
            starts = [o["segment"][0] for o, other in others if other == lane]
            until = min((start for start in starts if start >= end), default=duration)
            _draw_segment(axis, item, lane, looks[item["label"]], names[item["label"]], until)
        axis.set(ylim=(max(lanes[name], default=0) + 0.6, -0.6), yticks=[], xlim=(0, duration))
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        tidy(axis, "x", hidden=("top", "right", "left"))
    figure.axes[-1].set_xlabel("time (s)")
    return plain(figure)


def best(segments: Segments, top: int) -> list[Mapping[str, Any]]:
    """Return the `top` best detections, or all true actions, which have no score."""
    scored = [item for item in segments if "score" in item]
    return sorted(scored, key=lambda item: -item["score"])[:top] if scored else list(segments)


def caption(item: Mapping[str, Any], name: str) -> str:
    """Return the label of a segment as it is written, and its score if it has one."""
    return f"{name} {item['score']:.2f}" if "score" in item else name


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


def _too_long(item: Mapping[str, Any], names: Mapping[str, str], duration: float) -> bool:
    """Return True if a bar is narrower than its label, which takes about 0.06 inches a column."""
    start, end = item["segment"]
    return 0.06 * width(names[item["label"]]) > 11 * (end - start) / duration


def _draw_frames(axis: Axes, frames: np.ndarray, duration: float) -> None:
    width = duration / max(len(frames), 1)
    for index, frame in enumerate(frames):
        axis.imshow(frame, extent=(index * width, (index + 1) * width, 0, 1), aspect="auto")
    axis.set(xlim=(0, duration), ylim=(0, 1), yticks=[])
    axis.tick_params(bottom=False)
    axis.spines[:].set_visible(False)


def _face(look: Look) -> dict[str, Any]:
    return {"facecolor": look.colour, "hatch": look.hatch, "edgecolor": "white", "linewidth": 0}


def _draw_segment(
    axis: Axes, item: Mapping[str, Any], lane: int, look: Look, name: str, until: float
) -> None:
    start, end = item["segment"]
    alpha = 0.25 + 0.65 * float(np.clip(item["score"], 0, 1)) if "score" in item else 0.9
    axis.barh(lane, end - start, left=start, height=0.86, alpha=alpha, **_face(look))
    axis.add_artist(FittedText([caption(item, name), name], start, until, lane))


class FittedText(Text):
    """The first of some texts that fits between a bar's start and the next bar; none if none does.

    The room is measured when the picture is drawn, whatever its size then.
    """

    def __init__(self, texts: Sequence[str], start: float, until: float, lane: int) -> None:
        super().__init__(start, lane, f" {texts[0]}", va="center", fontsize=7, clip_on=True)
        self.texts, self.until = texts, until

    def draw(self, renderer: Any) -> None:
        """Choose a text and draw it."""
        for text in self.texts:
            self.set_text(f" {text}")
            end = self.get_transform().transform((self.until, 0))[0]
            if self.get_window_extent(renderer).x1 <= end:
                super().draw(renderer)
                return
        self.set_text("")


def write_annotated(
    video: Video, target: Path, detections: Segments, labels: Sequence[str] = ()
) -> Path:
    """Write a video with its detections as MP4 (H.264, no sound), frame by frame.

    The frames are those of `annotated`, and keep their times.
    """
    with written_whole(target) as draft, av.open(draft, "w") as container:
        stream = None
        for now, sheet in annotated(video, detections, labels):
            if stream is None:
                rate = Fraction(video.info.fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate)
                stream.width, stream.height = sheet.size
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
                stream.options = {"preset": "veryfast"}
            written = av.VideoFrame.from_image(sheet)
            written.pts, written.time_base = round(now / TICK), TICK
            container.mux(stream.encode(written))
        container.mux(stream.encode())
    return target


def annotated(
    video: Video, detections: Segments, labels: Sequence[str] = (), truth: Segments = ()
) -> Iterator[tuple[float, Image.Image]]:
    """Yield the frames of a video with its detections, each with its time in seconds.

    A bar below the picture shows all detections of the video, below the true actions if they are
    given, and a line marks the present moment. The picture shows label and score of what is
    detected at that moment. A video that is stored on its side is turned upright. A picture whose
    longer side is below 320 pixels is enlarged, and an odd column or row is cut off. `labels` are
    all classes, so that each keeps its look; by default those that occur.
    """
    from etadlite.viz.fonts import Pen, readable_by_pillow

    duration = video.info.duration
    known = labels or sorted({item["label"] for item in (*detections, *truth)})
    looks, names = looks_of(known), readable_by_pillow(known)
    pen, bar = None, None
    for index, frame in video:
        picture, now = _upright(frame), float(video.times[index])
        if pen is None or bar is None:
            now = 0.0  # players show the first picture from the start on
            width, height = picture.width // 2 * 2, picture.height // 2 * 2
            pen = Pen(max(13, width // 45))
            rows = [row for row in (truth, detections) if row or row is detections]
            bar = _stacked([_bar(width, duration, row, looks, names, pen) for row in rows])
        sheet = Image.new("RGB", (width, height + bar.height))
        sheet.paste(picture, (0, 0))
        sheet.paste(bar, (0, height))
        at = min(now / duration, 1) * (width - 1)
        ImageDraw.Draw(sheet).line([(at, height), (at, sheet.height)], fill="white", width=2)
        top = 4
        for item in detections:
            if item["segment"][0] <= now < item["segment"][1]:
                text, look = caption(item, names[item["label"]]), looks[item["label"]]
                box = _filled(look, round(pen.width(text)) + 8, pen.size + 8)
                pen.write(ImageDraw.Draw(box), (4, 3), text)
                sheet.paste(box, (4, top))
                top += box.height + 3
        yield now, sheet


def _upright(frame: av.VideoFrame) -> Image.Image:
    picture = frame.to_image()
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    scale = max(-(-SMALLEST_SIDE // max(picture.size)), 1)
    # Pixels become squares: nothing is made up, and a film of them stays small.
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _bar(
    width: int,
    duration: float,
    detections: Segments,
    looks: Mapping[str, Look],
    names: Mapping[str, str],
    pen: "Pen",
) -> Image.Image:
    """Draw the whole video as a bar, with overlapping detections below each other.

    A detection has its label and score where they fit, else its label, else nothing.
    """
    ordered: list[Mapping[str, Any]] = sorted(detections, key=lambda item: item["segment"])
    lanes, line = lanes_of(ordered), 2 * (pen.size // 2 + 4)
    bar = Image.new("RGB", (width, line * (max(lanes, default=0) + 1) + 4), "#202020")
    for lane, item in zip(lanes, ordered, strict=True):
        start, end = item["segment"]
        left, right = start / duration * width, max(end / duration * width, 1)
        room = _filled(looks[item["label"]], max(round(right - left), 1), line - 2)
        name = names[item["label"]]
        fitting = (t for t in (caption(item, name), name) if pen.width(t) <= room.width - 6)
        pen.write(ImageDraw.Draw(room), (3, 1), next(fitting, ""))
        bar.paste(room, (round(left), 2 + lane * line))
    return bar


def _stacked(bars: Sequence[Image.Image]) -> Image.Image:
    """Return bars of one width below each other."""
    whole = Image.new("RGB", (bars[0].width, sum(bar.height for bar in bars)))
    top = 0
    for bar in bars:
        whole.paste(bar, (0, top))
        top += bar.height
    return whole


def _filled(look: Look, width: int, height: int) -> Image.Image:
    """Return a picture in the colour of a class; those that share it differ in their stripes."""
    plain = np.full((height, width, 3), ImageColor.getrgb(look.colour), np.uint8)
    if look.hatch:
        y, x = np.mgrid[:height, :width]
        number = HATCHES.index(look.hatch)
        across, down = (1, 1, 0, 2, 1)[number % 5], (1, -1, 1, 1, -2)[number % 5]
        apart = 6 + 2 * (number // 5)
        plain[(across * x + down * y) % apart < 2] = 255
    return Image.fromarray(plain)
