"""k-DPPs: random sets of a fixed size that avoid similar items.

The probability of a set of k items is proportional to the determinant of their similarities
(Kulesza and Taskar, "Determinantal point processes for machine learning", 2012, section 5). The
draw is exact: first k eigenvectors of the similarity matrix (algorithm 8 there), then k items from
the projection onto them, with a Cholesky factor that grows by one column per item.
"""

import torch
from torch import Tensor

RIDGE = 1e-6  # added to an item's similarity to itself, so that any of equal items can be drawn


def gaussian_similarity(points: Tensor) -> Tensor:
    """Return similarities exp(-d^2 / m), with d the distance of two points and m the mean of d^2.

    Points are [R, M, C], and the mean is over all pairs of a row. The result is [R, M, M]; ones if
    all points are equal.
    """
    square = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    mean = square.mean(dim=(1, 2), keepdim=True)
    return torch.exp(-square / mean.clamp(min=1e-30))


def sample_kdpp(similarity: Tensor, counts: Tensor, draw: Tensor) -> Tensor:
    """Draw a set from each of R k-DPPs: a mask [R, M] of the drawn items.

    Similarities [R, M, M] are symmetric, positive semi-definite and of magnitude 1; a row and
    column of zeros is no item. The sizes of the sets, `counts` [R], may exceed the rank, but not
    the number of items. `draw` [R, 2, M] are uniform numbers.
    """
    if similarity.device.type == "mps":  # which has neither eigenvectors nor float64
        return sample_kdpp(similarity.cpu(), counts.cpu(), draw.cpu()).to(similarity.device)
    similarity, draw = similarity.double(), draw.double()
    ridge = RIDGE * (similarity.diagonal(dim1=1, dim2=2) > 0)
    values, vectors = torch.linalg.eigh(similarity + torch.diag_embed(ridge))
    taken = _draw_eigenvectors(values, counts, draw[:, 0])
    projection = (vectors * taken[:, None]) @ vectors.mT
    return _draw_items(projection, counts, draw[:, 1])


def _draw_eigenvectors(values: Tensor, counts: Tensor, draw: Tensor) -> Tensor:
    """Draw sets of eigenvectors, a mask [R, M], in proportion to the product of their values."""
    minus_infinity = values.new_tensor(-torch.inf)
    log_values = torch.where(values > RIDGE / 2, values.log(), minus_infinity)
    rows, size = values.shape
    # sums[n][:, k]: log of the sum of the products over all sets of k of the first n values.
    sums = [minus_infinity.expand(rows, int(counts.max()) + 1).clone()]
    sums[0][:, 0] = 0
    for n in range(size):
        with_it = log_values[:, n, None] + sums[n][:, :-1]
        sums.append(sums[n].clone())
        sums[n + 1][:, 1:] = torch.logaddexp(sums[n][:, 1:], with_it)
    left, taken = counts[:, None].clone(), torch.zeros_like(values, dtype=torch.bool)
    for n in reversed(range(size)):
        fewer = sums[n].gather(1, (left - 1).clamp(min=0))
        probability = (log_values[:, n, None] + fewer - sums[n + 1].gather(1, left)).exp()
        take = (left > 0) & (draw[:, n, None] < probability)
        taken[:, n : n + 1] = take
        left -= take.long()
    return taken


def _draw_items(projection: Tensor, counts: Tensor, draw: Tensor) -> Tensor:
    """Draw as many items as the rank of each projection [R, M, M], by the chain rule."""
    rows, size, _ = projection.shape
    most = int(counts.max())
    picked = torch.zeros((rows, size), dtype=torch.bool, device=projection.device)
    factor = projection.new_zeros(rows, size, most)  # of Cholesky, one column per pick
    weight = projection.diagonal(dim1=1, dim2=2).clamp(min=0).clone()
    for step in range(most):
        total = weight.cumsum(dim=1)
        goal = draw[:, step, None] * total[:, -1:]
        item = torch.searchsorted(total, goal, right=True).clamp(max=size - 1)  # [R, 1]
        index = item[:, None].expand(-1, size, -1)
        row = factor.gather(1, item[..., None].expand(-1, -1, most))
        column = projection.gather(2, index) - factor @ row.mT
        # A complete row has no weight left; what is computed for it here is not used.
        column = column / column.gather(1, item[..., None]).clamp(min=1e-12).sqrt()
        factor[:, :, step : step + 1] = column
        weight = (weight - column[..., 0].square()).clamp(min=0).scatter(1, item, 0)
        wanted = (step < counts)[:, None]
        picked.scatter_(1, item, picked.gather(1, item) | wanted)
    return picked
