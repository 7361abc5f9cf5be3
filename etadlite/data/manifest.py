"""What is wrong with a folder's files: absent, shared, or broken as its manifest says.

`check-data` writes the manifest beside the folder.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import read_json
from etadlite.data.annotations import VideoAnnotation
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


class CoverageWarning(UserWarning):
    """Videos of a split have no file and are left out."""


def with_usable_files(
    videos: Sequence[VideoAnnotation],
    paths: Mapping[str, Path | None],
    folder: Path,
    channels: int | None = None,
    *,
    allow_missing: bool,
) -> list[VideoAnnotation]:
    """Return the videos of a split whose file in the folder can be used.

    `paths` has the file of each video, None if it is absent; for `channels` see `broken_files`.
    A `CoverageWarning` says that videos are left out.

    Raises:
        InputError: two videos have the same file, no video has one that can be used, or some have
            none without `allow_missing`.
    """
    owners: dict[Path, str] = {}
    for name, path in paths.items():
        if path is not None and (other := owners.setdefault(path, name)) != name:
            raise InputError(
                f'{path} is the file of "{other}" and of "{name}", which are two forms of one '
                "name in the annotations; keep one of them"
            )
    broken = broken_files(folder, channels)
    missing = {
        name: broken[path.name] if path else ""
        for name, path in paths.items()
        if path is None or path.name in broken
    }
    if not missing:
        return list(videos)
    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder; get the data, or correct its name")
    bad = [name for name, reason in missing.items() if reason]
    what = f"{len(missing)} of the {len(videos)} videos in the subset {videos[0].subset} have no "
    if bad:
        what += f"usable file in {folder} ({len(bad)} are broken)"
        which = f"the first is {bad[0]}, as check-data found: {missing[bad[0]]}"
    else:
        what += f"file in {folder}"
        which = f"the first is {next(iter(missing))}"
    if len(missing) == len(videos):
        raise InputError(f"{what}, {which}; `etadlite check-data` says what is there instead")
    if not allow_missing:
        raise InputError(
            f"{what}, {which}; complete the folder, or leave them out with data.allow_missing=true"
        )
    names = ", ".join(list(missing)[:3]) + (", ..." if len(missing) > 3 else "")
    warnings.warn(
        f"{what} and are left out: {names}; in a test their actions count as missed",
        CoverageWarning,
        stacklevel=3,
    )
    return [video for video in videos if video.name not in missing]
