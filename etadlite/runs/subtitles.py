"""Detections as subtitles, which every player shows beside the video: SubRip and WebVTT."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import printable
from etadlite.base.files import written_whole

# SubRip has no escapes: "<" would begin a tag, and "-->" a line of times.
STAND_INS = {"-->": "→", "<": "\u2039", ">": "\u203a"}
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # of WebVTT; "-->" becomes "--&gt;"


def write_subtitles(detections: Sequence[Mapping[str, Any]], target: Path) -> list[Path]:
    """Write detections, {"segment": [start s, end s], "label", "score"}, as .srt and .vtt.

    Each is a cue of its own, by start, such as "jump 87 %"; overlapping ones are shown together.
    Times are those of the video file, to a millisecond. The suffix is added to `target`.
    """
    cues = []
    for item in sorted(detections, key=lambda item: item["segment"]):
        start, end = (max(round(1000 * time), 0) for time in item["segment"])
        label = " ".join(printable(item["label"]).split())  # an empty line would end the cue
        cues.append((start, max(end, start + 1), f"{label} {100 * item['score']:.0f} %"))
    parts = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_replaced(text, STAND_INS)}\n"
        for number, (start, end, text) in enumerate(cues, 1)
    ]
    subrip = _written(target.with_name(f"{target.name}.srt"), parts)
    parts = [
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_replaced(text, ESCAPES)}\n"
        for start, end, text in cues
    ]
    return [subrip, _written(target.with_name(f"{target.name}.vtt"), ["WEBVTT\n", *parts])]


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{rest:03}"


def _replaced(text: str, pairs: Mapping[str, str]) -> str:
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


def _written(path: Path, parts: Sequence[str]) -> Path:
    with written_whole(path) as draft:
        draft.write_text("\n".join(parts), encoding="utf-8", newline="\n")
    return path
