"""Mean average precision at tIoU thresholds, as in ActivityNet's official evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etadlite.evaluation.arrays import (
    Duplicates,
    GroundTruth,
    Names,
    Predictions,
    Source,
    as_published,
    check_tiou,
    pairs_of,
    read_ground_truth,
    read_predictions,
)


@dataclass(frozen=True)
class AveragePrecision:
    """Result of `mean_average_precision`; all values lie in 0..1."""

    tiou: NDArray[np.float64]  # [K] thresholds
    labels: list[str]  # the C classes of the ground truth, in order of first occurrence
    per_class: NDArray[np.float64]  # [C, K] average precision

    @property
    def per_tiou(self) -> NDArray[np.float64]:
        """Mean over the classes: [K]."""
        return self.per_class.mean(axis=0)

    @property
    def average(self) -> float:
        """Mean over classes and thresholds: the headline number."""
        return float(self.per_tiou.mean())

    def record(self) -> dict[str, Any]:
        """Return thresholds, their mAP and the average as JSON takes them."""
        lists = {"tiou": self.tiou.tolist(), "mAP": self.per_tiou.tolist()}
        return {**lists, "average": self.average}


def mean_average_precision(
    ground_truth: Source,  # ActivityNet JSON, a path or the content; times in seconds
    predictions: Source,
    *,
    subset: str,  # for example "validation"
    tiou: Sequence[float],  # thresholds above 0 and up to 1
    blocked: Names = (),  # videos to leave out on both sides, or the path of a JSON list of them
    duplicates: Duplicates = "keep",  # see `read_ground_truth`
) -> AveragePrecision:
    """Compute interpolated mean average precision over the classes of the ground truth.

    The predictions of a class go by descending score. Each takes the free ground truth of its video
    and class with the highest tIoU, if that reaches the threshold; else it is a false positive.
    Average precision is the area under the precision-recall curve after precision is made
    non-increasing. Source: ActivityNet challenge, detection task (`eval_detection`).

    The official sort leaves the order of equal scores open; here the earlier prediction in the file
    goes first. Evenly spaced thresholds have the bits of `numpy.linspace`, as the official ones do:
    in 0.5..0.95, 0.9 lies one rounding step below the literal.

    Raises:
        InputError: see `read_ground_truth` and `read_predictions`; or ``tiou`` is malformed.

    Warns:
        PredictionWarning: predictions of no length, which count as false positives, or videos
            without predictions, whose actions count as missed.
    """
    thresholds = check_tiou(tiou)
    truth = read_ground_truth(ground_truth, subset, blocked, duplicates)
    ranked = rank_by_class(read_predictions(predictions, truth))
    holder = match_predictions(truth, ranked, thresholds)
    per_class = precision_of(truth.label, ranked.label, holder, len(truth.labels))
    return AveragePrecision(thresholds, list(truth.labels), per_class)


def rank_by_class(predictions: Predictions) -> Predictions:
    """Sort predictions by class, then by descending score; equal scores as in the file."""
    return predictions.rows(np.lexsort((-predictions.scores, predictions.label)))


def match_predictions(
    truth: GroundTruth, ranked: Predictions, tiou: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return which row of `ranked` takes each ground truth at each threshold [K]: [K, G].

    The predictions come from `rank_by_class`; -1 stands for none.
    """
    pred, gt, overlap = pairs_of(ranked, truth, same_class=True)
    limits = as_published(tiou)
    near = np.flatnonzero(overlap >= limits.min())
    # Of equal overlaps the official code takes the later ground truth.
    best_first = near[np.lexsort((-gt[near], -overlap[near], pred[near]))]
    pred, gt, overlap = pred[best_first], gt[best_first], overlap[best_first]
    holder = np.empty((len(limits), len(truth.label)), dtype=np.int64)
    for k, threshold in enumerate(limits):
        near = overlap >= threshold
        holder[k] = _taken_in_turn(pred[near], gt[near], len(truth.label))
    return holder


def precision_of(
    truth_label: NDArray[np.int64],
    label: NDArray[np.int64],
    holder: NDArray[np.int64],
    n_classes: int,
) -> NDArray[np.float64]:
    """Compute average precision [C, K]; a class without ground truth has 0.

    Labels are [G] of the ground truths, and [N] of the predictions in the order of `rank_by_class`;
    `holder` [K, G] is of `match_predictions`.
    """
    n_truths = np.bincount(truth_label, minlength=n_classes)
    first = np.searchsorted(label, np.arange(n_classes))
    per_class = np.zeros((n_classes, len(holder)))
    for k, ranks in enumerate(holder):
        taken = ranks >= 0
        bounds = np.cumsum(np.bincount(truth_label[taken], minlength=n_classes))
        for c, hits in enumerate(np.split(np.sort(ranks[taken]), bounds[:-1])):
            precision = np.arange(1, len(hits) + 1) / (hits - first[c] + 1)
            # Precision peaks at true positives, so these alone give the interpolated curve.
            best_from_here = np.maximum.accumulate(precision[::-1])
            per_class[c, k] = best_from_here.sum() / max(n_truths[c], 1)
    return per_class


def _taken_in_turn(pred: NDArray[np.int64], gt: NDArray[np.int64], n_gt: int) -> list[int]:
    """Let predictions, in their order, take the first free ground truth of their pairs [M]: [G]."""
    holder, last = [-1] * n_gt, -1
    for rank, candidate in zip(pred.tolist(), gt.tolist(), strict=True):
        if rank != last and holder[candidate] < 0:
            holder[candidate] = last = rank
    return holder
