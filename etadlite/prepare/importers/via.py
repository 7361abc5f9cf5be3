"""VIA 3, the VGG Image Annotator for video: its projects and its CSV export.

A temporal segment has two times; a still picture has one and is left out.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import parse_json
from etadlite.prepare.importers.rows import ImportedAction, choose_tier, imported_action

CHOICES = (2, 3, 4)  # attributes with checkboxes, with radio buttons, and with a list
# Where it stands in the file, its video, its times, and attribute number -> value.
Segment = tuple[str, str, Sequence[Any], Mapping[str, Any]]


def read_via_project(
    path: Path, project: Mapping[str, Any], tier: str | None
) -> list[ImportedAction]:
    """Read the JSON of a project; `tier` is the attribute that holds the labels."""
    segments: list[Segment] = []
    for number, item in project["metadata"].items():
        file = project["file"][str(project["view"][item["vid"]]["fid_list"][0])]
        video = file.get("fname") or file["src"]
        segments.append((f"{path}, {number}", video, item["z"], item.get("av", {})))
    return _actions(path, segments, project.get("attribute", {}), tier)


def read_via_csv(path: Path, lines: Sequence[str], tier: str | None) -> list[ImportedAction]:
    """Read the CSV export, whose comments name the columns and the attributes."""
    notes = dict(line[2:].split(" = ", 1) for line in lines if re.match(r"# \w+ = ", line))
    attributes = parse_json(notes.get("ATTRIBUTE") or notes.get("ATTRIBUTES", "{}"), path)
    names = [name.strip() for name in notes["CSV_HEADER"].split(",")]
    places = [number for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    table = csv.reader(lines[number - 1] for number in places)
    segments: list[Segment] = []
    for number, cells in zip(places, table, strict=True):
        line = dict(zip(names, cells, strict=False))
        where = f"{path}, line {number}"
        try:
            files, values = (parse_json(line[key], where) for key in ("file_list", "metadata"))
            if "temporal_coordinates" in line:
                times = parse_json(line["temporal_coordinates"], where)
            else:
                keys = ("temporal_segment_start", "temporal_segment_end")
                times = [line[key] for key in keys if line[key]]
        except KeyError as error:
            raise InputError(f"{where} is no line of VIA's export: {error}") from None
        segments.append((where, files[0], times, values))
    return _actions(path, segments, attributes, tier)


def _actions(
    path: Path, segments: Iterable[Segment], listed: Mapping[str, Any], tier: str | None
) -> list[ImportedAction]:
    """Return the annotations of temporal segments; `listed` describes attributes by number."""
    # Older exports give only the names of attributes.
    attributes: dict[str, dict[str, Any]] = {
        number: entry if isinstance(entry, dict) else {"aname": str(entry)}
        for number, entry in listed.items()
    }
    # Without a time they are of a whole file, with one of a frame.
    temporal = [segment for segment in segments if len(segment[2]) > 1]
    used = {key: attributes.get(key, {}).get("aname", key) for *_, av in temporal for key in av}
    chosen = choose_tier(path, "attributes", used, tier)
    attribute = attributes.get(chosen, {})
    options = attribute.get("options", {})  # a choice is stored by its number
    known = {"", "_DEFAULT", *options, *options.values()}
    actions = []
    for where, video, (start, *between, end), values in temporal:
        for value in _chosen(values.get(chosen, ""), options):
            label = "" if value == "_DEFAULT" else options.get(value, value)
            fields = {"video": video, "start": start, "end": end, "label": label}
            action = imported_action(where, fields)
            if between:
                problem = f"it has {len(between) + 2} times; keep its start and its end"
                action = replace(action, problem=problem)
            elif attribute.get("type") in CHOICES and value not in known:
                action = replace(action, problem=f'"{value}" is none of the options to choose from')
            actions.append(action)
    return actions


def _chosen(value: Any, options: Mapping[str, str]) -> list[str]:
    """Return what was chosen or written: several numbers of options where boxes were checked."""
    if isinstance(value, Mapping):  # as VIA 2 stores them
        return [number for number, is_checked in value.items() if is_checked] or [""]
    if isinstance(value, list):
        return list(map(str, value)) or [""]
    numbers = [part.strip() for part in str(value).split(",")]
    return numbers if options.keys() >= set(numbers) else [str(value)]
