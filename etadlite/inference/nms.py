"""Non-maximum suppression of temporal segments: Gaussian soft-NMS, voting, hard, and per class.

The loop over picks is in numpy: at some thousand segments a vector operation takes a microsecond
or two, less than torch needs to start one.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etadlite.base.errors import InputError

# Added to every length so that two empty segments overlap by 0, not 0/0 (as OpenTAD does).
LENGTH_MARGIN = 1e-6


def soft_nms(
    segments: Tensor,
    scores: Tensor,
    *,
    sigma: float,
    max_segments: int,
    min_score: float = 0.0,
    voting: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Gaussian soft-NMS (Bodla et al. 2017): a pick lowers the scores of what it overlaps.

    Again and again the best segment is picked and every other score is multiplied by
    exp(-tIoU^2 / sigma). Of equal scores the earlier segment is picked. The conventions are
    OpenTAD's: the first pick is taken whatever its score.

    Args:
        segments: [P, 2] start and end, any unit.
        scores: [P].
        sigma: width of the Gaussian, above 0; a smaller one suppresses more.
        max_segments: picks at most.
        min_score: a segment whose lowered score is below this is not picked.
        voting: when above 0, each picked segment becomes the mean, weighted by score, of all input
            segments that overlap it with at least this tIoU; scores stay.

    Returns:
        segments [K, 2] and lowered scores [K], best first, on the device of ``segments``.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a setting out of range.
    """
    picks, kept = soft_nms_picks(
        segments, scores, sigma=sigma, max_segments=max_segments, min_score=min_score
    )
    if voting > 0:
        return vote(segments[picks], segments, scores, tiou=voting), kept
    return segments[picks], kept


def soft_nms_picks(
    segments: Tensor,
    scores: Tensor,
    *,
    sigma: float,
    max_segments: int,
    min_score: float = 0.0,
    length_margin: float = LENGTH_MARGIN,
) -> tuple[Tensor, Tensor]:
    """`soft_nms` as indices: which segments are picked, and their lowered scores.

    Args:
        segments: [P, 2] start and end, any unit; computed in their own precision.
        scores: [P].
        sigma: width of the Gaussian, above 0.
        max_segments: picks at most.
        min_score: a segment whose lowered score is below this is not picked.
        length_margin: added to every length; the released ETAD code adds nothing.

    Returns:
        indices [K] int64 and lowered scores [K], best first.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a setting out of range.
    """
    spans, remaining = _as_numpy(segments, scores, max_segments)
    if not sigma > 0:
        raise InputError(f"sigma is {sigma}; soft-NMS needs a value above 0.")
    start, end = np.ascontiguousarray(spans.T)
    length = end - start + spans.dtype.type(length_margin)
    smallest = np.finfo(spans.dtype).tiny
    picks, kept = [], []
    overlap, union = np.empty_like(start), np.empty_like(start)
    for _ in range(min(max_segments, len(spans))):
        best = int(remaining.argmax())
        if picks and remaining[best] < min_score:
            break
        picks.append(best)
        kept.append(remaining[best])
        np.minimum(end, end[best], out=overlap)
        overlap -= np.maximum(start, start[best], out=union)
        np.maximum(overlap, 0, out=overlap)
        np.add(length, length[best], out=union)
        union -= overlap
        # Without a margin the union can be 0 where the overlap is 0 too.
        overlap /= np.maximum(union, smallest, out=union)
        overlap *= overlap
        overlap /= -sigma
        # Exponentials in double precision: rounded, they agree with the C library's.
        remaining *= np.exp(overlap, dtype=np.float64).astype(spans.dtype, copy=False)
        remaining[picks] = -np.inf
    return (
        torch.tensor(picks, dtype=torch.int64, device=segments.device),
        torch.tensor(np.array(kept, dtype=spans.dtype), device=segments.device),
    )


def hard_nms(
    segments: Tensor, scores: Tensor, *, iou: float, max_segments: int, min_score: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Hard NMS: a pick removes every segment that overlaps it with tIoU of at least ``iou``.

    Args:
        segments: [P, 2] start and end, any unit.
        scores: [P].
        iou: overlap that removes.
        max_segments: picks at most.
        min_score: when above 0, segments with this score or less take no part.

    Returns:
        segments [K, 2] and their scores [K], best first.

    Raises:
        InputError: shapes that do not fit, or values that are not finite.
    """
    picks = _hard_picks(segments, scores, iou, max_segments, min_score)
    return segments[picks], scores[picks]


def multiclass_nms(
    segments: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    max_segments: int,
    sigma: float | None = None,
    iou: float | None = None,
    min_score: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS within each class: soft with ``sigma`` or hard with ``iou``; exactly one is given.

    Args:
        segments: [P, 2] start and end, any unit.
        scores: [P].
        labels: [P] class indices.
        max_segments: picks at most, within a class and over all.
        sigma: width of the Gaussian of soft-NMS.
        iou: overlap that removes, for hard NMS.
        min_score: as in `soft_nms` or `hard_nms`.

    Returns:
        segments [K, 2], scores [K] and labels [K], best first over all classes.

    Raises:
        InputError: shapes that do not fit, values that are not finite, both or none of ``sigma``
            and ``iou``.
    """
    if (sigma is None) == (iou is None):
        raise InputError("multiclass_nms needs either sigma (soft) or iou (hard), not both.")
    if labels.shape != scores.shape:
        raise InputError(f"labels have shape {list(labels.shape)}, scores {list(scores.shape)}.")
    picks, kept = [], []
    for label in labels.unique():
        own = torch.nonzero(labels == label).squeeze(1)
        if sigma is not None:
            chosen, lowered = soft_nms_picks(
                segments[own],
                scores[own],
                sigma=sigma,
                max_segments=max_segments,
                min_score=min_score,
            )
        else:
            chosen = _hard_picks(segments[own], scores[own], iou, max_segments, min_score)
            lowered = scores[own][chosen]
        picks.append(own[chosen])
        kept.append(lowered)
    if not picks:
        return segments, scores, labels
    every = torch.cat(kept)
    order = every.argsort(descending=True, stable=True)[:max_segments]
    chosen = torch.cat(picks)[order]
    return segments[chosen], every[order], labels[chosen]


def vote(picked: Tensor, segments: Tensor, scores: Tensor, *, tiou: float) -> Tensor:
    """Replace each picked segment by the weighted mean of all that overlap it closely.

    Args:
        picked: [K, 2] segments.
        segments: [P, 2] all segments.
        scores: [P] their weights.
        tiou: overlap from which a segment votes.

    Returns:
        [K, 2]; a picked segment whose voters weigh nothing stays as it is.
    """
    spans, weights = (x.detach().cpu().numpy() for x in (segments, scores))
    voted = picked.detach().cpu().numpy().copy()
    start, end = np.ascontiguousarray(spans.T)
    length = end - start
    for row, (first, last) in enumerate(voted):
        shared = np.maximum(np.minimum(end, last) - np.maximum(start, first), 0)
        # Compared as a product, so that two empty segments need no 0/0.
        union = (last - first) + length - shared
        voters = np.flatnonzero((shared >= tiou * union) & (union > 0))
        total = weights[voters].sum()
        if total > 0:
            voted[row] = weights[voters] / total @ spans[voters]
    return torch.from_numpy(voted).to(picked.device)


def _hard_picks(
    segments: Tensor, scores: Tensor, iou: float, max_segments: int, min_score: float
) -> Tensor:
    """[K] indices, best first."""
    spans, values = _as_numpy(segments, scores, max_segments)
    order = np.argsort(-values, kind="stable")
    if min_score > 0:
        order = order[values[order] > min_score]
    picks = []
    while order.size and len(picks) < max_segments:
        best, order = order[0], order[1:]
        picks.append(int(best))
        (start, end), (s0, e0) = spans[order].T, spans[best]
        shared = np.maximum(np.minimum(end, e0) - np.maximum(start, s0), 0)
        margin = spans.dtype.type(LENGTH_MARGIN)
        union = (e0 - s0 + margin) + (end - start + margin) - shared
        order = order[shared / union < iou]
    return torch.tensor(picks, dtype=torch.int64, device=segments.device)


def _as_numpy(segments: Tensor, scores: Tensor, max_segments: int) -> tuple[NDArray, NDArray]:
    """Checked arrays [P, 2] and a private copy [P], both in the precision of the segments."""
    if segments.ndim != 2 or segments.shape[1] != 2 or scores.shape != segments.shape[:1]:
        raise InputError(
            f"segments have shape {list(segments.shape)} and scores {list(scores.shape)};"
            " NMS needs [P, 2] and [P]."
        )
    if max_segments < 1:
        raise InputError(f"max_segments is {max_segments}; NMS needs at least 1.")
    wide = segments.dtype == torch.float64
    dtype = torch.float64 if wide else torch.float32
    spans = segments.detach().to("cpu", dtype).numpy()
    values = scores.detach().to("cpu", dtype).numpy().copy()
    if not (np.isfinite(spans).all() and np.isfinite(values).all()):
        raise InputError("segments and scores must be finite for NMS; found inf or nan.")
    return spans, values
