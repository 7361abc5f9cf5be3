"""RoIAlign of one-dimensional features, written as the linear map that it is.

RoIAlign averages linear interpolations of the feature at fixed places. On a feature with one axis
that is a matrix of interpolation weights, [P x roi, T], times the feature [T, C]: exact,
differentiable, deterministic, and a plain matrix product on every device.
"""

import torch
from torch import Tensor


def extend(proposals: Tensor, ratio: float = 0.5) -> Tensor:
    """Lengthen proposals [..., 2] on both sides by `ratio` of their length (paper, section 3.3)."""
    start, end = proposals.unbind(-1)
    margin = ratio * (end - start)
    return torch.stack((start - margin, end + margin), dim=-1)


@torch.no_grad()
def roi_weights(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Tensor:
    """The matrix that pools T cells into `roi_size` bins for every proposal.

    The sampling rule is that of `torchvision.ops.roi_align` with an adaptive number of samples: a
    bin of b cells is averaged over ceil(b) evenly spaced places; a place more than one cell outside
    of the feature counts as zero, one less far out takes the value of the edge.

    Args:
        proposals: [..., 2] start and end in cells, already extended.
        cells: T, the length of the feature.
        roi_size: bins a proposal.
        aligned: True shifts by half a cell, so that cell t is centred on t + 0.5 (OpenTAD); False
            centres cell t on t and makes every proposal at least one cell long (released ETAD).

    Returns:
        [..., roi_size, T] weights. They carry no gradient: proposals are refined, not learnt.
    """
    start, end = proposals.to(torch.float32).unbind(-1)
    length = end - start
    if aligned:
        start = start - 0.5
    else:
        length = length.clamp(min=1.0)
    bin_length = length / roi_size
    # A proposal's own number of samples a bin. A badly regressed proposal can grow without bound:
    # from eight times the feature's length on, its bins are sampled more thinly.
    samples = bin_length.ceil().clamp(max=8 * cells // roi_size + 1)
    most = int(samples.max().clamp(min=0)) if samples.numel() else 0

    bins = torch.arange(roi_size, device=proposals.device, dtype=start.dtype)
    weights = proposals.new_zeros(*start.shape, roi_size, cells, dtype=torch.float32)
    for sample in range(most):
        # Each row receives one place at a time, so the sum has one order on every device.
        step = (sample + 0.5) * bin_length / samples.clamp(min=1)
        place = start[..., None] + bins * bin_length[..., None] + step[..., None]
        inside = (place >= -1.0) & (place <= cells) & (sample < samples)[..., None]
        share = inside / samples.clamp(min=1)[..., None]
        place = place.clamp(0, cells - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=cells - 1)
        fraction = place - low
        weights.scatter_add_(-1, low[..., None], (share * (1 - fraction))[..., None])
        weights.scatter_add_(-1, high[..., None], (share * fraction)[..., None])
    return weights


def roi_align(features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool) -> Tensor:
    """RoIAlign of features [B, C, T] at proposals [B, P, 2] in cells -> [B, P, C, roi_size]."""
    batch, channels, cells = features.shape
    weights = roi_weights(proposals, cells, roi_size, aligned=aligned).to(features.dtype)
    pooled = weights.flatten(1, 2) @ features.transpose(1, 2)  # [B, P * roi, C]
    return pooled.view(batch, -1, roi_size, channels).transpose(2, 3)
