"""Memory: measured in a run; `etadlite.memory.plan` predicts it before one."""

from etadlite.memory.live import LiveTensors
from etadlite.memory.step import Rows, measure
from etadlite.training.activations import SavedActivations

__all__ = ["LiveTensors", "Rows", "SavedActivations", "measure"]
