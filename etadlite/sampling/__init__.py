"""Sampling: some snippets carry the gradient, some proposals are trained."""
