"""From videos to detections: the whole system, one batch after another."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.data.timegrid import TimeGrid
from etadlite.detector import DetectorOutput
from etadlite.inference.postprocess import score_segments
from etadlite.training.system import System


def class_scores(probabilities: Tensor, segments: Tensor) -> Tensor:
    """Mean probability of every class over each segment (this project's definition).

    Args:
        probabilities: [K, T] of every cell.
        segments: [S, 2] start and end in cells, within 0..T.

    Returns:
        [S, K].
    """
    cells = probabilities.shape[1]
    total = torch.nn.functional.pad(probabilities.cumsum(dim=1), (1, 0))  # [K, T + 1]

    def integral(position: Tensor) -> Tensor:  # from 0 to the position
        low = position.floor().long().clamp(max=cells - 1)
        return total[:, low] + (position - low) * probabilities[:, low]

    length = (segments[:, 1] - segments[:, 0]).clamp(min=1e-6)
    return ((integral(segments[:, 1]) - integral(segments[:, 0])) / length).T


def detections_of(
    output: DetectorOutput, grids: list[TimeGrid], settings: Settings
) -> list[list[dict[str, Any]]]:
    """Detections of B videos, each a list of {"segment" [s], "label", "score"}, best first.

    Without classes in the detector every detection has the label "action".
    """
    inference, labels = settings.inference, settings.detector.classes or ("action",)
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
        )
        by_class = scores[:, None] * class_scores(probabilities[video].double(), segments)
        best = by_class.topk(min(inference.classes_per_segment, len(labels)), dim=1)
        seconds = grid.to_seconds(segments).tolist()
        detections = [
            {"segment": segment, "label": labels[label], "score": score}
            for segment, scores_of, labels_of in zip(
                seconds, best.values.tolist(), best.indices.tolist(), strict=True
            )
            for score, label in zip(scores_of, labels_of, strict=True)
        ]
        found.append(sorted(detections, key=lambda detection: -detection["score"]))
    return found


@torch.inference_mode()
def predict_batches(
    system: System, batches: Iterable[Batch], settings: Settings, *, progress: bool = True
) -> dict[str, Any]:
    """Predictions for all videos of the batches, in ActivityNet's structure."""
    system.eval()
    results = {}
    for batch in tqdm(batches, desc="test", unit="batch", disable=not progress):
        found = detections_of(system(batch.inputs), batch.grids, settings)
        results.update(zip(batch.names, found, strict=True))
    return {"version": "etadlite 1", "results": results, "external_data": {}}
