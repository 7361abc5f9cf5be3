"""Sampling: a part of the snippets gets a gradient, a part of the proposals is trained."""

from etadlite.sampling.proposals import (
    PROPOSAL_STRATEGIES,
    ProposalContext,
    ProposalStrategy,
    proposal_count,
    random_proposals,
)
from etadlite.sampling.snippets import (
    RANDOM,
    SNIPPET_STRATEGIES,
    SnippetContext,
    SnippetStrategy,
    random_snippets,
    snippet_count,
)

__all__ = [
    "PROPOSAL_STRATEGIES",
    "RANDOM",
    "SNIPPET_STRATEGIES",
    "ProposalContext",
    "ProposalStrategy",
    "SnippetContext",
    "SnippetStrategy",
    "proposal_count",
    "random_proposals",
    "random_snippets",
    "snippet_count",
]
