"""ELAN: the format EAF, versions 2.7 to 3.0."""

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree  # its parser, Expat, limits entities and fetches nothing

from etadlite.base.errors import InputError
from etadlite.data.video_files import VIDEO_SUFFIXES
from etadlite.prepare.importers.rows import ImportedAction, choose_tier, imported_action, plain_name


def read_elan(path: Path, text: str, tier: str | None) -> list[ImportedAction]:
    """Read the annotations of one tier of an EAF document in milliseconds."""
    try:
        document = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} cannot be read as an EAF file: {error}") from None
    header = document.find("HEADER")
    units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if document.tag != "ANNOTATION_DOCUMENT" or units != "milliseconds":
        raise InputError(f"{path} is no EAF file in milliseconds; save it again from ELAN")
    video, origin = _video(path, document)
    seconds = {
        slot.get("TIME_SLOT_ID"): (int(value) + origin) / 1000
        for slot in document.iter("TIME_SLOT")
        if (value := slot.get("TIME_VALUE")) is not None
    }
    used = (found for found in document.iter("TIER") if found.find("ANNOTATION") is not None)
    tiers = {found.get("TIER_ID", ""): found for found in used}
    if not tiers:
        return [ImportedAction(str(path), video)]
    chosen = tiers[choose_tier(path, "tiers", {name: name for name in tiers}, tier)]
    by_id = {item.get("ANNOTATION_ID"): item for item in document.iter()}
    actions = []
    for annotation in chosen.iter("ANNOTATION"):
        item = timed = annotation[0]
        for _ in tiers:  # one that refers to another annotation has the times of that one
            if timed is not None and timed.tag == "REF_ANNOTATION":
                timed = by_id.get(timed.get("ANNOTATION_REF"))
        slots = ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
        start, end = (None if timed is None else seconds.get(timed.get(slot)) for slot in slots)
        label = item.findtext("ANNOTATION_VALUE")
        fields = {"video": video, "start": start, "end": end, "label": label}
        actions.append(imported_action(f"{path}, annotation {item.get('ANNOTATION_ID')}", fields))
    return actions


def _video(path: Path, document: ElementTree.Element) -> tuple[str, int]:
    """Return the annotated video's name (by default the file's) and the time of ELAN's 0 in ms."""
    for media in document.iter("MEDIA_DESCRIPTOR"):
        address = media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL") or ""
        is_video = media.get("MIME_TYPE", "").startswith("video")
        if is_video or PurePosixPath(address).suffix.lower() in VIDEO_SUFFIXES:
            return plain_name(address), int(media.get("TIME_ORIGIN", 0))
    return path.stem, 0
