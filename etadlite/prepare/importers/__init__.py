"""Annotations as people keep them: CSV, JSON, ELAN and VIA.

Only the form is judged here. Whether an annotation fits its video is checked in
`etadlite.prepare.own_data`, where the videos are known.
"""

from pathlib import Path

from etadlite.base.errors import InputError
from etadlite.prepare.importers.elan import read_elan
from etadlite.prepare.importers.rows import ImportedAction, plain_name, seconds_of
from etadlite.prepare.importers.tables import read_csv, read_json_file

__all__ = ["ImportedAction", "plain_name", "read_rows", "seconds_of"]

READERS = {".csv": read_csv, ".tsv": read_csv, ".json": read_json_file, ".eaf": read_elan}


def read_rows(path: Path, tier: str | None = None) -> list[ImportedAction]:
    """Read an annotation file, or all such files of a folder.

    Read are .csv and .tsv (a table, or VIA's export), .json (ActivityNet, a list, or a VIA project)
    and .eaf (ELAN). `tier` is the tier (ELAN) or the attribute (VIA) that holds the labels; by
    default the only one.

    Raises:
        InputError: the file cannot be read, its format is unknown, or a tier must be chosen.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
        if not files:
            raise InputError(f"{path} holds no annotation file ({', '.join(READERS)})")
        return [row for file in files for row in read_rows(file, tier)]
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} has an unknown format; give a file with the suffix {', '.join(READERS)}, or "
            "a folder of them"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such annotation file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not in UTF-8; save it again in that encoding") from None
    try:
        rows = reader(path, text, tier)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} does not follow its format ({error!r}); save it again from the program that "
            "wrote it"
        ) from None
    if not rows:
        raise InputError(f"{path} holds no annotation")
    return rows
