"""A video that shows its detections, written frame by frame, so that memory stays constant."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

from etadlite.base.files import written_whole
from etadlite.data.video import Video
from etadlite.viz.style import colours_of
from etadlite.viz.timeline import Segments, caption, lanes_of

TICK = Fraction(1, 90_000)  # MPEG's clock; every frame keeps its own time
SMALLEST_SIDE = 320  # pixels; nobody could read the text in a smaller picture


def write_annotated(
    video: Video, target: Path, detections: Segments, labels: Sequence[str] = ()
) -> Path:
    """Write a video with its detections as MP4 (H.264, no sound).

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
            picture = _upright(frame)
            if stream is None:
                width, height = picture.width // 2 * 2, picture.height // 2 * 2
                bar = _bar(width, duration, detections, colours)
                rate = Fraction(video.info.fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate)
                stream.width, stream.height = width, height + bar.height
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
                stream.options = {"preset": "veryfast"}
            now = float(video.times[index])
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
