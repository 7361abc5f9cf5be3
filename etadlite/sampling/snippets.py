"""Snippet gradient sampling: which snippets carry the feature gradient into the encoder."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal, NamedTuple

from torch import Tensor

from etadlite.draws import Draws


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
    """

    pick: Callable[[SnippetContext, int], Tensor]
    needs: Needs = "nothing"
    inclusion: Callable[[SnippetContext, int], Tensor] | None = None

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


RANDOM = SnippetStrategy(random_snippets, inclusion=equal_chances)
SNIPPET_STRATEGIES: dict[str, SnippetStrategy] = {"random": RANDOM}
