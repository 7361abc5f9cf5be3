"""The memory of a training step: `etadlite.memory.plan` predicts it, `measure` measures it."""

from etadlite.memory.live import LiveTensors
from etadlite.memory.measurement import StepMemory, measure

__all__ = ["LiveTensors", "StepMemory", "measure"]
