"""What is known of the files of a data set: found out once by `check-data`, kept beside them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import write_json

VERSION = 1


@dataclass(frozen=True)
class CheckedFile:
    """One file of a folder of videos or features.

    Attributes:
        bytes: its size.
        modified: when it was last changed, in nanoseconds, as the file system tells.
        frames: frames of a video, rows of a feature file; 0 where it cannot be read.
        duration: length of a video in seconds; None of a feature file.
        fps: frames a second of a video.
        short_side: shorter side of a video in pixels.
        note: damage that training can live with, in words.
        problem: why training cannot use the file, in words; empty if it can.
        wrong_shape: True if the problem is the shape of the features.
        lost: whether the process that opened it died or took too long; that may be no fault of the
            file, so the next check opens it again.
    """

    bytes: int
    modified: int
    frames: int = 0
    duration: float | None = None
    fps: float | None = None
    short_side: int | None = None
    note: str = ""
    problem: str = ""
    wrong_shape: bool = False
    lost: bool = False

    def still_describes(self, path: Path) -> bool:
        """Whether the file is the one that was checked: same size, not changed since."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.bytes, self.modified)


def manifest_file(folder: Path) -> Path:
    """Where the manifest of a folder lies: beside it, under its name."""
    return folder.with_name(f"{folder.name}.manifest.json")


def write_manifest(
    folder: Path, files: Mapping[str, CheckedFile], how: Mapping[str, Any], findings: list[Any]
) -> Path:
    """Write what was found in a folder.

    Args:
        folder: the folder of videos or features.
        files: what each file holds, by file name.
        how: how deep was looked, and for what; entries are reused only by a check of the same.
        findings: what was found, for who reads the file.
    """
    content = {"version": VERSION, "checked": dict(how), "findings": findings}
    content["files"] = {name: _without_defaults(files[name]) for name in sorted(files)}
    path = manifest_file(folder)
    write_json(path, content)
    return path


def read_manifest(folder: Path) -> tuple[dict[str, CheckedFile], dict[str, Any]]:
    """The files of a folder as they were checked, by file name, and how; empty if never checked.

    Raises:
        InputError: there is a manifest, but it cannot be read.
    """
    path = manifest_file(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}, {}
        files = {name: CheckedFile(**entry) for name, entry in content["files"].items()}
        return files, content["checked"]
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is no manifest that check-data wrote ({error}); delete it and run it again"
        ) from None


def broken_files(folder: Path, channels: int | None = None) -> dict[str, str]:
    """Which files of a folder training cannot use, by file name, and why.

    A file that was replaced since the check is given another chance, and so are all where the check
    was for features of another width.

    Args:
        folder: of videos or features.
        channels: the width of features; None of videos.

    Raises:
        InputError: there is a manifest, but it cannot be read.
    """
    files, how = read_manifest(folder)
    if how.get("channels") != channels:
        return {}
    return {
        name: file.problem
        for name, file in files.items()
        if file.problem and file.still_describes(folder / name)
    }


def _without_defaults(file: CheckedFile) -> dict[str, Any]:
    told = asdict(file).items()
    return {name: v for name, v in told if v not in (None, "") and v is not False}
