"""RoIAlign of one-dimensional features, written as the linear map that it is.

RoIAlign averages linear interpolations of the feature at fixed places. On a feature with one axis
that is a matrix of interpolation weights, [P x roi, T], times the feature [T, C]: exact,
differentiable, deterministic. The matrix has few entries that are not zero, and what follows
RoIAlign in the detector is linear, too. So the two are one: the layer is applied to the T cells,
which are far fewer than the P x roi bins, and each proposal sums up rows of the result.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def extend(proposals: Tensor, ratio: float = 0.5) -> Tensor:
    """Lengthen proposals [..., 2] on both sides by `ratio` of their length (paper, section 3.3)."""
    start, end = proposals.unbind(-1)
    margin = ratio * (end - start)
    return torch.stack((start - margin, end + margin), dim=-1)


class Interpolation(NamedTuple):
    """The entries of RoIAlign's matrix: S samples of P proposals, each the same in every bin.

    Attributes:
        samples: [P] how many samples a bin of each proposal has.
        owner: [S] the proposal of each sample, ascending.
        cell: [S, roi, 2] the two cells between which a sample lies, int32.
        weight: [S, roi, 2] their shares in the bin's mean.
    """

    samples: Tensor
    owner: Tensor
    cell: Tensor
    weight: Tensor


@torch.no_grad()
def interpolate(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Interpolation:
    """Where RoIAlign samples a feature, and with which weights.

    The rule is that of `torchvision.ops.roi_align` with an adaptive number of samples: a bin of b
    cells is averaged over ceil(b) evenly spaced places; a place more than one cell outside of the
    feature counts as zero, one less far out takes the value of the edge.

    Args:
        proposals: [P, 2] start and end in cells, already extended. They get no gradient: proposals
            are refined, not learnt.
        cells: T, the length of the feature.
        roi_size: bins a proposal.
        aligned: True shifts by half a cell, so that cell t is centred on t + 0.5 (OpenTAD); False
            centres cell t on t and makes every proposal at least one cell long (released ETAD).
    """
    start, end = proposals.float().nan_to_num().unbind(-1)
    length = end - start
    if aligned:
        start = start - 0.5
    else:
        length = length.clamp(min=1.0)
    bin_length = length / roi_size
    # A badly regressed proposal can grow without bound: from eight times the feature's length on,
    # its bins are sampled more thinly.
    samples = bin_length.ceil().clamp(0, 8 * cells // roi_size + 1).long()
    owner = torch.arange(len(samples), device=samples.device).repeat_interleave(samples)
    number = torch.arange(len(owner), device=owner.device) - (samples.cumsum(0) - samples)[owner]
    bin_length, each = bin_length[owner, None], samples[owner, None]
    # In torchvision's order of operations, so that places at an edge fall on the same side of it.
    bins = torch.arange(roi_size, device=owner.device)
    place = start[owner, None] + bins * bin_length + (number[:, None] + 0.5) * bin_length / each
    share = ((place >= -1.0) & (place <= cells)) / each
    place = place.clamp(0, cells - 1)
    low = place.floor()
    above = (place - low) * share
    low = low.int()  # half the bytes of int64, of which there are more than of weights
    cell = torch.stack((low, (low + 1).clamp(max=cells - 1)), dim=-1)
    return Interpolation(samples, owner, cell, torch.stack((share - above, above), dim=-1))


def roi_weights(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Tensor:
    """The matrix that pools T cells into `roi_size` bins for every proposal; see `interpolate`.

    Args:
        proposals: [P, 2] start and end in cells, already extended.
        cells: T.
        roi_size: bins a proposal.
        aligned: the convention.

    Returns:
        [P, roi_size, T].
    """
    entries = interpolate(proposals, cells, roi_size, aligned=aligned)
    weights = entries.weight.new_zeros(len(proposals), roi_size, cells)
    bins = torch.arange(roi_size, device=proposals.device)[:, None].expand_as(entries.cell)
    owner = entries.owner[:, None, None].expand_as(entries.cell)
    places = (owner, bins, entries.cell.long())
    return weights.index_put(places, entries.weight, accumulate=True)


def roi_align(features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool) -> Tensor:
    """RoIAlign of features [B, C, T] at proposals [B, P, 2] in cells -> [B, P, C, roi_size]."""
    batch, count = proposals.shape[:2]
    weights = roi_weights(proposals.flatten(0, 1), features.shape[2], roi_size, aligned=aligned).to(
        features.dtype
    )
    pooled = weights.view(batch, count * roi_size, -1) @ features.transpose(1, 2)
    return pooled.unflatten(1, (count, roi_size)).transpose(2, 3)


class RoIs:
    """The RoIs of proposals, for linear layers that read them without their being formed.

    `RoIs(x, proposals, roi_size, aligned=a).linear(layer)` equals
    `layer(roi_align(x, proposals, roi_size, aligned=a).flatten(2))` but for rounding.

    Args:
        features: [B, C, T].
        proposals: [B, P, 2] in cells, already extended.
        roi_size: bins a proposal.
        aligned: the convention, see `interpolate`.
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
        """Apply a layer to some of every proposal's bins.

        Args:
            layer: reads [C * bins], ordered as [C, bins] is.
            first: the first bin that it reads.
            bins: how many it reads; None: all.

        Returns:
            [B, P, H].
        """
        bins = self.roi_size if bins is None else bins
        (batch, channels, cells), (_, count) = self.features.shape, self.shape
        by_bin = layer.weight.view(-1, channels, bins).permute(2, 0, 1).flatten(0, 1)
        table = F.linear(self.features.transpose(1, 2), by_bin)  # [B, T, bins * H]
        samples, owner, cell, weight = self.entries
        own = slice(first, first + bins)
        column = torch.arange(bins, dtype=cell.dtype, device=cell.device)[:, None]
        video = (owner // count * cells).to(cell.dtype)[:, None, None]
        places = (video + cell[:, own]) * bins + column
        summed = SumRows.apply(
            table.view(batch * cells * bins, -1),
            places.flatten(),
            owner,
            (samples.cumsum(0) - samples) * (2 * bins),
            weight[:, own].flatten().to(table.dtype),
        )
        return summed.unflatten(0, (batch, count)) + layer.bias


class SumRows(torch.autograd.Function):
    """Weighted sums of a table's rows: a sparse matrix times the table.

    Its backward pass multiplies with the transposed matrix in the same way, by sums of rows of the
    gradient. That is deterministic, and faster than the backward pass of `F.embedding_bag`.

    Args:
        table: [R, H].
        rows: [E] which row each entry of the matrix takes, sum after sum.
        owner: [E / k] the sum to which every k entries belong, for some k; ascending.
        first: [S] the place of the first entry of each sum.
        weights: [E] of the entries; they get no gradient.

    Returns:
        [S, H].
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, rows: Tensor, owner: Tensor, first: Tensor, weights: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, owner, weights)
        ctx.size = len(table)
        return _sum_rows(table, rows, first, weights)

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


def _sum_rows(table: Tensor, rows: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """`SumRows` without a gradient."""
    first = first.to(rows.dtype)
    return F.embedding_bag(rows, table, first, mode="sum", per_sample_weights=weights)
