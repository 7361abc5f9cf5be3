"""The memory of a training step: `etadlite.memory.plan` predicts it, `measure` measures it."""

from etadlite.memory.measurement import LiveTensors, StepMemory, measure

__all__ = ["LiveTensors", "StepMemory", "measure"]
