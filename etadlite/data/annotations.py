"""Annotations: which action happens where in which video, read from ActivityNet JSON."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

from etadlite.base.errors import InputError
from etadlite.base.files import read_json

# THUMOS-14's label for what counts neither for nor against a detector.
NOT_A_CLASS = frozenset({"Ambiguous"})
# Seconds by which an action may end after its video; 211 of ActivityNet-1.3 do, by 0.85 s at most.
TOLERANCE = 1.0


class Action(NamedTuple):
    """One action: where it starts and ends, in seconds, and its class."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class VideoAnnotation:
    """All actions of one video."""

    name: str
    subset: str  # the part of the data set that the video belongs to, such as "training"
    duration: float  # seconds; NaN if a published file does not give it
    actions: tuple[Action, ...]  # in the file's order; empty for a video without actions
    frames: int | None = None  # their number ("frame" in the file); None if it is not given


def read_annotations(
    source: Path | str | Mapping[str, Any],
    subset: str | None = None,
    labels: Sequence[str] | None = None,
    *,
    ignore: Collection[str] = (),
    as_published: bool = False,
) -> dict[str, VideoAnnotation]:
    """Read and check annotations (a JSON file, or its content) in ActivityNet's structure.

    The structure is ``{"database": {name: {"subset": str, "duration": s, "annotations":
    [{"segment": [start s, end s], "label": str}, ...]}}}``.

    Only the videos of `subset` are read and checked; None: all. `labels` are the known classes;
    None accepts every label. Annotations with a label in `ignore` are left out.

    Published benchmarks contain annotations that a user's own file should not: 12 actions of
    ActivityNet-1.3 have no length, 30 of THUMOS-14 start after the end of their video, and the
    ground truth that THUMOS-14 is scored on gives no durations. Published results count these.
    `as_published` keeps them (a duration becomes NaN). Otherwise they are errors, but an action
    that ends up to `TOLERANCE` seconds after the video is cut at its end.

    Raises:
        InputError: the file cannot be read, the subset is empty, or an entry is wrong; the message
            names the file, the video and the annotation.
    """
    file, database = _open(source)
    chosen: dict[str, VideoAnnotation] = {}
    subsets: set[str] = set()
    for name, entry in database.items():
        where = f"{file}: video {name}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("subset"), str):
            raise InputError(f'{where} has no "subset"; give it one, such as "training"')
        subsets.add(entry["subset"])
        if subset not in (None, entry["subset"]):
            continue
        items = entry.get("annotations", [])
        if not isinstance(items, list):
            raise InputError(f'{where}: "annotations" must be a list')
        duration, actions = _duration(entry, where, as_published), []
        for number, item in enumerate(items):
            place = f"{where}, annotation {number}"
            action = _action(item, place)
            if action.label in ignore:
                continue
            if labels is not None and action.label not in labels:
                raise InputError(
                    f'{place} has the label "{action.label}", which is none of the '
                    f"{len(labels)} known classes; correct it, or add it to them"
                )
            actions.append(action if as_published else _inside(action, duration, place))
        frames = _frames(entry, where)
        chosen[name] = VideoAnnotation(name, entry["subset"], duration, tuple(actions), frames)
    if not chosen:
        if subset is None:
            raise InputError(f'{file} has no videos: its "database" is empty')
        raise InputError(
            f'{file} has no videos in the subset "{subset}"; '
            f"choose one of {', '.join(sorted(subsets)) or 'none, its database is empty'}"
        )
    return chosen


def labels_of(annotations: Mapping[str, VideoAnnotation]) -> list[str]:
    """Return the classes that occur in the annotations, sorted by name."""
    return sorted({action.label for video in annotations.values() for action in video.actions})


def read_names(path: Path) -> set[str]:
    """Read names of videos: a JSON list, such as the published `blocked.json`."""
    names = read_json(path, "list of videos")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path} is no JSON list of video names, such as ["a", "b"]')
    return set(names)


def _open(source: Path | str | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the source's name for messages, and its "database"."""
    file, content = "the given annotations", source
    if not isinstance(source, Mapping):
        file, content = str(source), read_json(Path(source), "annotation file")
    database = content.get("database") if isinstance(content, Mapping) else None
    if not isinstance(database, Mapping):
        raise InputError(
            f'{file} has no "database" of videos; an annotation file looks like '
            '{"database": {name: {"subset": ..., "duration": ..., "annotations": [...]}}}'
        )
    return file, database


def _duration(entry: Mapping[str, Any], where: str, as_published: bool) -> float:
    given = entry.get("duration")
    if given is None and as_published:
        return nan
    duration = _number(given)
    if not (isfinite(duration) and duration > 0):
        raise InputError(f'{where}: "duration" must be its length in seconds, not {given}')
    return duration


def _frames(entry: Mapping[str, Any], where: str) -> int | None:
    if entry.get("frame") is None:
        return None
    frames = _number(entry["frame"])
    if not (1 <= frames < 1e8 and frames.is_integer()):
        raise InputError(f'{where}: "frame" must be its number of frames, not {entry["frame"]}')
    return int(frames)


def _action(item: Any, place: str) -> Action:
    """Check what every annotation must fulfil, published or not."""
    fields = item if isinstance(item, Mapping) else {}
    label, segment = fields.get("label"), fields.get("segment")
    if not isinstance(label, str) or not label:
        raise InputError(f'{place} has no "label"')
    if not isinstance(segment, list | tuple) or len(segment) != 2:
        raise InputError(f'{place} ({label}): "segment" must be [start, end] in seconds')
    start, end = _number(segment[0]), _number(segment[1])
    if not (isfinite(start) and isfinite(end)):
        raise InputError(f"{place} ({label}): the segment {short(segment)} holds no two numbers")
    if start < 0:
        raise InputError(f"{place} ({label}) starts before the video, at {start} s")
    if end < start:
        raise InputError(f"{place} ({label}) ends at {end} s, before it starts at {start} s")
    return Action(start, end, label)


def _inside(action: Action, duration: float, place: str) -> Action:
    """Check what only a user's own file must fulfil; cut a small overshoot."""
    what = f"{place} ({action.label})"
    remedy = "correct it, or read a published benchmark's file as published"
    if action.end > duration + TOLERANCE or action.start >= duration:
        raise InputError(
            f"{what} at {action.start}-{action.end} s lies beyond the video's end "
            f"at {duration} s; {remedy}"
        )
    if action.end == action.start:
        raise InputError(f"{what} starts and ends at {action.start} s; {remedy}")
    return action._replace(end=min(action.end, duration))


def _number(value: Any) -> float:
    """Read a number, also one written as text; NaN if it is none."""
    try:
        return nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return nan
