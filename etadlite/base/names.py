"""Names of videos, classes and runs from outside: found in any form, and never leaving a folder."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize
from urllib.parse import unquote

from etadlite.base.errors import InputError


def composed(name: str) -> str:
    """Return a name in Unicode's composed form; many archives and macOS store the other one."""
    return normalize("NFC", name)


def loosest(name: str) -> str:
    """Return what all forms of a name have in common."""
    return normalize("NFKC", unquote(name)).strip().removeprefix("v_")


# How names are compared: as written, in one Unicode form, without ActivityNet's prefix, unescaped.
FORMS = (str, composed, lambda name: composed(name).removeprefix("v_"), loosest)


class Names:
    """Known names, each of which is found by any of its forms."""

    def __init__(self, names: Iterable[str]) -> None:
        self._near: defaultdict[str, list[str]] = defaultdict(list)
        for name in dict.fromkeys(names):
            self._near[loosest(name)].append(name)

    def like(self, name: str) -> list[str]:
        """Return the known names that equal `name`, in the strictest form in which any does."""
        near = self._near.get(loosest(name), [])
        same = ([other for other in near if form(other) == form(name)] for form in FORMS)
        return next(filter(None, same), [])


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder; `name` may not lead anywhere else.

    Raises:
        InputError: the name has a folder or a drive, or is none.
    """
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    if not (plain and name) or name == ".." or "\0" in name:
        raise InputError(f'"{name}" is no name of a file in {folder}: use one without a folder')
    return folder / name
