"""Videos that cannot be read: tried twice, replaced in training, never lost silently."""

from collections.abc import Sequence
from typing import NamedTuple

from av.error import FFmpegError
from torch.utils.data import Dataset

from etadlite.base.draws import video_seed
from etadlite.base.errors import InputError
from etadlite.base.files import disk_is_full
from etadlite.data.datasets import AnnotatedVideos, Batch, Sample, SampleKey, collate

IN_A_ROW = 10
"""So many videos in a row that cannot be read mean that all are gone."""


class Unreadable(NamedTuple):
    """A video that could not be read, and why."""

    name: str
    reason: str


class Readable(Dataset):
    """A data set in which a single bad file ends nothing.

    What cannot be read is tried once more. If that fails too, it is left out, and in training
    another sample, which follows from the seed, stands in for it.

    Args:
        data: the videos.
    """

    def __init__(self, data: AnnotatedVideos) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: int | SampleKey) -> list[Sample | Unreadable]:
        """What was tried for the key, and last, where there is one, the sample.

        Raises:
            InputError: no video in a row of ten can be read, or there is no room for their frames.
        """
        tried = [self.read(key)]
        if not isinstance(key, SampleKey):
            return tried
        while isinstance(tried[-1], Unreadable):
            if len(tried) == IN_A_ROW:
                raise InputError(
                    f"{IN_A_ROW} videos in a row cannot be read; is the data folder still there? "
                    f"The last was {tried[-1].name}: {tried[-1].reason}"
                )
            other = video_seed(key.seed, len(tried)) % len(self.data)
            tried.append(self.read(SampleKey(other, key.seed)))
        return tried

    def read(self, key: int | SampleKey) -> Sample | Unreadable:
        """The sample, or why it cannot be read even at the second try."""
        for attempt in (1, 2):
            try:
                return self.data[key]
            except (OSError, ValueError, FFmpegError) as error:
                if isinstance(error, OSError) and disk_is_full(error):
                    # No fault of the video; as an error that a loading process can hand on.
                    raise InputError(
                        f"{error.filename}: the disk of data.cache is full; make room, or leave "
                        "the cache out with data.cache=null"
                    ) from None
                if attempt == 2:
                    index = key.index if isinstance(key, SampleKey) else key
                    return Unreadable(self.data.name(index), str(error) or type(error).__name__)
        raise AssertionError


def collate_readable(tried: Sequence[list[Sample | Unreadable]]) -> Batch:
    """Make a batch of the samples that could be read; it may be empty."""
    items = [item for items in tried for item in items]
    batch = collate([item for item in items if isinstance(item, Sample)])
    return batch._replace(failed=dict(item for item in items if isinstance(item, Unreadable)))
