"""Test a system: predictions for the test videos, and their mAP."""

import warnings
from pathlib import Path
from typing import Any

from etadlite.base import distributed
from etadlite.base.devices import is_out_of_memory, resolve_device
from etadlite.base.errors import InputError, StoppedError, first_line, never_fatal
from etadlite.base.files import write_json
from etadlite.base.folders import require_writable
from etadlite.config import Settings
from etadlite.data.annotations import labels_of, read_annotations
from etadlite.data.datasets import AnnotatedVideos
from etadlite.data.split import read_split
from etadlite.evaluation import AveragePrecision, mean_average_precision
from etadlite.evaluation.arrays import read_ground_truth
from etadlite.inference.detect import predict_batches
from etadlite.model.checkpoint import load_checkpoint
from etadlite.model.system import System
from etadlite.runs.pictures import draw_test_videos
from etadlite.training.loop import loader, open_split


def test_system(
    system: System, settings: Settings, data: AnnotatedVideos, *, progress: bool = True
) -> tuple[dict[str, Any], AveragePrecision] | None:
    """Return predictions for the test videos and their mAP; None except in the first process.

    A warning names videos that cannot be read; their actions count as missed.
    """
    batches, classes = loader(data, settings, training=False), video_classes(settings, data)
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


class EpochTests:
    """Tests a system after the epochs that ask for it, and keeps the last result.

    A test that fails stops the training; it can be resumed and then begins with that test.

    Raises:
        InputError: the test videos or their classes cannot be used.
    """

    predictions: dict[str, Any]  # of the last test, in ActivityNet's structure
    precision: AveragePrecision  # their mAP

    def __init__(self, settings: Settings, *, progress: bool) -> None:
        self.settings, self.progress = settings, progress
        with distributed.raise_together():
            self.data = open_split(settings, training=False)
            video_classes(settings, self.data)
            # A test without any action could not be scored after the training.
            data, duplicates = settings.data, settings.inference.duplicates
            read_ground_truth(data.annotations, data.test_subset, data.blocked, duplicates)

    def __call__(self, system: System, epoch: int) -> dict[str, Any] | None:
        """Return the record of the test after an epoch; None if no test is due."""
        every, last = self.settings.training.test_every, self.settings.training.epochs
        if epoch != last and not (every and epoch % every == 0):
            return None
        try:
            tested = test_system(system, self.settings, self.data, progress=self.progress)
        except InputError as error:
            raise StoppedError(str(error), 2) from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason, chunk = first_line(error), self.settings.encoder.chunk_size
            raise StoppedError(
                f"memory does not suffice for the test ({reason}); lower encoder.chunk_size "
                f"({chunk}) or give more memory",
                2,
            ) from error
        if tested is None:
            return None
        self.predictions, self.precision = tested
        values = zip(self.precision.tiou, self.precision.per_tiou, strict=True)
        scores = {str(tiou): float(value) for tiou, value in values}
        return {"average_mAP": self.precision.average, "mAP": scores}


def test_checkpoint(
    checkpoint: Path, settings: Settings, folder: Path, *, progress: bool = True
) -> AveragePrecision | None:
    """Test a checkpoint in one or several processes, see `run_test`; None except in the first.

    Raises:
        InputError: it is no checkpoint of these settings, or the data cannot be used.
    """
    from etadlite.memory.plan import with_chunk_size  # a training has its own

    settings = with_chunk_size(settings)
    with distributed.process_group(settings.device, settings.training.patience_minutes):
        return run_test(load_checkpoint(checkpoint, settings), settings, folder, progress=progress)


def run_test(
    system: System, settings: Settings, folder: Path, *, progress: bool = True
) -> AveragePrecision | None:
    """Test a trained system, write predictions and pictures, and return its mAP.

    In all processes except the first, nothing is written and the result is None.
    """
    system.to(resolve_device(settings.device))
    if distributed.is_first():
        require_writable(folder)
    tested = test_system(system, settings, open_split(settings, training=False), progress=progress)
    if tested is None:
        return None
    predictions, precision = tested
    write_json(folder / "predictions.json", predictions)
    with never_fatal("the pictures"):
        draw_test_videos(settings, {"detected": predictions}, folder / "pictures")
    return precision


def video_classes(
    settings: Settings, data: AnnotatedVideos
) -> dict[str, list[tuple[str, float]]] | None:
    """Return the classes of a data set's videos, see `classes_of_videos`."""
    if settings.inference.classifier is None:
        return None
    from etadlite.inference.classifiers import classes_of_videos  # few runs need it

    return classes_of_videos(settings.inference, [video.name for video in data.videos])


def evaluate(settings: Settings, predictions: dict[str, Any]) -> AveragePrecision:
    """Return the mAP of predictions for the settings' test videos.

    Predictions of classes that no annotation has count neither for nor against it.
    """
    truth, predictions, chosen = what_is_scored(settings, predictions)
    return mean_average_precision(truth, predictions, **chosen)


def what_is_scored(
    settings: Settings, predictions: dict[str, Any]
) -> tuple[Path | dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return ground truth and predictions as they are compared, and the options of evaluation."""
    data, truth = settings.data, settings.data.annotations
    if not settings.detector.classes and settings.inference.classifier is None:
        truth = _without_classes(settings)
    else:
        predictions = of_annotated_classes(predictions, truth)
    chosen = {"subset": data.test_subset, "tiou": settings.inference.tiou, "blocked": data.blocked}
    return truth, predictions, chosen | {"duplicates": settings.inference.duplicates}


def of_annotated_classes(predictions: dict[str, Any], truth: Path) -> dict[str, Any]:
    """Return the predictions without those of classes that the file `truth` never annotates.

    A classifier names all the classes that it knows; a part of a data set need not have them all.
    """
    annotated = set(labels_of(read_annotations(truth, as_published=True)))
    results = predictions["results"].items()
    kept = {name: [d for d in found if d["label"] in annotated] for name, found in results}
    return predictions | {"results": kept}


def _without_classes(settings: Settings) -> dict[str, Any]:
    """Return the ground truth with every label "action", for a detector without classes."""
    database = {}
    for video in read_split(settings.data, training=False):
        actions = [{"segment": [a.start, a.end], "label": "action"} for a in video.actions]
        entry = {"subset": video.subset, "duration": video.duration, "annotations": actions}
        database[video.name] = entry
    return {"database": database}
