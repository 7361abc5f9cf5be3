"""Converts videos to 15 frames a second and a short side of 256 pixels.

    python data_scripts/convert_videos.py RAW \
        data/activitynet-1.3/raw_data/Anet_videos_15fps_short256 --workers 16

A video that was converted before is skipped after a look at it; one that is broken, takes too long
or kills its process is listed in the report, DST.conversion.json, and costs no other.
Run the command again to continue.
"""

import json
import os
import sys
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import av
import typer
from av.error import FFmpegError
from av.filter import Graph
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import disk_is_full, write_json, written_whole
from etadlite.data.video import Video, VideoInfo
from etadlite.prepare.isolated import in_processes

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".3gp")
TOO_DAMAGED = 0.05
"""Share of a video's frames that may be undecodable; the frames before stand in for them."""

FULL = "the disk is full"
"""How the reason ends that is no fault of a video."""

UPRIGHT = {  # degrees against the clock by which a picture has to be turned: FFmpeg's filters
    90: (("transpose", "cclock"),),
    -90: (("transpose", "clock"),),
    180: (("hflip", ""), ("vflip", "")),
    -180: (("hflip", ""), ("vflip", "")),
}
"""Phones store pictures as the sensor lay, and the angle beside them."""


class Job(NamedTuple):
    """A video to convert, and where to."""

    source: Path
    target: Path


class Converted(NamedTuple):
    """A converted video.

    Attributes:
        frames: how many it has.
        duration: in seconds.
        damaged: frames of the source that cannot be decoded.
        new: whether it was converted now.
    """

    frames: int
    duration: float
    damaged: int
    new: bool


def convert(job: Job, fps: int, short_side: int) -> Converted:
    """Convert a video without its sound, or find that this was done before.

    Each moment shows the frame nearest to it, as FFmpeg's filter `fps` chooses. The picture keeps
    its shape; its longer side is rounded to an even number of pixels. One that is stored on its
    side is turned upright.

    Raises:
        InputError: the source is cut off or too damaged, the result is not whole, or the disk is
            full.
    """
    source, target = job
    info = Video(source).info
    if target.exists() and not _misfit(target, info, fps, short_side):
        made = Video(target).info
        return Converted(made.frames, round(made.duration, 3), 0, False)
    if info.note:
        raise InputError(f"{source}: {info.note}")
    try:
        with written_whole(target) as draft:
            decoded = _write(source, draft, fps, _size(info, short_side))
            damaged = max(0, info.frames - decoded)
            if damaged > TOO_DAMAGED * info.frames:
                raise InputError(f"{source}: {damaged} of {info.frames} frames cannot be decoded")
            if wrong := _misfit(draft, info, fps, short_side):
                raise InputError(f"{source}: the converted video {wrong}")
            made = Video(draft).info
    except OSError as error:
        if not disk_is_full(error):
            raise
        raise InputError(f"{target}: {FULL}") from None
    return Converted(made.frames, round(made.duration, 3), damaged, True)


def _size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Width and height, the longer one even."""
    scale = short_side / min(info.width, info.height)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (info.width, info.height))
    return (width, short_side) if info.width > info.height else (short_side, height)


def _write(source: Path, draft: Path, fps: int, size: tuple[int, int]) -> int:
    """Decode, choose frames, scale and encode; return how many frames could be decoded."""
    decoded = 0
    with av.open(str(source)) as container, av.open(str(draft), "w") as out:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # the videos are what runs in parallel
        made = out.add_stream("libx264", rate=fps, options={"crf": "23", "g": str(2 * fps)})
        made.width, made.height = size
        made.pix_fmt, made.codec_context.thread_count = "yuv420p", 1
        graph = None
        for frame in _decodable(container, stream):
            if graph is None:
                graph = _graph(stream, frame, fps, size)
                if frame.rotation % 180:
                    made.height, made.width = size
            graph.push(frame)
            decoded += 1
            _encode(graph, made, out)
        if graph is not None:
            graph.push(None)
            _encode(graph, made, out)
        out.mux(made.encode(None))
    return decoded


def _decodable(container: Any, stream: Any) -> Iterable[av.VideoFrame]:
    """The frames that can be decoded, with those left out that cannot."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        yield from (frame for frame in frames if frame.pts is not None)


def _graph(stream: Any, frame: av.VideoFrame, fps: int, size: tuple[int, int]) -> Graph:
    """Filters: the frame nearest to each moment, at the size wanted, upright."""
    graph = Graph()
    start = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base
    )
    chosen = graph.add("fps", f"fps={fps}")
    scaled = graph.add("scale", f"{size[0]}:{size[1]}:flags=bicubic")
    pixels = graph.add("format", "yuv420p")
    turned = [graph.add(*turn) for turn in UPRIGHT.get(frame.rotation, ())]
    graph.link_nodes(start, chosen, scaled, pixels, *turned, graph.add("buffersink")).configure()
    return graph


def _encode(graph: Graph, made: Any, out: Any) -> None:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        frame.pict_type = 0  # so that the encoder chooses its own key frames
        frame.time_base = frame.time_base or Fraction(1, 1)
        out.mux(made.encode(frame))


def _misfit(path: Path, source: VideoInfo, fps: int, short_side: int) -> str:
    """In what way a converted video is not whole or not of these settings; empty if it is."""
    try:
        info = Video(path).info
    except InputError as error:
        return f"cannot be read: {error}"
    if info.note:
        return info.note
    if min(info.width, info.height) != short_side or abs(info.fps - fps) > 0.5:
        return f"has {info.fps:.2f} fps and a short side of {min(info.width, info.height)}"
    if abs(info.duration - source.duration) > max(1.0, 0.02 * source.duration):
        return f"lasts {info.duration:.1f} s instead of {source.duration:.1f} s"
    return ""


def jobs_of(source: Path, target: Path) -> list[Job]:
    """The videos of a folder and its folders, by name.

    Raises:
        InputError: there are none, or two would become one file.
    """
    if not source.is_dir():
        raise InputError(f"{source}: there is no such folder of videos")
    jobs: dict[str, Job] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if path.stem in jobs:
            raise InputError(
                f"{jobs[path.stem].source} and {path} would both become {path.stem}.mp4; "
                "rename one or move it away"
            )
        jobs[path.stem] = Job(path, target / f"{path.stem}.mp4")
    if not jobs:
        raise InputError(f"{source} has no videos ({', '.join(SUFFIXES)})")
    return list(jobs.values())


def report_file(target: Path) -> Path:
    """Where the report on a folder of converted videos lies: beside it, under its name."""
    return target.with_name(f"{target.name}.conversion.json")


def convert_all(
    source: Path,
    target: Path,
    *,
    fps: int = 15,
    short_side: int = 256,
    workers: int = 1,
    seconds: float = 3600.0,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Convert the videos of a folder in parallel, and write the report.

    What earlier runs told of videos that this one did not come to stays in the report, under
    "not reached".

    Returns:
        "converted" and "skipped" (frames, duration, damaged frames) and "broken" (why), by file.

    Raises:
        InputError: the folder has no videos, two would become one file, or the disk is full.
    """
    jobs = jobs_of(source, target)
    report: dict[str, dict[str, Any]] = {"converted": {}, "skipped": {}, "broken": {}}
    before = _earlier(target)
    work = in_processes(
        partial(convert, fps=fps, short_side=short_side), jobs, workers=workers, seconds=seconds
    )
    try:
        with tqdm(work, "convert", len(jobs), unit="video", disable=not progress) as bar:
            for job, made, error in bar:
                name = job.source.name
                if error.endswith(FULL):
                    raise InputError(f"{error}; make room and run this again, the rest is kept")
                if made is None:
                    report["broken"][name] = error
                elif made.new:
                    report["converted"][name] = _entry(made)
                else:
                    report["skipped"][name] = before.get(name) or _entry(made)
                bar.set_postfix({kind: len(entries) for kind, entries in report.items()})
    finally:
        work.close()
        for draft in target.glob("*.part.mp4"):
            draft.unlink(missing_ok=True)  # of a process that was killed
        told = {name for entries in report.values() for name in entries}
        left = {name: entry for name, entry in before.items() if name not in told}
        content = {"fps": fps, "short_side": short_side, **report}
        write_json(report_file(target), content | ({"not reached": left} if left else {}))
    return report


def _entry(made: Converted) -> dict[str, Any]:
    entry = {"frames": made.frames, "duration": made.duration}
    return {**entry, "damaged_frames": made.damaged} if made.damaged else entry


def _earlier(target: Path) -> dict[str, Any]:
    """What earlier runs told of the videos that they converted."""
    try:
        report = json.loads(report_file(target).read_text(encoding="utf-8"))
        return report.get("not reached", {}) | report["skipped"] | report["converted"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder of what they become.")],
    *,
    fps: Annotated[int, typer.Option(min=1, help="Frames a second.")] = 15,
    short_side: Annotated[int, typer.Option(min=2, help="Pixels, even.")] = 256,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    seconds: Annotated[float, typer.Option(help="Time limit of a video.")] = 3600.0,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Convert the videos of SRC into DST."""
    try:
        if short_side % 2:
            raise InputError(f"--short-side {short_side} is odd; H.264 needs an even number")
        if source.resolve() == target.resolve():
            raise InputError(f"SRC and DST are both {source}; the originals would be overwritten")
        report = convert_all(
            source,
            target,
            fps=fps,
            short_side=short_side,
            workers=workers or os.cpu_count() or 1,
            seconds=seconds,
            progress=progress,
        )
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    print(", ".join(f"{len(entries):,} {kind}" for kind, entries in report.items()))
    for name, made in (report["converted"] | report["skipped"]).items():
        if damaged := made.get("damaged_frames"):
            print(f"  damaged: {name}: {damaged} frames of the original cannot be decoded")
    for name, why in report["broken"].items():
        print(f"  broken: {name}: {why}")
    print(f"report: {report_file(target)}")
    if report["broken"]:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
