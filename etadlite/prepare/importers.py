"""Annotations as people keep them: CSV, JSON, ELAN and VIA, read into rows.

Nothing is judged here but the form: whether a row fits its video is asked where the videos are
known. The formats are those of ELAN's EAF 2.7 to 3.0, and of the projects and the CSV export of
VIA 3, the VGG Image Annotator for video.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree  # its parser, Expat, bounds entities and fetches nothing

from etadlite.base.errors import InputError
from etadlite.data.split import VIDEO_SUFFIXES

COLUMNS = {
    "video": ("video", "file", "filename", "file_name", "name", "video_id", "video_name"),
    "start": ("start", "start_s", "t_start", "start_time", "begin", "onset", "from"),
    "end": ("end", "end_s", "t_end", "end_time", "stop", "offset", "to"),
    "start_frame": ("start_frame", "first_frame", "frame_start"),
    "end_frame": ("end_frame", "last_frame", "frame_end"),
    "label": ("label", "class", "action", "category", "activity"),
    "subset": ("subset", "split"),
}
"""What a column may be called, in a CSV's first line or in a JSON list; case does not count."""

SUFFIXES = (".csv", ".tsv", ".json", ".eaf")


@dataclass(frozen=True)
class Row:
    """One annotation, or a video that has none.

    Attributes:
        where: file and line or item, for messages.
        video: the video's name, without folder and suffix.
        start: in seconds, or in frames; NaN where nobody can tell what was written.
        end: as the start.
        label: the class; empty if there is none.
        in_frames: whether start and end count frames.
        subset: the split that the file gives, such as "training"; empty if none.
        problem: why this is no annotation, in words; empty if it is one.
    """

    where: str
    video: str
    start: float = 0.0
    end: float = 0.0
    label: str = ""
    in_frames: bool = False
    subset: str = ""
    problem: str = ""


def read_rows(path: Path, tier: str | None = None) -> list[Row]:
    """Read an annotation file of any known format, or all that lie in a folder.

    Args:
        path: .csv or .tsv (a table, or VIA's export), .json (ActivityNet, a list, or a VIA
            project), .eaf (ELAN), or a folder of such files.
        tier: the tier (ELAN) or the attribute (VIA) that holds the labels; by default the only one.

    Raises:
        InputError: the file cannot be read or is of no known form, or the tier has to be chosen.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(f"{path} holds no annotation file ({', '.join(SUFFIXES)})")
        return [row for file in files for row in read_rows(file, tier)]
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".eaf": _read_elan}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is of no known form; give {', '.join(SUFFIXES)}, or a folder")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such annotation file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not in UTF-8; save it again in that encoding") from None
    try:
        rows = readers[path.suffix.lower()](path, text, tier)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not as its format asks ({error!r}); save it again from the program that "
            "wrote it"
        ) from None
    if not rows:
        raise InputError(f"{path} holds no annotation")
    return rows


def seconds_of(text: Any) -> float:
    """Read a time: seconds, mm:ss or hh:mm:ss, each with a fraction or not; NaN if it is none."""
    if isinstance(text, bool) or text is None:
        return nan
    written = str(text).strip().replace(",", ".").removesuffix("s").strip()
    parts = written.split(":")
    try:
        if any(not re.fullmatch(r"\d+", part) for part in parts[:-1]) or len(parts) > 3:
            return nan
        values = [float(part) for part in parts]
    except ValueError:
        return nan
    if len(parts) > 1 and any(not 0 <= value < 60 for value in values[1:]):
        return nan
    total = sum(value * 60**power for power, value in enumerate(reversed(values)))
    return total if isfinite(total) else nan


def plain_name(written: str) -> str:
    """A video's name without folder, address and suffix."""
    name = PurePosixPath(unquote(str(written)).replace("\\", "/")).name.strip()
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in VIDEO_SUFFIXES else name


def _row(where: str, fields: Mapping[str, Any]) -> Row:
    """The row of a table's line or of an item of a list."""
    frames = fields.get("start_frame") not in (None, "")
    keys = ("start_frame", "end_frame") if frames else ("start", "end")
    start, end = (seconds_of(fields.get(key)) for key in keys)
    label = str(fields.get("label") or "").strip()
    video, subset = plain_name(fields.get("video") or ""), str(fields.get("subset") or "").strip()
    problem = ""
    for key, value in zip(keys, (start, end), strict=True):
        if isnan(value):
            said = str(fields.get(key) or "").strip()
            problem = f'{key} "{said}" is no time: write seconds, mm:ss or hh:mm:ss'
    if not label:
        problem = "it has no label"
    if not video:
        problem = "it names no video"
    return Row(where, video, start, end, label, frames, subset, problem)


def _known_columns(names: Iterable[str]) -> dict[str, str]:
    """What is meant -> how it is called."""
    written = {name.strip().lower(): name for name in names if name}
    return {
        meant: written[alias]
        for meant, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in written
    }


def _complete(columns: Mapping[str, str]) -> bool:
    timed = {"start", "end"} <= columns.keys() or {"start_frame", "end_frame"} <= columns.keys()
    return timed and {"video", "label"} <= columns.keys()


# Tables


def _read_csv(path: Path, text: str, tier: str | None) -> list[Row]:
    lines = text.splitlines()
    if any(line.startswith("# CSV_HEADER") for line in lines[:20]):
        return _read_via_csv(path, lines, tier)
    head = lines[0] if lines else ""
    delimiter = max(",;\t", key=head.count)
    table = csv.DictReader(lines, delimiter=delimiter)
    columns = _known_columns(table.fieldnames or ())
    if not _complete(columns):
        raise InputError(
            f"{path}: the first line must name the columns video, start, end and label (or "
            f"start_frame and end_frame), but it is: {head[:80]}"
        )
    return [
        _row(f"{path}, line {table.line_num}", {k: line[name] for k, name in columns.items()})
        for line in table
        if any(value for value in line.values() if isinstance(value, str) and value.strip())
    ]


# JSON


def _read_json(path: Path, text: str, tier: str | None) -> list[Row]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error.msg} in line {error.lineno}") from None
    if isinstance(content, Mapping) and isinstance(content.get("database"), Mapping):
        return list(_read_activitynet(path, content["database"]))
    if isinstance(content, Mapping) and {"metadata", "view", "file"} <= content.keys():
        return _read_via_project(path, content, tier)
    if isinstance(content, list) and all(isinstance(item, Mapping) for item in content):
        rows = []
        for number, item in enumerate(content):
            columns = _known_columns(item)
            if not _complete(columns):
                raise InputError(
                    f"{path}, item {number} needs video, start, end and label, but has "
                    f"{', '.join(map(str, item)) or 'nothing'}"
                )
            fields = {key: item[name] for key, name in columns.items()}
            rows.append(_row(f"{path}, item {number}", fields))
        return rows
    raise InputError(
        f'{path} is no annotation file that is known: ActivityNet\'s with a "database", a list of '
        "{video, start, end, label}, or a VIA project"
    )


def _read_activitynet(path: Path, database: Mapping[str, Any]) -> Iterator[Row]:
    for name, entry in database.items():
        where, video = f"{path}, video {name}", plain_name(name)
        annotations = entry.get("annotations", []) if isinstance(entry, Mapping) else None
        if not isinstance(annotations, list):
            raise InputError(f'{where}: it needs a list "annotations"')
        subset = str(entry.get("subset") or "")
        if not annotations:
            yield Row(where, video, subset=subset)
        for number, item in enumerate(annotations):
            fields = {"video": video, **(item if isinstance(item, Mapping) else {})}
            segment = fields.get("segment")
            if isinstance(segment, list) and len(segment) == 2:
                fields |= {"start": segment[0], "end": segment[1]}
            yield _row(f"{where}, annotation {number}", fields | {"subset": subset})


# VIA


def _read_via_project(path: Path, project: Mapping[str, Any], tier: str | None) -> list[Row]:
    try:
        attributes = _via_attributes(project.get("attribute", {}))
        items = []
        for number, item in project["metadata"].items():
            file = project["file"][str(project["view"][item["vid"]]["fid_list"][0])]
            video = file.get("fname") or file["src"]
            if len(item["z"]) == 2:  # one is a still picture
                items.append((f"{path}, {number}", video, item["z"], item.get("av", {})))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path} is no VIA 3 project as it should be: {error!r}") from None
    return _via_rows(path, items, attributes, tier)


def _read_via_csv(path: Path, lines: Sequence[str], tier: str | None) -> list[Row]:
    notes = dict(line[2:].split(" = ", 1) for line in lines if re.match(r"# \w+ = ", line))
    attributes = _via_attributes(
        json.loads(notes.get("ATTRIBUTE") or notes.get("ATTRIBUTES", "{}"))
    )
    names = [name.strip() for name in notes["CSV_HEADER"].split(",")]
    places = [number for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    table = csv.reader(lines[number - 1] for number in places)
    items = []
    for number, cells in zip(places, table, strict=True):
        line = dict(zip(names, cells, strict=False))
        try:
            files, marks = json.loads(line["file_list"]), json.loads(line["metadata"])
            if "temporal_coordinates" in line:
                times = json.loads(line["temporal_coordinates"])
            else:
                keys = ("temporal_segment_start", "temporal_segment_end")
                times = [line[key] for key in keys if line[key]]
        except (KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{path}, line {number} is no line of VIA's export: {error}") from None
        if len(times) == 2:  # one is a still picture
            items.append((f"{path}, line {number}", files[0], times, marks))
    return _via_rows(path, items, attributes, tier)


def _via_attributes(listed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Attributes by number; older exports give their names alone."""
    return {
        number: entry if isinstance(entry, dict) else {"aname": str(entry)}
        for number, entry in listed.items()
    }


def _via_rows(
    path: Path,
    items: Sequence[tuple[str, str, Sequence[Any], Mapping[str, Any]]],
    attributes: Mapping[str, Mapping[str, Any]],
    tier: str | None,
) -> list[Row]:
    """The rows of temporal segments: where, video, two times, and what each attribute says."""
    used = {key: attributes.get(key, {}).get("aname", key) for *_, marks in items for key in marks}
    chosen = _choose(path, "attributes", used, tier)
    options = attributes.get(chosen, {}).get("options", {})  # a choice is stored by its number
    rows = []
    for where, video, (start, end), marks in items:
        value = str(marks.get(chosen, ""))
        label = "" if value == "_DEFAULT" else options.get(value, value)
        rows.append(_row(where, {"video": video, "start": start, "end": end, "label": label}))
    return rows


def _choose(path: Path, what: str, names: Mapping[str, str], tier: str | None) -> str:
    """The key of the tier or attribute that is asked for, or of the only one."""
    keys = [key for key, name in names.items() if tier in (None, name)]
    if len(keys) == 1 or (tier is None and not keys):
        return keys[0] if keys else ""
    raise InputError(
        f"{path} has the {what} {', '.join(sorted(set(names.values())))}; "
        "say with --tier which one holds the labels"
    )


# ELAN


def _read_elan(path: Path, text: str, tier: str | None) -> list[Row]:
    try:
        document = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is no EAF file that can be read: {error}") from None
    header = document.find("HEADER")
    units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if document.tag != "ANNOTATION_DOCUMENT" or units != "milliseconds":
        raise InputError(f"{path} is no EAF file in milliseconds; save it again from ELAN")
    video, origin = _elan_video(path, document)
    slots = {
        slot.get("TIME_SLOT_ID"): (int(slot.get("TIME_VALUE")) + origin) / 1000
        for slot in document.iter("TIME_SLOT")
        if slot.get("TIME_VALUE") is not None
    }
    tiers = {
        str(number): found
        for number, found in enumerate(document.iter("TIER"))
        if found.find("ANNOTATION") is not None
    }
    names = {number: found.get("TIER_ID", number) for number, found in tiers.items()}
    if not tiers:
        return [Row(str(path), video)]
    chosen = tiers[_choose(path, "tiers", names, tier)]
    everything = {
        item.get("ANNOTATION_ID"): item for found in tiers.values() for item in found.iter()
    }
    rows = []
    for annotation in chosen.iter("ANNOTATION"):
        item = annotation[0]
        where = f"{path}, annotation {item.get('ANNOTATION_ID')}"
        label = (item.findtext("ANNOTATION_VALUE") or "").strip()
        timed = item
        for _ in tiers:  # times are those of its parent, or of that one's parent, ...
            if timed is not None and timed.tag == "REF_ANNOTATION":
                timed = everything.get(timed.get("ANNOTATION_REF"))
        keys = ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
        start, end = (None if timed is None else slots.get(timed.get(key)) for key in keys)
        rows.append(_row(where, {"video": video, "start": start, "end": end, "label": label}))
    return rows


def _elan_video(path: Path, document: ElementTree.Element) -> tuple[str, int]:
    """The annotated video's name, by default the file's own, and its time of ELAN's 0 in ms."""
    for media in document.iter("MEDIA_DESCRIPTOR"):
        address = media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL") or ""
        is_video = media.get("MIME_TYPE", "").startswith("video")
        if is_video or PurePosixPath(address).suffix.lower() in VIDEO_SUFFIXES:
            return plain_name(address), int(media.get("TIME_ORIGIN", 0))
    return path.stem, 0
