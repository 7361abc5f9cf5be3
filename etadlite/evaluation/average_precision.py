"""Mean average precision at temporal IoU thresholds, as ActivityNet's official evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etadlite.evaluation.tables import (
    GroundTruth,
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
    """Result of `mean_average_precision`; all values lie in 0..1.

    Attributes:
        tiou: [K] the thresholds, in the order given.
        labels: the C classes of the ground truth, in order of first occurrence.
        per_class: [C, K] average precision of each class at each threshold.
    """

    tiou: NDArray[np.float64]
    labels: list[str]
    per_class: NDArray[np.float64]

    @property
    def per_tiou(self) -> NDArray[np.float64]:
        """[K] mean over the classes, in the order of `tiou`."""
        return self.per_class.mean(axis=0)

    @property
    def average(self) -> float:
        """Mean over classes and thresholds: the headline number."""
        return float(self.per_tiou.mean())


def mean_average_precision(
    ground_truth: Source,
    predictions: Source,
    *,
    subset: str,
    tiou: Sequence[float],
    blocked: Iterable[str] | str | Path = (),
) -> AveragePrecision:
    """Interpolated mean average precision over the classes of the ground truth.

    Predictions of a class are taken by descending score; each takes the ground truth of its video
    and class with the highest tIoU that reaches the threshold and is still free, or counts as a
    false positive. Average precision is the area under the precision-recall curve whose precision
    was made non-increasing. Source: ActivityNet challenge, detection task (`eval_detection`).

    The official sort leaves the order of equal scores open; here the earlier prediction in the file
    goes first. Evenly spaced thresholds are compared as `numpy.linspace` gives them, because the
    official ones are: in its 0.5..0.95, 0.9 lies one rounding step below the literal.

    Args:
        ground_truth: annotations as ActivityNet JSON, a path or the content; times in seconds.
        predictions: predictions as ActivityNet JSON, a path or the content; times in seconds.
        subset: subset to evaluate, for example "validation".
        tiou: thresholds above 0 and up to 1.
        blocked: names of videos to leave out on both sides, or the path of a JSON list of them.

    Raises:
        InputError: either file unreadable or malformed; a prediction for a video outside the
            subset, with an unknown label, a score that is not finite or a reversed segment; no
            ground truth in the subset; malformed ``tiou``.

    Warns:
        PredictionWarning: predictions without length, which published files hold; they count as
            false positives.
    """
    thresholds = check_tiou(tiou)
    truth = read_ground_truth(ground_truth, subset, blocked)
    table = read_predictions(predictions, truth, subset=subset)
    order = rank_by_class(table)
    holder = match(truth, table, order, thresholds)
    per_class = precision_of(truth, table, order, holder)
    return AveragePrecision(thresholds, truth.labels, per_class)


def rank_by_class(table: Predictions) -> NDArray[np.int64]:
    """[N] indices of the predictions: class by class, best score first, in file order on ties."""
    return np.lexsort((-table.scores, table.label))


def match(
    truth: GroundTruth, table: Predictions, order: NDArray[np.int64], tiou: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Which prediction takes each ground truth.

    Args:
        truth: G ground truths.
        table: N predictions.
        order: [N] from `rank_by_class`.
        tiou: [K] thresholds.

    Returns:
        [K, G] position in ``order`` of the prediction that takes the ground truth, -1 for none.
    """
    n_classes = len(truth.labels)
    pred, gt, overlap = pairs_of(
        table.video[order] * n_classes + table.label[order],
        table.segments[order],
        truth.video * n_classes + truth.label,
        truth.segments,
    )
    tiou = as_published(tiou)
    near = overlap >= tiou.min()
    pred, gt, overlap = pred[near], gt[near], overlap[near]
    # Of equal overlaps the official code takes the later ground truth.
    best_first = np.lexsort((-gt, -overlap, pred))
    pred, gt, overlap = pred[best_first], gt[best_first], overlap[best_first]
    holder = np.full((len(tiou), len(truth.label)), -1, dtype=np.int64)
    for k, threshold in enumerate(tiou):
        near = overlap >= threshold
        holder[k] = _match_in_turn(pred[near], gt[near], len(truth.label))
    return holder


def precision_of(
    truth: GroundTruth,
    table: Predictions,
    order: NDArray[np.int64],
    holder: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Average precision [C, K] of each class at each threshold.

    Args:
        truth: G ground truths of C classes; a class without any has precision 0.
        table: N predictions.
        order: [N] from `rank_by_class`.
        holder: [K, G] from `match`.
    """
    n_classes = len(truth.labels)
    n_truths = np.bincount(truth.label, minlength=n_classes)
    first = np.searchsorted(table.label[order], np.arange(n_classes))
    per_class = np.zeros((n_classes, len(holder)))
    for k, ranks in enumerate(holder):
        found = ranks >= 0
        bounds = np.cumsum(np.bincount(truth.label[found], minlength=n_classes))
        for c, hits in enumerate(np.split(np.sort(ranks[found]), bounds[:-1])):
            precision = np.arange(1, len(hits) + 1) / (hits - first[c] + 1)
            # Precision peaks at true positives, so these alone give the interpolated curve.
            best_from_here = np.maximum.accumulate(precision[::-1])
            per_class[c, k] = best_from_here.sum() / max(n_truths[c], 1)
    return per_class


def _match_in_turn(pred: NDArray[np.int64], gt: NDArray[np.int64], n_gt: int) -> NDArray[np.int64]:
    """Predictions in turn take their first free candidate; all groups at the same time.

    Every prediction asks its first candidate, which keeps the best-ranked asker; those refused or
    displaced ask their next one. Because all ground truths rank predictions alike, this ends with
    the one stable matching, which is also what taking turns by rank gives (Gale and Shapley 1962).

    Args:
        pred: [M] rank of the prediction of each candidate pair, ascending.
        gt: [M] its ground truth; within a prediction the preferred one first.
        n_gt: number of ground truths, G.

    Returns:
        [G] rank of the prediction that takes each, -1 for none.
    """
    n_pairs = len(pred)
    continues = np.zeros(n_pairs + 1, dtype=bool)
    continues[1:n_pairs] = pred[1:] == pred[:-1]
    # A lower row means a better-ranked prediction, so rows serve as priorities.
    holder = np.full(n_gt, n_pairs)
    asking = np.flatnonzero(~continues[:n_pairs])
    while asking.size:
        before = holder.copy()
        np.minimum.at(holder, gt[asking], asking)
        refused = asking[holder[gt[asking]] != asking]
        displaced = before[(before != holder) & (before < n_pairs)]
        following = np.concatenate([refused, displaced]) + 1
        asking = following[continues[following]]
    return np.append(pred, -1)[holder]
