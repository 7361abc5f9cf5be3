"""Feature files: one array [T, C] per video, as NumPy or HDF5.

A folder has a file for each video, or one archive (.npz, .h5) has an array for each. The path of
such an array is that of the archive and the array's name.
"""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from etadlite.base.errors import InputError, damage_named
from etadlite.base.files import made_from, written_whole
from etadlite.base.names import inside
from etadlite.data.annotations import VideoAnnotation
from etadlite.data.datasets import AnnotatedVideos
from etadlite.data.video_files import files_named, only_file, video_files
from etadlite.data.windows import Window


class FeatureShapeError(InputError):
    """A feature file has another shape than [T, C]."""


class StaleWarning(UserWarning):
    """Features may be of another version of their videos."""


NOTE = re.compile(rb"features of \d+ bytes changed at -?\d+ ns\Z")
NOTE_LENGTH = 100  # bytes; notes are shorter
FEATURE_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")


class FeatureDataset(AnnotatedVideos):
    """Features [C, T] from files [T', C]; training draws a view.

    Those of a whole video are resampled to T cells. In a window, missing ones at the end are
    zeros, as published.
    """

    def find(self, name: str) -> Path | None:
        return find_features(self.folder, name)

    def read(
        self, video: VideoAnnotation, window: Window | None, rows: Tensor | None = None
    ) -> Tensor:
        views = self.settings.feature_views if self.training else 1
        view = int(torch.randint(views, ())) if views > 1 else 0
        path, cells = self.file_of(video), self.settings.snippets
        if view:
            path = view_of(path, view)
        if window is None:
            whole = read_features(path, self.channels)
            return whole if whole.shape[1] == cells else resize_features(whole, cells)
        stride = self.settings.window_stride
        stored = open_features(path, self.channels)
        expected = -(-video.frames // stride)
        # Files end a few features early (the last clip must fit); a wrong stride doubles or halves.
        if abs(len(stored) - expected) > max(16, expected / 3):
            raise InputError(
                f"{path} has {len(stored)} features, but a video of {video.frames} frames has "
                f"about {expected} at data.window_stride={stride}; correct the stride"
            )
        start = window.first_frame // stride
        given = as_features(stored[start : start + window.snippets], path)
        return torch.nn.functional.pad(given, (0, cells - given.shape[1]))


def feature_file(folder: Path, name: str, view: int = 0, suffix: str = ".npy") -> Path:
    """Return the path of a video's features; further views are augmented versions of the video."""
    return inside(folder, f"{name}.{view}{suffix}" if view else f"{name}{suffix}")


def feature_files(folder: Path, name: str) -> list[Path]:
    """Return the feature files of a video that has a name; see `files_named`.

    `folder` may also be an archive, whose arrays are looked up in the same way.
    """
    if folder.is_file():
        from etadlite.data.feature_archives import members  # few data sets have them

        return [folder / known for known in members(folder)[1].like(name)]
    return [path for path in files_named(folder, name) if path.suffix.lower() in FEATURE_SUFFIXES]


def view_of(path: Path, view: int) -> Path:
    """Return the path of a further view of a video, from that of its features."""
    if path.parent.is_file():  # an array of an archive, whose name has no suffix
        return path.with_name(f"{path.name}.{view}")
    return path.with_stem(f"{path.stem}.{view}")


def find_features(folder: Path, name: str) -> Path | None:
    """Return the only feature file of a video, see `feature_files`; None if there is none.

    Raises:
        InputError: there are two, or the name leads out of the folder.
    """
    return only_file(feature_files(folder, name), name)


def write_features(path: Path, features: Tensor, origin: bytes = b"") -> None:
    """Write features [C, T] as a NumPy file [T, C], whole or not at all.

    `origin` says what they were made from, see `made_from`; it stands behind the array.
    """
    with written_whole(path) as draft:
        np.save(draft, features.T.contiguous().cpu().numpy())
        with draft.open("ab") as file:
            file.write(origin)


def origin_of(path: Path) -> bytes | None:
    """Return what a feature file says that it was made from; None if it says nothing."""
    try:
        with path.open("rb") as file:
            file.seek(-min(NOTE_LENGTH, path.stat().st_size), os.SEEK_END)
            note = NOTE.search(file.read())
    except OSError:
        return None
    return note and note[0]


def stale_features(videos: Path, files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Compare feature files with the videos that they were extracted from, where these are there.

    Returns the names of files whose video now has another size, and of those whose video only has
    another time.
    """
    other, newer = [], []
    for path in files:
        sources = video_files(videos, path.stem) if path.suffix == ".npy" else []
        origin = origin_of(path) if len(sources) == 1 else None
        if origin and origin != (now := made_from("features", sources[0])):
            (newer if origin.split()[2] == now.split()[2] else other).append(path.name)
    return other, newer


def refuse_stale(videos: Path, files: Sequence[Path]) -> None:
    """Refuse features of other versions of their videos; see `stale_features`.

    A `StaleWarning` says that videos only have another time, as copies often have.

    Raises:
        InputError: a video has another size, so that it is another version.
    """
    other, newer = stale_features(videos, files)
    remedy = "run `etadlite extract` again, or leave data.videos out to use them as they are"
    if other:
        raise InputError(
            f"{len(other)} of {len(files)} feature files in {files[0].parent} were extracted from "
            f"other versions of their videos in {videos}, the first is {other[0]}; {remedy}"
        )
    if newer:
        warnings.warn(
            f"{len(newer)} of {len(files)} feature files in {files[0].parent} were extracted "
            f"before their videos in {videos} were copied or changed, the first is {newer[0]}; if "
            f"they were changed, {remedy}",
            StaleWarning,
            stacklevel=3,
        )


def open_features(path: Path, channels: int) -> np.ndarray:
    """Open a feature file [T, C] without a check of its values; rows of .npy are read when used.

    Raises:
        InputError: the file is absent or broken.
        FeatureShapeError: it is not two-dimensional, is empty, or has another width.
    """
    archived = path.parent.is_file()
    if not (archived or path.exists()):
        raise InputError(f"{path}: there is no such feature file; extract the features")
    suffix = (path.parent if archived else path).suffix.lower()
    kind = "NumPy" if suffix.startswith(".np") else "HDF5"
    with damage_named(f"{path} is no readable {kind} file", "extract it again"):
        if suffix == ".npy":
            # Mapped, the file is compared with its header before memory is asked for.
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            from etadlite.data.feature_archives import read_archive  # few data sets have them

            array = read_archive(path.parent, path.name) if archived else read_archive(path)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} is no {kind} file of one array of numbers; extract it again")
    if array.ndim != 2 or array.shape[1] != channels or not len(array):
        hint = "; it looks transposed" if array.ndim == 2 and len(array) == channels else ""
        raise FeatureShapeError(
            f"{path} has shape {list(array.shape)}, expected [T, {channels}]{hint}"
        )
    return array


def as_features(array: np.ndarray, path: Path) -> Tensor:
    """Return rows [T, C] of an opened file as float32 [C, T].

    Raises:
        InputError: they hold a value that is not finite.
    """
    features = torch.from_numpy(np.array(array, dtype="float32")).T
    if not torch.isfinite(features).all():
        raise InputError(f"{path} holds values that are not finite; extract it again")
    return features.contiguous()


def read_features(path: Path, channels: int) -> Tensor:
    """Read a feature file [T, C] as float32 [C, T]; see `open_features` and `as_features`."""
    return as_features(open_features(path, channels), path)


def resize_features(features: Tensor, cells: int) -> Tensor:
    """Resample features [C, T] of any length to `cells` cells, as published for ActivityNet.

    The rule is RoIAlign over the whole feature. As in the released code, features and length pass
    through half precision; this makes the result the same on every device. Where they do not fit
    into it, because a value or the length is beyond 65,504 or all values are below 6e-5, they keep
    their precision.
    """
    box = torch.tensor([[0, 0, 0, 1, features.shape[1]]], dtype=torch.float64)
    exact, box = (_through_half(values).double() for values in (features, box))
    pooled = roi_align(exact[None, :, :, None], box, (cells, 1), aligned=True)
    return pooled[0, :, :, 0].to(features.dtype)


def _through_half(values: Tensor) -> Tensor:
    half, largest = torch.finfo(torch.half), float(values.abs().amax())
    return values.half() if half.smallest_normal <= largest <= half.max else values
