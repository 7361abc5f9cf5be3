"""Importance sampling: a fixed number of items, each with a chance in proportion to its size."""

import torch
from torch import Tensor


def proportional_chances(size: Tensor, count: int) -> Tensor:
    """Chances in proportion to sizes, at most 1, that sum to `count`.

    What is cut off at 1 goes to the others in proportion. Sizes below a millionth of the row's
    greatest count as that much, which settles rows with fewer sizes above 0 than `count`, or none.

    Args:
        size: [B, N], 0 or more.
        count: 1..N.

    Returns:
        [B, N], all above 0.
    """
    size = size if size.device.type == "mps" else size.double()
    greatest = size.amax(dim=1, keepdim=True)
    size = torch.where(greatest > 0, (size / greatest).clamp(min=1e-6), 1.0)
    ordered, order = size.sort(dim=1, descending=True)
    rest = ordered.flip(1).cumsum(dim=1).flip(1)  # of each and all smaller ones
    left = count - torch.arange(size.shape[1], device=size.device)
    # Certain are all before the first whose share of what is left is at most 1.
    certain = (left * ordered <= rest).long().argmax(dim=1, keepdim=True)
    scale = (count - certain) / rest.gather(1, certain)
    is_certain = order.argsort(dim=1) < certain
    return torch.where(is_certain, 1.0, (scale * size).clamp(max=1))


def systematic(chances: Tensor, draw: Tensor, count: int) -> Tensor:
    """Pick items with exactly these chances, and exactly `count` of them.

    The chances are laid end to end in random order; whatever lies under the points u, u + 1,
    u + 2, ... is picked (systematic sampling).

    Args:
        chances: [B, N], each at most 1, with sum `count`.
        draw: [B, N + 1] uniform numbers.
        count: 1..N.

    Returns:
        Indices [B, count], none twice.
    """
    order = draw[:, :-1].argsort(dim=1)
    ends = chances.gather(1, order).cumsum(dim=1)
    number = torch.arange(count, device=draw.device)
    place = torch.searchsorted(ends, draw[:, -1:].to(ends.dtype) + number, right=True)
    # Rounding of the sums must neither pick an item twice nor one behind the last.
    place = (place - number).cummax(dim=1).values.clamp(max=chances.shape[1] - count) + number
    return order.gather(1, place)
