"""Average recall of proposals at tIoU thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.evaluation.arrays import (
    Duplicates,
    Names,
    Source,
    as_published,
    check_tiou,
    pairs_of,
    read_ground_truth,
    read_predictions,
)


@dataclass(frozen=True)
class AverageRecall:
    """Result of `average_recall`; recalls lie in 0..1."""

    tiou: NDArray[np.float64]  # [K] thresholds
    proposals: NDArray[np.int64]  # [A] numbers of proposals per video (AN)
    per_tiou: NDArray[np.float64]  # [K, A] recall

    @property
    def average(self) -> NDArray[np.float64]:
        """Mean over the thresholds, AR@AN: [A]."""
        return self.per_tiou.mean(axis=0)


def average_recall(
    ground_truth: Source,
    predictions: Source,
    *,
    subset: str,
    tiou: Sequence[float],
    proposals: Sequence[int] = (1, 5, 10, 100),  # the numbers AN, each at least 1
    blocked: Names = (),
    duplicates: Duplicates = "keep",  # see `read_ground_truth`
) -> AverageRecall:
    """Compute average recall at AN proposals per video, AR@AN, without regard to labels.

    The AN best predictions of each video are taken; of equal scores, the earlier ones. A ground
    truth is found if one of them reaches the threshold, and one proposal may find several. Average
    recall is the mean over the thresholds of found / all. Source: ActivityNet challenge, proposal
    task (`eval_proposal`). The official code takes the same share of every video's proposals, which
    is the same if all videos have equally many. The other arguments are as in
    `mean_average_precision`, but predictions need no labels.

    Raises:
        InputError: as `mean_average_precision`, or ``proposals`` are malformed.
    """
    thresholds = check_tiou(tiou)
    amounts = np.asarray(proposals)
    if amounts.ndim != 1 or not amounts.size or amounts.dtype.kind not in "iu" or amounts.min() < 1:
        raise InputError(f"proposals is {proposals!r}; give one or more whole numbers above 0.")
    truth = read_ground_truth(ground_truth, subset, blocked, duplicates)
    ranked = read_predictions(predictions, truth, with_labels=False)
    ranked = ranked.rows(np.lexsort((-ranked.scores, ranked.video)))
    rank = np.arange(len(ranked.video)) - np.searchsorted(ranked.video, ranked.video)
    pred, gt, overlap = pairs_of(ranked, truth, same_class=False)
    limits = as_published(thresholds)[:, None]
    per_tiou = np.empty((len(thresholds), len(amounts)))
    for column, amount in enumerate(amounts):
        used = rank[pred] < amount
        best = np.zeros(len(truth.video))
        np.maximum.at(best, gt[used], overlap[used])
        per_tiou[:, column] = (best >= limits).mean(axis=1)
    return AverageRecall(thresholds, amounts.astype(np.int64), per_tiou)
