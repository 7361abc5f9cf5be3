"""CVAT's XML exports: tracks of "CVAT for video", tags of "CVAT for images"."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from etadlite.base.errors import InputError
from etadlite.prepare.importers.rows import ImportedAction, imported_action, parse_xml, plain_name


def read_cvat(path: Path, content: bytes, tier: str | None) -> list[ImportedAction]:
    """Read the times at which something is labelled; `tier` is an attribute in place of the label.

    A track lasts from a frame where it is seen to the next one where it is outside. Tags of images
    last as long as consecutive frames of a task have them. Frames are numbered as in the video, of
    which a task may have every n-th.
    """
    document = parse_xml(path, content, "CVAT's export")
    if document.tag != "annotations" or document.find("meta") is None:
        raise InputError(f'{path} is no export "CVAT for video 1.1" or "CVAT for images 1.1"')
    sources = {
        task.findtext("id"): task.findtext("source") or ""
        for kind in ("task", "job")
        for task in document.iter(kind)
    }
    filters = (task.findtext("frame_filter") or "" for task in document.iter("task"))
    steps = {int(found[1]) for text in filters if (found := re.search(r"step=(\d+)", text))} or {1}
    if len(steps) > 1:
        raise InputError(f"{path} has tasks with several frame steps; export them one by one")
    (step,) = steps
    rows = []

    def note(where: str, item: ElementTree.Element, spans: Iterator[tuple[int, int, str]]) -> None:
        only = next(iter(sources.values())) if len(sources) == 1 else ""
        known = sources.get(item.get("task_id"), only)
        for start, end, label in spans:
            times = {"start_frame": start, "end_frame": end}
            rows.append(imported_action(where, {"video": known, "label": label, **times}))

    for track in document.iter("track"):
        note(f"{path}, track {track.get('id')}", track, _spans_of_track(track, tier, step))
    tagged: dict[tuple[str | None, str], list[ElementTree.Element]] = {}
    for image in document.iter("image"):
        for tag in image.iter("tag"):
            if label := _label(tag, tag, tier):
                tagged.setdefault((image.get("task_id"), label), []).append(image)
    for (_, label), images in tagged.items():
        note(f"{path}, tag {label}", images[0], _spans_of_tag(images, label, step))
    names = map(plain_name, filter(None, sources.values()))
    return rows or [ImportedAction(str(path), name) for name in names]


def _label(item: ElementTree.Element, shape: ElementTree.Element, tier: str | None) -> str:
    if tier is None:
        return item.get("label", "")
    values = (a.text or "" for a in shape.iter("attribute") if a.get("name") == tier)
    return next(values, "")


def _spans_of_track(
    track: ElementTree.Element, tier: str | None, step: int
) -> Iterator[tuple[int, int, str]]:
    """Yield first frame, frame after the last, and label of every part of a track that is seen."""
    start, end, label = 0, 0, ""
    for shape in sorted(track.iterfind("*[@frame]"), key=lambda shape: int(shape.get("frame", 0))):
        frame = int(shape.get("frame", 0))
        # A skeleton is outside when all its points are.
        outside = {part.get("outside") for part in shape.iter() if part.get("outside")}
        now = "" if outside == {"1"} else _label(track, shape, tier)
        if now != label:
            if label:
                yield start, frame, label
            start, label = frame, now
        end = frame + step
    if label:
        yield start, end, label


def _spans_of_tag(
    images: list[ElementTree.Element], label: str, step: int
) -> Iterator[tuple[int, int, str]]:
    frames = sorted({int(image.get("id", 0)) for image in images})
    start = 0
    for place, frame in enumerate(frames):
        if frames[place + 1 : place + 2] != [frame + step]:
            yield frames[start], frame + step, label
            start = place + 1
