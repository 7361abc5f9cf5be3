"""Training: sequential encoding with sampled gradients, targets, losses, the loop."""

from etadlite.training.loop import train
from etadlite.training.sequential import SequentialEncoder
from etadlite.training.step import train_step
from etadlite.training.system import System, load_checkpoint

__all__ = ["SequentialEncoder", "System", "load_checkpoint", "train", "train_step"]
