"""Are weights those that are meant? The checksum of a file, and what does not fit a module."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from etadlite.base.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]


def checksum(path: Path, begins: str = "") -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: it does not begin as it should.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(begins):
        raise InputError(
            f"{path} is damaged: its SHA-256 is {digest}, not {begins}; delete and fetch it again"
        )
    return digest


def misfits(found: Shapes, expected: Shapes, name_in_source: Callable[[str], str]) -> str:
    """Say which keys are missing, left over or of the wrong shape: "2 keys missing (a, b)"."""
    complaints = {
        "missing": [name_in_source(name) for name in expected if name not in found],
        "left over": [name_in_source(name) for name in found if name not in expected],
        "of the wrong shape": [
            f"{name_in_source(name)} {found[name]} instead of {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ],
    }
    said = [
        f"{len(names)} keys {what} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for what, names in complaints.items()
        if names
    ]
    return "; ".join(said)
