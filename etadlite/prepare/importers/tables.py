"""Tables in CSV, TSV and JSON, and ActivityNet's JSON; other programs' files are recognised."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import decoded, parse_json
from etadlite.base.tables import from_spreadsheet
from etadlite.prepare.importers.label_studio import is_label_studio, read_label_studio
from etadlite.prepare.importers.rows import ImportedAction, columns_in, imported_action, plain_name
from etadlite.prepare.importers.via import read_via_csv, read_via_project


def read_csv(path: Path, content: bytes, tier: str | None) -> list[ImportedAction]:
    """Read a table whose first line names its columns; a tier is chosen only in VIA's export."""
    lines = io.StringIO(decoded(content, path), newline=None).read().split("\n")
    if any(line.startswith("# CSV_HEADER") for line in lines[:20]):
        return read_via_csv(path, lines, tier)
    head = lines[0] if lines else ""
    table = csv.DictReader(lines, delimiter=max(",;\t", key=head.count))
    columns = columns_in(table.fieldnames or (), str(path))
    if columns is None:
        raise InputError(
            f"{path}: the first line must name the columns video, start, end and label (or "
            f"start_frame and end_frame), but it is: {head[:80]}"
        )
    rows = []
    for line in table:
        if any(isinstance(value, str) and value.strip() for value in line.values()):
            fields = {key: from_spreadsheet(line[name] or "") for key, name in columns.items()}
            rows.append(imported_action(f"{path}, line {table.line_num}", fields))
    return rows


def read_json_file(path: Path, raw: bytes, tier: str | None) -> list[ImportedAction]:
    """Read a JSON file of one of four structures; see `read_rows` for the tier."""
    content = parse_json(decoded(raw, path), path, "annotation file")
    if is_label_studio(content):
        return read_label_studio(path, content, tier)
    if isinstance(content, Mapping) and isinstance(content.get("database"), Mapping):
        return list(_from_activitynet(path, content["database"]))
    if isinstance(content, Mapping) and {"metadata", "view", "file"} <= content.keys():
        return read_via_project(path, content, tier)
    if isinstance(content, list) and all(isinstance(item, Mapping) for item in content):
        return list(_from_list(path, content))
    raise InputError(
        f'{path} is no known annotation file: give ActivityNet\'s structure with a "database", a '
        "list of {video, start, end, label}, a VIA project, or an export of Label Studio"
    )


def _from_list(path: Path, items: Sequence[Mapping[str, Any]]) -> Iterator[ImportedAction]:
    for number, item in enumerate(items):
        where = f"{path}, item {number}"
        columns = columns_in(item, where)
        if columns is None:
            has = ", ".join(map(str, item)) or "nothing"
            raise InputError(f"{where} needs video, start, end and label, but has {has}")
        yield imported_action(where, {key: item[name] for key, name in columns.items()})


def _from_activitynet(path: Path, database: Mapping[str, Any]) -> Iterator[ImportedAction]:
    for name, entry in database.items():
        where, video = f"{path}, video {name}", plain_name(name)
        annotations = entry.get("annotations", []) if isinstance(entry, Mapping) else None
        if not isinstance(annotations, list):
            raise InputError(f'{where}: it needs a list "annotations"')
        subset = str(entry.get("subset") or "")
        if not annotations:
            yield ImportedAction(where, video, subset=subset)
        for number, item in enumerate(annotations):
            fields = {"video": video, **(item if isinstance(item, Mapping) else {})}
            segment = fields.get("segment")
            if isinstance(segment, list) and len(segment) == 2:
                fields |= {"start": segment[0], "end": segment[1]}
            fields["subset"] = subset
            yield imported_action(f"{where}, annotation {number}", fields)
