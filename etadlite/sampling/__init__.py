"""Sampling: a part of the snippets gets a gradient, a part of the proposals is trained."""

from etadlite.sampling.proposals import PROPOSAL_STRATEGIES, proposal_count, random_proposals
from etadlite.sampling.snippets import (
    SNIPPET_STRATEGIES,
    SnippetContext,
    SnippetStrategy,
    random_snippets,
    snippet_count,
)

__all__ = [
    "PROPOSAL_STRATEGIES",
    "SNIPPET_STRATEGIES",
    "SnippetContext",
    "SnippetStrategy",
    "proposal_count",
    "random_proposals",
    "random_snippets",
    "snippet_count",
]
