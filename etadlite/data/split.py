"""The annotated videos of the training or test split."""

from collections.abc import Sequence
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data.annotations import NOT_A_CLASS, VideoAnnotation, read_annotations, read_names


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
