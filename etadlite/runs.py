"""Runs: a training or a test from settings to a directory with everything that it leaves.

A run directory holds `config.json` (the full settings), `metrics.jsonl` (a record a line),
`tensorboard/`, `checkpoint.safetensors`, `predictions.json` (ActivityNet structure), `report.json`
and `pictures/`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from etadlite.config import Settings
from etadlite.data.annotations import labels_of, read_annotations
from etadlite.data.datasets import AnnotatedVideos
from etadlite.data.split import read_split, video_file
from etadlite.data.video import probe, read_frames
from etadlite.errors import InputError
from etadlite.evaluation import AveragePrecision, mean_average_precision
from etadlite.files import write_json
from etadlite.inference.classifiers import classes_of_videos
from etadlite.inference.detect import predict_batches
from etadlite.report import RunReport, report_record
from etadlite.training.loop import loader, open_split, train
from etadlite.training.system import System, resolve_device
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


def run_training(settings: Settings, folder: Path, *, progress: bool = True) -> RunReport:
    """Train, test and draw, all into `folder`.

    Raises:
        InputError: the data or the settings cannot be used.
    """
    test_data = open_split(settings, training=False)
    video_classes(settings, test_data)  # what is wrong with a classifier shows before the training
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(settings.model_dump_json(indent=1) + "\n")
    records: list[dict[str, Any]] = []
    latest: dict[str, Any] = {}

    with (
        SummaryWriter(str(folder / "tensorboard")) as board,
        (folder / "metrics.jsonl").open("w") as file,
    ):

        def log(record: dict[str, Any]) -> None:
            records.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
            for name, value in record.items():
                if isinstance(value, float) and name != "epoch":
                    board.add_scalar(name, value, record["step"])

        def after_epoch(system: System, epoch: int) -> None:
            every, last = settings.training.test_every, settings.training.epochs
            if epoch != last and not (every and epoch % every == 0):
                return
            latest["predictions"], precision = test_system(
                system, settings, test_data, progress=progress
            )
            latest["precision"] = precision
            scores = dict(
                zip(map(str, precision.tiou), map(float, precision.per_tiou), strict=True)
            )
            step = records[-1]["step"]
            log({"step": step, "epoch": epoch, "average_mAP": precision.average, "mAP": scores})

        result = train(
            settings,
            log=log,
            after_epoch=after_epoch,
            checkpoint=folder / "checkpoint.safetensors",
            progress=progress,
        )
    write_json(folder / "predictions.json", latest["predictions"])
    save(draw_curves({settings.name: records}), folder / "pictures" / "curves.png")
    draw_test_videos(settings, {"detected": latest["predictions"]}, folder / "pictures")
    precision = latest["precision"]
    report = RunReport(
        folder,
        tuple(precision.tiou.tolist()),
        tuple(precision.per_tiou.tolist()),
        precision.average,
        result.peak_activation_bytes,
        result.seconds_per_step,
    )
    write_json(folder / "report.json", report_record(report))
    return report


def finished(settings: Settings, folder: Path) -> bool:
    """Whether the folder holds a finished run of exactly these settings."""
    config = folder / "config.json"
    if not (folder / "report.json").exists() or not config.exists():
        return False
    return json.loads(config.read_text()) == settings.model_dump(mode="json")


def test_system(
    system: System, settings: Settings, data: AnnotatedVideos, *, progress: bool = True
) -> tuple[dict[str, Any], AveragePrecision]:
    """Predictions for the test videos, and their mAP."""
    batches = loader(data, settings, training=False)
    classes = video_classes(settings, data)
    predictions = predict_batches(system, batches, settings, classes, progress=progress)
    return predictions, evaluate(settings, predictions)


def video_classes(
    settings: Settings, data: AnnotatedVideos
) -> dict[str, list[tuple[str, float]]] | None:
    """The classes of a data set's videos from the classifier, None without one."""
    return classes_of_videos(settings.inference, [video.name for video in data.videos])


def evaluate(settings: Settings, predictions: dict[str, Any]) -> AveragePrecision:
    """The mAP of predictions for the settings' test videos.

    Classes that the detector tells but no annotation has count neither for nor against it.
    """
    truth: Any = settings.data.annotations
    if not settings.detector.classes and settings.inference.classifier is None:
        truth = _without_classes(settings)
    else:
        annotated = set(labels_of(read_annotations(truth, as_published=True)))
        results = {
            name: [item for item in found if item["label"] in annotated]
            for name, found in predictions["results"].items()
        }
        predictions = predictions | {"results": results}
    return mean_average_precision(
        truth,
        predictions,
        subset=settings.data.test_subset,
        tiou=settings.inference.tiou,
        blocked=settings.data.blocked,
    )


def run_test(
    system: System, settings: Settings, folder: Path, *, progress: bool = True
) -> AveragePrecision:
    """Test a trained system; predictions and pictures go into `folder`."""
    system.to(resolve_device(settings.device))
    data = open_split(settings, training=False)
    predictions, precision = test_system(system, settings, data, progress=progress)
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
        path = video_file(settings.data.videos, video.name) if settings.data.videos else None
        frames = strip(path) if path else np.empty((0, 1, 1, 3), np.uint8)
        figure = draw_timeline(
            frames,
            video.duration,
            rows,
            title=f"test video {video.name}",
            labels=settings.detector.classes,
        )
        paths.append(save(figure, folder / f"timeline_{video.name}.png"))
    return paths


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
