"""What files in MP4 and MOV say about their clock that no reader here follows.

Their boxes and edit lists are those of ISO/IEC 14496-12.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NORMAL_SPEED = 0x10000  # a fixed-point number


def not_followed(path: Path) -> Iterator[str]:
    """Say what is not followed of a file in MP4 or MOV; nothing for others.

    FFmpeg reads the first of several joined files, plays every part of an edit list at the normal
    speed, and may misplace some pictures at the borders of these parts.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        if next((kind for kind, *_ in _boxes(file, 0, end)), b"") != b"ftyp":
            return
        films = [where for kind, *where in _boxes(file, 0, end) if kind == b"moov"]
        if len(films) > 1:
            yield f"it holds {len(films)} recordings, of which players show the first alone"
        for edits in map(list, _edit_lists(file, *films[0]) if films else ()):
            shown = [speed for start, speed in edits if start >= 0]  # others show nothing
            if len(shown) > 1:
                yield f"its edit list has {len(shown)} parts, and their borders may be inexact"
            if any(speed != NORMAL_SPEED for speed in shown):
                yield "its edit list changes the speed, which is not followed"


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box in a part of a file, and where its content starts and ends."""
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        size, first = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, first = int.from_bytes(head[8:], "big"), 16
        size = size or end - place  # 0: up to the end
        if size < first:
            return
        yield head[4:8], place + first, min(place + size, end)
        place += size


def _edit_lists(file: BinaryIO, start: int, end: int) -> Iterator[Iterator[tuple[int, int]]]:
    """Yield the edit lists of the films in a box "moov"."""
    for kind, *track in _boxes(file, start, end):
        if kind != b"trak":
            continue
        parts = {kind: where for kind, *where in _boxes(file, *track)}
        media = {kind: where for kind, *where in _boxes(file, *parts.get(b"mdia", (0, 0)))}
        edits = {kind: where for kind, *where in _boxes(file, *parts.get(b"edts", (0, 0)))}
        if b"hdlr" in media and b"elst" in edits:
            file.seek(media[b"hdlr"][0] + 8)
            if file.read(4) == b"vide":
                yield _entries(file, *edits[b"elst"])


def _entries(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where in its film each entry of an edit list starts, -1 for none, and its speed."""
    file.seek(start)
    content = file.read(end - start)
    width = 8 if content[:1] == b"\1" else 4  # bytes of a time
    for place in range(8, len(content) - 2 * width - 3, 2 * width + 4):
        times, speed = content[place : place + 2 * width], content[place + 2 * width :][:4]
        yield int.from_bytes(times[width:], "big", signed=True), int.from_bytes(speed, "big")
