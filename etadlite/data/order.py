"""The order in which a training sees its samples: it can start anywhere, in any process."""

from collections.abc import Iterator
from math import ceil

import torch
from torch.utils.data import Sampler

from etadlite.base.distributed import shard
from etadlite.base.draws import video_seed
from etadlite.data.datasets import SampleKey


class TrainingOrder(Sampler[list[SampleKey]]):
    """The samples, with their seeds, of every step of an epoch.

    Each epoch has its own order, in which every sample comes once. Order and seeds follow from the
    run's seed and the epoch alone. Each of several processes gets its shard of a step, which has
    `batch_size` samples over all of them; the last step may have fewer. The next iteration starts
    at step `first_step` of `epoch`.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.first_step = 0

    def __len__(self) -> int:
        """Return the number of steps of a whole epoch."""
        return ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # No sample has this number as its index, so no sample has this seed.
        shuffle = torch.Generator().manual_seed(video_seed(self.seed, self.epoch, self.samples))
        order = torch.randperm(self.samples, generator=shuffle).tolist()
        for step in range(self.first_step, len(self)):
            together = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [
                SampleKey(index, video_seed(self.seed, self.epoch, index))
                for index in shard(together)
            ]
