"""A video that shows its detections: frame by frame, so that memory does not grow with it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

from etadlite.base.files import written_whole
from etadlite.data.video import Video
from etadlite.viz.style import colours_of

TICK = Fraction(1, 90_000)  # MPEG's clock; every frame keeps its own time
SMALLEST_SIDE = 320  # pixels; below it nobody could read the text


def write_annotated(
    video: Path | Video,
    target: Path,
    detections: Sequence[Mapping[str, Any]],
    labels: Sequence[str] = (),
) -> Path:
    """Write a video with its detections as MP4 (H.264, no sound).

    Under the picture runs a bar of the whole video with the detections and a line at the present
    moment; on the picture stand label and score of what is detected there at that moment. Frames
    keep their times, and a video that is stored on its side is turned upright. A picture whose
    longer side is below 320 pixels is enlarged, and an odd column or row is cut off.

    Args:
        video: the file, or the opened video.
        target: where to; ends in .mp4.
        detections: {"segment" [s], "label", "score"}, those that shall be seen.
        labels: all classes, so that each keeps its colour; by default those that occur.

    Returns:
        The target.

    Raises:
        InputError: the file is no video of two frames or more.
    """
    if not isinstance(video, Video):
        video = Video(video)
    info = video.info
    colours = colours_of(labels or sorted({item["label"] for item in detections}))
    shown = [
        (*item["segment"], f"{item['label']} {item['score']:.2f}", colours[item["label"]])
        for item in detections
    ]
    stream, bar = None, None
    with written_whole(target) as draft, av.open(draft, "w") as container:
        for index, frame in video:
            picture = _upright(frame)
            if stream is None:
                size = picture.width // 2 * 2, picture.height // 2 * 2
                bar = _bar(size[0], info.duration, shown)
                stream = container.add_stream("libx264", rate=_rate(info.fps))
                stream.width, stream.height = size[0], size[1] + bar.height
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
                stream.options = {"preset": "veryfast"}
            now = float(video.times[index])
            sheet = Image.new("RGB", (stream.width, stream.height))
            sheet.paste(picture, (0, 0))
            sheet.paste(bar, (0, size[1]))
            _draw_moment(
                sheet,
                size,
                now / info.duration,
                [item for item in shown if item[0] <= now < item[1]],
            )
            written = av.VideoFrame.from_image(sheet)
            written.pts, written.time_base = round(now / TICK), TICK
            container.mux(stream.encode(written))
        container.mux(stream.encode())
    return target


Shown = tuple[float, float, str, str]  # start s, end s, text, colour


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _upright(frame: av.VideoFrame) -> Image.Image:
    picture = frame.to_image()
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    scale = -(-SMALLEST_SIDE // max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale)) if scale > 1 else picture


def _font(width: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=max(13, width // 45))


def _bar(width: int, duration: float, shown: Sequence[Shown]) -> Image.Image:
    """The whole video as a bar, its detections one above the other where they overlap."""
    lanes: list[float] = []  # where each ends so far
    placed = []
    for item in sorted(shown):
        lane = next((k for k, end in enumerate(lanes) if end <= item[0]), len(lanes))
        lanes[lane : lane + 1] = [item[1]]
        placed.append((lane, item))
    font = _font(width)
    line = 2 * (font.getbbox("Ag")[3] // 2 + 3)
    bar = Image.new("RGB", (width, line * max(len(lanes), 1) + 4), "#202020")
    for lane, (start, end, text, colour) in placed:
        left, right = start / duration * width, max(end / duration * width, 1)
        room = Image.new("RGB", (max(round(right - left), 1), line - 2), colour)
        ImageDraw.Draw(room).text((3, 0), text, fill="black", font=font)  # cut where the bar ends
        bar.paste(room, (round(left), 2 + lane * line))
    return bar


def _draw_moment(
    sheet: Image.Image, size: tuple[int, int], share: float, items: Sequence[Shown]
) -> None:
    """The line at the present moment, and what is detected now."""
    draw, font = ImageDraw.Draw(sheet), _font(size[0])
    at = min(share, 1) * (size[0] - 1)
    draw.line([(at, size[1]), (at, sheet.height)], fill="white", width=2)
    top = 4
    for _, _, text, colour in items:
        left, upper, right, lower = draw.textbbox((8, top + 2), text, font=font)
        draw.rectangle([left - 4, upper - 3, right + 4, lower + 3], fill=colour)
        draw.text((8, top + 2), text, fill="black", font=font)
        top = lower + 6
