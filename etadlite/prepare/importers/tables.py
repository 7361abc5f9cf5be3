"""Tables in CSV, TSV and JSON, and ActivityNet's JSON; other programs' files are recognised."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.base.files import decoded, parse_json
from etadlite.base.tables import from_spreadsheet
from etadlite.prepare.importers.label_studio import is_label_studio, read_label_studio
from etadlite.prepare.importers.rows import (
    ImportedAction,
    columns_in,
    imported_action,
    plain_name,
    seconds_of,
)
from etadlite.prepare.importers.via import read_via_csv, read_via_project

TIMES = "start", "end", "start_frame", "end_frame"


def read_csv(path: Path, content: bytes, tier: str | None) -> list[ImportedAction]:
    """Read a table whose first line names its columns; a tier is chosen only in VIA's export."""
    lines = io.StringIO(decoded(content, path), newline=None).read().split("\n")
    if any(line.startswith("# CSV_HEADER") for line in lines[:20]):
        return read_via_csv(path, lines, tier)
    # A spreadsheet may begin with empty lines, or with the separator as Excel writes it.
    empty = [not line.strip(" \t,;") or line.startswith("sep=") for line in lines]
    first = empty.index(False) if False in empty else 0
    head = lines[first]
    mark = max(",;\t", key=head.count)
    table = csv.DictReader((f"{line}\n" for line in lines[first:]), delimiter=mark, strict=True)
    columns = columns_in(table.fieldnames or (), str(path))
    if columns is None:
        raise InputError(
            f"{path}: the first line must name the columns video, start, end and label (or "
            f"start_frame and end_frame), but it is: {head[:80]}"
        )
    rows = []
    for line in table:
        where, more = f"{path}, line {first + table.line_num}", line.pop(None, [])
        fields = {key: from_spreadsheet(line[name] or "") for key, name in columns.items()}
        if any(map(str.strip, more)):  # cells would be taken for those of other columns
            problem = f"it has {len(line) + len(more)} cells, but the table has {len(line)} columns"
            row = replace(
                imported_action(where, fields), problem=f"{problem}: put quotes around commas"
            )
            rows.append(row)
        elif mark == "," and (unclear := next(filter(_is_unclear, map(fields.get, TIMES)), "")):
            problem = f'"{unclear}" may be a whole number or a fraction: write it without a comma'
            rows.append(replace(imported_action(where, fields), problem=problem))
        elif any(value and value.strip() for value in line.values()):
            rows.append(imported_action(where, fields))
    return rows


def _is_unclear(text: str | None) -> bool:
    """Return True for a number such as 1,234, of which countries think differently."""
    return re.fullmatch(r"\s*[1-9]\d{0,2}(,\d{3})+\s*", text or "") is not None


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
        subset, lasts = str(entry.get("subset") or ""), seconds_of(entry.get("duration"))
        if not annotations:
            yield ImportedAction(where, video, subset=subset, lasts=lasts)
        for number, item in enumerate(annotations):
            fields = {**(item if isinstance(item, Mapping) else {}), "video": name}
            segment = fields.get("segment")
            if isinstance(segment, list) and len(segment) == 2:
                fields |= {"start": segment[0], "end": segment[1]}
            fields["subset"] = subset
            action = imported_action(f"{where}, annotation {number}", fields)
            yield replace(action, lasts=lasts)
