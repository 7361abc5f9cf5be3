"""The manifest of a folder: what `check-data` found out about its files, kept beside the folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json
from etadlite.data.split import manifest_file

VERSION = 2
REMEDY = "delete it and run check-data again"


@dataclass(frozen=True)
class CheckedFile:
    """One file of a folder of videos or features."""

    bytes: int
    modified: int  # time of its last change in nanoseconds, from the file system
    frames: int = 0  # frames of a video, rows of a feature file; 0 if it cannot be read
    duration: float | None = None  # seconds of a video; None for a feature file
    fps: float | None = None  # of a video
    short_side: int | None = None  # of a video, in pixels
    note: str = ""  # damage that training can live with, in words
    clock: str = ""  # what is special about a video's clock, in words
    problem: str = ""  # why training cannot use the file, in words
    wrong_shape: bool = False  # the problem is the shape of the features
    lost: bool = False  # its process died or took too long: it may be intact, and is checked again

    def still_describes(self, path: Path) -> bool:
        """Return True if the file has the size and time that were checked."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.bytes, self.modified)


def write_manifest(
    folder: Path, files: Mapping[str, CheckedFile], how: Mapping[str, Any], findings: list[Any]
) -> Path:
    """Write what was found about files (by name), and return the path of the manifest.

    `how` says what was checked: a check of another kind does not use the entries.
    """
    entries = {}
    for name in sorted(files):
        values = asdict(files[name]).items()
        entries[name] = {k: v for k, v in values if v not in (None, "") and v is not False}
    content = {"version": VERSION, "checked": dict(how), "findings": findings, "files": entries}
    path = manifest_file(folder)
    write_json(path, content)
    return path


def read_manifest(folder: Path) -> tuple[dict[str, CheckedFile], dict[str, Any]]:
    """Return the checked files by name, and what was checked; both empty without a manifest.

    Raises:
        InputError: there is a manifest, but it cannot be read.
    """
    path = manifest_file(folder)
    if not path.exists():
        return {}, {}
    content = read_json(path, "manifest", REMEDY)
    try:
        if content["version"] != VERSION:
            return {}, {}
        files = {name: CheckedFile(**entry) for name, entry in content["files"].items()}
        return files, content["checked"]
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is no manifest that check-data wrote ({error}); {REMEDY}"
        ) from None


def broken_files(folder: Path, channels: int | None = None) -> dict[str, str]:
    """Return the files that training cannot use, by name, and why.

    A file that was replaced since the check counts as usable, and so do all files if the check was
    for features of another width (`channels`; None for videos). For errors see `read_manifest`.
    """
    files, how = read_manifest(folder)
    if how.get("channels") != channels:
        return {}
    return {
        name: file.problem
        for name, file in files.items()
        if file.problem and file.still_describes(folder / name)
    }
