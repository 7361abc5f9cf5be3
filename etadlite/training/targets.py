"""The detector's targets: boundaries, matched actions and classes, all in cells."""

from typing import NamedTuple

import torch
from torch import Tensor

from etadlite.base.segments import overlap, tiou

BOUNDARY_CELLS = 3.0  # an action's boundary is a region of this length around its start or end


class Targets(NamedTuple):
    """Targets of B videos."""

    boundaries: Tensor  # [B, 2, T] startness and endness, in 0..1
    matched: Tensor  # [B, P, 2] action of highest tIoU with each proposal; [0, 0] without one
    classes: Tensor  # [B, T] class of every cell; K is the background


def boundary_targets(actions: Tensor, cells: int) -> Tensor:
    """Return startness and endness [2, T] for the actions [A, 2] in cells; A may be 0.

    They are the share of a cell in the boundary region of a start (an end), the largest over all
    actions. This region is `BOUNDARY_CELLS` long, with the start (the end) in its middle.
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


def matched_actions(actions: Tensor, proposals: Tensor) -> Tensor:
    """Return the action [P, 2] of highest tIoU with each proposal, of equal ones the first.

    Actions are [A, 2] in cells, proposals [P, 2]. Without actions, all are [0, 0].
    """
    if not len(actions):
        return torch.zeros_like(proposals)
    return actions[tiou(actions[None], proposals[:, None]).argmax(dim=1)]


def class_targets(actions: Tensor, labels: Tensor, cells: int, num_classes: int) -> Tensor:
    """Return for each cell [T] the class, 0..K-1, of the action over its middle; K without one.

    Actions are [A, 2] in cells, labels [A]. Of several actions over a cell, the shortest counts.
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
    """Return the targets of B videos for their proposals [B, P, 2] in T cells, and K classes.

    Each video has actions [A, 2] in cells and their labels [A].
    """
    return Targets(
        torch.stack([boundary_targets(a, cells) for a in actions]),
        torch.stack([matched_actions(a, p) for a, p in zip(actions, proposals, strict=True)]),
        torch.stack(
            [class_targets(a, k, cells, num_classes) for a, k in zip(actions, labels, strict=True)]
        ),
    )
