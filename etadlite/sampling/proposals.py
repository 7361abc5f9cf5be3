"""Proposal sampling: which proposals are trained.

All strategies take the valid part of the (start, duration) map, whatever T and the largest duration
are. The paper draws at random; the others are this project's definitions.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou
from etadlite.sampling.dpp import gaussian_similarity, sample_kdpp
from etadlite.sampling.farthest import farthest_points


class ProposalContext(NamedTuple):
    """What a strategy may look at.

    Attributes:
        draws: the random streams of the B videos.
        proposals: [P, 2] all valid proposals, in cells, shortest first.
        actions: for each video [A, 2] start and end in cells.
    """

    draws: Draws
    proposals: Tensor
    actions: Sequence[Tensor]


ProposalStrategy = Callable[[ProposalContext, int], Tensor]
"""Picks `count` proposals of each video, none twice: (context, count) -> [B, count, 2] in cells."""


def proposal_count(proposals: int, ratio: float) -> int:
    """How many of P proposals a ratio stands for, rounded down: 495 for 6 % of 8,256."""
    return max(1, int(proposals * ratio))


def random_proposals(context: ProposalContext, count: int) -> Tensor:
    """Every proposal with the same chance, none twice, drawn for each video (paper, 3.5)."""
    return context.proposals[_some(context, count)]


def grid_proposals(context: ProposalContext, count: int) -> Tensor:
    """A regular lattice on the map, moved at random.

    Every s-th duration with s the root of P / count, rounded down, and along these rows steps of
    equal length. Where the rows hold too few, those next to them are used as well.
    """
    proposals = context.proposals
    total, length = len(proposals), _length(proposals)
    shift = (context.draws.rand(2) * 2**24).long()
    step = max(1, min(isqrt(total // count), int(length.max())))
    phase = (length.long() - (shift[:, :1] * step >> 24)) % step  # [B, P]; 0 on the chosen rows
    order = phase.argsort(dim=1, stable=True)
    lattice = (phase == 0).sum(dim=1, keepdim=True).clamp(min=count)
    place = torch.arange(count, device=shift.device) * 2**24 + shift[:, 1:]
    return proposals[order.gather(1, place * lattice // (count * 2**24))]


def block_proposals(context: ProposalContext, count: int) -> Tensor:
    """A square of the map around a random proposal, as far as it lies in the map.

    The square grows until it holds enough; of its outermost ring some are left out at random.
    """
    centre = _some(context, 1)
    draw = context.draws.rand(len(context.proposals))
    place = torch.stack((context.proposals[:, 0], _length(context.proposals)), dim=-1)
    ring = (place - place[centre]).abs().amax(dim=-1)  # [B, P]
    return context.proposals[(ring + draw / 2).topk(count, dim=1, largest=False).indices]


IOU_BINS = 5
"""Bins of equal width in which `iou_balanced_proposals` counts tIoU."""


def iou_balanced_proposals(context: ProposalContext, count: int) -> Tensor:
    """Equal shares over `IOU_BINS` bins of the tIoU with the nearest action."""
    proposals = context.proposals
    best = [
        tiou(actions.to(proposals)[:, None], proposals).amax(dim=0)
        if len(actions)
        else proposals.new_zeros(len(proposals))
        for actions in context.actions
    ]
    bins = (torch.stack(best) * IOU_BINS).long().clamp(max=IOU_BINS - 1)
    return _balanced(context, bins, IOU_BINS, count)


def scale_balanced_proposals(context: ProposalContext, count: int) -> Tensor:
    """Equal shares over octaves of length: 1 cell, 2-3, 4-7, 8-15, ..."""
    octave = (_length(context.proposals) + 0.5).log2().long()  # clear of rounding
    bins = octave.expand(len(context.draws), -1)
    return _balanced(context, bins, int(octave.max()) + 1, count)


CANDIDATES = 2
"""Of how many random proposals a pick farthest_proposals and kdpp_proposals pick one."""


def farthest_proposals(context: ProposalContext, count: int) -> Tensor:
    """Farthest-point sampling among random candidates, twice as many as picks.

    The distance is Euclid's between centres and logarithms of lengths, each in units of its range
    over the map, so that long and short proposals are covered alike.
    """
    candidates = _some(context, min(CANDIDATES * count, len(context.proposals)))
    points = _points(context.proposals)[candidates].mT.contiguous()  # [B, 2, M]
    picked = farthest_points(points, torch.zeros_like(candidates[:, 0]), count)
    return context.proposals[candidates.gather(1, picked)]


GROUP = 16
"""Most candidates among which one k-DPP of `kdpp_proposals` draws."""


def kdpp_proposals(context: ProposalContext, count: int) -> Tensor:
    """k-DPPs on the map: proposals that are alike are seldom picked together.

    One k-DPP of all picks would need seconds. Random candidates, twice as many as picks, are put
    into groups of neighbours instead, and an exact k-DPP picks an equal share of each group. The
    distance is that of `farthest_proposals`, from which the similarity follows as in
    `kdpp_snippets`.
    """
    size = min(CANDIDATES * count, len(context.proposals))
    candidates = _some(context, size)
    batch, groups = len(candidates), -(-size // GROUP)
    points = _points(context.proposals)
    # Neighbours: bands of similar length, in each by centre.
    rank = points[candidates, 1].argsort(dim=1, stable=True).argsort(dim=1)
    band = rank * isqrt(groups) // size
    order = (2 * band + points[candidates, 0]).argsort(dim=1, stable=True)
    candidates = candidates.gather(1, order)
    # Groups as equal as can be; a place past a group's end holds no item.
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
    """Indices [B, count] of random proposals, none twice."""
    return context.draws.rand(len(context.proposals)).topk(count, dim=1).indices


def _points(proposals: Tensor) -> Tensor:
    """Centre and logarithm of the length of proposals [P, 2], each scaled to 0..1: [P, 2]."""
    points = torch.stack((proposals.mean(dim=1), _length(proposals).log()), dim=1)
    low, high = points.aminmax(dim=0)
    return (points - low) / (high - low).clamp(min=1e-6)


def _length(proposals: Tensor) -> Tensor:
    return proposals[:, 1] - proposals[:, 0]


def _balanced(context: ProposalContext, bins: Tensor, number: int, count: int) -> Tensor:
    """Random proposals, as equal a share as can be of each bin.

    What a bin is too small to give is shared by the others.

    Args:
        context: what is drawn from.
        bins: [B, P] the bin of each proposal.
        number: of bins.
        count: of picks.
    """
    size = torch.stack([(bins == n).sum(dim=1) for n in range(number)], dim=1)  # [B, bins]
    quota = torch.zeros_like(size)
    for _ in range(number):  # each round fills a bin or gives out all but a remainder
        rest = count - quota.sum(dim=1, keepdim=True)
        free = (size > quota).sum(dim=1, keepdim=True)
        quota = torch.minimum(size, quota + rest // free.clamp(min=1))
    rest = count - quota.sum(dim=1, keepdim=True)
    lucky = context.draws.rand(number).masked_fill(size <= quota, -1)
    quota += lucky.argsort(dim=1, descending=True).argsort(dim=1) < rest
    draw = context.draws.rand(len(context.proposals))
    order = draw.argsort(dim=1)
    ordered, by_bin = bins.gather(1, order).sort(dim=1, stable=True)
    order = order.gather(1, by_bin)  # bin by bin, in random order
    ends = size.cumsum(dim=1)
    place = torch.arange(len(context.proposals), device=bins.device)
    chosen = place < (ends - size + quota).gather(1, ordered)
    return context.proposals[order[chosen].unflatten(0, (-1, count))]


PROPOSAL_STRATEGIES: dict[str, ProposalStrategy] = {
    "random": random_proposals,
    "grid": grid_proposals,
    "block": block_proposals,
    "iou_balanced": iou_balanced_proposals,
    "scale_balanced": scale_balanced_proposals,
    "farthest": farthest_proposals,
    "kdpp": kdpp_proposals,
}
