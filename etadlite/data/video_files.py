"""The video files of a folder, and the file of a video that has a name."""

from pathlib import Path

from etadlite.base.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")


def is_video(path: Path) -> bool:
    """Return True if this is a file with the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def videos_in(*places: Path) -> dict[str, Path]:
    """Return video files by name, without suffix: given files, and the files in given folders.

    Raises:
        InputError: there is no such folder, it holds no video, or two videos have the same name.
    """
    files: dict[str, Path] = {}
    for place in places:
        inside = [place]
        if place.is_dir():
            inside = sorted(filter(is_video, place.iterdir()))
        elif place.suffix.lower() not in VIDEO_SUFFIXES and not place.exists():
            raise InputError(f"{place}: there is no such folder of videos")
        if not inside:
            raise InputError(f"{place} holds no video file ({', '.join(VIDEO_SUFFIXES)})")
        for path in inside:
            other = files.setdefault(path.stem, path)
            if other is not path:
                raise InputError(f"{other} and {path} would have the same name; rename one of them")
    return files


def video_file(folder: Path, name: str) -> Path | None:
    """Return a video's file with any suffix, also with ActivityNet's prefix v_; None if absent."""
    names = (name, f"v_{name}")
    suffixes = (*VIDEO_SUFFIXES, *map(str.upper, VIDEO_SUFFIXES))  # cameras write GX010001.MP4
    paths = (folder / f"{known}{suffix}" for known in names for suffix in suffixes)
    return next((path for path in paths if path.exists()), None)
