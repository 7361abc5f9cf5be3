"""JSON: ActivityNet's structure, a list of annotations, or a VIA project."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
from etadlite.prepare.importers.rows import (
    ImportedAction,
    imported_action,
    known_columns,
    plain_name,
)
from etadlite.prepare.importers.via import read_via_project


def read_json_file(path: Path, text: str, tier: str | None) -> list[ImportedAction]:
    """Read a JSON file of one of three structures; a tier is chosen only in VIA's.

    Raises:
        InputError: the text is not JSON, or has none of the structures.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error.msg} in line {error.lineno}") from None
    if isinstance(content, Mapping) and isinstance(content.get("database"), Mapping):
        return list(_from_activitynet(path, content["database"]))
    if isinstance(content, Mapping) and {"metadata", "view", "file"} <= content.keys():
        return read_via_project(path, content, tier)
    if isinstance(content, list) and all(isinstance(item, Mapping) for item in content):
        return list(_from_list(path, content))
    raise InputError(
        f'{path} is no known annotation file: give ActivityNet\'s structure with a "database", a '
        "list of {video, start, end, label}, or a VIA project"
    )


def _from_list(path: Path, items: Sequence[Mapping[str, Any]]) -> Iterator[ImportedAction]:
    for number, item in enumerate(items):
        columns = known_columns(item)
        if columns is None:
            raise InputError(
                f"{path}, item {number} needs video, start, end and label, but has "
                f"{', '.join(map(str, item)) or 'nothing'}"
            )
        fields = {key: item[name] for key, name in columns.items()}
        yield imported_action(f"{path}, item {number}", fields)


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
