"""CSV and TSV: a table whose first line names its columns."""

import csv
from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.prepare.importers.rows import ImportedAction, imported_action, known_columns
from etadlite.prepare.importers.via import read_via_csv


def read_csv(path: Path, text: str, tier: str | None) -> list[ImportedAction]:
    """Read a table; a tier is chosen only in VIA's export.

    Raises:
        InputError: a column is missing.
    """
    lines = text.splitlines()
    if any(line.startswith("# CSV_HEADER") for line in lines[:20]):
        return read_via_csv(path, lines, tier)
    head = lines[0] if lines else ""
    table = csv.DictReader(lines, delimiter=max(",;\t", key=head.count))
    columns = known_columns(table.fieldnames or ())
    if columns is None:
        raise InputError(
            f"{path}: the first line must name the columns video, start, end and label (or "
            f"start_frame and end_frame), but it is: {head[:80]}"
        )
    return [
        imported_action(
            f"{path}, line {table.line_num}", {key: line[name] for key, name in columns.items()}
        )
        for line in table
        if any(value for value in line.values() if isinstance(value, str) and value.strip())
    ]
