"""Where a detector fails: average precision and recall by class and by length of the action."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.evaluation.arrays import (
    Duplicates,
    Names,
    Source,
    as_numbers,
    check_tiou,
    read_ground_truth,
    read_predictions,
)
from etadlite.evaluation.average_precision import match_predictions, precision_of, rank_by_class

LENGTH_NAMES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True)
class Breakdown:
    """Result of `breakdown`; values lie in 0..1, and are 0 where the count is 0.

    A count is that of the ground truths; recall is the share of them that a prediction takes.
    """

    tiou: NDArray[np.float64]  # [K] thresholds
    labels: list[str]  # the C classes
    class_count: NDArray[np.int64]  # [C]
    class_precision: NDArray[np.float64]  # [C, K] average precision
    class_recall: NDArray[np.float64]  # [C, K]
    length_count: NDArray[np.int64]  # [5], of the length groups XS to XL
    length_precision: NDArray[np.float64]  # [5, K] mean over the classes of the group
    length_recall: NDArray[np.float64]  # [5, K]
    lengths: tuple[str, ...] = LENGTH_NAMES


def breakdown(
    ground_truth: Source,
    predictions: Source,
    *,
    subset: str,
    tiou: Sequence[float],
    edges: Sequence[float] = (30.0, 60.0, 120.0, 180.0),  # four ascending lengths in seconds
    blocked: Names = (),
    duplicates: Duplicates = "keep",  # see `read_ground_truth`
) -> Breakdown:
    """Compute average precision and recall by class and by length of the action.

    A ground truth is found if a prediction takes it in the matching of average precision. Length
    groups are in seconds: XS up to and with the first edge, XL above the last. The default edges
    are those of DETAD (Alwassel et al. 2018) for ActivityNet; for THUMOS-14 it has 3, 6, 12 and 18.

    Average precision of a length group (this project's definition, after COCO's object sizes)
    ignores the ground truths of other lengths, the predictions that take these, and predictions of
    other lengths that take none. The other arguments are as in `mean_average_precision`.

    Raises:
        InputError: as `mean_average_precision`, or ``edges`` are malformed.
    """
    thresholds, bounds = check_tiou(tiou), as_numbers(edges)
    if bounds.shape != (4,) or not (np.diff(bounds) > 0).all():
        raise InputError(f"edges are {edges!r}; give four ascending lengths in seconds.")
    truth = read_ground_truth(ground_truth, subset, blocked, duplicates)
    ranked = rank_by_class(read_predictions(predictions, truth))
    holder = match_predictions(truth, ranked, thresholds)
    n_classes = len(truth.labels)
    group, own_group = (
        np.searchsorted(bounds, segments[:, 1] - segments[:, 0])
        for segments in (truth.segments, ranked.segments)
    )
    length_precision = np.zeros((len(LENGTH_NAMES), len(holder)))
    for k, ranks in enumerate(holder):
        taken = ranks >= 0
        counts_in = own_group.copy()  # the group in which a prediction counts
        counts_in[ranks[taken]] = group[taken]
        for g in np.unique(group):
            counts, mine = counts_in == g, group == g
            place = np.append(np.cumsum(counts) - 1, -1)  # among those that count; -1 for none
            holder_of_group = place[ranks[mine]][None]
            label = truth.label[mine]
            per_class = precision_of(label, ranked.label[counts], holder_of_group, n_classes)
            length_precision[g, k] = per_class[np.unique(label)].mean()
    class_count, class_recall = _recall(truth.label, n_classes, holder >= 0)
    length_count, length_recall = _recall(group, len(LENGTH_NAMES), holder >= 0)
    return Breakdown(
        thresholds,
        list(truth.labels),
        class_count,
        precision_of(truth.label, ranked.label, holder, n_classes),
        class_recall,
        length_count,
        length_precision,
        length_recall,
    )


def _recall(
    group: NDArray[np.int64], n_groups: int, found: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the size of each group [n], and the share [n, K] of it that is found ([K, G])."""
    count = np.bincount(group, minlength=n_groups)
    hits = [np.bincount(group, weights=row, minlength=n_groups) for row in found]
    return count, np.stack(hits, axis=1) / np.maximum(count, 1)[:, None]
