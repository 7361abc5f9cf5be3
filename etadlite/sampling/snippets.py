"""Snippet gradient sampling: which snippets carry the feature gradient into the encoder.

The paper draws them at random; the other strategies are this project's definitions.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.sampling.dpp import gaussian_similarity, sample_kdpp
from etadlite.sampling.farthest import farthest_points
from etadlite.sampling.importance import proportional_chances, systematic


class SnippetContext(NamedTuple):
    """What a strategy may look at. What it does not need may be None.

    Attributes:
        draws: the random streams of the B videos.
        snippets: N.
        actions: for each video [A, 2] start and end in cells (a cell is a snippet).
        features: [B, C, N] the encoded snippets.
        gradient: [B, C, N] the loss's gradient at `features`.
    """

    draws: Draws
    snippets: int
    actions: Sequence[Tensor] | None = None
    features: Tensor | None = None
    gradient: Tensor | None = None


Needs = Literal["nothing", "labels", "features", "gradient"]


class SnippetStrategy(NamedTuple):
    """A way to choose snippets.

    Attributes:
        pick: (context, count) -> indices [B, count], ascending, none twice.
        needs: the last thing that must be known. What needs nothing or labels is chosen before the
            first pass, so that the frozen prefix is computed once.
        inclusion: (context, count) -> [B, N], the chance of each snippet to be picked; None where
            it is unknown or some snippets have none. Where it is given, weights 1 / chance make the
            sampled gradient unbiased.
        weighted: the weights 1 / chance belong to the strategy: without them it makes no sense.
    """

    pick: Callable[[SnippetContext, int], Tensor]
    needs: Needs = "nothing"
    inclusion: Callable[[SnippetContext, int], Tensor] | None = None
    weighted: bool = False

    @property
    def unbiased(self) -> bool:
        """Whether the rescaled sampled gradient is, on average, the full one."""
        return self.inclusion is not None


def snippet_count(snippets: int, ratio: float) -> int:
    """How many of N snippets a ratio stands for, rounded up: 39 for 0.3 of 128."""
    return min(snippets, ceil(ratio * snippets - 1e-9))


def random_snippets(context: SnippetContext, count: int) -> Tensor:
    """Every snippet with the same chance, without repetition, drawn for each video (paper, 3.4)."""
    draw = context.draws.rand(context.snippets)
    return draw.topk(count, dim=1).indices.sort(dim=1).values


def equal_chances(context: SnippetContext, count: int) -> Tensor:
    """The chance count / N for every snippet: [B, N]."""
    chance = count / context.snippets
    return context.draws.rand(0).new_full((len(context.draws), context.snippets), chance)


def grid_snippets(context: SnippetContext, count: int) -> Tensor:
    """Equal steps of N / count, rounded down, from a random start within the first."""
    shift = (context.draws.rand(1) * 2**24).long()  # exact, as are the integers that follow
    step = torch.arange(count, device=shift.device) * 2**24
    return (step + shift) * context.snippets // (count * 2**24)


def block_snippets(context: SnippetContext, count: int) -> Tensor:
    """Neighbours from a random start; a block that reaches the video's end goes on at its start."""
    start = (context.draws.rand(1) * context.snippets).long()
    block = start + torch.arange(count, device=start.device)
    return (block % context.snippets).sort(dim=1).values


def farthest_snippets(context: SnippetContext, count: int) -> Tensor:
    """Farthest-point sampling on the features, the first snippet at random."""
    first = (context.draws.rand() * context.snippets).long()
    return farthest_points(_finite(context.features), first, count).sort(dim=1).values


def kdpp_snippets(context: SnippetContext, count: int) -> Tensor:
    """A k-DPP on the features: snippets that are alike are seldom picked together."""
    similarity = gaussian_similarity(_finite(context.features).mT)
    counts = torch.full((len(similarity),), count, device=similarity.device)
    picked = sample_kdpp(similarity, counts, context.draws.rand(2, context.snippets))
    return picked.nonzero()[:, 1].unflatten(0, (-1, count))


LABEL_SHARE = 0.75
"""Share of the picks that a label strategy draws from the snippets that it prefers."""

BOUNDARY_REACH = 1.5
"""How far from an action's start or end a snippet counts as one of the boundary, in cells; the same
region that the detector's boundary targets mark."""

Preference = Callable[[Tensor, Tensor], Tensor]
"""(actions [A, 2], middles of the cells [N, 1]) -> [N] whether a snippet is preferred."""


def foreground(actions: Tensor, middle: Tensor) -> Tensor:
    """Snippets whose middle lies in an action."""
    return ((actions[:, 0] <= middle) & (middle < actions[:, 1])).any(dim=1)


def background(actions: Tensor, middle: Tensor) -> Tensor:
    """Snippets whose middle lies in no action."""
    return ~foreground(actions, middle)


def boundary(actions: Tensor, middle: Tensor) -> Tensor:
    """Snippets whose middle lies near the start or the end of an action."""
    return ((actions.flatten() - middle).abs() <= BOUNDARY_REACH).any(dim=1)


def label_strategy(preference: Preference) -> SnippetStrategy:
    """Draw `LABEL_SHARE` of the picks from preferred snippets, the rest from the others.

    Where one of the two groups is too small, the other fills up. A share that is no whole number is
    rounded up or down at random, so that the chances are exact and above 0 for every snippet.
    """

    def preferred(context: SnippetContext) -> Tensor:
        middle = torch.arange(context.snippets, device=context.draws.device)[:, None] + 0.5
        return torch.stack([preference(a.to(middle), middle) for a in context.actions])

    def limits(inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
        size = inside.sum(dim=1, keepdim=True)
        return (count - inside.shape[1] + size).clamp(min=0), size.clamp(max=count)

    def pick(context: SnippetContext, count: int) -> Tensor:
        inside = preferred(context)
        draw = context.draws.rand(context.snippets + 1)
        least, most = limits(inside, count)
        quota = (LABEL_SHARE * count + draw[:, -1:]).long().clamp(least, most)
        size = inside.sum(dim=1, keepdim=True)
        order = (draw[:, :-1] + inside).argsort(dim=1, descending=True)  # preferred ones first
        place = torch.arange(context.snippets, device=draw.device)
        chosen = (place < quota) | ((place >= size) & (place < size + count - quota))
        return order[chosen].unflatten(0, (-1, count)).sort(dim=1).values

    def inclusion(context: SnippetContext, count: int) -> Tensor:
        inside = preferred(context)
        quota = torch.full((len(inside), 1), LABEL_SHARE * count, device=inside.device)
        quota = quota.clamp(*limits(inside, count))
        size = inside.sum(dim=1, keepdim=True)
        others = (count - quota) / (context.snippets - size).clamp(min=1)
        return torch.where(inside, quota / size.clamp(min=1), others)

    return SnippetStrategy(pick, "labels", inclusion)


def gradient_norm_chances(context: SnippetContext, count: int) -> Tensor:
    """Chances [B, N] in proportion to the norm of a snippet's feature gradient, at most 1."""
    return _gradient_norm_chances(context, count).float()


def gradient_norm_snippets(context: SnippetContext, count: int) -> Tensor:
    """Importance sampling with exactly the chances of `gradient_norm_chances`."""
    chances = _gradient_norm_chances(context, count)
    picked = systematic(chances, context.draws.rand(context.snippets + 1), count)
    return picked.sort(dim=1).values


def _gradient_norm_chances(context: SnippetContext, count: int) -> Tensor:
    return proportional_chances(_finite(context.gradient).norm(dim=1), count)


def _finite(values: Tensor) -> Tensor:
    """Without NaN and infinities, so that a broken step ends where its loss is looked at."""
    return values.detach().float().nan_to_num(0, 0, 0)


RANDOM = SnippetStrategy(random_snippets, inclusion=equal_chances)
SNIPPET_STRATEGIES: dict[str, SnippetStrategy] = {
    "random": RANDOM,
    "grid": SnippetStrategy(grid_snippets, inclusion=equal_chances),
    "block": SnippetStrategy(block_snippets, inclusion=equal_chances),
    "farthest": SnippetStrategy(farthest_snippets, "features"),
    "kdpp": SnippetStrategy(kdpp_snippets, "features"),
    "foreground": label_strategy(foreground),
    "boundary": label_strategy(boundary),
    "background": label_strategy(background),
    "gradient_norm": SnippetStrategy(
        gradient_norm_snippets, "gradient", gradient_norm_chances, weighted=True
    ),
}
