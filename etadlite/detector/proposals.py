"""The map of all proposals, and how regressed offsets refine them."""

import torch
from torch import Tensor


def proposal_map(cells: int, max_duration: int) -> tuple[Tensor, Tensor]:
    """Return all proposals [D, T, 2] between borders of T cells, and the mask [D, T] of valid ones.

    Entry (d, s) is the proposal [s, s + d + 1], in cells (float32). It is valid if it ends within
    the feature; entries that are not valid hold [0, 0]. D is the longest duration in cells.
    """
    start = torch.arange(cells).expand(max_duration, cells)
    end = start + torch.arange(1, max_duration + 1)[:, None]
    valid = end <= cells
    return torch.stack((start, end), dim=-1).float() * valid[..., None], valid


def valid_proposals(cells: int, max_duration: int) -> Tensor:
    """Return the valid entries of `proposal_map`: [P, 2] in cells, shortest first."""
    proposals, valid = proposal_map(cells, max_duration)
    return proposals[valid]


def refine(proposals: Tensor, offsets: Tensor) -> Tensor:
    """Move proposals [..., 2], in any unit, by the mean of two refinements (paper, section 3.3).

    Offsets [..., 4] are of start, end, centre and width. The first refinement moves start and end
    by offsets in units of the length. The second one moves the centre by an offset in units of the
    length, and scales the width by the exponential of its offset.
    """
    start, end = proposals.unbind(-1)
    d_start, d_end, d_centre, d_width = offsets.unbind(-1)
    length = end - start
    by_ends = torch.stack((start + length * d_start, end + length * d_end), dim=-1)
    centre = (start + end) / 2 + length * d_centre
    half = length * d_width.exp() / 2
    by_centre = torch.stack((centre - half, centre + half), dim=-1)
    return (by_ends + by_centre) / 2
