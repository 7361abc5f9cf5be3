"""Random numbers that belong to videos.

Every video of a batch draws from a stream of its own. What is drawn for it then depends neither on
the batch it stands in, nor on the process that works on it, nor on what was drawn before: one
process or many, interrupted or not, a training draws the same.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor


def video_seed(*parts: int) -> int:
    """One seed of several numbers, such as the run's seed, the epoch and the sample's index."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class Draws:
    """The streams of B videos; its length is B.

    Args:
        seeds: one a video.
        device: where the numbers are wanted; they are the same on all devices.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    @classmethod
    def fresh(cls, batch: int, device: torch.device | str = "cpu") -> Self:
        """Streams that follow from torch's global random state."""
        return cls(torch.randint(2**62, (batch,)).tolist(), device)

    def __len__(self) -> int:
        return len(self._generators)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in 0..1, [B, *shape]; the next of every stream."""
        drawn = [torch.rand(shape, generator=generator) for generator in self._generators]
        return (torch.stack(drawn) if drawn else torch.empty(0, *shape)).to(self.device)
