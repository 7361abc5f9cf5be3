"""Random numbers per video.

Every video of a batch has its own random stream. What it draws depends neither on its batch, nor
on its process, nor on earlier draws, so one process or many, interrupted or not, draw the same.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor


def video_seed(*parts: int) -> int:
    """Return one seed for several numbers, such as the run's seed, the epoch and the index."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


class Draws:
    """The random streams of B videos, from one seed each; numbers are the same on every device."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    @classmethod
    def fresh(cls, batch: int, device: torch.device | str = "cpu") -> Self:
        """Make streams from torch's global random state."""
        return cls(torch.randint(2**62, (batch,)).tolist(), device)

    def __len__(self) -> int:
        return len(self._generators)

    def rand(self, *shape: int) -> Tensor:
        """Draw the next uniform numbers in 0..1 of every stream: [B, *shape]."""
        drawn = [torch.rand(shape, generator=generator) for generator in self._generators]
        return (torch.stack(drawn) if drawn else torch.empty(0, *shape)).to(self.device)
