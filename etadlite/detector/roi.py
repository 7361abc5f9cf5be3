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

from etadlite.detector.drawn import rows_with_gradient


def extend(proposals: Tensor) -> Tensor:
    """Extend proposals [..., 2] on both sides by half of their length (paper, section 3.3)."""
    start, end = proposals.unbind(-1)
    margin = (end - start) / 2
    return torch.stack((start - margin, end + margin), dim=-1)


class Interpolation(NamedTuple):
    """The entries of RoIAlign's matrix: the S cells that are read for P proposals, in every bin.

    A bin whose mean is that of n places reads n + 1 neighbouring cells, because these places are
    at most a cell apart.
    """

    samples: Tensor  # [P] number of places per bin
    owner: Tensor  # [S] the proposal that reads each cell, ascending; n + 1 times each
    cell: Tensor  # [S, roi] int32
    weight: Tensor  # [S, roi] its share in the mean of the bin


@torch.no_grad()
def interpolate(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Interpolation:
    """Compute which cells of a feature RoIAlign reads, and with which weights.

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
    read = samples + 1
    owner = torch.arange(len(read), device=read.device).repeat_interleave(read)
    begin = (read.cumsum(0) - read)[owner]
    number = (torch.arange(len(owner), device=owner.device) - begin)[:, None]
    bin_length, each = bin_length[owner, None], samples[owner, None]
    # The order of operations is torchvision's, so that a place at an edge falls on the same side.
    bins = torch.arange(roi_size, device=owner.device)
    place = start[owner, None] + bins * bin_length + (number + 0.5) * bin_length / each.clamp(min=1)
    share = ((place >= -1.0) & (place <= cells) & (number < each)) / each.clamp(min=1)
    place = place.clamp(0, cells - 1)
    low = place.floor()
    first = low[begin]  # the first cell that the bin reads
    # Rounding may move a place onto the cell after its own; then all its weight is there.
    low = low.minimum(first + number)
    above = (place - low) * share
    # A place gives its weight to the cells before and after it; these have their rows.
    row = (low - first + begin[:, None]).long() * roi_size + bins
    weight = above.new_zeros((len(owner) + 1) * roi_size)
    weight.index_add_(0, row.flatten(), (share - above).flatten())
    weight.index_add_(0, row.flatten() + roi_size, above.flatten())
    cell = (first + number).clamp(max=cells - 1).int()  # half the bytes of int64
    return Interpolation(samples, owner, cell, weight.view(-1, roi_size)[:-1])


def roi_weights(proposals: Tensor, cells: int, roi_size: int, *, aligned: bool) -> Tensor:
    """Return the matrix [P, roi_size, T] of RoIAlign; for the arguments see `interpolate`."""
    _, owner, cell, weight = interpolate(proposals, cells, roi_size, aligned=aligned)
    return _matrix(owner, cell, weight, len(proposals), cells)


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
    themselves are never computed, except in the backward pass of few proposals.
    """

    def __init__(
        self, features: Tensor, proposals: Tensor, roi_size: int, *, aligned: bool
    ) -> None:
        self.features, self.shape, self.roi_size = features, proposals.shape[:2], roi_size
        cells, spans = features.shape[2], proposals.flatten(0, 1)
        samples, owner, cell, self.weight = interpolate(spans, cells, roi_size, aligned=aligned)
        # The matrix has a row for each proposal, and a column for each bin and cell of a video.
        self.owner = owner.int()
        self.column = cell + (owner // proposals.shape[1] * cells).int()[:, None]  # [S, roi]
        self.first = ((samples + 1).cumsum(0) - samples - 1).int()

    def linear(self, layer: nn.Linear, first: int = 0, bins: int | None = None) -> Tensor:
        """Apply a layer to `bins` bins of every proposal, from bin `first` on: [B, P, H].

        The layer reads [C * bins], in the order of [C, bins]; by default it reads all bins.
        """
        own = slice(first, self.roi_size if bins is None else first + bins)
        return LinearOfRoIs.apply(self.features, layer.weight, layer.bias, self, own)


class LinearOfRoIs(torch.autograd.Function):
    """`RoIs.linear`: features [B, C, T], a weight [H, C * bins] and a bias [H] -> [B, P, H].

    The backward pass forms the RoIs of the proposals with a gradient if each video has few of them;
    else it goes back through all cells. Both are deterministic.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        features, weight, bias, rois, own = given
        column, share = rois.column[:, own], rois.weight[:, own]
        ctx.save_for_backward(features, weight, rois.owner, column, share)
        by_cell, bins = features.transpose(1, 2).flatten(0, 1), column.shape[1]
        table = torch.bmm(by_cell.expand(bins, -1, -1), _by_bin(weight, bins))  # [bins, B * T, H]
        rows = column + torch.arange(bins, device=column.device).int() * len(by_cell)
        summed = _sum_rows(table.flatten(0, 1), rows.flatten(), rois.first * bins, share.flatten())
        return summed.add_(bias).unflatten(0, rois.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, owner, column, share = ctx.saved_tensors
        (videos, channels, cells), bins = features.shape, column.shape[1]
        kinds, kind = (features.dtype, weight.dtype, weight.dtype), gradient.dtype
        x, weight = features.transpose(1, 2).to(kind), weight.to(kind)
        # A RoI takes as many multiplications as a cell, but no sums over the rows of all cells.
        drawn = rows_with_gradient(gradient, most=3 * cells // 2)
        if drawn is not None:
            few, gradient = drawn.flatten()[owner], gradient[drawn]  # [R, H]
            number = (drawn.flatten().cumsum(0) - 1)[owner[few]]
            matrix = _matrix(number, column[few] % cells, share[few], len(gradient), cells)
            of_rois = (gradient @ weight).unflatten(1, (channels, bins)).transpose(1, 2)
            of_video = [part.to(kind).split(drawn.sum(1).tolist()) for part in (matrix, of_rois)]
            matrices, pushed = ([part.flatten(0, 1) for part in parts] for parts in of_video)
            rois = torch.cat([m @ cells_of for m, cells_of in zip(matrices, x, strict=True)])
            of_weight = gradient.t() @ rois.view(-1, bins, channels).transpose(1, 2).flatten(1)
            of_x = torch.stack([m.t() @ push for m, push in zip(matrices, pushed, strict=True)])
        else:
            gradient = gradient.flatten(0, 1)
            columns, order = column.t().contiguous().sort()  # of each bin
            every = torch.arange(videos * cells, dtype=torch.int, device=column.device)
            starts = torch.searchsorted(columns, every.expand(bins, -1).contiguous())
            starts += torch.arange(bins, device=column.device)[:, None] * len(column)
            entries = owner[order], starts.int(), share.t().gather(1, order)
            summed = _sum_rows(gradient, *(part.flatten() for part in entries))
            of_table = summed.unflatten(0, (bins, -1))  # [bins, B * T, H]
            of_weight = (x.flatten(0, 1).t() @ of_table).transpose(0, 1).flatten(0, 1).t()
            of_x = (of_table @ _by_bin(weight, bins).transpose(1, 2)).sum(0).view_as(x)
        gradients = of_x.transpose(1, 2), of_weight, gradient.sum(0)
        return *map(Tensor.to, gradients, kinds), None, None


def _matrix(owner: Tensor, cell: Tensor, weight: Tensor, count: int, cells: int) -> Tensor:
    """Return the matrix [count, bins, cells] of some entries, see `Interpolation`."""
    bins = torch.arange(cell.shape[1], device=cell.device)
    places = (owner[:, None], bins, cell.long())
    matrix = weight.new_zeros(count, len(bins), cells)
    return matrix.index_put_(places, weight, accumulate=True)


def _by_bin(weight: Tensor, bins: int) -> Tensor:
    """Return the weight [H, C * bins] of a layer as [bins, C, H]."""
    # Two plain copies are faster than one that permutes three axes; and products with rows far
    # apart are slow.
    return weight.t().contiguous().unflatten(0, (-1, bins)).transpose(0, 1).contiguous()


def _sum_rows(dense: Tensor, rows: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums of rows of a dense matrix [R, H]: its product with a sparse one.

    That one is given as the rows that its entries weight, sum after sum, the place of the first
    entry of each sum, and the weights.
    """
    weights = weights.to(dense.dtype)
    return F.embedding_bag(rows, dense, first, mode="sum", per_sample_weights=weights)
