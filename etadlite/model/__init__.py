"""The model: snippets in, scored proposals out."""

from etadlite.model.sequential_encoder import SequentialEncoder

__all__ = ["SequentialEncoder"]
