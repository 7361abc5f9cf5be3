"""What every annotation format is read into, and how times, names and columns are understood."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, isnan, nan
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from etadlite.base.errors import InputError
from etadlite.data.video_files import VIDEO_SUFFIXES

# The names that a column of a table or a key of a list may have, in upper or lower case.
COLUMNS = {
    "video": ("video", "file", "filename", "file_name", "name", "video_id", "video_name"),
    "start": ("start", "start_s", "t_start", "start_time", "begin", "onset", "from"),
    "end": ("end", "end_s", "t_end", "end_time", "stop", "offset", "to"),
    "start_frame": ("start_frame", "first_frame", "frame_start"),
    "end_frame": ("end_frame", "last_frame", "frame_end"),
    "label": ("label", "class", "action", "category", "activity"),
    "subset": ("subset", "split"),
}


@dataclass(frozen=True)
class ImportedAction:
    """One annotation as a file gives it, or a video without annotations, which has no label."""

    where: str  # file and line or item, for messages
    video: str  # its name, without folder and suffix
    start: float = 0.0  # in seconds, or in frames; NaN if the text is no time
    end: float = 0.0
    label: str = ""
    in_frames: bool = False  # start and end count frames
    subset: str = ""  # the split that the file gives, such as "training"
    problem: str = ""  # why this is no annotation, in words; empty if it is one


def imported_action(where: str, fields: Mapping[str, Any]) -> ImportedAction:
    """Return the annotation whose values have the names of `COLUMNS`."""
    in_frames = fields.get("start_frame") not in (None, "")
    keys = ("start_frame", "end_frame") if in_frames else ("start", "end")
    start, end = (seconds_of(fields.get(key)) for key in keys)
    video = plain_name(fields.get("video") or "")
    label, subset = (str(fields.get(key) or "").strip() for key in ("label", "subset"))
    problem = ""
    if not video:
        problem = "it names no video"
    elif not label:
        problem = "it has no label"
    elif isnan(start) or isnan(end):
        key = keys[1] if isnan(end) else keys[0]
        text = str(fields.get(key) or "").strip()
        problem = f'{key} "{text}" is no time: write seconds, mm:ss or hh:mm:ss'
    return ImportedAction(where, video, start, end, label, in_frames, subset, problem)


def columns_in(names: Iterable[str]) -> dict[str, str] | None:
    """Return the keys of `COLUMNS` with their names in a file; None if a needed one is absent."""
    written = {name.strip().lower(): name for name in names if name}
    columns = {
        key: written[alias]
        for key, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in written
    }
    timed = {"start", "end"} <= columns.keys() or {"start_frame", "end_frame"} <= columns.keys()
    return columns if timed and {"video", "label"} <= columns.keys() else None


def choose_tier(path: Path, what: str, names: Mapping[str, str], tier: str | None) -> str:
    """Return the key of the tier or attribute with the name `tier`, or of the only one."""
    keys = [key for key, name in names.items() if tier in (None, name)]
    if len(keys) == 1 or (tier is None and not keys):
        return keys[0] if keys else ""
    raise InputError(
        f"{path} has the {what} {', '.join(sorted(set(names.values())))}; "
        "say with --tier which one holds the labels"
    )


def seconds_of(text: Any) -> float:
    """Read a time: seconds, mm:ss or hh:mm:ss, with or without a fraction; NaN if it is none."""
    if isinstance(text, bool) or text is None:
        return nan
    written = str(text).strip().replace(",", ".").removesuffix("s").strip()
    *clock, last = written.split(":")
    if len(clock) > 2 or not all(re.fullmatch(r"\d+", part) for part in clock):
        return nan
    try:
        values = [*map(float, clock), float(last)]
    except ValueError:
        return nan
    sound = all(0 <= value < 60 for value in values[1:]) and isfinite(values[-1])
    return sum(value * 60**n for n, value in enumerate(reversed(values))) if sound else nan


def plain_name(written: str) -> str:
    """Return a video's name without its folder or address and without its suffix."""
    name = PurePosixPath(unquote(str(written)).replace("\\", "/")).name.strip()
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in VIDEO_SUFFIXES else name
