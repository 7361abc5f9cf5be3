"""Features as others publish them: NumPy archives (.npz) and HDF5 files, one per video."""

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from etadlite.base.devices import require_memory
from etadlite.base.errors import InputError

KNOWN = ("feats", "features")  # names of the array where a file has several of two dimensions
Entry = TypeVar("Entry")


def read_archive(path: Path) -> np.ndarray:
    """Read the features [T, C] of a file: its array `feats` or `features`, or its only table.

    Sizes are compared with the free memory before anything is read.

    Raises:
        InputError: there is no such array, or more than one; it is too large; or h5py is absent.
    """
    return _from_zip(path) if path.suffix.lower() == ".npz" else _from_hdf5(path)


def _from_zip(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as packed:
        found = {}
        for entry in packed.infolist():
            with packed.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                if version > (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if len(shape) == 2 and dtype.kind in "fiu":
                found[entry.filename.removesuffix(".npy")] = entry, shape, dtype
        entry, shape, dtype = _features_among(path, found)
        size = prod(shape) * dtype.itemsize
        if size > entry.file_size:
            raise InputError(f"{path} announces {size:,} bytes and holds {entry.file_size:,}")
        require_memory(size, f"{path} holds features")
        with packed.open(entry) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _from_hdf5(path: Path) -> np.ndarray:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path} needs h5py to be read: pip install h5py") from None
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}

        def note(name: str, item: Any) -> None:  # links are not followed
            if isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind in "fiu":
                found[name] = item

        file.visititems(note)
        stored = _features_among(path, found)
        if stored.is_virtual or stored.external:
            raise InputError(f"{path} takes its features from another file; give that file")
        require_memory(stored.size * stored.dtype.itemsize, f"{path} holds features")
        return stored[()]


def _features_among(path: Path, found: Mapping[str, Entry]) -> Entry:
    """Return the array of the features among all arrays of two dimensions, by name."""
    names = [name for name in found if name.rpartition("/")[2] in KNOWN] or list(found)
    if len(names) != 1:
        which = ", ".join(names[:5]) or "none"
        raise InputError(
            f"{path} must hold one array of numbers [T, C], or call it {KNOWN[0]}; it has {which}"
        )
    return found[names[0]]
