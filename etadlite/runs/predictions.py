"""Detections on new videos, as files: JSON, CSV, subtitles, timelines and annotated videos."""

import csv
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from etadlite.base.devices import resolve_device
from etadlite.base.display import padded
from etadlite.base.errors import InputError, never_fatal
from etadlite.base.files import write_json, written_whole
from etadlite.base.folders import require_writable
from etadlite.base.tables import spreadsheet_safe
from etadlite.config import Settings
from etadlite.data.annotations import read_annotations
from etadlite.data.video import Video, VideoWarning
from etadlite.data.video_folders import videos_in
from etadlite.inference.predict import predict
from etadlite.model.checkpoint import checkpoint_settings, load_checkpoint
from etadlite.runs.pictures import one_a_moment, write_legend
from etadlite.runs.subtitles import write_subtitles
from etadlite.viz.style import save
from etadlite.viz.timeline import draw_timeline, write_annotated

Detections = list[dict[str, Any]]


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
    """Detect actions in videos, write the results and return them by name.

    `videos` are files and folders of videos. OUT/predictions.json (ActivityNet structure) and
    OUT/predictions.csv hold all detections with at least the score `threshold`. The best ones are
    in OUT/NAME.srt and OUT/NAME.vtt as subtitles, in OUT/NAME.png as a timeline and, with
    `annotate`, in OUT/NAME.mp4 as an annotated video. A video that cannot be read does not stop the
    others. The files are written for the videos that are done, even if the work is interrupted.
    `log` is called with a few lines on every video.

    Raises:
        InputError: there is no video, or the checkpoint cannot be used; or, at the end, videos
            could not be read.
    """
    files = list(videos_in(*videos).values())
    if out.resolve() in {video.parent.resolve() for video in files}:
        raise InputError(f"{out} is the folder of the videos: choose another --out for the results")
    settings = checkpoint_settings(checkpoint)
    system = load_checkpoint(checkpoint, settings).to(resolve_device(device))
    require_writable(out)
    trained = None if settings.data.window_stride else longest_trained(settings)
    found: dict[str, Detections] = {}
    failed: dict[Path, str] = {}
    bar = tqdm(files, desc="predict", unit="video", disable=not progress or len(files) == 1)
    try:
        for path in bar:
            try:
                video = Video(path)
                _warn_of_length(video, trained, settings.data.snippets)
                kept = [d for d in predict(video, system, settings) if d["score"] >= threshold]
            except InputError as error:
                failed[path] = str(error)
                if len(files) > 1:
                    bar.clear()
                    print(f"error: {error}", file=sys.stderr)
            else:
                found[path.stem] = kept
                shown = one_a_moment(kept, max(8, round(video.info.duration / 5)))
                write_subtitles(shown, out / path.stem)
                with never_fatal(f"the pictures of {path.name}"):
                    _draw(video, shown, out, settings.detector.classes, annotate=annotate)
                bar.clear()
                log(_in_words(path, kept))
    finally:
        if found:
            results = {"version": "etadlite 1", "results": found, "external_data": {}}
            write_json(out / "predictions.json", results)
            _write_csv(out / "predictions.csv", found)
    if failed and len(files) == 1:
        raise InputError(*failed.values())
    if failed:
        names = ", ".join(path.name for path in failed)
        raise InputError(
            f"{len(failed)} of {len(files)} videos could not be read: {names}; the others are done"
        )
    return found


def longest_trained(settings: Settings) -> float | None:
    """Return the seconds of the longest training video; None if the annotations are not here."""
    data = settings.data
    try:
        videos = read_annotations(data.annotations, data.train_subset, as_published=True)
    except InputError:
        return None
    return max(video.duration for video in videos.values())


def _write_csv(path: Path, found: dict[str, Detections]) -> None:
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        file.reconfigure(errors="backslashreplace")  # a name of another encoding
        rows = csv.writer(file)
        rows.writerow(("video", "start_s", "end_s", "label", "score"))
        for name, detections in found.items():
            for item in detections:
                times = [f"{time:.3f}" for time in item["segment"]]
                safe, label = spreadsheet_safe(name), spreadsheet_safe(item["label"])
                rows.writerow([safe, *times, label, f"{item['score']:.4f}"])


def _draw(
    video: Video, shown: Detections, out: Path, labels: Sequence[str], *, annotate: bool
) -> None:
    """Draw the timeline of a video, and write the annotated video if asked for."""
    name, duration = video.path.stem, video.info.duration
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)  # predicting has warned already
        rows, title, top = {"detected": shown}, video.path.name, len(shown)
        figure = draw_timeline(video.strip(), duration, rows, title=title, labels=labels, top=top)
        save(figure, out / f"{name}.png")
        write_legend(labels, out)
        if annotate:
            write_annotated(video, out / f"{name}.mp4", shown, labels)


def _warn_of_length(video: Video, trained: float | None, cells: int) -> None:
    duration = video.info.duration
    if trained is not None and duration > 1.5 * trained:
        warnings.warn(
            f"{video.path} lasts {duration:.0f} s, the longest training video {trained:.0f} s: its "
            f"{cells} cells of {duration / cells:.1f} s blur short actions; cut it into pieces, "
            "or train with windows (data.window_stride)",
            VideoWarning,
            stacklevel=3,
        )


def _in_words(path: Path, found: Detections) -> str:
    """Return a line on a video, and one on each of its five best detections."""
    lines = [f"{path.name}: {len(found)} detection{'s' * (len(found) != 1)}"]
    lines[0] += ", the best:" * bool(found)
    for item in found[:5]:
        start, end = item["segment"]
        label = padded(item["label"], 12)
        lines.append(f"  {start:7.2f} s - {end:7.2f} s  {label} {item['score']:.2f}")
    return "\n".join(lines)
