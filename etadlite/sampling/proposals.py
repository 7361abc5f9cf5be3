"""Proposal sampling: which proposals are trained.

All strategies work on the valid part of the (start, duration) map for any T and any longest
duration. The paper draws at random; the other strategies are this project's definitions.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou

IOU_BINS = 5  # of equal width in `iou_balanced_proposals`
CANDIDATES = 2  # random candidates per pick in `farthest_proposals` and `kdpp_proposals`
GROUP = 16  # largest number of candidates of one k-DPP in `kdpp_proposals`


class ProposalContext(NamedTuple):
    """What a strategy may use."""

    draws: Draws  # the random streams of the B videos
    proposals: Tensor  # [P, 2] all valid proposals, in cells, shortest first
    actions: Sequence[Tensor]  # per video [A, 2] start and end in cells


ProposalStrategy = Callable[[ProposalContext, int], Tensor]
"""Picks distinct proposals per video: (context, count) -> [B, count, 2] in cells."""


def proposal_count(proposals: int, ratio: float) -> int:
    """Return the number that is a ratio of P proposals, rounded down: 495 for 6 % of 8,256."""
    return max(1, int(proposals * ratio))


def random_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick proposals with equal probabilities (paper, section 3.5)."""
    return context.proposals[_some(context, count)]


def grid_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick a regular lattice on the map, shifted at random.

    It takes every s-th duration, with s the square root of P / count rounded down, and equal steps
    along these rows. If the rows hold too few proposals, neighbouring rows are used as well.
    """
    proposals = context.proposals
    total, length = len(proposals), _length(proposals)
    shift = (context.draws.rand(2) * 2**24).long()
    step = max(1, min(isqrt(total // count), int(length.max())))
    phase = (length.long() - (shift[:, :1] * step >> 24)) % step  # [B, P]; 0 on the lattice's rows
    order = phase.argsort(dim=1, stable=True)
    lattice = (phase == 0).sum(dim=1, keepdim=True).clamp(min=count)
    place = torch.arange(count, device=shift.device) * 2**24 + shift[:, 1:]
    return proposals[order.gather(1, place * lattice // (count * 2**24))]


def block_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick the part of a square around a random proposal that lies in the map.

    The square grows until it holds enough proposals; some of its outermost ring are left out at
    random.
    """
    centre = _some(context, 1)
    draw = context.draws.rand(len(context.proposals))
    place = torch.stack((context.proposals[:, 0], _length(context.proposals)), dim=-1)
    ring = (place - place[centre]).abs().amax(dim=-1)  # [B, P]
    return context.proposals[(ring + draw / 2).topk(count, dim=1, largest=False).indices]


def iou_balanced_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick equal shares of `IOU_BINS` bins of the tIoU with the best action."""
    proposals = context.proposals
    empty = proposals.new_zeros(1, 2)  # stands in for the actions of a video without any
    actions = [torch.cat((actions.to(proposals), empty))[:, None] for actions in context.actions]
    best = torch.stack([tiou(some, proposals).amax(dim=0) for some in actions])  # [B, P]
    bins = (best * IOU_BINS).long().clamp(max=IOU_BINS - 1)
    return _balanced(context, bins, IOU_BINS, count)


def scale_balanced_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick equal shares of the lengths 1, 2-3, 4-7, 8-15, ... cells."""
    octave = (_length(context.proposals) + 0.5).log2().long()  # + 0.5: no error from rounding
    bins = octave.expand(len(context.draws), -1)
    return _balanced(context, bins, int(octave.max()) + 1, count)


def farthest_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick by farthest-point sampling among random candidates, twice as many as picks.

    The distance is Euclidean in the centre and the logarithm of the length, both scaled to their
    range over the map, so that long and short proposals are covered alike.
    """
    from etadlite.sampling.farthest import farthest_points  # few runs need it

    candidates = _some(context, min(CANDIDATES * count, len(context.proposals)))
    points = _points(context.proposals)[candidates].mT.contiguous()  # [B, 2, M]
    picked = farthest_points(points, torch.zeros_like(candidates[:, 0]), count)
    return context.proposals[candidates.gather(1, picked)]


def kdpp_proposals(context: ProposalContext, count: int) -> Tensor:
    """Pick by k-DPPs on the map: similar proposals are seldom picked together.

    One k-DPP for all picks would take seconds. Instead, random candidates, twice as many as picks,
    are put into groups of neighbours, and an exact k-DPP picks an equal share of each group. The
    distance is that of `farthest_proposals`, and the similarity that of `kdpp_snippets`.
    """
    from etadlite.sampling.dpp import gaussian_similarity, sample_kdpp  # few runs need it

    size = min(CANDIDATES * count, len(context.proposals))
    candidates = _some(context, size)
    batch, groups = len(candidates), -(-size // GROUP)
    points = _points(context.proposals)
    # Neighbours: bands of similar length, sorted by centre within a band.
    rank = points[candidates, 1].argsort(dim=1, stable=True).argsort(dim=1)
    band = rank * isqrt(groups) // size
    order = (2 * band + points[candidates, 0]).argsort(dim=1, stable=True)
    candidates = candidates.gather(1, order)
    # Groups of nearly equal size; a place after the end of a group holds no item.
    bounds = torch.arange(groups + 1, device=candidates.device) * size // groups
    places = bounds[:-1, None] + torch.arange(GROUP, device=candidates.device)
    is_item = (places < bounds[1:, None]).repeat(batch, 1)  # [B * G, GROUP]
    grouped = candidates[:, places.clamp(max=size - 1)].flatten(0, 1)
    similarity = gaussian_similarity(points[grouped]) * (is_item[:, :, None] & is_item[:, None])
    counts = (bounds * count // size).diff().repeat(batch)
    draw = context.draws.rand(groups, 2, GROUP).flatten(0, 1)
    picked = grouped[sample_kdpp(similarity, counts, draw)]
    return context.proposals[picked.unflatten(0, (batch, count))]


def _some(context: ProposalContext, count: int) -> Tensor:
    """Return distinct random indices [B, count] of proposals."""
    return context.draws.rand(len(context.proposals)).topk(count, dim=1).indices


def _points(proposals: Tensor) -> Tensor:
    """Return the centre and the log length of proposals [P, 2], each scaled to 0..1: [P, 2]."""
    points = torch.stack((proposals.mean(dim=1), _length(proposals).log()), dim=1)
    low, high = points.aminmax(dim=0)
    return (points - low) / (high - low).clamp(min=1e-6)


def _length(proposals: Tensor) -> Tensor:
    return proposals[:, 1] - proposals[:, 0]


def _balanced(context: ProposalContext, bins: Tensor, number: int, count: int) -> Tensor:
    """Pick random proposals, a nearly equal share of each bin; others make up for small bins.

    `bins` [B, P] gives the bin of each proposal, and `number` how many there are.
    """
    turn = context.draws.rand(number).argsort(dim=1, descending=True).argsort(dim=1)
    order = context.draws.rand(len(context.proposals)).argsort(dim=1)
    bins, by_bin = bins.gather(1, order).sort(dim=1, stable=True)
    order = order.gather(1, by_bin)  # bin by bin, in random order
    # Every bin in turn gives one proposal per round, until there are enough.
    place = torch.arange(len(context.proposals), device=bins.device)
    rounds = place - torch.searchsorted(bins, bins)
    given = (rounds * number + turn.gather(1, bins)).topk(count, dim=1, largest=False).indices
    return context.proposals[order.gather(1, given.sort(dim=1).values)]


PROPOSAL_STRATEGIES: dict[str, ProposalStrategy] = {
    "random": random_proposals,
    "grid": grid_proposals,
    "block": block_proposals,
    "iou_balanced": iou_balanced_proposals,
    "scale_balanced": scale_balanced_proposals,
    "farthest": farthest_proposals,
    "kdpp": kdpp_proposals,
}
