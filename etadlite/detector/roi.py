"""RoIAlign of one-dimensional features, written as the linear map that it is.

RoIAlign averages linear interpolations of the feature at fixed places. For a feature with one axis
this is a sparse matrix of interpolation weights, [P x roi, T], times the feature [T, C]. The layer
that follows RoIAlign in the detector is linear, too, so the order may change: the layer is applied
to the T cells, which are far fewer than the P x roi bins, and each proposal sums rows of the
result.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def extend(proposals: Tensor) -> Tensor:
    """Extend proposals [..., 2] on both sides by half of their length (paper, section 3.3)."""
    start, end = proposals.unbind(-1)
    margin = (end - start) / 2
    return torch.stack((start - margin, end + margin), dim=-1)


class Interpolation(NamedTuple):
    """The entries of RoIAlign's matrix: S samples of P proposals, equally many in every bin."""

    samples: Tensor  # [P] number of samples per bin
    owner: Tensor  # [S] the proposal of each sample, ascending
    cell: Tensor  # [S, roi, 2] the two cells around a sample, int32
    weight: Tensor  # [S, roi, 2] their shares in the mean of the bin


@torch.no_grad()
def interpolate(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Interpolation:
    """Compute where RoIAlign samples a feature, and with which weights.

    The rule is that of `torchvision.ops.roi_align` with an adaptive number of samples: a bin of b
    cells is the mean of ceil(b) evenly spaced places. A place more than one cell outside the
    feature counts as zero, a nearer one takes the value of the edge.

    Proposals are [P, 2] in cells, already extended; they get no gradient. `aligned` centres cell t
    on t + 0.5 (OpenTAD). False centres cell t on t and makes every proposal at least one cell long
    (released ETAD).
    """
    start, end = proposals.float().nan_to_num().unbind(-1)
    length = end - start
    if aligned:
        start = start - 0.5
    else:
        length = length.clamp(min=1.0)
    bin_length = length / roi_size
    # A badly regressed proposal can grow without bound: beyond eight times the feature's length,
    # its bins get no further samples.
    samples = bin_length.ceil().clamp(0, 8 * cells // roi_size + 1).long()
    owner = torch.arange(len(samples), device=samples.device).repeat_interleave(samples)
    number = torch.arange(len(owner), device=owner.device) - (samples.cumsum(0) - samples)[owner]
    bin_length, each = bin_length[owner, None], samples[owner, None]
    # The order of operations is torchvision's, so that a place at an edge falls on the same side.
    bins = torch.arange(roi_size, device=owner.device)
    place = start[owner, None] + bins * bin_length + (number[:, None] + 0.5) * bin_length / each
    share = ((place >= -1.0) & (place <= cells)) / each
    place = place.clamp(0, cells - 1)
    low = place.floor()
    above = (place - low) * share
    low = low.int()  # half the bytes of int64
    cell = torch.stack((low, (low + 1).clamp(max=cells - 1)), dim=-1)
    return Interpolation(samples, owner, cell, torch.stack((share - above, above), dim=-1))


def roi_weights(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Tensor:
    """Return the matrix [P, roi_size, T] of RoIAlign; for the arguments see `interpolate`."""
    entries = interpolate(proposals, cells, roi_size, aligned=aligned)
    weights = entries.weight.new_zeros(len(proposals), roi_size, cells)
    bins = torch.arange(roi_size, device=proposals.device)[:, None].expand_as(entries.cell)
    owner = entries.owner[:, None, None].expand_as(entries.cell)
    places = (owner, bins, entries.cell.long())
    return weights.index_put(places, entries.weight, accumulate=True)


def roi_align(features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool) -> Tensor:
    """Pool features [B, C, T] at extended proposals [B, P, 2] in cells: [B, P, C, roi_size]."""
    batch, count = proposals.shape[:2]
    weights = roi_weights(proposals.flatten(0, 1), features.shape[2], roi_size, aligned=aligned)
    weights = weights.to(features.dtype).view(batch, count * roi_size, -1)
    pooled = weights @ features.transpose(1, 2)
    return pooled.unflatten(1, (count, roi_size)).transpose(2, 3)


class RoIs:
    """The RoIs of features and proposals as in `roi_align`, for linear layers.

    `RoIs(x, proposals, roi_size, aligned=a).linear(layer)` equals
    `layer(roi_align(x, proposals, roi_size, aligned=a).flatten(2))` up to rounding, but the RoIs
    themselves are never computed.
    """

    def __init__(
        self, features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool
    ) -> None:
        self.features = features
        self.shape = proposals.shape[:2]
        self.roi_size = roi_size
        cells = features.shape[2]
        self.entries = interpolate(proposals.flatten(0, 1), cells, roi_size, aligned=aligned)

    def linear(self, layer: nn.Linear, first: int = 0, bins: int | None = None) -> Tensor:
        """Apply a layer to `bins` bins of every proposal, from bin `first` on: [B, P, H].

        The layer reads [C * bins], in the order of [C, bins]; by default it reads all bins.
        """
        bins = self.roi_size if bins is None else bins
        (batch, channels, cells), (_, count) = self.features.shape, self.shape
        by_bin = layer.weight.view(-1, channels, bins).permute(2, 0, 1).flatten(0, 1)
        by_cell = F.linear(self.features.transpose(1, 2), by_bin)  # [B, T, bins * H]
        samples, owner, cell, weight = self.entries
        own = slice(first, first + bins)
        column = torch.arange(bins, dtype=cell.dtype, device=cell.device)[:, None]
        video = (owner // count * cells).to(cell.dtype)[:, None, None]
        places = (video + cell[:, own]) * bins + column
        summed = SumRows.apply(
            by_cell.view(batch * cells * bins, -1),
            places.flatten(),
            owner,
            (samples.cumsum(0) - samples) * (2 * bins),
            weight[:, own].flatten().to(by_cell.dtype),
        )
        return summed.unflatten(0, (batch, count)) + layer.bias


class SumRows(torch.autograd.Function):
    """Weighted sums of rows: a sparse matrix times a dense one.

    The backward pass multiplies by the transposed matrix in the same way, as sums of rows of the
    gradient. This is deterministic, and faster than the backward pass of `F.embedding_bag`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        dense: Tensor,  # [R, H]
        rows: Tensor,  # [E] the row that each entry of the sparse matrix weights, sum after sum
        owner: Tensor,  # [E / k] the sum that each group of k entries belongs to, ascending
        first: Tensor,  # [S] the place of the first entry of each sum; the result is [S, H]
        weights: Tensor,  # [E] the values of the entries; they get no gradient
    ) -> Tensor:
        ctx.save_for_backward(rows, owner, weights)
        ctx.size = len(dense)
        return _sum_rows(dense, rows, first, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, owner, weights = ctx.saved_tensors
        together = len(rows) // max(len(owner), 1)
        rows, order = rows.sort()
        first = torch.searchsorted(rows, torch.arange(ctx.size, device=rows.device).to(rows.dtype))
        sums = owner.to(rows.dtype)[order // together]
        gradient = gradient.contiguous()
        return _sum_rows(gradient, sums, first, weights[order]), None, None, None, None


def _sum_rows(dense: Tensor, rows: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """Compute `SumRows` without a gradient."""
    first = first.to(rows.dtype)
    return F.embedding_bag(rows, dense, first, mode="sum", per_sample_weights=weights)
