"""Detections of a video from those of its overlapping windows."""

from collections.abc import Sequence
from typing import Any

import torch

from etadlite.config import InferenceSettings
from etadlite.inference.nms import soft_nms_picks, vote


def merge_windows(
    found: Sequence[dict[str, Any]], duration: float, settings: InferenceSettings
) -> list[dict[str, Any]]:
    """Merge the detections of all windows of one video by soft-NMS.

    Detections are cut to the video, and those without length are dropped. Soft-NMS with voting then
    runs over all of them together, whatever their label, with the settings that hold within a
    window. OpenTAD does the same, and before it rounds times to 0.01 s and scores to four digits.

    `found` are detections {"segment" [s], "label", "score"} in any order; the result lies within
    0..`duration` seconds, best first.
    """
    segments = torch.tensor([item["segment"] for item in found], dtype=torch.float64)
    segments = segments.reshape(-1, 2).clamp(0, duration)
    inside = segments[:, 1] > segments[:, 0]
    segments = segments[inside]
    scores = torch.tensor([item["score"] for item in found], dtype=torch.float64)[inside]
    labels = [item["label"] for item, there in zip(found, inside.tolist(), strict=True) if there]
    picks, lowered = soft_nms_picks(
        segments,
        scores,
        sigma=settings.nms_sigma,
        max_segments=settings.max_detections,
        min_score=settings.min_score,
    )
    chosen = vote(segments[picks], segments, scores, tiou=settings.nms_voting)
    rows = zip(chosen.tolist(), picks.tolist(), lowered.tolist(), strict=True)
    return [
        {"segment": place, "label": labels[pick], "score": score} for place, pick, score in rows
    ]
