"""From videos to detections: the whole system, one batch after another."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from etadlite.base import distributed
from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.data.timegrid import TimeGrid
from etadlite.detector import DetectorOutput
from etadlite.inference.merge import merge_windows
from etadlite.inference.postprocess import fuse_classes, score_segments
from etadlite.model.system import System

VideoClasses = Sequence[tuple[str, float]]
"""Classes of a video with their scores, best first, from a classifier's `top`."""


def class_scores(probabilities: Tensor, segments: Tensor) -> Tensor:
    """Mean probability of every class over each segment (this project's definition).

    Args:
        probabilities: [K, T] of every cell.
        segments: [S, 2] start and end in cells; only what lies within 0..T counts.

    Returns:
        [S, K].
    """
    cells = probabilities.shape[1]
    total = torch.nn.functional.pad(probabilities.cumsum(dim=1), (1, 0))  # [K, T + 1]

    def integral(position: Tensor) -> Tensor:  # from 0 to the position
        low = position.floor().long().clamp(max=cells - 1)
        return total[:, low] + (position - low) * probabilities[:, low]

    segments = segments.clamp(0, cells)
    length = (segments[:, 1] - segments[:, 0]).clamp(min=1e-6)
    return ((integral(segments[:, 1]) - integral(segments[:, 0])) / length).T


def with_own_classes(
    segments: Tensor, scores: Tensor, probabilities: Tensor, labels: Sequence[str], count: int
) -> tuple[Tensor, Tensor, list[str]]:
    """Give every segment its best classes by the detector's own class scores.

    Args:
        segments: [S, 2] start and end in cells.
        scores: [S].
        probabilities: [K, T] of every cell.
        labels: names of the K classes.
        count: C classes a segment.

    Returns:
        As `fuse_classes`: segments [S * C, 2], scores [S * C] and S * C labels.
    """
    by_class = scores[:, None] * class_scores(probabilities, segments)
    best = by_class.topk(min(count, len(labels)), dim=1)
    names = [labels[index] for index in best.indices.flatten().tolist()]
    return segments.repeat_interleave(best.values.shape[1], dim=0), best.values.flatten(), names


def detections_of(
    output: DetectorOutput,
    grids: list[TimeGrid],
    settings: Settings,
    classes: Sequence[VideoClasses] | None = None,
) -> list[list[dict[str, Any]]]:
    """Detections of B videos, each a list of {"segment" [s], "label", "score"}, best first.

    Without classes, from the detector or given, every detection has the label "action". Windows
    (`data.window_stride`) are not cut at their ends, beyond which the video goes on.

    Args:
        output: the detector's.
        grids: where the cells of each video lie.
        settings: how segments are kept and what the detector's classes are called.
        classes: for each video its classes with scores, of which every segment gets every one;
            None leaves classes to the detector.
    """
    inference, labels = settings.inference, settings.detector.classes or ("action",)
    whole = settings.data.window_stride is None
    proposals, iou = (part.float().cpu() for part in output.refined())
    boundaries = output.boundaries.float().cpu()
    if not inference.boundary_mask:
        boundaries = torch.ones_like(boundaries)  # every cell is then above half the maximum
    if output.classes is None:
        probabilities = torch.ones(len(grids), 1, boundaries.shape[-1])
    else:
        probabilities = output.classes.float().softmax(dim=1)[:, :-1].cpu()
    found = []
    for video, grid in enumerate(grids):
        segments, scores = score_segments(
            proposals[video],
            iou[video],
            *boundaries[video],
            sigma=inference.nms_sigma,
            max_segments=inference.max_detections,
            min_score=inference.min_score,
            voting=inference.nms_voting,
            keep_last=inference.keep_last,
            keep_outside=inference.keep_outside,
            cut=whole,
        )
        if whole:  # what was kept outside now starts behind its end
            segments = segments.clamp(0, boundaries.shape[-1])
        if classes is not None:
            segments, scores, names = fuse_classes(segments, scores, classes[video])
        else:
            segments, scores, names = with_own_classes(
                segments,
                scores,
                probabilities[video].double(),
                labels,
                inference.classes_per_segment,
            )
        seconds = grid.to_seconds(segments).tolist()
        detections = [
            {"segment": segment, "label": name, "score": score}
            for segment, name, score in zip(seconds, names, scores.tolist(), strict=True)
        ]
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
    """Predictions for all videos of the batches, in ActivityNet's structure.

    Of several processes each predicts its own batches, and the first brings them together. Videos
    that could not be read stand, with the reason, in `external_data` under `unreadable`.

    Args:
        system: the trained system.
        batches: videos, or windows, which are brought together by video.
        settings: how segments are kept.
        classes: the classes of every video from a classifier; None leaves them to the detector.
        progress: show a bar.

    Raises:
        InputError: no video could be read.
    """
    system.eval()
    results: dict[str, list[dict[str, Any]]] = {}
    durations: dict[str, float] = {}
    unreadable: dict[str, str] = {}
    shown = progress and distributed.is_first()
    for batch in tqdm(batches, desc="test", unit="batch", disable=not shown):
        unreadable |= batch.failed
        if not batch.names:
            continue
        given = None if classes is None else [classes[name] for name in batch.names]
        found = detections_of(system(batch.inputs), batch.grids, settings, given)
        for name, detections in zip(batch.names, found, strict=True):
            results.setdefault(name, []).extend(detections)
        durations.update(zip(batch.names, batch.durations, strict=True))
    parts = distributed.gather((results, durations, unreadable))
    results, durations, unreadable = {}, {}, {}
    for own, lengths, failed in parts:
        for name, detections in own.items():  # windows of one video may come from several
            results.setdefault(name, []).extend(detections)
        durations |= lengths
        unreadable |= failed
    if unreadable and not results:
        name, reason = next(iter(unreadable.items()))
        raise InputError(f"none of the {len(unreadable)} test videos can be read; {name}: {reason}")
    if settings.data.window_stride is not None:
        results = {
            name: merge_windows(detections, durations[name], settings.inference)
            for name, detections in results.items()
        }
    about = {"unreadable": unreadable} if unreadable else {}
    return {"version": "etadlite 1", "results": results, "external_data": about}
