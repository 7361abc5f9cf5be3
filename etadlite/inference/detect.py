"""From videos to detections: the whole system, one batch after another."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from etadlite.base import distributed
from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.data.timegrid import TimeGrid
from etadlite.detector import DetectorOutput
from etadlite.inference.postprocess import fuse_classes, score_segments
from etadlite.model.system import System

VideoClasses = Sequence[tuple[str, float]]  # with scores, best first, from a classifier's `top`


def class_scores(probabilities: Tensor, segments: Tensor) -> Tensor:
    """Return the mean probability of K classes over each segment, [S, K].

    The definition is this project's. Probabilities are [K, T]; of segments [S, 2] in cells only the
    part within 0..T counts.
    """
    cells = probabilities.shape[1]
    total = torch.nn.functional.pad(probabilities.cumsum(dim=1), (1, 0))  # [K, T + 1]

    def integral(position: Tensor) -> Tensor:  # from 0 to the position
        low = position.floor().long().clamp(max=cells - 1)
        return total[:, low] + (position - low) * probabilities[:, low]

    segments = segments.clamp(0, cells)
    length = (segments[:, 1] - segments[:, 0]).clamp(min=1e-6)
    return ((integral(segments[:, 1]) - integral(segments[:, 0])) / length).T


def detections_of(
    output: DetectorOutput,
    grids: list[TimeGrid],
    settings: Settings,
    classes: Sequence[VideoClasses] | None = None,
) -> list[list[dict[str, Any]]]:
    """Return the detections of B videos, each a list of {"segment" [s], "label", "score"}.

    The best detection comes first; `grids` say where the cells of each video lie. Every segment is
    given the `classes` of its video; if there are none, those of the detector; if it has none, the
    label "action". Windows (`data.window_stride`) are not cut at their ends, because the video goes
    on beyond them.
    """
    inference, whole = settings.inference, settings.data.window_stride is None
    labels = settings.detector.classes or ("action",)
    proposals, iou = (part.float().cpu() for part in output.refined())
    boundaries = output.boundaries.float().cpu()
    if output.classes is None:
        probabilities = torch.ones(len(grids), 1, boundaries.shape[-1])
    else:
        probabilities = output.classes.float().softmax(dim=1)[:, :-1].cpu()
    found = []
    for video, grid in enumerate(grids):
        starts, ends = boundaries[video]
        segments, scores = score_segments(
            proposals[video], iou[video], starts, ends, inference, cut=whole
        )
        if whole:  # a segment kept outside now starts behind its end
            segments = segments.clamp(0, boundaries.shape[-1])
        if classes is not None:
            segments, scores, names = fuse_classes(segments, scores, classes[video])
        else:  # every segment gets the classes that the detector finds most likely in it
            by_class = scores[:, None] * class_scores(probabilities[video].double(), segments)
            best = by_class.topk(min(inference.classes_per_segment, len(labels)), dim=1)
            segments = segments.repeat_interleave(best.values.shape[1], dim=0)
            scores = best.values.flatten()
            names = [labels[index] for index in best.indices.flatten().tolist()]
        rows = zip(grid.to_seconds(segments).tolist(), names, scores.tolist(), strict=True)
        detections = [{"segment": place, "label": name, "score": s} for place, name, s in rows]
        found.append(sorted(detections, key=lambda detection: -detection["score"]))
    return found


@torch.inference_mode()
def predict_batches(
    system: System,
    batches: Iterable[Batch],
    settings: Settings,
    classes: Mapping[str, VideoClasses] | None = None,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Return predictions for all videos of the batches, in ActivityNet's structure.

    Each process predicts its own batches, and the first process gathers them. Windows are merged
    per video. For `classes` see `detections_of`. `external_data` lists the videos that could not be
    read, with the reason, under `unreadable`.

    Raises:
        InputError: no video could be read.
    """
    system.eval()
    found: list[tuple[str, float, list[dict[str, Any]]]] = []
    failed: dict[str, str] = {}
    shown = progress and distributed.is_first()
    # Below the bar of a training it goes after each test: ten tests would leave ten bars.
    for batch in tqdm(batches, desc="test", unit="batch", disable=not shown, leave=None):
        failed |= batch.failed
        if batch.names:
            given = None if classes is None else [classes[name] for name in batch.names]
            detected = detections_of(system(batch.inputs), batch.grids, settings, given)
            found += zip(batch.names, batch.durations, detected, strict=True)
    results: dict[str, list[dict[str, Any]]] = {}
    durations: dict[str, float] = {}
    unreadable: dict[str, str] = {}
    for part, reasons in distributed.gather((found, failed)):
        unreadable |= reasons
        for name, duration, detections in part:  # several processes may have windows of one video
            results.setdefault(name, []).extend(detections)
            durations[name] = duration
    if unreadable and not results:
        name, reason = next(iter(unreadable.items()))
        raise InputError(f"none of the {len(unreadable)} test videos can be read; {name}: {reason}")
    if settings.data.window_stride is not None:
        from etadlite.inference.merge import merge_windows  # few runs need it

        results = {
            name: merge_windows(detections, durations[name], settings.inference)
            for name, detections in results.items()
        }
    about = {"unreadable": unreadable} if unreadable else {}
    return {"version": "etadlite 1", "results": results, "external_data": about}
