"""Feature files: one NumPy array [T, C] per video."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole


class FeatureShapeError(InputError):
    """A feature file has another shape than [T, C]."""


def feature_file(folder: Path, name: str, view: int = 0) -> Path:
    """Return the path of a video's features; further views are augmented versions of the video."""
    return folder / (f"{name}.{view}.npy" if view else f"{name}.npy")


def find_features(folder: Path, name: str) -> Path | None:
    """Return a video's file, NAME.npy or with ActivityNet's prefix v_NAME.npy; None if absent."""
    paths = (feature_file(folder, known) for known in (name, f"v_{name}"))
    return next((path for path in paths if path.exists()), None)


def write_features(path: Path, features: Tensor) -> None:
    """Write features [C, T] as a NumPy file [T, C], whole or not at all."""
    with written_whole(path) as draft:
        np.save(draft, features.T.contiguous().cpu().numpy())


def open_features(path: Path, channels: int, *, on_disk: bool = False) -> np.ndarray:
    """Open a feature file [T, C] without a check of its values; `on_disk`: read rows when used.

    Raises:
        InputError: the file is absent or broken.
        FeatureShapeError: it is not two-dimensional, is empty, or has another width.
    """
    try:
        array = np.load(path, mmap_mode="r" if on_disk else None, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such feature file; extract the features") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no readable NumPy file: {error}; extract it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} is no NumPy file of one array of numbers; extract it again")
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
    through half precision; this makes the result the same on every device.
    """
    box = torch.tensor([[0, 0, 0, 1, features.shape[1]]], dtype=torch.half).double()
    exact = features.half().double()[None, :, :, None]
    pooled = roi_align(exact, box, (cells, 1), aligned=True)
    return pooled[0, :, :, 0].to(features.dtype)
