"""From the detector's averaged outputs to scored segments of one video."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from etadlite.base.errors import InputError
from etadlite.config import InferenceSettings
from etadlite.inference.nms import soft_nms_picks, vote


def boundary_mask(startness: Tensor, endness: Tensor) -> Tensor:
    """Return the cells in which a proposal may start (row 0) and end (row 1), bool [2, T].

    A cell counts if its startness [T] or endness [T] is a peak, higher than both neighbours (0 lies
    beyond the ends), or above half the maximum. A proposal may always start in the first cell and
    end in the last: an action that the video cuts off has no boundary inside it. Source: the
    released ETAD code, after BSN.

    Raises:
        InputError: shapes that do not fit.
    """
    if startness.ndim != 1 or startness.shape != endness.shape or not len(startness):
        raise InputError(
            f"startness has shape {list(startness.shape)}, endness {list(endness.shape)}; both"
            " must be [T]."
        )
    values = torch.stack([startness, endness])
    padded = torch.nn.functional.pad(values, (1, 1))
    peak = (values > padded[:, :-2]) & (values > padded[:, 2:])
    mask = peak | (values > 0.5 * values.amax(dim=1, keepdim=True))
    mask[0, 0] = mask[1, -1] = True
    return mask


def keep_by_boundary(proposals: Tensor, mask: Tensor) -> Tensor:
    """Return which proposals [P, 2] start and end in cells of the `boundary_mask`, bool [P].

    A position outside the video counts as the outermost cell.
    """
    # In NumPy: torch spreads even this small gather over all threads, and waits for them.
    cell = proposals.detach().cpu().numpy().astype(np.int64).clip(0, mask.shape[1] - 1)
    start, end = mask.cpu().numpy()
    return torch.from_numpy(start[cell[:, 0]] & end[cell[:, 1]]).to(proposals.device)


def score_segments(
    proposals: Tensor,  # [P, 2] refined start and end in cells, mean over the stages
    iou: Tensor,  # [P, 2] classified and regressed IoU, mean over the stages
    startness: Tensor,  # [T] in 0..1
    endness: Tensor,  # [T] in 0..1
    settings: InferenceSettings,
    *,
    cut: bool = True,  # cut segments to 0..T; not of a window: the video goes on beyond it
) -> tuple[Tensor, Tensor]:
    """Apply the boundary mask, score by the product of both IoUs, and run soft-NMS.

    Everything is computed in double precision, as in the released ETAD code. By default two
    settings differ from that code: its soft-NMS stops with one proposal left and loses it
    (`keep_last`), and it keeps proposals that refinement moved out of the video and reports them
    with the start behind the end (`keep_outside`).

    The result is segments [K, 2] in cells and their scores [K] before fusion with classes, best
    first; both float64 and on the CPU; empty if no proposal is kept.

    Raises:
        InputError: shapes that do not fit, or values that are not finite.
    """
    if proposals.ndim != 2 or proposals.shape[1] != 2 or iou.shape != proposals.shape:
        raise InputError(
            f"proposals have shape {list(proposals.shape)} and iou {list(iou.shape)}; both must"
            " be [P, 2]."
        )
    outputs = {"proposals": proposals, "iou": iou, "startness": startness, "endness": endness}
    for name, values in outputs.items():
        if not values.isfinite().all():
            raise InputError(f"{name} must be finite for post-processing; found inf or nan.")
    end_of_video = float(len(startness))
    spans = proposals.detach().cpu().numpy()
    keep = np.ones(len(spans), dtype=bool)
    if settings.boundary_mask:
        keep &= keep_by_boundary(proposals, boundary_mask(startness, endness)).cpu().numpy()
    if not settings.keep_outside:
        keep &= np.minimum(spans[:, 1], end_of_video) > np.maximum(spans[:, 0], 0.0)
    segments = torch.from_numpy(spans[keep].astype(np.float64))
    scores = torch.from_numpy(iou.detach().cpu().numpy()[keep].prod(1).astype(np.float64))
    picks, lowered = soft_nms_picks(
        segments,
        scores,
        sigma=settings.nms_sigma,
        max_segments=settings.max_detections,
        min_score=settings.min_score,
        length_margin=0.0,
    )
    # The released loop is not entered for a single proposal, which therefore stays.
    lost = 0 if settings.keep_last or len(segments) < 2 else 1
    picks, lowered = (part[: len(segments) - lost] for part in (picks, lowered))
    chosen = vote(segments[picks], segments, scores, tiou=settings.nms_voting)
    if not cut:
        return chosen, lowered
    start, end = chosen[:, 0].clamp(min=0.0), chosen[:, 1].clamp(max=end_of_video)
    return torch.stack([start, end], dim=1), lowered


def fuse_classes(
    segments: Tensor, scores: Tensor, classes: Sequence[tuple[str, float]]
) -> tuple[Tensor, Tensor, list[str]]:
    """Give every segment each of the C classes of its video, with the product of both scores.

    Segments [K, 2] and scores [K] become segments [K * C, 2], scores [K * C] and K * C labels: all
    classes of the first segment, then of the second, and so on.
    """
    weights = scores.new_tensor([weight for _, weight in classes])
    labels = [label for label, _ in classes] * len(segments)
    fused = (scores[:, None] * weights).flatten()
    return segments.repeat_interleave(len(classes), dim=0), fused, labels
