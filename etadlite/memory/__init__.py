"""Memory: measured in a run."""

from etadlite.memory.measure import SavedActivations

__all__ = ["SavedActivations"]
