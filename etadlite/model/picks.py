"""The snippets that a step with a feature bank will encode, known before its videos are read."""

from collections.abc import Collection

import torch
from torch import Tensor

from etadlite.base.draws import Draws
from etadlite.config import Settings
from etadlite.detector import valid_proposals
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES, ProposalContext, proposal_count
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, SnippetContext, snippet_count


class Picks:
    """Repeats the draws of a step for one sample: the rest of its snippets need not be read.

    It is a function that the loading processes get: the index of a sample, the seed of its draws
    and its actions [A, 2] in cells -> indices [K] of its snippets, or None if all are needed,
    because the strategy needs features, or the sample is one of `unknown`, of which the bank lacks
    features.
    """

    def __init__(self, settings: Settings, unknown: Collection[int] = ()) -> None:
        self.sampling, self.snippets = settings.sampling, settings.data.snippets
        self.count = snippet_count(self.snippets, self.sampling.snippet_ratio)
        self.proposals = valid_proposals(self.snippets, settings.detector.max_duration)
        self.unknown = frozenset(unknown)

    def __call__(self, index: int, seed: int, actions: Tensor) -> Tensor | None:
        """Return the indices [K], ascending."""
        strategy = SNIPPET_STRATEGIES[self.sampling.snippet_strategy]
        early = strategy.early and self.count < self.snippets
        if not early or index in self.unknown:
            return None
        draws, actions_of = Draws([seed]), [actions]
        # A step draws its proposals first, see `train_step`.
        count = proposal_count(len(self.proposals), self.sampling.proposal_ratio)
        context = ProposalContext(draws, self.proposals, actions_of)
        PROPOSAL_STRATEGIES[self.sampling.proposal_strategy](context, count)
        context = SnippetContext(draws, self.snippets, actions_of)
        return torch.as_tensor(strategy.pick(context, self.count), dtype=torch.long)[0]
