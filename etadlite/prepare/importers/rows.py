"""What every annotation format is read into, and how times, names and columns are understood."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, isnan, nan
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from etadlite.base.errors import InputError
from etadlite.base.files import decoded
from etadlite.base.names import composed
from etadlite.data.video_files import USUAL

# The names that a column of a table or a key of a list may have, see `_bare`.
COLUMNS = {
    "video": ("video", "file", "filename", "file_name", "name", "video_id", "video_name"),
    "start": ("start", "start_s", "t_start", "start_time", "begin", "onset", "from"),
    "end": ("end", "end_s", "t_end", "end_time", "stop", "offset", "to"),
    "start_frame": ("start_frame", "first_frame", "frame_start"),
    "end_frame": ("end_frame", "last_frame", "frame_end"),
    "label": ("label", "class", "action", "category", "activity"),
    "subset": ("subset", "split"),
}


def _bare(name: str) -> str:
    """Return a column's name without case, spaces, underscores and other signs."""
    return re.sub(r"[\W_]", "", name.casefold())


_ALIASES = frozenset(_bare(alias) for aliases in COLUMNS.values() for alias in aliases)


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
    also: str = ""  # another name that the video may have
    folder: str = ""  # of the video, as the file gives it; empty if it gives none
    lasts: float = nan  # seconds of the whole video, as the file gives them


def imported_action(where: str, fields: Mapping[str, Any]) -> ImportedAction:
    """Return the annotation whose values have the names of `COLUMNS`."""
    # Where a file has both, seconds are used: they are the same at every rate.
    in_frames = fields.get("start") in (None, "") and fields.get("start_frame") not in (None, "")
    keys = ("start_frame", "end_frame") if in_frames else ("start", "end")
    start, end = ((_frame_of if in_frames else seconds_of)(fields.get(key)) for key in keys)
    named = fields.get("video")
    video, folder = plain_name(named), str(_path_of(named).parent).removeprefix(".")
    given = {key: fields.get(key) for key in ("label", "subset")}
    texts = ("" if value is None else composed(str(value)) for value in given.values())
    label, subset = (" ".join(text.split()) for text in texts)
    problem = ""
    if not video:
        problem = "it names no video"
    elif isinstance(given["label"], bool | list | dict):
        problem = f"its label is no text but {short(given['label'])}"
    elif not label or label.lower() in ("nan", "#n/a"):  # as programs write a missing value
        problem = "it has no label"
    elif isnan(start) or isnan(end):
        key = keys[1] if isnan(end) else keys[0]
        text = str(fields.get(key) or "").strip()
        form = "frame: write its number" if in_frames else "time: write seconds, mm:ss or hh:mm:ss"
        problem = f'{key} "{text}" is no {form}'
    also = fields.get("also", "")
    return ImportedAction(where, video, start, end, label, in_frames, subset, problem, also, folder)


def columns_in(names: Iterable[str], where: str) -> dict[str, str] | None:
    """Return the keys of `COLUMNS` with their names in a file; None if a needed one is absent.

    Raises:
        InputError: two names differ only in case, spaces or signs, or two may be the label; it
            begins with `where`.
    """
    written: dict[str, str] = {}
    for name in filter(None, names):
        other = written.setdefault(_bare(name), name)
        if other is not name and _bare(name) in _ALIASES:
            raise InputError(
                f'{where}: the columns "{other}" and "{name}" have the same name; rename one'
            )
    labels = [written[alias] for alias in COLUMNS["label"] if alias in written]
    if len(labels) > 1 and "label" not in written:
        raise InputError(
            f'{where}: "{labels[0]}" and "{labels[1]}" may both hold the labels; call one "label"'
        )
    columns = {
        key: written[_bare(alias)]
        for key, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if _bare(alias) in written
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
    if len(clock) > 2 or not all(re.fullmatch(r"\d+", part) for part in clock) or "_" in last:
        return nan
    try:
        values = [*map(float, clock), float(last)]
    except ValueError:
        return nan
    sound = all(0 <= value < 60 for value in values[1:]) and isfinite(values[-1])
    return sum(value * 60**n for n, value in enumerate(reversed(values))) if sound else nan


def _frame_of(text: Any) -> float:
    """Read the number of a frame, which is neither a clock's time nor a number of seconds."""
    return nan if re.search("[:s]", str(text)) else seconds_of(text)


def plain_name(written: Any) -> str:
    """Return a video's name without its folder or address and without its suffix.

    Escapes such as %20 are kept, since a file may be called so; only those of an address are none.
    """
    name = _path_of(written).name.strip()
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in USUAL else name


def _path_of(written: Any) -> PurePosixPath:
    text = "" if written is None else str(written)
    if "://" in text or "?d=" in text:
        address = urlsplit(text)  # Label Studio gives a file on its own disk as ?d=PATH
        text = parse_qs(address.query).get("d", [unquote(address.path)])[0]
    return PurePosixPath(text.replace("\\", "/"))


def parse_xml(path: Path, content: bytes, what: str) -> ElementTree.Element:
    """Parse XML in the encoding that its first bytes show, else in the one that it names.

    A program that saves a text in another encoding often leaves the old name in it. Expat limits
    entities and fetches nothing.

    Raises:
        InputError: it cannot be read as `what`.
    """
    shown = json.detect_encoding(content) != "utf-8"
    if shown or re.match(rb"<\?xml[^>]*encoding=.utf-?(16|32)", content, re.IGNORECASE):
        content = decoded(content, path).encode()
        content = re.sub(rb"^<\?xml[^>]*>", b"", content)
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} cannot be read as {what}: {error}") from None
