"""Proposal sampling: which proposals are trained."""

from collections.abc import Callable

import torch
from torch import Tensor

ProposalStrategy = Callable[[Tensor, int, int], Tensor]
"""Picks proposals for each of B videos: (proposals [P, 2], batch, count) -> [B, count, 2]."""


def proposal_count(proposals: int, ratio: float) -> int:
    """How many of P proposals a ratio stands for, rounded down: 495 for 6 % of 8,256."""
    return max(1, int(proposals * ratio))


def random_proposals(proposals: Tensor, batch: int, count: int) -> Tensor:
    """Every proposal with the same chance, none twice, drawn for each video (paper, 3.5)."""
    draw = torch.rand(batch, len(proposals), device=proposals.device)
    return proposals[draw.topk(count, dim=1).indices]


PROPOSAL_STRATEGIES: dict[str, ProposalStrategy] = {"random": random_proposals}
