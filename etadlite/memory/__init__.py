"""Memory: measured in a run; `etadlite.memory.plan` predicts it before one."""

from etadlite.activations import SavedActivations
from etadlite.memory.live import LiveTensors
from etadlite.memory.step import Rows, measure

__all__ = ["LiveTensors", "Rows", "SavedActivations", "measure"]
