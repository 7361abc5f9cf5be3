"""Proposal sampling: which proposals are trained."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from etadlite.draws import Draws


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
"""Picks `count` proposals of each video: (context, count) -> [B, count, 2] in cells."""


def proposal_count(proposals: int, ratio: float) -> int:
    """How many of P proposals a ratio stands for, rounded down: 495 for 6 % of 8,256."""
    return max(1, int(proposals * ratio))


def random_proposals(context: ProposalContext, count: int) -> Tensor:
    """Every proposal with the same chance, none twice, drawn for each video (paper, 3.5)."""
    draw = context.draws.rand(len(context.proposals))
    return context.proposals[draw.topk(count, dim=1).indices]


PROPOSAL_STRATEGIES: dict[str, ProposalStrategy] = {"random": random_proposals}
