"""Snippet gradient sampling: which snippets carry the feature gradient into the encoder.

The paper draws them at random; the other strategies are this project's definitions.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from etadlite.base.draws import Draws

LABEL_SHARE = 0.75  # of the picks, which a label strategy draws from its preferred snippets
BOUNDARY_REACH = 1.5  # cells from a snippet to its boundary; as in the detector's targets


class SnippetContext(NamedTuple):
    """What a strategy may use; what it does not need may be None."""

    draws: Draws  # the random streams of the B videos
    snippets: int  # N
    actions: Sequence[Tensor] | None = None  # per video [A, 2] start and end in cells (snippets)
    features: Tensor | None = None  # [B, C, N] the encoded snippets
    gradient: Tensor | None = None  # [B, C, N] of the loss at `features`


class SnippetStrategy(NamedTuple):
    """A way to choose snippets: functions of a context and of the number of picks.

    `needs` is the last thing that must be known. Weights 1 / probability make the sampled gradient
    unbiased.
    """

    pick: Callable[[SnippetContext, int], Tensor]  # distinct indices [B, count], ascending
    needs: Literal["nothing", "labels", "features", "gradient"] = "nothing"
    # [B, N] the probability that a snippet is picked; None if it is unknown or may be 0
    inclusion: Callable[[SnippetContext, int], Tensor] | None = None
    weighted: bool = False  # it makes no sense without these weights

    @property
    def early(self) -> bool:
        """True if it picks before the first pass, so that the frozen prefix is computed once."""
        return self.needs in ("nothing", "labels")

    @property
    def unbiased(self) -> bool:
        """True if the rescaled sampled gradient equals the full one on average."""
        return self.inclusion is not None


def snippet_count(snippets: int, ratio: float) -> int:
    """Return the number that is a ratio of N snippets, rounded up: 39 for 0.3 of 128."""
    return min(snippets, ceil(ratio * snippets - 1e-9))


def random_snippets(context: SnippetContext, count: int) -> Tensor:
    """Pick snippets with equal probabilities (paper, section 3.4)."""
    draw = context.draws.rand(context.snippets)
    order = draw.argsort(dim=1, descending=True, stable=True)  # the same on every device
    return order[:, :count].sort(dim=1).values


def equal_probabilities(context: SnippetContext, count: int) -> Tensor:
    """Return the probability count / N for every snippet: [B, N]."""
    size = len(context.draws), context.snippets
    return torch.full(size, count / context.snippets, device=context.draws.device)


def grid_snippets(context: SnippetContext, count: int) -> Tensor:
    """Pick at equal steps of N / count, rounded down, from a random start in the first step."""
    shift = (context.draws.rand(1) * 2**24).long()  # from here on exact integers
    step = torch.arange(count, device=shift.device) * 2**24
    return (step + shift) * context.snippets // (count * 2**24)


def block_snippets(context: SnippetContext, count: int) -> Tensor:
    """Pick neighbours from a random start; after the end of the video the block goes on at 0."""
    start = (context.draws.rand(1) * context.snippets).long()
    block = start + torch.arange(count, device=start.device)
    return (block % context.snippets).sort(dim=1).values


def farthest_snippets(context: SnippetContext, count: int) -> Tensor:
    """Pick by farthest-point sampling on the features, from a random first snippet."""
    from etadlite.sampling.farthest import farthest_points  # few runs need it

    first = (context.draws.rand() * context.snippets).long()
    return farthest_points(_finite(context.features), first, count).sort(dim=1).values


def kdpp_snippets(context: SnippetContext, count: int) -> Tensor:
    """Pick by a k-DPP on the features: similar snippets are seldom picked together."""
    from etadlite.sampling.dpp import gaussian_similarity, sample_kdpp  # few runs need it

    similarity = gaussian_similarity(_finite(context.features).mT)
    counts = torch.full((len(similarity),), count, device=similarity.device)
    picked = sample_kdpp(similarity, counts, context.draws.rand(2, context.snippets))
    return picked.nonzero()[:, 1].unflatten(0, (-1, count))


def foreground(actions: Tensor, middle: Tensor) -> Tensor:
    """Prefer snippets whose middle lies in an action."""
    return ((actions[:, 0] <= middle) & (middle < actions[:, 1])).any(dim=1)


def boundary(actions: Tensor, middle: Tensor) -> Tensor:
    """Prefer snippets whose middle lies near the start or the end of an action."""
    return ((actions.flatten() - middle).abs() <= BOUNDARY_REACH).any(dim=1)


def label_strategy(preference: Callable[[Tensor, Tensor], Tensor]) -> SnippetStrategy:
    """Draw `LABEL_SHARE` of the picks from preferred snippets, the rest from the others.

    `preference` gives their mask [N] from actions [A, 2] and the middles of the cells [N, 1].
    If one group is too small, the other one makes up for it. A fractional share is rounded up or
    down at random, so that the probabilities are exact, and positive for every snippet.
    """

    def preferred(context: SnippetContext) -> Tensor:
        middle = torch.arange(context.snippets, device=context.draws.device)[:, None] + 0.5
        return torch.stack([preference(a.to(middle), middle) for a in context.actions])

    def possible(quota: Tensor, inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the quota [B, 1] of preferred snippets that their number [B, 1] allows, and it."""
        size = inside.sum(dim=1, keepdim=True)
        least = (count - inside.shape[1] + size).clamp(min=0)
        return quota.clamp(least, size.clamp(max=count)), size

    def pick(context: SnippetContext, count: int) -> Tensor:
        inside = preferred(context)
        draw = context.draws.rand(context.snippets + 1)
        quota, size = possible((LABEL_SHARE * count + draw[:, -1:]).long(), inside, count)
        preference = draw[:, :-1] + inside
        order = preference.argsort(dim=1, descending=True, stable=True)  # preferred ones first
        place = torch.arange(context.snippets, device=draw.device)
        chosen = (place < quota) | ((place >= size) & (place < size + count - quota))
        return order[chosen].unflatten(0, (-1, count)).sort(dim=1).values

    def inclusion(context: SnippetContext, count: int) -> Tensor:
        inside = preferred(context)
        share = torch.full((len(inside), 1), LABEL_SHARE * count, device=inside.device)
        quota, size = possible(share, inside, count)
        others = (count - quota) / (context.snippets - size).clamp(min=1)
        return torch.where(inside, quota / size.clamp(min=1), others)

    return SnippetStrategy(pick, "labels", inclusion)


def proportional_probabilities(size: Tensor, count: int) -> Tensor:
    """Return probabilities [B, N] proportional to sizes [B, N], at most 1, that sum to `count`.

    The excess over 1 is distributed over the others in proportion. A size below a millionth of the
    row's largest counts as that much, so that a row with few positive sizes, or none, works, too:
    all probabilities are above 0.
    """
    size = size if size.device.type == "mps" else size.double()
    greatest = size.amax(dim=1, keepdim=True)
    size = torch.where(greatest > 0, (size / greatest).clamp(min=1e-6), 1.0)
    ordered, order = size.sort(dim=1, descending=True)
    rest = ordered.flip(1).cumsum(dim=1).flip(1)  # sum of each size and all smaller ones
    left = count - torch.arange(size.shape[1], device=size.device)
    # All sizes before the first one whose share of the rest is at most 1 are certain.
    certain = (left * ordered <= rest).long().argmax(dim=1, keepdim=True)
    scale = (count - certain) / rest.gather(1, certain)
    is_certain = order.argsort(dim=1) < certain
    return torch.where(is_certain, 1.0, (scale * size).clamp(max=1))


def systematic_sample(probabilities: Tensor, draw: Tensor, count: int) -> Tensor:
    """Pick items with exactly these probabilities [B, N], which sum to `count`: [B, count] indices.

    The probabilities are laid end to end in random order, and the items under the points u, u + 1,
    u + 2, ... are picked (systematic sampling). `draw` [B, N + 1] are uniform numbers.
    """
    order = draw[:, :-1].argsort(dim=1)
    ends = probabilities.gather(1, order).cumsum(dim=1)
    number = torch.arange(count, device=draw.device)
    place = torch.searchsorted(ends, draw[:, -1:].to(ends.dtype) + number, right=True)
    # Rounding of the sums must not pick an item twice, nor one after the last.
    place = (place - number).cummax(dim=1).values.clamp(max=probabilities.shape[1] - count) + number
    return order.gather(1, place)


def gradient_norm_probabilities(context: SnippetContext, count: int) -> Tensor:
    """Return probabilities [B, N] proportional to the norm of a snippet's feature gradient."""
    return proportional_probabilities(_finite(context.gradient).norm(dim=1), count)


def gradient_norm_snippets(context: SnippetContext, count: int) -> Tensor:
    """Pick with exactly the probabilities of `gradient_norm_probabilities`."""
    probabilities = gradient_norm_probabilities(context, count)
    picked = systematic_sample(probabilities, context.draws.rand(context.snippets + 1), count)
    return picked.sort(dim=1).values


def _finite(values: Tensor) -> Tensor:
    """Replace NaN and infinities, so that a broken step is found where its loss is checked."""
    return values.detach().float().nan_to_num(0, 0, 0)


RANDOM = SnippetStrategy(random_snippets, inclusion=equal_probabilities)
SNIPPET_STRATEGIES: dict[str, SnippetStrategy] = {
    "random": RANDOM,
    "grid": SnippetStrategy(grid_snippets, inclusion=equal_probabilities),
    "block": SnippetStrategy(block_snippets, inclusion=equal_probabilities),
    "farthest": SnippetStrategy(farthest_snippets, "features"),
    "kdpp": SnippetStrategy(kdpp_snippets, "features"),
    "foreground": label_strategy(foreground),
    "boundary": label_strategy(boundary),
    "background": label_strategy(lambda *given: ~foreground(*given)),
    "gradient_norm": SnippetStrategy(
        gradient_norm_snippets,
        "gradient",
        lambda context, count: gradient_norm_probabilities(context, count).float(),
        weighted=True,
    ),
}
