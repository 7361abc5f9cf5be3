"""Features as others publish them: NumPy and HDF5 archives, one for each video or one for all."""

import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from etadlite.base.devices import require_memory
from etadlite.base.errors import InputError, damage_named
from etadlite.base.names import Names

KNOWN = ("feats", "features")  # names of the array where a file has several of two dimensions
Entry = TypeVar("Entry")


def is_archive(path: Path) -> bool:
    """Return True if a path is called like an archive."""
    return path.suffix.lower() in (".npz", ".h5", ".hdf5")


def members(path: Path) -> tuple[list[str], Names]:
    """Return the names of what an archive of all videos holds, as a list and to look them up.

    Raises:
        InputError: it is no archive, or broken.
    """
    if not is_archive(path):
        raise InputError(
            f"{path} is no folder of features, and no archive (.npz, .h5) of those of all videos"
        )
    state = path.stat()
    kind = "NumPy" if path.suffix.lower() == ".npz" else "HDF5"
    with damage_named(f"{path} is no readable {kind} file", "copy or download it again"):
        return _listed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _listed(path: Path, size: int, changed: int) -> tuple[list[str], Names]:
    """List an archive that has this size and this time of its last change."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as packed:
            names = [name.removesuffix(".npy") for name in packed.namelist()]
    else:
        with _h5py(path).File(path, "r") as file:
            names = list(file)
    names = [name for name in names if name == PurePath(name).name]
    return names, Names(names)


def read_archive(path: Path, video: str | None = None) -> np.ndarray:
    """Read the features [T, C] of a file: its array `feats` or `features`, or its only table.

    In an archive of all videos, those of one `video` are its array, or such an array in its group.
    Sizes are compared with the free memory before anything is read.

    Raises:
        InputError: there is no such array, or more than one; it is too large; or h5py is absent.
    """
    return (_from_zip if path.suffix.lower() == ".npz" else _from_hdf5)(path, video)


def _from_zip(path: Path, video: str | None) -> np.ndarray:
    with zipfile.ZipFile(path) as packed:
        found, others, entries = {}, [], packed.infolist()
        if video is not None:
            entries = [entry for entry in entries if entry.filename == f"{video}.npy"]
        for entry in entries:
            with packed.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                if version > (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            name = entry.filename.removesuffix(".npy")
            if name in found:  # NumPy would take the last one
                raise InputError(f"{path} holds {name} twice; extract it again")
            if len(shape) == 2 and dtype.kind in "fiu":
                found[name] = entry, shape, dtype
            else:
                others.append(name)
        entry, shape, dtype = _features_among(path, found, others, video)
        size = prod(shape) * dtype.itemsize
        if size > entry.file_size:
            raise InputError(f"{path} announces {size:,} bytes and holds {entry.file_size:,}")
        require_memory(size, f"{path} holds features")
        with packed.open(entry) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path} needs h5py to be read: pip install h5py") from None
    return h5py


def _from_hdf5(path: Path, video: str | None) -> np.ndarray:
    h5py = _h5py(path)
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}
        others: list[str] = []

        def note(name: str, item: Any) -> None:  # links are not followed
            if isinstance(item, h5py.Dataset):
                if item.ndim == 2 and item.dtype.kind in "fiu":
                    found[name] = item
                else:
                    others.append(name)

        if video is None:
            file.visititems(note)
        elif isinstance(file.get(video, getlink=True), h5py.HardLink):
            item = file[video]
            note(video, item)
            if isinstance(item, h5py.Group):
                item.visititems(note)
        stored = _features_among(path, found, others, video)
        if stored.is_virtual or stored.external:
            raise InputError(f"{path} takes its features from another file; give that file")
        require_memory(stored.size * stored.dtype.itemsize, f"{path} holds features")
        return stored[()]


def _features_among(
    path: Path, found: Mapping[str, Entry], others: Sequence[str], video: str | None
) -> Entry:
    """Return the array of the features among all arrays of two dimensions, by name.

    If one of the `others` is called so instead, an array beside it is not taken for them.
    """
    if not found and video is not None:
        raise InputError(f"{path} has no array of numbers [T, C] for {video}; extract it again")
    names = [name for name in found if name.rpartition("/")[2] in KNOWN]
    if wrong := [name for name in others if name.rpartition("/")[2] in KNOWN and not names]:
        raise InputError(f"{path}: {wrong[0]} is no array of numbers [T, C]; extract it again")
    names = names or list(found)
    if len(names) != 1:
        which = ", ".join(names[:5]) or "none"
        raise InputError(
            f"{path} must hold one array of numbers [T, C], or call it {KNOWN[0]}; it has {which}"
        )
    return found[names[0]]
