"""Converts videos to 15 frames a second and a short side of 256 pixels.

    python data_scripts/convert_videos.py RAW \
        data/activitynet-1.3/raw_data/Anet_videos_15fps_short256 --workers 16

A video that was converted before is checked and skipped. A video that is broken, takes too long or
kills its process is listed in the report, DST.conversion.json, and stops no other one. Run the
command again to continue.
"""

import json
import os
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import av
import typer
from av.filter import Graph
from tqdm import tqdm

from etadlite.base.errors import InputError, disk_is_full
from etadlite.base.files import write_json, written_whole
from etadlite.data.video import Video, VideoInfo
from etadlite.prepare.isolated import in_processes

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".3gp")
TICK = Fraction(1, 90_000)  # seconds
TOO_DAMAGED = 0.05
"""Share of a video's frames that may be undecodable; the frames before them replace them."""

UPRIGHT = {  # counterclockwise degrees by which a picture has to be turned -> FFmpeg's filters
    90: (("transpose", "cclock"),),
    -90: (("transpose", "clock"),),
    180: (("hflip", ""), ("vflip", "")),
    -180: (("hflip", ""), ("vflip", "")),
}
"""Phones store pictures as the sensor was held, and the angle beside them."""


class DiskFullError(InputError):
    """The disk is full, which is no fault of a video."""


class Job(NamedTuple):
    """A video to convert, and the file that it becomes."""

    source: Path
    target: Path


class Converted(NamedTuple):
    """A converted video.

    Attributes:
        frames: number of its frames.
        duration: in seconds.
        damaged: number of the source's frames that cannot be decoded.
        new: False if it was converted before.
    """

    frames: int
    duration: float
    damaged: int
    new: bool


def convert(job: Job, fps: int, short_side: int) -> Converted:
    """Convert a video without its sound, unless this was done before.

    FFmpeg's filter `fps` chooses the nearest frame for each moment. The picture keeps its shape;
    its longer side is rounded to an even number of pixels. A picture that is stored on its side is
    turned upright.

    Raises:
        InputError: the source is cut off or too damaged, or the result is not whole.
        DiskFullError: the disk is full.
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
        raise DiskFullError(f"{target}: the disk is full") from None
    return Converted(made.frames, round(made.duration, 3), damaged, True)


def _attempt(job: Job, fps: int, short_side: int) -> Converted | DiskFullError:
    """Convert a video; return the error that must stop the other conversions, too."""
    try:
        return convert(job, fps, short_side)
    except DiskFullError as error:
        return error


def _size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Return width and height; the longer one is even."""
    scale = short_side / min(info.width, info.height)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (info.width, info.height))
    return (width, short_side) if info.width > info.height else (short_side, height)


def _write(source: Path, draft: Path, fps: int, size: tuple[int, int]) -> int:
    """Decode, choose frames, scale and encode; return how many frames could be decoded."""
    decoded, video = 0, Video(source)
    due = (video.times / float(TICK)).round().astype(int).tolist()
    with av.open(str(draft), "w") as out:
        made = out.add_stream("libx264", rate=fps, options={"crf": "23", "g": str(2 * fps)})
        made.width, made.height = size
        made.pix_fmt, made.codec_context.thread_count = "yuv420p", 1
        graph = None
        for index, frame in video:
            frame.pts, frame.time_base = due[index], TICK
            frame.duration = due[index + 1] - due[index]
            if graph is None:
                graph = _graph(frame, fps, size)
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


def _graph(frame: av.VideoFrame, fps: int, size: tuple[int, int]) -> Graph:
    """Build filters that give the nearest frame for each moment, upright and in the wanted size.

    What players show before the first picture, the first picture, is written, too.
    """
    graph = Graph()
    start = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=TICK
    )
    chosen = graph.add("fps", f"fps={fps}:start_time=0")
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
    """Return why a converted video is incomplete or has other settings; empty if it is right."""
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
    """Return the videos of a folder and its subfolders, by name.

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
    """Return the file of the report on a folder of converted videos, which lies beside it."""
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

    Videos that this run does not reach keep their entries of earlier runs, under "not reached".

    Returns:
        "converted", "skipped" and "broken", each by file: frames, duration and damaged frames, or
        why the video is broken.

    Raises:
        InputError: the folder has no videos, two would become one file, or the disk is full.
    """
    jobs = jobs_of(source, target)
    report: dict[str, dict[str, Any]] = {"converted": {}, "skipped": {}, "broken": {}}
    before = _earlier(target)
    work = in_processes(
        partial(_attempt, fps=fps, short_side=short_side), jobs, workers=workers, seconds=seconds
    )
    try:
        with tqdm(work, "convert", len(jobs), unit="video", disable=not progress) as bar:
            for job, made, error in bar:
                name = job.source.name
                if isinstance(made, DiskFullError):
                    raise InputError(f"{made}; make room and run this again, the rest is kept")
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
        reached = {name for entries in report.values() for name in entries}
        left = {name: entry for name, entry in before.items() if name not in reached}
        content = {"fps": fps, "short_side": short_side, **report}
        write_json(report_file(target), content | ({"not reached": left} if left else {}))
    return report


def _entry(made: Converted) -> dict[str, Any]:
    entry = {"frames": made.frames, "duration": made.duration}
    return {**entry, "damaged_frames": made.damaged} if made.damaged else entry


def _earlier(target: Path) -> dict[str, Any]:
    """Return what earlier runs reported about the videos that they converted."""
    try:
        report = json.loads(report_file(target).read_text(encoding="utf-8"))
        return report.get("not reached", {}) | report["skipped"] | report["converted"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the converted videos.")],
    *,
    fps: Annotated[int, typer.Option(min=1, help="Frame rate.")] = 15,
    short_side: Annotated[int, typer.Option(min=2, help="Pixels, even.")] = 256,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.")] = None,
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
