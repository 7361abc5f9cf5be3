"""Label Studio's exports JSON and JSON-MIN: segments on the timeline of a video."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etadlite.base.errors import InputError
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

    Segments of a timeline count frames from 1 up to their last one; others have seconds.
    """
    numbered = ((task.get("id", number), task) for number, task in enumerate(tasks))
    read = [(f"{path}, task {number}", task, _regions(task)) for number, task in numbered]
    used = {control: control for *_, regions in read for control, _ in regions}
    chosen = choose_tier(path, "controls", used, tier)
    rows = []
    for where, task, regions in read:
        address = _address(task)
        if not address:
            raise InputError(f"{where} names no video; export it with its data")
        video = plain_name(address)
        uploaded = re.sub(r"^[0-9a-f]{8}-", "", video)  # an upload gets a number before its name
        found = [value for control, value in regions if control == chosen]
        if not found:
            rows.append(ImportedAction(where, video, also=uploaded))
        for value in found:
            rows += _rows(where, video, uploaded, value)
    return rows


def _rows(where: str, video: str, also: str, value: Mapping[str, Any]) -> Iterator[ImportedAction]:
    spans = [{"start": value.get("start"), "end": value.get("end")}]
    if "ranges" in value:
        spans = [{"start_frame": s["start"] - 1, "end_frame": s["end"]} for s in value["ranges"]]
    for label in _labels(value):
        for span in spans:
            yield imported_action(where, {"video": video, "label": label, "also": also, **span})


def _labels(value: Mapping[str, Any]) -> list[str]:
    return next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list)), [])


def _is_segment(value: Any) -> bool:
    timed = isinstance(value, Mapping) and ("ranges" in value or {"start", "end"} <= value.keys())
    return timed and bool(_labels(value))


def _regions(task: Mapping[str, Any]) -> list[Region]:
    if "annotations" not in task:
        return list(_short(task))
    done = [a for a in task["annotations"] if not a.get("was_cancelled")]
    results = [result for annotation in done for result in annotation.get("result", [])]
    return [
        (result.get("from_name", ""), result["value"])
        for result in results
        if _is_segment(result.get("value"))
    ]


def _short(task: Mapping[str, Any]) -> Iterator[Region]:
    """Yield the regions of a task of JSON-MIN."""
    for control, values in task.items():
        for value in values if isinstance(values, list) else []:
            if _is_segment(value):
                yield control, value


def _address(task: Mapping[str, Any]) -> str:
    """Return the address of a task's video: the text in its data that is called so, or a first."""
    data = task.get("data", task)
    texts = {key: text for key, text in data.items() if isinstance(text, str) and "." in text}
    named = [text for key, text in texts.items() if "video" in key.lower()]
    return next(iter([*named, task.get("file_upload"), *texts.values()]), None) or ""
