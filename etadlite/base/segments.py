"""How far segments of time overlap."""

import torch
from torch import Tensor


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the length that segments [..., 2] share, in their unit, broadcast; 0 if apart."""
    return (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)


def tiou(a: Tensor, b: Tensor) -> Tensor:
    """Return the temporal IoU of segments [..., 2], broadcast; 0 for two empty ones."""
    intersection = overlap(a, b)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - intersection
    return intersection / union.clamp(min=1e-12)
