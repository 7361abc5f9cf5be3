"""The videos among the files of folders; what is left out is said."""

import warnings
from pathlib import Path

from etadlite.base.errors import InputError, printable
from etadlite.data.no_video import why_no_video
from etadlite.data.video_files import is_usual

LISTED = 5  # names of files that a message gives


class LeftOutWarning(UserWarning):
    """Files of a folder are left out: the message says which and why."""


def videos_in(*places: Path) -> dict[str, Path]:
    """Return video files by name, without suffix: given files, and the files in given folders.

    Of files with the same name in a folder, those that are called like a video are preferred.

    Raises:
        InputError: there is no such folder, it holds no video, or two videos have the same name.

    Warns:
        LeftOutWarning: a folder holds files that are no videos.
    """
    files: dict[str, Path] = {}
    for place in places:
        if not (is_usual(place) or place.exists()):
            raise InputError(f"{place}: there is no such video, and no such folder of videos")
        for path in _videos_of(place) if place.is_dir() else [place]:
            other = files.setdefault(path.stem, path)
            if other is not path:
                raise InputError(f"{other} and {path} would have the same name; rename one of them")
    return files


def _videos_of(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.is_file() or path.is_symlink())
    paths = sorted(path for path in files if path.name[0] != ".")
    first = {path.stem: path.name for path in paths if is_usual(path)}
    others = [path for path in paths if not is_usual(path)]
    why = {path: why_no_video(path) if path.is_file() else "a link to no file" for path in others}
    why |= {
        path: why[path] or f"{first[path.stem]} is taken" for path in others if path.stem in first
    }
    left_out = [f"{path.name} ({reason})" for path, reason in why.items() if reason]
    what = f"{len(left_out)} of {len(paths)} files are no videos and are left out: "
    what += ", ".join(left_out[:LISTED]) + ", ..." * (len(left_out) > LISTED)
    if len(left_out) == len(paths):
        raise InputError(f"{folder} holds no video file" + (f"; {what}" if left_out else ""))
    if left_out:
        warnings.warn(printable(f"{folder}: {what}"), LeftOutWarning, stacklevel=3)
    return [path for path in paths if not why.get(path)]
