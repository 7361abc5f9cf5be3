"""The annotated videos of the training or test split, and those that have a file."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.annotations import NOT_A_CLASS, VideoAnnotation, read_annotations, read_names


class CoverageWarning(UserWarning):
    """Videos of a split have no file and are left out."""


def read_split(
    settings: DataSettings, *, training: bool, classes: Sequence[str] = ()
) -> list[VideoAnnotation]:
    """Read the annotated videos of the training or test split, without the blocked ones.

    Raises:
        InputError: a file cannot be read, a label is no class, or no video is left.
    """
    subset = settings.train_subset if training else settings.test_subset
    annotated = read_annotations(
        settings.annotations,
        subset,
        classes or None,
        ignore=NOT_A_CLASS,
        as_published=settings.as_published,
    )
    blocked = settings.blocked
    left_out = read_names(blocked) if isinstance(blocked, Path) else set(blocked)
    videos = [video for name, video in annotated.items() if name not in left_out]
    if not videos:
        raise InputError(f"data.blocked leaves no video of the subset {subset}; correct it")
    return videos


def manifest_file(folder: Path) -> Path:
    """Return the path of a folder's manifest, which is beside the folder."""
    return folder.with_name(f"{folder.name}.manifest.json")


def without_missing(
    videos: Sequence[VideoAnnotation], missing: Mapping[str, str], folder: Path, *, allow: bool
) -> list[VideoAnnotation]:
    """Return the videos of a split that have a usable file in the folder.

    `missing` has the names of the others, and what is wrong with their file, or "" if it is absent.
    A `CoverageWarning` says that videos are left out.

    Raises:
        InputError: all videos are missing, or some are without `allow`.
    """
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
    if not allow:
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
