"""Snippet gradient sampling: which snippets carry the feature gradient into the encoder."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor


class SnippetContext(NamedTuple):
    """What a strategy may look at, known after the detector's backward pass.

    Attributes:
        features: [B, C, N] the encoded snippets.
        gradient: [B, C, N] the loss's gradient at `features`.
    """

    features: Tensor
    gradient: Tensor


SnippetStrategy = Callable[[SnippetContext, int], Tensor]
"""Picks `count` snippets of each video: (context, count) -> indices [B, count], ascending."""


def snippet_count(snippets: int, ratio: float) -> int:
    """How many of N snippets a ratio stands for, rounded up: 39 for 0.3 of 128."""
    return min(snippets, ceil(ratio * snippets - 1e-9))


def random_snippets(context: SnippetContext, count: int) -> Tensor:
    """Every snippet with the same chance, without repetition, drawn for each video (paper, 3.4)."""
    batch, _, snippets = context.features.shape
    draw = torch.rand(batch, snippets, device=context.features.device)
    return draw.topk(count, dim=1).indices.sort(dim=1).values


SNIPPET_STRATEGIES: dict[str, SnippetStrategy] = {"random": random_snippets}
