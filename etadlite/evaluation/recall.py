"""Average recall of proposals, and average precision by class and by length of the action."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.evaluation.arrays import (
    GroundTruth,
    Predictions,
    Source,
    as_published,
    check_tiou,
    pairs_of,
    read_ground_truth,
    read_predictions,
)
from etadlite.evaluation.average_precision import match_predictions, precision_of, rank_by_class

LENGTH_NAMES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True)
class AverageRecall:
    """Result of `average_recall`; recalls lie in 0..1.

    Attributes:
        tiou: [K] thresholds.
        proposals: [A] numbers of proposals per video (AN).
        per_tiou: [K, A] recall.
    """

    tiou: NDArray[np.float64]
    proposals: NDArray[np.int64]
    per_tiou: NDArray[np.float64]

    @property
    def average(self) -> NDArray[np.float64]:
        """Mean over the thresholds, AR@AN: [A]."""
        return self.per_tiou.mean(axis=0)


@dataclass(frozen=True)
class Breakdown:
    """Result of `breakdown`; values lie in 0..1, and are 0 where the count is 0.

    Attributes:
        tiou: [K] thresholds.
        labels: the C classes.
        class_count: [C] number of ground truths.
        class_precision: [C, K] average precision.
        class_recall: [C, K] share of the ground truths that a prediction takes.
        lengths: names of the five length groups, XS to XL.
        length_count: [5] number of ground truths.
        length_precision: [5, K] average precision, mean over the classes of the group.
        length_recall: [5, K] share of the ground truths that a prediction takes.
    """

    tiou: NDArray[np.float64]
    labels: list[str]
    class_count: NDArray[np.int64]
    class_precision: NDArray[np.float64]
    class_recall: NDArray[np.float64]
    lengths: tuple[str, ...]
    length_count: NDArray[np.int64]
    length_precision: NDArray[np.float64]
    length_recall: NDArray[np.float64]


def average_recall(
    ground_truth: Source,
    predictions: Source,
    *,
    subset: str,
    tiou: Sequence[float],
    proposals: Sequence[int] = (1, 5, 10, 100),
    blocked: Iterable[str] | str | Path = (),
) -> AverageRecall:
    """Compute average recall at AN proposals per video, AR@AN, without regard to labels.

    The AN best predictions of each video are taken; of equal scores, the earlier ones. A ground
    truth is found if one of them reaches the threshold, and one proposal may find several. Average
    recall is the mean over the thresholds of found / all. Source: ActivityNet challenge, proposal
    task (`eval_proposal`). The official code takes the same share of every video's proposals, which
    is the same if all videos have equally many.

    Args:
        ground_truth: see `mean_average_precision`.
        predictions: labels may be missing.
        subset: for example "validation".
        tiou: thresholds above 0 and up to 1.
        proposals: numbers of proposals per video, each at least 1.
        blocked: see `mean_average_precision`.

    Raises:
        InputError: as `mean_average_precision`, or ``proposals`` are malformed.
    """
    thresholds = check_tiou(tiou)
    amounts = _check_amounts(proposals)
    truth = read_ground_truth(ground_truth, subset, blocked)
    rows = read_predictions(predictions, truth, subset=subset, with_labels=False)

    order = np.lexsort((-rows.scores, rows.video))
    video = rows.video[order]
    rank = np.arange(len(video)) - np.searchsorted(video, video)
    pred, gt, overlap = pairs_of(video, rows.segments[order], truth.video, truth.segments)
    limit = as_published(thresholds)[:, None]
    best = np.zeros(len(truth.video))
    per_tiou = np.zeros((len(thresholds), len(amounts)))
    used = 0
    for column in np.argsort(amounts):
        new = (rank[pred] >= used) & (rank[pred] < amounts[column])
        np.maximum.at(best, gt[new], overlap[new])
        per_tiou[:, column] = (best >= limit).mean(axis=1)
        used = amounts[column]
    return AverageRecall(thresholds, amounts, per_tiou)


def breakdown(
    ground_truth: Source,
    predictions: Source,
    *,
    subset: str,
    tiou: Sequence[float],
    edges: Sequence[float] = (30.0, 60.0, 120.0, 180.0),
    blocked: Iterable[str] | str | Path = (),
) -> Breakdown:
    """Compute average precision and recall by class and by length of the action.

    A ground truth is found if a prediction takes it in the matching of average precision. Length
    groups are in seconds: XS up to and with the first edge, XL above the last. The default edges
    are those of DETAD (Alwassel et al. 2018) for ActivityNet; for THUMOS-14 it has 3, 6, 12 and 18.

    Average precision of a length group (this project's definition, after COCO's object sizes)
    ignores the ground truths of other lengths, the predictions that take these, and predictions of
    other lengths that take none.

    Args:
        ground_truth: see `mean_average_precision`.
        predictions: see `mean_average_precision`.
        subset: for example "validation".
        tiou: thresholds above 0 and up to 1.
        edges: four ascending lengths in seconds.
        blocked: see `mean_average_precision`.

    Raises:
        InputError: as `mean_average_precision`, or ``edges`` are malformed.
    """
    thresholds = check_tiou(tiou)
    try:
        bounds = np.asarray(edges, dtype=np.float64)
    except (TypeError, ValueError):
        bounds = np.zeros(0)
    if bounds.shape != (4,) or not (np.diff(bounds) > 0).all():
        raise InputError(f"edges are {edges!r}; give four ascending lengths in seconds.")
    truth = read_ground_truth(ground_truth, subset, blocked)
    rows = read_predictions(predictions, truth, subset=subset)
    order = rank_by_class(rows)
    holder = match_predictions(truth, rows, order, thresholds)
    precision, found = precision_of(truth, rows, order, holder), holder >= 0
    group, own = (
        np.searchsorted(bounds, segments[:, 1] - segments[:, 0])
        for segments in (truth.segments, rows.segments)
    )
    class_count, class_recall = _share(truth.label, len(truth.labels), found)
    length_count, length_recall = _share(group, len(LENGTH_NAMES), found)
    return Breakdown(
        thresholds,
        truth.labels,
        class_count,
        precision,
        class_recall,
        LENGTH_NAMES,
        length_count,
        _length_precision(truth, rows, order, holder, group=group, own=own),
        length_recall,
    )


def _length_precision(
    truth: GroundTruth,
    rows: Predictions,
    order: NDArray[np.int64],
    holder: NDArray[np.int64],
    *,
    group: NDArray[np.int64],
    own: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Compute average precision [5, K] from the groups of ground truths [G] and predictions [N]."""
    found = np.zeros((len(LENGTH_NAMES), len(holder)))
    for k, ranks in enumerate(holder):
        concerns = own[order]  # the group in which a prediction counts
        taken = ranks >= 0
        concerns[ranks[taken]] = group[taken]
        for g in np.unique(group):
            counts, mine = concerns == g, group == g
            place = np.append(np.cumsum(counts) - 1, -1)  # among those that count; -1 for none
            part = replace(truth, video=truth.video[mine], label=truth.label[mine])
            per_class = precision_of(part, rows, order[counts], place[ranks[mine]][None])
            found[g, k] = per_class[np.unique(part.label)].mean()
    return found


def _share(
    group: NDArray[np.int64], n_groups: int, found: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the size of each group [n], and the share [n, K] of it that is found ([K, G])."""
    count = np.bincount(group, minlength=n_groups)
    hits = [np.bincount(group, weights=row, minlength=n_groups) for row in found]
    return count, np.stack(hits, axis=1) / np.maximum(count, 1)[:, None]


def _check_amounts(proposals: Sequence[int]) -> NDArray[np.int64]:
    amounts = np.asarray(proposals)
    if amounts.ndim != 1 or not amounts.size or amounts.dtype.kind not in "iu" or amounts.min() < 1:
        raise InputError(f"proposals is {proposals!r}; give one or more whole numbers above 0.")
    return amounts.astype(np.int64)
