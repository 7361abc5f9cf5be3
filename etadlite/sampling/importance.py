"""Importance sampling: a fixed number of items with probabilities proportional to their sizes."""

import torch
from torch import Tensor


def proportional_probabilities(size: Tensor, count: int) -> Tensor:
    """Return probabilities [B, N] proportional to sizes [B, N], at most 1, that sum to `count`.

    The excess over 1 is distributed over the others in proportion. A size below a millionth of the
    row's largest counts as that much, so that a row with few positive sizes, or none, works, too:
    all probabilities are above 0.
    """
    size = size if size.device.type == "mps" else size.double()
    greatest = size.amax(dim=1, keepdim=True)
    size = torch.where(greatest > 0, (size / greatest).clamp(min=1e-6), 1.0)
    ordered, order = size.sort(dim=1, descending=True)
    rest = ordered.flip(1).cumsum(dim=1).flip(1)  # sum of each size and all smaller ones
    left = count - torch.arange(size.shape[1], device=size.device)
    # All sizes before the first one whose share of the rest is at most 1 are certain.
    certain = (left * ordered <= rest).long().argmax(dim=1, keepdim=True)
    scale = (count - certain) / rest.gather(1, certain)
    is_certain = order.argsort(dim=1) < certain
    return torch.where(is_certain, 1.0, (scale * size).clamp(max=1))


def systematic_sample(probabilities: Tensor, draw: Tensor, count: int) -> Tensor:
    """Pick exactly `count` items with exactly these probabilities.

    The probabilities are laid end to end in random order, and the items under the points u, u + 1,
    u + 2, ... are picked (systematic sampling).

    Args:
        probabilities: [B, N], each at most 1, with the sum `count`.
        draw: [B, N + 1] uniform numbers.
        count: number of picks; the result is distinct indices [B, count].
    """
    order = draw[:, :-1].argsort(dim=1)
    ends = probabilities.gather(1, order).cumsum(dim=1)
    number = torch.arange(count, device=draw.device)
    place = torch.searchsorted(ends, draw[:, -1:].to(ends.dtype) + number, right=True)
    # Rounding of the sums must not pick an item twice, nor one after the last.
    place = (place - number).cummax(dim=1).values.clamp(max=probabilities.shape[1] - count) + number
    return order.gather(1, place)
