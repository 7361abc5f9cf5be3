"""Annotations as people keep them: CSV, JSON, ELAN, VIA, Label Studio and CVAT.

Only the form is judged here. Whether an annotation fits its video is checked in
`etadlite.prepare.own_data`, where the videos are known.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from etadlite.base.devices import require_memory
from etadlite.base.errors import InputError, damage_named
from etadlite.prepare.importers.cvat import read_cvat
from etadlite.prepare.importers.elan import read_elan
from etadlite.prepare.importers.rows import ImportedAction, plain_name, seconds_of
from etadlite.prepare.importers.tables import read_csv, read_json_file

__all__ = ["ImportedAction", "plain_name", "read_rows", "seconds_of"]

READERS = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": read_json_file,
    ".eaf": read_elan,
    ".xml": read_cvat,
}
LARGEST = 2**30  # bytes of an unpacked annotation file; hours of labels have a few million


def read_rows(path: Path, tier: str | None = None) -> list[ImportedAction]:
    """Read an annotation file, or all such files of a folder.

    Read are .csv and .tsv (a table, or VIA's export), .json (ActivityNet, a list, a VIA project, or
    Label Studio's export), .eaf (ELAN), .xml (CVAT's export), and a .zip of these. `tier` is the
    tier (ELAN), the attribute (VIA, CVAT) or the control (Label Studio) that holds the labels; by
    default the only one, and CVAT's own labels.

    Raises:
        InputError: the file cannot be read, its format is unknown, or a tier must be chosen.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
        if not files:
            raise InputError(f"{path} holds no annotation file ({', '.join(READERS)})")
        return [row for file in files for row in read_rows(file, tier)]
    if path.suffix.lower() not in (*READERS, ".zip"):
        raise InputError(
            f"{path} has an unknown format; give a file with the suffix {', '.join(READERS)}, or "
            "a folder or a .zip of them"
        )
    if not path.exists():
        raise InputError(f"{path}: there is no such annotation file")
    rows: list[ImportedAction] = []
    remedy = "save it again from the program that wrote it"
    with damage_named(f"{path} does not follow its format", remedy):
        for file, content in _contents(path):
            rows += READERS[file.suffix.lower()](file, content, tier)
    if not rows:
        raise InputError(f"{path} holds no annotation")
    return rows


def _contents(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the annotation files, by path, that a file is or holds."""
    if path.suffix.lower() != ".zip":
        yield path, path.read_bytes()
        return
    with zipfile.ZipFile(path) as packed:
        for entry in packed.infolist():
            file = path / entry.filename
            if file.suffix.lower() not in READERS:
                continue
            if entry.file_size > LARGEST:
                raise InputError(f"{file} has {entry.file_size:,} bytes, too many for annotations")
            require_memory(entry.file_size, f"{file} holds text")
            yield file, packed.read(entry)
