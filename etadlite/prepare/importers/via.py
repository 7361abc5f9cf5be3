"""VIA 3, the VGG Image Annotator for video: its projects and its CSV export.

A temporal segment has two times; a still picture has one and is left out.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.prepare.importers.rows import ImportedAction, choose_tier, imported_action

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
    attributes = json.loads(notes.get("ATTRIBUTE") or notes.get("ATTRIBUTES", "{}"))
    names = [name.strip() for name in notes["CSV_HEADER"].split(",")]
    places = [number for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    table = csv.reader(lines[number - 1] for number in places)
    segments: list[Segment] = []
    for number, cells in zip(places, table, strict=True):
        line = dict(zip(names, cells, strict=False))
        where = f"{path}, line {number}"
        try:
            files, values = json.loads(line["file_list"]), json.loads(line["metadata"])
            if "temporal_coordinates" in line:
                times = json.loads(line["temporal_coordinates"])
            else:
                keys = ("temporal_segment_start", "temporal_segment_end")
                times = [line[key] for key in keys if line[key]]
        except (KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{where} is no line of VIA's export: {error}") from None
        segments.append((where, files[0], times, values))
    return _actions(path, segments, attributes, tier)


def _actions(
    path: Path, segments: Iterable[Segment], listed: Mapping[str, Any], tier: str | None
) -> list[ImportedAction]:
    """Return the annotations of temporal segments; `listed` describes attributes by number."""
    # Older exports give only the names of attributes.
    attributes = {
        number: entry if isinstance(entry, dict) else {"aname": str(entry)}
        for number, entry in listed.items()
    }
    temporal = [segment for segment in segments if len(segment[2]) == 2]
    used = {key: attributes.get(key, {}).get("aname", key) for *_, av in temporal for key in av}
    chosen = choose_tier(path, "attributes", used, tier)
    options = attributes.get(chosen, {}).get("options", {})  # a choice is stored by its number
    actions = []
    for where, video, (start, end), values in temporal:
        value = str(values.get(chosen, ""))
        label = "" if value == "_DEFAULT" else options.get(value, value)
        fields = {"video": video, "start": start, "end": end, "label": label}
        actions.append(imported_action(where, fields))
    return actions
