"""Makes one annotation file for THUMOS-14 from the distributed files.

    python data_scripts/make_thumos_annotations.py data/thumos-14/annotations

The folder holds val_Annotation.csv, test_Annotation.csv, thumos14_valid_metadata.csv and
thumos14_test_metadata.csv; thumos_14_anno.json is written beside them: the 200 validation videos
as "training" and the 213 test videos as "validation", as published. "Ambiguous" actions stay in
the file, as published; they are left out when it is read.
"""

import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole

SUBSETS = {  # subset: annotations, metadata
    "training": ("val_Annotation.csv", "thumos14_valid_metadata.csv"),
    "validation": ("test_Annotation.csv", "thumos14_test_metadata.csv"),
}


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV file after its place (file and line).

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            absent = [name for name in columns if name not in (rows.fieldnames or ())]
            if absent:
                raise InputError(f"{path} has no column {absent[0]}; download it again")
            for row in rows:
                yield f"{path}, line {rows.line_num}", row
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such file; run data_scripts/download.py, or copy it there"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}; download it again") from None


def number(row: dict[str, str], column: str, where: str) -> float:
    """Return a number of a row."""
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise InputError(
            f"{where}: {column} is {row[column]!r}, which is no number; correct it"
        ) from None


def thumos_annotations(folder: Path) -> dict[str, Any]:
    """Return the annotations in ActivityNet's structure; "frame" is a video's number of frames.

    Raises:
        InputError: a file is missing or broken, or an annotated video has no metadata.
    """
    database = {}
    for subset, (annotations, metadata) in SUBSETS.items():
        actions = defaultdict(list)
        for where, row in read_table(folder / annotations, ("video", "type", "start", "end")):
            start, end = number(row, "start", where), number(row, "end", where)
            actions[row["video"]].append({"label": row["type"], "segment": [start, end]})
        columns = ("filename", "video-duration", "video-frames")
        for where, row in read_table(folder / metadata, columns):
            name = row["filename"].removesuffix(".mp4")
            database[name] = {
                "subset": subset,
                "duration": round(number(row, "video-duration", where), 2),
                "frame": int(number(row, "video-frames", where)),
                "annotations": actions.pop(name, []),
            }
        if actions:
            raise InputError(
                f"{folder / metadata} does not give the length of {next(iter(actions))} and "
                f"{len(actions) - 1} more videos of {annotations}; use files from one source"
            )
    return {"version": "THUMOS14", "database": database}


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the four CSV files.")],
    out: Annotated[Path | None, typer.Option(help="Default: thumos_14_anno.json there.")] = None,
) -> None:
    """Write THUMOS-14's annotations as ActivityNet JSON."""
    target = out or folder / "thumos_14_anno.json"
    try:
        content = thumos_annotations(folder)
        with written_whole(target) as draft:
            draft.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    videos = content["database"].values()
    actions = [action["label"] for video in videos for action in video["annotations"]]
    for subset, count in Counter(video["subset"] for video in videos).items():
        print(f"{subset:<12}{count:>5} videos")
    print(f"{len(actions):,} actions, {Counter(actions)['Ambiguous']} of them Ambiguous: {target}")


if __name__ == "__main__":
    typer.run(main)
