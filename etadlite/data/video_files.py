"""The video files of a folder, and the file of a video that has a name."""

import time
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.base.files import is_draft
from etadlite.base.names import Names, inside

# What nearly all videos are called. Only to be quick: any other file is opened to see what it is.
_USUAL = "mp4 mkv webm avi mov m4v mts m2ts wmv asf flv mpg mpeg 3gp ogv vob"
USUAL = frozenset(f".{suffix}" for suffix in _USUAL.split())

SETTLED = 2 * 10**9  # nanoseconds after which a folder's time of change tells every change


def is_usual(path: Path) -> bool:
    """Return True if a file is called like a video; whether it can be read is not asked."""
    called_so = path.suffix.lower() in USUAL and not path.name.startswith(".")
    return called_so and not is_draft(path.name)


def is_video(path: Path) -> bool:
    """Return True if a file is a video: one that is called so, or that the decoder can open."""
    if is_usual(path) or not path.is_file():
        return path.is_file()
    from etadlite.data.no_video import why_no_video  # few files have an unusual name

    return not why_no_video(path)


def files_named(folder: Path, name: str) -> list[Path]:
    """Return the files of a folder that are called `name`, with any suffix.

    The name may be in another Unicode form, with or without ActivityNet's prefix v_; an exact name
    comes first.

    Raises:
        InputError: the name leads out of the folder.
    """
    inside(folder, name)
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return []
    settled = time.time_ns() - changed > SETTLED
    names, files = (_listed if settled else _listed.__wrapped__)(folder, changed)
    return [folder / file for known in names.like(name) for file in files[known]]


@lru_cache(maxsize=8)  # training looks for every video again in every epoch
def _listed(folder: Path, changed: int) -> tuple[Names, dict[str, list[str]]]:
    """Return the names in a folder that changed at this time, and the files that each one has."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        for name in {path.stem, path.name}:
            files[name].append(path.name)
    return Names(files), files


def video_files(folder: Path, name: str) -> list[Path]:
    """Return all video files of a video that has a name; see `files_named`."""
    paths = files_named(folder, name)
    usual = [path for path in paths if is_usual(path) and path.is_file()]
    return usual or [path for path in paths if is_video(path)]


def only_file(files: list[Path], name: str) -> Path | None:
    """Return the only one of a video's files; None if there is none; refuse several."""
    if len(files) > 1:
        both = " and ".join(path.name for path in files)
        raise InputError(f'{files[0].parent}: {both} are all files of "{name}"; keep one of them')
    return files[0] if files else None


def video_file(folder: Path, name: str) -> Path | None:
    """Return the file of a video, see `files_named`; None if there is none.

    Raises:
        InputError: there are two, or the name leads out of the folder.
    """
    return only_file(video_files(folder, name), name)
