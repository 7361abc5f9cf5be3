"""What the detector should say: boundary, proposal and class targets, all in cells."""

from typing import NamedTuple

import torch
from torch import Tensor

from etadlite.base.segments import overlap, tiou

BOUNDARY_CELLS = 3.0
"""Length in cells of the region around an action's start or end that counts as its boundary."""


class Targets(NamedTuple):
    """Targets of B videos.

    Attributes:
        boundaries: [B, 2, T] startness and endness, in 0..1.
        matched: [B, P, 2] the action of highest tIoU with each proposal; [0, 0] without actions.
        classes: [B, T] class of every cell, K for background.
    """

    boundaries: Tensor
    matched: Tensor
    classes: Tensor


def boundary_targets(actions: Tensor, cells: int) -> Tensor:
    """Share of every cell that lies in the boundary region of a start, and of an end.

    Args:
        actions: [A, 2] in cells; A may be 0.
        cells: T.

    Returns:
        [2, T] startness and endness: the greatest share over the actions.
    """
    if not len(actions):
        return actions.new_zeros(2, cells)
    left = torch.arange(cells, device=actions.device, dtype=actions.dtype)
    cell = torch.stack((left, left + 1), dim=-1)  # [T, 2]
    half = torch.tensor([-BOUNDARY_CELLS / 2, BOUNDARY_CELLS / 2], device=actions.device)
    regions = actions.T[:, :, None] + half  # [2, A, 2]
    shares = overlap(regions[:, :, None], cell)  # [2, A, T]
    # The published code keeps a millionth of the video in the denominator.
    return shares.amax(dim=1) / (1 + 1e-6 * cells)


def match(actions: Tensor, proposals: Tensor) -> Tensor:
    """The action of highest tIoU with each proposal; the first where several are equal.

    Args:
        actions: [A, 2] in cells; A may be 0.
        proposals: [P, 2] in cells.

    Returns:
        [P, 2]; [0, 0] without actions.
    """
    if not len(actions):
        return torch.zeros_like(proposals)
    return actions[tiou(actions[None], proposals[:, None]).argmax(dim=1)]


def class_targets(actions: Tensor, labels: Tensor, cells: int, num_classes: int) -> Tensor:
    """Class of the action over the middle of each cell, K for none; shorter actions go first.

    Args:
        actions: [A, 2] in cells.
        labels: [A] class numbers.
        cells: T.
        num_classes: K.

    Returns:
        [T] class numbers, 0..K.
    """
    classes = torch.full((cells,), num_classes, device=actions.device)
    middle = torch.arange(cells, device=actions.device) + 0.5
    for index in (actions[:, 1] - actions[:, 0]).argsort(descending=True):
        start, end = actions[index]
        classes[(start <= middle) & (middle < end)] = labels[index]
    return classes


@torch.no_grad()
def make_targets(
    actions: list[Tensor], labels: list[Tensor], proposals: Tensor, cells: int, num_classes: int
) -> Targets:
    """Targets of B videos with the actions [A, 2] (cells), labels [A] and proposals [B, P, 2]."""
    return Targets(
        torch.stack([boundary_targets(a, cells) for a in actions]),
        torch.stack([match(a, p) for a, p in zip(actions, proposals, strict=True)]),
        torch.stack(
            [class_targets(a, k, cells, num_classes) for a, k in zip(actions, labels, strict=True)]
        ),
    )
