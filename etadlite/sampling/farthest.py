"""Farthest-point sampling: each pick lies as far as possible from the earlier ones."""

import torch
from torch import Tensor


def farthest_points(points: Tensor, first: Tensor, count: int) -> Tensor:
    """Pick points one by one, each with the largest distance to its nearest earlier pick.

    Every video has M `points` [B, C, M] with C coordinates, and a `first` pick [B]. The result is
    distinct indices [B, count] in the order of picking; of equally far points the first.
    """
    picked = [first]
    nearest = torch.full_like(points[:, 0], torch.inf)
    while len(picked) < count:
        last = picked[-1][:, None]
        index = last[:, None].expand(-1, points.shape[1], -1)
        distance = (points - points.gather(2, index)).square_().sum(dim=1)
        nearest = torch.minimum(nearest, distance).scatter_(1, last, -1)  # never pick it again
        picked.append(nearest.argmax(dim=1))
    return torch.stack(picked, dim=1)
