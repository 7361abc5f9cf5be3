"""Runs: a training or a test from settings to a directory with everything that it leaves.

A run directory holds `config.json` (the full settings), `metrics.jsonl` (a record a line),
`tensorboard/`, `checkpoint.safetensors`, `predictions.json` (ActivityNet structure), `report.json`
and `pictures/`; `failed_videos.json` where videos could not be read; and, until it is finished,
`state.safetensors`, from which it can be resumed.
"""

import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from etadlite.base import distributed
from etadlite.base.devices import resolve_device
from etadlite.base.errors import InputError, StoppedError
from etadlite.base.files import disk_is_full, write_json, written_whole
from etadlite.config import DataSettings, Settings
from etadlite.data.annotations import labels_of, read_annotations
from etadlite.data.datasets import AnnotatedVideos
from etadlite.data.split import read_split, video_file
from etadlite.data.video import probe, read_frames
from etadlite.evaluation import AveragePrecision, mean_average_precision
from etadlite.inference.classifiers import classes_of_videos
from etadlite.inference.detect import predict_batches
from etadlite.memory.budget import with_chunk_size
from etadlite.memory.plan import planned
from etadlite.model.system import System
from etadlite.training.loop import TrainingResult, loader, open_split, prepare, run
from etadlite.training.recorder import Recorder
from etadlite.training.report import RunReport, read_report, report_record
from etadlite.training.state import STATE, Training, refuse_other_settings
from etadlite.training.step import shortage
from etadlite.viz import draw_curves, draw_timeline
from etadlite.viz.style import save


def new_run_folder(root: Path, name: str) -> Path:
    """The next free directory ROOT/NAME/001, 002, ..., made."""
    number = 1
    while True:
        folder = root / name / f"{number:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def last_run_folder(root: Path, name: str) -> Path | None:
    """The directory in ROOT/NAME with the highest number; None where there is none."""
    folders = [f for f in (root / name).glob("*") if f.name.isdecimal() and f.is_dir()]
    return max(folders, key=lambda folder: int(folder.name), default=None)


def run_training(
    settings: Settings,
    folder: Path | Callable[[], Path],
    *,
    resume: bool = False,
    progress: bool = True,
) -> RunReport | None:
    """Train, test and draw, all into a folder.

    Args:
        settings: everything the run depends on.
        folder: the run directory, or what makes it; that is called once data and settings are
            known to be usable.
        resume: go on with the run that the folder holds. Its settings must be the same, but for
            those that say where things lie and how they are computed. What is finished is only
            reported; what left no state begins anew.
        progress: show bars.

    Returns:
        What was reached; None in all processes but the first.

    Raises:
        InputError: the data or the settings cannot be used, or the run to resume is another.
        StoppedError: a signal, a full disk or lost data ended it; it can be resumed.
    """
    state = None
    if resume:
        with distributed.raise_together():
            folder = _run_to_resume(folder, settings)
        folder = distributed.broadcast(folder)
        if (folder / "report.json").exists():
            return read_report(folder) if distributed.is_first() else None
        state = folder / STATE if (folder / STATE).exists() else None
    training, data = prepare(with_chunk_size(settings), state)
    training.explain = planned
    with distributed.raise_together():
        test_data = open_split(settings, training=False)
        video_classes(settings, test_data)  # what is wrong with it shows before the training
    if made := callable(folder):
        folder = distributed.broadcast(folder() if distributed.is_first() else None)
    if not distributed.is_first():
        run(training, data, after_epoch=_tests(training, test_data, {}, False), folder=folder)
        return None
    _make_ready(folder, settings, keep=training.progress.records if state else None)
    latest: dict[str, Any] = {}
    try:
        with Recorder(folder, training.progress.steps) as recorder:
            result = run(
                training,
                data,
                log=recorder.log,
                after_epoch=_tests(training, test_data, latest, progress),
                folder=folder,
                progress=progress,
            )
    except StoppedError:
        if failed := training.progress.failed:
            with suppress(OSError):
                write_json(folder / "failed_videos.json", {"training": failed})
        raise
    except InputError:
        if made and not training.progress.steps:  # it never began: what is there is of no use
            shutil.rmtree(folder)
        raise
    try:
        return _finish(settings, folder, result, latest["predictions"], latest["precision"])
    except OSError as error:
        if not disk_is_full(error):
            raise
        raise StoppedError(
            f"the disk of {error.filename or folder} is full; all is trained, and {folder} goes on "
            "from its last test",
            folder=folder,
        ) from error


def _finish(
    settings: Settings,
    folder: Path,
    result: TrainingResult,
    predictions: dict[str, Any],
    precision: AveragePrecision,
) -> RunReport:
    """Write what a finished training leaves; its state goes last."""
    unreadable = {"training": result.unreadable}
    unreadable["test"] = predictions["external_data"].get("unreadable", {})
    (folder / "failed_videos.json").unlink(missing_ok=True)
    if any(unreadable.values()):
        write_json(folder / "failed_videos.json", unreadable)
    write_json(folder / "predictions.json", predictions)
    save(draw_curves({settings.name: read_metrics(folder)}), folder / "pictures" / "curves.png")
    draw_test_videos(settings, {"detected": predictions}, folder / "pictures")
    report = RunReport(
        folder,
        tuple(precision.tiou.tolist()),
        tuple(precision.per_tiou.tolist()),
        precision.average,
        result.peak_activation_bytes,
        result.seconds_per_step,
        result.videos_per_second,
        result.waiting_share,
        result.skipped_steps,
        sum(map(len, unreadable.values())),
    )
    write_json(folder / "report.json", report_record(report))
    (folder / STATE).unlink(missing_ok=True)
    return report


def _run_to_resume(folder: Path | Callable[[], Path], settings: Settings) -> Path | None:
    """The directory of a run with these settings; only the first process looks.

    Raises:
        InputError: there is no run, or one of other settings.
    """
    if not distributed.is_first():
        return None
    folder = folder() if callable(folder) else folder
    config = folder / "config.json"
    if config.exists():
        refuse_other_settings(json.loads(config.read_text()), settings, config)
    elif any(folder.iterdir()) if folder.is_dir() else True:
        raise InputError(f"{folder} is no run directory: it has no config.json; check the path")
    return folder


def _make_ready(folder: Path, settings: Settings, keep: int | None) -> None:
    """Make a run directory for a training that begins, or go back to its first `keep` records."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = folder / "metrics.jsonl"
    for draft in folder.glob("*.part.*"):  # of a process that was killed
        draft.unlink()
    (folder / "report.json").unlink(missing_ok=True)
    if keep is None:
        for name in (STATE, "failed_videos.json", "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        write_json(folder / "config.json", settings.model_dump(mode="json"))
    else:
        lines = metrics.read_text().splitlines(keepends=True)
        with written_whole(metrics) as draft:
            draft.write_text("".join(lines[:keep]))


def _tests(
    training: Training, data: AnnotatedVideos, latest: dict[str, Any], progress: bool
) -> Callable[[System, int], dict[str, Any] | None]:
    """What tests a system after an epoch, if one is due, and keeps the latest result.

    Where the test cannot be done, the training is stopped, not lost: it goes on with the test.
    """
    settings = training.settings

    def after_epoch(system: System, epoch: int) -> dict[str, Any] | None:
        every, last = settings.training.test_every, settings.training.epochs
        if epoch != last and not (every and epoch % every == 0):
            return None
        try:
            tested = test_system(system, settings, data, progress=progress)
        except InputError as error:
            raise StoppedError(error.sentence, 2) from error
        except RuntimeError as error:
            if reason := shortage(error):
                chunk = settings.encoder.chunk_size
                reason = f"memory does not suffice for the test ({reason}); "
                reason += f"lower encoder.chunk_size ({chunk}) or give more memory"
                raise StoppedError(reason, 2) from error
            raise
        if tested is None:
            return None
        latest["predictions"], precision = tested
        latest["precision"] = precision
        scores = dict(zip(map(str, precision.tiou), map(float, precision.per_tiou), strict=True))
        return {"average_mAP": precision.average, "mAP": scores}

    return after_epoch


def finished(settings: Settings, folder: Path) -> bool:
    """Whether the folder holds a finished run of exactly these settings."""
    config = folder / "config.json"
    if not (folder / "report.json").exists() or not config.exists():
        return False
    return json.loads(config.read_text()) == settings.model_dump(mode="json")


def test_system(
    system: System, settings: Settings, data: AnnotatedVideos, *, progress: bool = True
) -> tuple[dict[str, Any], AveragePrecision] | None:
    """Predictions for the test videos, and their mAP; None in all processes but the first.

    Videos that cannot be read are said and count as missed.
    """
    batches = loader(data, settings, training=False)
    classes = video_classes(settings, data)
    predictions = predict_batches(system, batches, settings, classes, progress=progress)
    if not distributed.is_first():
        return None
    if unreadable := predictions["external_data"].get("unreadable"):
        name, reason = next(iter(unreadable.items()))
        warnings.warn(
            f"{len(unreadable)} of {len(data.videos)} test videos cannot be read, their actions "
            f"count as missed: {', '.join(unreadable)}; {name}: {reason}",
            stacklevel=2,
        )
    return predictions, evaluate(settings, predictions)


def video_classes(
    settings: Settings, data: AnnotatedVideos
) -> dict[str, list[tuple[str, float]]] | None:
    """The classes of a data set's videos from the classifier, None without one."""
    return classes_of_videos(settings.inference, [video.name for video in data.videos])


def evaluate(settings: Settings, predictions: dict[str, Any]) -> AveragePrecision:
    """The mAP of predictions for the settings' test videos.

    Classes that are told but no annotation has count neither for nor against it.
    """
    truth: Any = settings.data.annotations
    if not settings.detector.classes and settings.inference.classifier is None:
        truth = _without_classes(settings)
    else:
        predictions = of_annotated_classes(predictions, truth)
    return mean_average_precision(
        truth,
        predictions,
        subset=settings.data.test_subset,
        tiou=settings.inference.tiou,
        blocked=settings.data.blocked,
    )


def of_annotated_classes(predictions: dict[str, Any], truth: Path) -> dict[str, Any]:
    """The predictions less those of classes that no annotation of the file `truth` has.

    A classifier tells all the classes that it knows; a part of a data set need not have them all.
    """
    annotated = set(labels_of(read_annotations(truth, as_published=True)))
    results = {
        name: [item for item in found if item["label"] in annotated]
        for name, found in predictions["results"].items()
    }
    return predictions | {"results": results}


def run_test(
    system: System, settings: Settings, folder: Path, *, progress: bool = True
) -> AveragePrecision | None:
    """Test a trained system; predictions and pictures go into `folder`.

    Returns:
        What it scores; None in all processes but the first.
    """
    system.to(resolve_device(settings.device))
    data = open_split(settings, training=False)
    tested = test_system(system, settings, data, progress=progress)
    if tested is None:
        return None
    predictions, precision = tested
    write_json(folder / "predictions.json", predictions)
    draw_test_videos(settings, {"detected": predictions}, folder / "pictures")
    return precision


def draw_test_videos(
    settings: Settings, systems: dict[str, dict[str, Any]], folder: Path, count: int = 2
) -> list[Path]:
    """Timelines of the first test videos: ground truth and each system's detections.

    Where the video itself is not there, as with features from elsewhere, no frames are shown.
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
        paths.append(save(figure, folder / f"timeline_{video.name}.png"))
    return paths


def frames_of(data: DataSettings, name: str) -> np.ndarray:
    """Frames of a video to look at, as `strip` gives them; none where its file is not there."""
    path = video_file(data.videos, name) if data.videos else None
    return strip(path) if path else np.empty((0, 1, 1, 3), np.uint8)


def strip(path: Path, count: int = 12, height: int = 96) -> np.ndarray:
    """Frames spread evenly over a video, uint8 [count, H, W, 3]."""
    info = probe(path)
    indices = ((np.arange(count) + 0.5) * info.frames / count).astype(int)
    width = max(2, round(height * info.width / info.height))
    return read_frames(path, indices, (height, width)).permute(0, 2, 3, 1).numpy()


def compare(folders: dict[str, Path], target: Path) -> Path:
    """Training curves of several runs in one picture."""
    runs = {name: read_metrics(folder) for name, folder in folders.items()}
    return save(draw_curves(runs), target)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run.

    Raises:
        InputError: the folder is no run.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{folder} is no run directory: it has no metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def one_a_moment(detections: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The best detections of which none covers another by half; what a person wants to see.

    Those that score less than a tenth of the best are left out.
    """
    chosen: list[dict[str, Any]] = []
    for item in detections:
        if item["score"] < 0.1 * detections[0]["score"]:
            break
        start, end = item["segment"]
        if all(
            min(end, other["segment"][1]) - max(start, other["segment"][0])
            < 0.5 * min(end - start, other["segment"][1] - other["segment"][0])
            for other in chosen
        ):
            chosen.append(item)
        if len(chosen) == count:
            break
    return chosen


def _without_classes(settings: Settings) -> dict[str, Any]:
    """The ground truth with every label "action", for a detector that tells no classes."""
    return {
        "database": {
            video.name: {
                "subset": video.subset,
                "duration": video.duration,
                "annotations": [
                    {"segment": [a.start, a.end], "label": "action"} for a in video.actions
                ],
            }
            for video in read_split(settings.data, training=False)
        }
    }
