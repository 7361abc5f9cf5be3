"""Detections on videos of one's own, as files: JSON, CSV, timelines and annotated videos."""

import csv
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from av.error import FFmpegError
from tqdm import tqdm

from etadlite.base.devices import resolve_device
from etadlite.base.errors import InputError
from etadlite.base.files import write_json, written_whole
from etadlite.data.split import is_video
from etadlite.data.video import VideoWarning, probe
from etadlite.inference.predict import longest_trained, predict
from etadlite.model.system import checkpoint_settings, load_checkpoint
from etadlite.runs.run import one_a_moment, strip
from etadlite.viz import draw_timeline, write_annotated
from etadlite.viz.style import save

COLUMNS = ("video", "start_s", "end_s", "label", "score")

Detections = list[dict[str, Any]]


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """The given video files and those that lie in the given folders, by name.

    Raises:
        InputError: a folder holds no video, or two videos have the same name but for the suffix.
    """
    videos: list[Path] = []
    for path in paths:
        inside = sorted(filter(is_video, path.iterdir())) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path} holds no video file; give one, or the folder that has them")
        videos += inside
    names: dict[str, Path] = {}
    for video in videos:
        other = names.setdefault(video.stem, video)
        if other is not video:
            raise InputError(f"{other} and {video} would have the same name; rename one of them")
    return videos


def predict_videos(
    videos: Sequence[Path],
    checkpoint: Path,
    out: Path,
    *,
    threshold: float = 0.0,
    annotate: bool = False,
    device: str = "auto",
    log: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> dict[str, Detections]:
    """Detect actions in videos and write everything that shows them.

    OUT/predictions.json (ActivityNet structure) and OUT/predictions.csv hold all detections,
    OUT/NAME.png a timeline and OUT/NAME.mp4 the annotated video of those that stand out. A video
    that cannot be read does not stop the others; the files are written for what there is, also
    when the work is interrupted.

    Args:
        videos: files with different names, see `find_videos`.
        checkpoint: of a run that was trained on videos.
        out: folder of the results.
        threshold: lowest score of a detection that is kept.
        annotate: write annotated videos as well.
        device: auto, cpu, cuda or mps.
        log: called with a line about every video.
        progress: show a bar where there are several videos.

    Returns:
        Name of each video that could be read -> its detections, best first.

    Raises:
        InputError: a checkpoint that cannot be used; at the end, videos that could not be read.
    """
    if out.resolve() in {video.parent.resolve() for video in videos}:
        raise InputError(f"{out} is the folder of the videos: choose another --out for the results")
    settings = checkpoint_settings(checkpoint)
    system = load_checkpoint(checkpoint, settings).to(resolve_device(device))
    trained = longest_trained(settings)
    found: dict[str, Detections] = {}
    failed: dict[Path, str] = {}
    bar = tqdm(videos, desc="predict", unit="video", disable=not progress or len(videos) == 1)
    try:
        for video in bar:
            try:
                if trained is not None and settings.data.window_stride is None:
                    _warn_of_length(video, trained, settings.data.snippets)
                kept = [d for d in predict(video, system, settings) if d["score"] >= threshold]
                _draw(video, kept, out, settings.detector.classes, annotate=annotate)
            except (InputError, FFmpegError) as error:
                failed[video] = str(error)
                if len(videos) > 1:
                    bar.clear()
                    print(f"error: {error}", file=sys.stderr)
            else:
                found[video.stem] = kept
                bar.clear()
                log(_in_words(video, kept))
    finally:
        if found:
            _write(found, out)
    if len(failed) == len(videos) == 1:
        raise InputError(*failed.values())
    if failed:
        names = ", ".join(path.name for path in failed)
        raise InputError(
            f"{len(failed)} of {len(videos)} videos could not be read: {names}; the others are done"
        )
    return found


def write_csv(path: Path, found: dict[str, Detections]) -> None:
    """Write detections as a table with the columns video, start_s, end_s, label, score."""
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for name, detections in found.items():
            for item in detections:
                start, end = item["segment"]
                row = f"{start:.3f}", f"{end:.3f}", item["label"], f"{item['score']:.4f}"
                table.writerow([name, *row])


def _write(found: dict[str, Detections], out: Path) -> None:
    results = {"version": "etadlite 1", "results": found, "external_data": {}}
    write_json(out / "predictions.json", results)
    write_csv(out / "predictions.csv", found)


def _draw(
    video: Path, found: Detections, out: Path, labels: Sequence[str], *, annotate: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)  # said before
        duration, frames = probe(video).duration, strip(video)
        clear = one_a_moment(found, max(8, round(duration / 5)))
        rows = {"detected": clear}
        figure = draw_timeline(
            frames, duration, rows, title=video.name, labels=labels, top=len(clear)
        )
        save(figure, out / f"{video.stem}.png")
        if annotate:
            write_annotated(video, out / f"{video.stem}.mp4", clear, labels)


def _warn_of_length(video: Path, trained: float, cells: int) -> None:
    duration = probe(video).duration
    if duration > 1.5 * trained:
        warnings.warn(
            f"{video} lasts {duration:.0f} s, the longest training video {trained:.0f} s: its "
            f"{cells} cells of {duration / cells:.1f} s blur short actions; cut it into pieces, "
            "or train with windows (data.window_stride)",
            VideoWarning,
            stacklevel=3,
        )


def _in_words(video: Path, found: Iterable[dict[str, Any]]) -> str:
    """A line on a video and its five best detections."""
    found = list(found)
    best = [
        f"  {item['segment'][0]:7.2f} s - {item['segment'][1]:7.2f} s  "
        f"{item['label']:<12} {item['score']:.2f}"
        for item in found[:5]
    ]
    count = f"{len(found)} detection{'s' * (len(found) != 1)}"
    return "\n".join([f"{video.name}: {count}{', the best:' if best else ''}", *best])
