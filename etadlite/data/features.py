"""Feature files: one NumPy array [T, C] a video."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from etadlite.errors import InputError


def feature_file(folder: Path, name: str, view: int = 0) -> Path:
    """Where a video's features lie; further views are as many augmented versions of the video."""
    return folder / (f"{name}.{view}.npy" if view else f"{name}.npy")


def write_features(path: Path, features: Tensor) -> None:
    """Write features [C, T] as a NumPy file [T, C], whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    with draft.open("wb") as file:
        np.save(file, features.T.contiguous().cpu().numpy())
    draft.replace(path)


def read_features(path: Path, channels: int) -> Tensor:
    """Read a feature file [T, C] as float32 [C, T].

    Raises:
        InputError: the file is absent, broken, not two-dimensional, empty, of another width, or
            holds anything but finite numbers.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such feature file; extract the features") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no readable NumPy file: {error}; extract it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} is no NumPy file of one array of numbers; extract it again")
    if array.ndim != 2 or array.shape[1] != channels or not len(array):
        hint = "; it looks transposed" if array.ndim == 2 and array.shape[0] == channels else ""
        raise InputError(f"{path} has shape {list(array.shape)}, expected [T, {channels}]{hint}")
    features = torch.from_numpy(array.astype("float32", copy=False)).T
    if not torch.isfinite(features).all():
        raise InputError(f"{path} holds values that are not finite; extract it again")
    return features.contiguous()


def resize_features(features: Tensor, cells: int) -> Tensor:
    """Resample features [C, T] of any length to `cells` cells, as published for ActivityNet.

    The rule is RoIAlign over the whole feature; features and length pass through half precision, as
    in the released code, which makes the result the same on every device.
    """
    box = torch.tensor([[0, 0, 0, 1, features.shape[1]]], dtype=torch.half).double()
    exact = features.half().double()[None, :, :, None]
    pooled = roi_align(exact, box, (cells, 1), aligned=True)
    return pooled[0, :, :, 0].to(features.dtype)
