"""ELAN: the format EAF, versions 2.7 to 3.0."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from etadlite.base.errors import InputError
from etadlite.data.video_files import USUAL
from etadlite.prepare.importers.rows import (
    ImportedAction,
    choose_tier,
    imported_action,
    parse_xml,
    plain_name,
)

Span = tuple[float, float]  # start and end in milliseconds


def read_elan(path: Path, content: bytes, tier: str | None) -> list[ImportedAction]:
    """Read the annotations of one tier of an EAF document in milliseconds, as ELAN shows them."""
    document = parse_xml(path, content, "an EAF file")
    header = document.find("HEADER")
    units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if document.tag != "ANNOTATION_DOCUMENT" or units != "milliseconds":
        raise InputError(f"{path} is no EAF file in milliseconds; save it again from ELAN")
    _refuse_twins(path, document)
    (video, origin), spans = _video(path, document), _spans(path, document)
    used = (found for found in document.iter("TIER") if found.find("ANNOTATION") is not None)
    tiers = {found.get("TIER_ID", ""): found for found in used}
    if not tiers:
        return [ImportedAction(str(path), plain_name(video))]
    chosen = tiers[choose_tier(path, "tiers", {name: name for name in tiers}, tier)]
    actions = []
    for annotation in chosen.iter("ANNOTATION"):
        item = annotation[0]
        number, label = item.get("ANNOTATION_ID", ""), item.findtext("ANNOTATION_VALUE")
        where = f"{path}, annotation {number}"
        if number in spans:
            start, end = ((time + origin) / 1000 for time in spans[number])
            fields = {"video": video, "start": start, "end": end, "label": label}
            actions.append(imported_action(where, fields))
        else:
            problem = "it is not aligned in ELAN: give it a start and an end there"
            name = plain_name(video)
            actions.append(ImportedAction(where, name, label=label or "", problem=problem))
    return actions


def _refuse_twins(path: Path, document: ElementTree.Element) -> None:
    """Refuse a number that stands twice, so that one of both would be lost; ELAN writes none."""
    for kind in ("TIME_SLOT_ID", "ANNOTATION_ID", "TIER_ID"):
        given = Counter(item.get(kind) for item in document.iter() if item.get(kind))
        twins = [number for number, count in given.items() if count > 1]
        if twins:
            raise InputError(f"{path}: {kind} {twins[0]} stands twice; save it again from ELAN")


def _spans(path: Path, document: ElementTree.Element) -> dict[str, Span]:
    """Return the times of all annotations that have some, by number.

    As in ELAN, borders without a time divide the time between those beside them into equal parts;
    so do the parts of a symbolic subdivision with the time of what they subdivide. Any other
    annotation that refers to one has the time of that one.
    """
    slots = {
        slot.get("TIME_SLOT_ID", ""): float(slot.get("TIME_VALUE", "nan"))
        for slot in document.iter("TIME_SLOT")
    }
    order = {slot: place for place, slot in enumerate(slots)}
    times = {slot: time for slot, time in slots.items() if not isnan(time)}
    spans: dict[str, Span] = {}
    tiers, before = list(_parents_first(path, document)), -1
    while len(spans) > before:  # once and once more, unless a tier does not name its parent
        before = len(spans)
        for found in tiers:
            timed = sorted(
                found.iter("ALIGNABLE_ANNOTATION"),
                key=lambda item: order[item.get("TIME_SLOT_REF1", "")],
            )
            _divide(timed, times)
            for item in timed:
                start, end = (times.get(item.get(f"TIME_SLOT_REF{n}", "")) for n in (1, 2))
                if start is not None and end is not None:
                    spans[item.get("ANNOTATION_ID", "")] = start, end
            spans |= _referring(path, document, found, spans)
    return spans


def _parents_first(path: Path, document: ElementTree.Element) -> Iterator[ElementTree.Element]:
    waiting = {tier.get("TIER_ID"): tier for tier in document.iter("TIER")}
    while waiting:
        ready = [name for name, tier in waiting.items() if tier.get("PARENT_REF") not in waiting]
        if not ready:
            raise InputError(f"{path}: its tiers are their own parents; save it again from ELAN")
        yield from map(waiting.pop, ready)


def _divide(timed: Sequence[ElementTree.Element], times: dict[str, float]) -> None:
    """Add to `times` the slots of a tier's annotations that have no time but lie between others."""
    run: list[tuple[str, str]] = []
    for item in timed:
        first, last = (item.get(f"TIME_SLOT_REF{number}", "") for number in (1, 2))
        if run and first in times:
            _spread(run, times[first], times)
            run = []
        if run or first in times:
            run.append((first, last))
        if run and last in times:
            _spread(run, times[last], times)
            run = []


def _spread(run: Sequence[tuple[str, str]], end: float, times: dict[str, float]) -> None:
    start = times[run[0][0]]
    for number, (first, last) in enumerate(run):
        times.setdefault(first, start + (end - start) * number / len(run))
        times.setdefault(last, start + (end - start) * (number + 1) / len(run))


def _referring(
    path: Path, document: ElementTree.Element, tier: ElementTree.Element, spans: Mapping[str, Span]
) -> dict[str, Span]:
    """Return the times of a tier's annotations that refer to others, whose times are given."""
    kinds = {kind.get("LINGUISTIC_TYPE_ID"): kind for kind in document.iter("LINGUISTIC_TYPE")}
    kind = kinds.get(tier.get("LINGUISTIC_TYPE_REF"))
    divided = kind is not None and kind.get("CONSTRAINTS") == "Symbolic_Subdivision"
    parts: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
    for item in tier.iter("REF_ANNOTATION"):
        before = item.get("PREVIOUS_ANNOTATION")
        parts[item.get("ANNOTATION_REF", "")][item.get("ANNOTATION_ID", "")] = before
    found: dict[str, Span] = {}
    for whole, previous in parts.items():
        if whole not in spans:
            continue
        start, end = spans[whole]
        if not divided and not any(previous.values()):
            found |= dict.fromkeys(previous, (start, end))
            continue
        after = {before: number for number, before in previous.items()}
        ordered = []
        while (number := after.pop(ordered[-1] if ordered else None, None)) is not None:
            ordered.append(number)
        if len(ordered) != len(previous):
            raise InputError(
                f"{path}: the parts of annotation {whole} do not follow one another; save it again "
                "from ELAN"
            )
        step = (end - start) / len(ordered)
        found |= {n: (start + k * step, start + (k + 1) * step) for k, n in enumerate(ordered)}
    return found


def _video(path: Path, document: ElementTree.Element) -> tuple[str, int]:
    """Return the annotated video (by default called as the file) and the time of ELAN's 0 in ms."""
    for media in document.iter("MEDIA_DESCRIPTOR"):
        address = media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL") or ""
        is_video = media.get("MIME_TYPE", "").startswith("video")
        if is_video or PurePosixPath(address).suffix.lower() in USUAL:
            return address, int(media.get("TIME_ORIGIN", 0))
    return path.stem, 0
