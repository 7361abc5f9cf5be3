"""Non-maximum suppression of temporal segments: Gaussian soft-NMS and voting.

The loop over picks is in NumPy: with some thousand segments a vector operation takes one or two
microseconds, less than torch needs to start one.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etadlite.base.errors import InputError


def soft_nms(
    segments: Tensor,  # [P, 2] start and end, any unit
    scores: Tensor,  # [P]
    *,
    sigma: float,  # width of the Gaussian, above 0; a smaller one suppresses more
    max_segments: int,  # largest number of picks
    min_score: float = 0.0,  # a segment whose lowered score is below this is not picked
    voting: float = 0.0,  # tIoU of `vote`; 0: no voting
) -> tuple[Tensor, Tensor]:
    """Apply Gaussian soft-NMS (Bodla et al. 2017): a pick lowers the scores of what it overlaps.

    The best segment is picked and every other score is multiplied by exp(-tIoU^2 / sigma), again
    and again. Among equal scores the earlier segment is picked. As in OpenTAD, the first pick is
    taken even if its score is below ``min_score``. The result is segments [K, 2] and lowered scores
    [K], best first, on the device of ``segments``.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a setting out of range.
    """
    picks, kept = soft_nms_picks(
        segments, scores, sigma=sigma, max_segments=max_segments, min_score=min_score
    )
    return vote(segments[picks], segments, scores, tiou=voting), kept


def soft_nms_picks(
    segments: Tensor,
    scores: Tensor,
    *,
    sigma: float,
    max_segments: int,
    min_score: float = 0.0,
    length_margin: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Return the indices [K] that `soft_nms` picks, and their lowered scores [K], best first.

    ``length_margin`` is added to every length so that two empty segments overlap by 0, not 0/0, as
    in OpenTAD; the released ETAD code adds nothing. The precision is that of the segments.
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


def vote(picked: Tensor, segments: Tensor, scores: Tensor, *, tiou: float) -> Tensor:
    """Replace each picked segment by the mean, weighted by score, of all that overlap it closely.

    Of all segments [P, 2] with scores [P], those that overlap a picked one [K, 2] by at least
    ``tiou`` vote; with 0 there is no voting. A picked segment whose voters weigh nothing stays.
    """
    if tiou <= 0:
        return picked
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


def _as_numpy(segments: Tensor, scores: Tensor, max_segments: int) -> tuple[NDArray, NDArray]:
    """Check the input; return segments [P, 2] and a copy of the scores [P], in one precision."""
    if segments.ndim != 2 or segments.shape[1] != 2 or scores.shape != segments.shape[:1]:
        raise InputError(
            f"segments have shape {list(segments.shape)} and scores {list(scores.shape)};"
            " NMS needs [P, 2] and [P]."
        )
    if max_segments < 1:
        raise InputError(f"max_segments is {max_segments}; NMS needs at least 1.")
    dtype = torch.float64 if segments.dtype == torch.float64 else torch.float32
    spans = segments.detach().to("cpu", dtype).numpy()
    values = scores.detach().to("cpu", dtype).numpy().copy()
    if not (np.isfinite(spans).all() and np.isfinite(values).all()):
        raise InputError("segments and scores must be finite for NMS; found inf or nan.")
    return spans, values
