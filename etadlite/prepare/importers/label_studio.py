"""Label Studio's exports JSON and JSON-MIN: segments on the timeline of a video."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from etadlite.base.errors import InputError
from etadlite.data.video_files import USUAL
from etadlite.prepare.importers.rows import ImportedAction, choose_tier, imported_action, plain_name

Region = tuple[str, Mapping[str, Any]]  # the control that it was made with, and its value


def is_label_studio(content: Any) -> bool:
    """Return True if the content of a JSON file is an export of Label Studio."""
    if not isinstance(content, list) or not all(isinstance(task, Mapping) for task in content):
        return False
    return any({"annotations", "data"} <= task.keys() or any(_short(task)) for task in content)


def read_label_studio(
    path: Path, tasks: Sequence[Mapping[str, Any]], tier: str | None
) -> list[ImportedAction]:
    """Read the labelled segments; `tier` is the name of the control, `from_name`.

    Segments of a timeline count frames from 1 up to their last one; others have seconds. Where
    there are none, or if the tier says so, they are the times at which shapes are seen. A task that
    nobody did, or that was skipped, says nothing about its video.
    """
    numbered = ((task.get("id", number), task) for number, task in enumerate(tasks) if _done(task))
    read = [(f"{path}, task {number}", task, _regions(task)) for number, task in numbered]
    timed = [control for *_, regions in read for control, value in regions if _is_segment(value)]
    shapes = (control for *_, regions in read for control, _ in regions)
    used = {control: control for control in (timed if timed and tier is None else shapes)}
    chosen = choose_tier(path, "controls", used, tier)
    rows = []
    for where, task, regions in read:
        address = _address(task)
        if not address:
            raise InputError(f"{where} names no video; export it with its data")
        video = plain_name(address)
        uploaded = re.sub(r"^[0-9a-f]{8}-", "", video)  # an upload gets a number before its name
        found = [value for control, value in regions if control == chosen]
        if len(people := {str(a.get("completed_by")) for a in _finished(task)}) > 1:
            problem = f"{len(people)} people annotated it; mark one annotation as ground truth"
            rows.append(ImportedAction(where, video, problem=problem, also=uploaded))
        elif not found:
            rows.append(ImportedAction(where, video, also=uploaded))
        else:
            for value in found:
                rows += _rows(where, address, uploaded, value)
    return rows


def _rows(where: str, video: str, also: str, value: Mapping[str, Any]) -> Iterator[ImportedAction]:
    spans = [{"start": value.get("start"), "end": value.get("end")}]
    if "ranges" in value:
        spans = [{"start_frame": s["start"] - 1, "end_frame": s["end"]} for s in value["ranges"]]
        spans = spans or [{}]  # it names what it lacks
    elif "sequence" in value:
        spans = list(_seen(value))
    for label in _labels(value) or [""]:
        for span in spans:
            yield imported_action(where, {"video": video, "label": label, "also": also, **span})


def _seen(value: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    """Yield when a shape is seen: from a key frame on, up to the next one that is not enabled."""
    start = None
    for key in sorted(value["sequence"], key=lambda key: key["frame"]):
        if start is None and key.get("enabled", True):
            start = key["frame"] - 1
        elif start is not None and not key.get("enabled", True):
            yield {"start_frame": start, "end_frame": key["frame"]}
            start = None
    if start is not None:
        yield {"start_frame": start, "end_frame": value["framesCount"]}


def _labels(value: Mapping[str, Any]) -> list[str]:
    return next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list)), [])


def _is_segment(value: Any, kind: str = "") -> bool:
    """Return True for the value of a segment; one of a `kind` for labels may lack them."""
    timed = isinstance(value, Mapping) and ("ranges" in value or {"start", "end"} <= value.keys())
    return timed and (bool(_labels(value)) or kind.endswith("labels"))


def _is_region(value: Any, kind: str = "") -> bool:
    """Return True for the value of a segment, or of a labelled shape that moves."""
    moves = isinstance(value, Mapping) and isinstance(value.get("sequence"), list)
    return _is_segment(value, kind) or (moves and bool(_labels(value)))


def _done(task: Mapping[str, Any]) -> bool:
    """Return True if somebody annotated a task, even with nothing; JSON-MIN does not say it."""
    return "annotations" not in task or bool(_finished(task))


def _finished(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a task's annotations that were not skipped: those marked as ground truth, or all."""
    done = [a for a in task.get("annotations") or () if not a.get("was_cancelled")]
    return [a for a in done if a.get("ground_truth")] or done


def _regions(task: Mapping[str, Any]) -> list[Region]:
    if "annotations" not in task:
        return list(_short(task))
    results = [result for a in _finished(task) for result in a.get("result", [])]
    return [
        (result.get("from_name", ""), result["value"])
        for result in results
        if _is_region(result.get("value"), str(result.get("type")))
    ]


def _short(task: Mapping[str, Any]) -> Iterator[Region]:
    """Yield the regions of a task of JSON-MIN."""
    for control, values in task.items():
        for value in values if isinstance(values, list) else []:
            if _is_region(value):
                yield control, value


def _address(task: Mapping[str, Any]) -> str:
    """Return the address of a task's video.

    It is the text in its data that is called so, or that ends like a video, or a first.
    """
    data = task.get("data", task)
    texts = {key: text for key, text in data.items() if isinstance(text, str) and "." in text}
    named = [text for key, text in texts.items() if "video" in key.lower()]
    like = [text for text in texts.values() if PurePosixPath(text).suffix.lower() in USUAL]
    return next(filter(None, [*named, task.get("file_upload"), *like, *texts.values()]), "")
