"""Training: targets, losses, the step, the loop and what it leaves."""

from etadlite.training.loop import train
from etadlite.training.step import train_step

__all__ = ["train", "train_step"]
