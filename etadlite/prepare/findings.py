"""What a check of a data set looks for: one function a kind of finding."""

import difflib
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import median
from typing import NamedTuple

from etadlite.config import Settings
from etadlite.data.annotations import VideoAnnotation
from etadlite.data.manifest import CheckedFile
from etadlite.prepare.protocols import ACTIVITYNET, THUMOS, Protocol

SHOWN = 3
"""Items that a finding names."""

LENGTH_SECONDS, LENGTH_SHARE = 5.0, 0.2
"""A length is wrong that differs by more than both; 4 of ActivityNet-1.3's own videos do."""

COUNT_SHARE = 0.05
"""Share of a protocol's videos up to which a difference is a remark: some have been withdrawn."""

SYSTEMATIC = 0.01
"""Share of files from which wrong lengths are a problem; so is a single one of twice or half."""

CONVERTED = (15, 256)
"""Frames a second and short side of converted videos, as published for end-to-end training."""


class Finding(NamedTuple):
    """Something found about several items.

    Attributes:
        what: in two or three words.
        problem: whether training should not start before it is mended; otherwise a remark.
        items: all that it was found of.
        remedy: what to do, as a sentence.
    """

    what: str
    problem: bool
    items: tuple[str, ...]
    remedy: str


def of_another_set(
    videos: Mapping[str, VideoAnnotation], paths: Mapping[str, Path], present: Sequence[str]
) -> Iterator[Finding]:
    """Hardly any file belongs to an annotated video."""
    if not present or len(paths) > 0.1 * min(len(videos), len(present)):
        return
    stems = [without_view(name) for name in present]
    looks = [p.name for p in (THUMOS, ACTIVITYNET) if _share(p.looks, stems) > 0.9]
    like = f"the files look like those of {looks[0]}" if looks else "no known data set's names fit"
    yield Finding(
        "another data set?",
        True,
        (f"{len(paths):,} of {len(present):,} files belong to an annotated video, {like}",),
        "give the folder of this data set, or the annotations of that one",
    )


def further_below(
    folder: Path, present: Sequence[str], suffixes: tuple[str, ...]
) -> Iterator[Finding]:
    """Folders in an empty folder that have the files, as archives unpack them."""
    if present:
        return
    below = Counter(
        path.parent for path in folder.rglob("*") if path.name.lower().endswith(suffixes)
    )
    if below:
        yield Finding(
            "files in a folder below",
            True,
            tuple(f"{place}: {count:,} files" for place, count in below.most_common()),
            "give that folder, or move its files up: folders in the folder are not looked into",
        )


def counts(
    protocol: Protocol | None, splits: Mapping[bool, Sequence[VideoAnnotation]], file: Path
) -> Iterator[Finding]:
    """More or fewer annotated videos than the protocol has."""
    if protocol is None:
        return
    expected = {True: protocol.training, False: protocol.scored}
    off = {training: len(split) - expected[training] for training, split in splits.items()}
    items = tuple(
        f"{'training' if training else 'test'}: {len(splits[training]):,} videos in {file}, the "
        f"protocol has {expected[training]:,}"
        for training, difference in off.items()
        if difference
    )
    if items:
        yield Finding(
            f"counts differ from {protocol.name}'s",
            any(abs(off[training]) > COUNT_SHARE * expected[training] for training in off),
            items,
            "results on other videos compare with published ones only roughly; see that annotations"
            " and data.blocked are the published ones",
        )


def missing(
    splits: Mapping[bool, Sequence[VideoAnnotation]], paths: Mapping[str, Path], folder: Path
) -> Iterator[Finding]:
    """Annotated videos without a file."""
    for training, split in splits.items():
        names = tuple(video.name for video in split if video.name not in paths)
        if names:
            yield Finding(
                f"{'training' if training else 'test'} videos without a file",
                True,
                names,
                f"complete {folder}, or leave them out with data.allow_missing=true",
            )


def unusable(files: Mapping[str, CheckedFile]) -> Iterator[Finding]:
    """Files that cannot be opened, and features of another shape than the detector takes."""
    broken = [file.problem for file in files.values() if file.problem and not file.frames]
    # So `open_features` tells of a wrong width and of transposed files.
    shapes = tuple(problem for problem in broken if " has shape " in problem)
    others = tuple(problem for problem in broken if " has shape " not in problem)
    if others:
        remedy = "get or make them again, or leave them out with data.allow_missing=true"
        yield Finding("unusable files", True, others, remedy)
    if shapes:
        yield Finding(
            "features of another shape",
            True,
            shapes,
            "take the features that the preset is made for, set detector.in_channels to their "
            "width, or transpose them",
        )


def misnamed(
    present: Sequence[str], used: Collection[str], known: Collection[str], missing: Collection[str]
) -> Iterator[Finding]:
    """Files that belong to no annotated video, with the missing one that each may be."""
    unknown = [
        n for n in present if n not in used and without_view(n).removeprefix("v_") not in known
    ]
    unknown = [n for n in unknown if without_view(n) not in known]
    by_key = {_key(name): name for name in missing}
    near, far = [], []
    for name in unknown:
        match = by_key.get(_key(name))
        if match is None and len(near) + len(far) < SHOWN:  # slow: only where it is shown
            match = next(iter(difflib.get_close_matches(_key(name), by_key, 1, 0.8)), None)
            match = by_key.get(match)
        if match:
            near.append(f"{name}: no video of that name; {match} has no file")
        else:
            far.append(name)
    if near:
        yield Finding("files of another name", True, tuple(near), "rename them to NAME + suffix")
    if far:
        yield Finding("files nobody annotated", False, tuple(far), "they are not used")


def unfinished(names: Sequence[str]) -> Iterator[Finding]:
    """What an interrupted download or conversion left."""
    drafts = tuple(name for name in names if is_draft(name))
    if drafts:
        yield Finding(
            "unfinished files",
            True,
            drafts,
            "run what wrote them again; delete those that stay when nothing is running",
        )


def half_converted(
    files: Mapping[str, CheckedFile], protocol: Protocol | None
) -> Iterator[Finding]:
    """Videos of another rate or size: ActivityNet's are converted, of others all or none."""
    shapes = {
        n: (round(file.fps), file.short_side) for n, file in files.items() if file.fps is not None
    }
    others = {name: shape for name, shape in shapes.items() if shape != CONVERTED}
    rest = len(shapes) - len(others)
    if others and (rest or protocol is ACTIVITYNET):
        yield Finding(
            "videos not converted",
            protocol is ACTIVITYNET or rest > len(others),
            tuple(f"{name}: {fps} fps, short side {side}" for name, (fps, side) in others.items()),
            f"{rest:,} others have {CONVERTED[0]} fps and a short side of {CONVERTED[1]}; finish "
            "data_scripts/convert_videos.py",
        )


def with_lengths(
    files: Mapping[str, CheckedFile],
    videos: Mapping[str, VideoAnnotation],
    paths: Mapping[str, Path],
    settings: Settings,
) -> tuple[dict[str, CheckedFile], list[Finding]]:
    """Compare lengths with the annotations; a video cut off and too short is a broken file.

    Features are compared with the frames and the stride where windows are cut, as training does,
    and else with what the other videos have a second.
    """
    files, wrong, compared = dict(files), [], 0
    stride = settings.data.window_stride
    annotated = {paths[name].name: video for name, video in videos.items() if name in paths}
    good = {n: f for n, f in files.items() if n in annotated and not f.problem}
    rates = [f.frames / annotated[n].duration for n, f in good.items() if f.duration is None]
    rates = [rate for rate in rates if not isnan(rate)]
    usual = median(rates) if rates else 0.0
    resized = len({f.frames for f in good.values()}) == 1
    for name, file in good.items():
        video = annotated[name]
        if file.duration is not None:
            length, expected, unit = file.duration, video.duration, "s"
            slack = max(LENGTH_SECONDS, LENGTH_SHARE * expected)
        elif stride and video.frames:
            length, expected, unit = file.frames, -(-video.frames // stride), "features"
            slack = max(16, expected / 3)
        elif not resized and video.duration > 0:
            length, expected, unit = file.frames, round(usual * video.duration), "features"
            slack = max(LENGTH_SECONDS, expected / 3)
        else:
            continue
        compared += 1
        if abs(length - expected) > slack:
            what = f"{name}: {length:g} {unit}, annotated {expected:g}"
            wrong.append((max(length, expected) / max(1, min(length, expected)), what))
            if stride or (file.note and length < expected):
                files[name] = replace(file, problem=f"{what}; {file.note or 'wrong stride?'}")
    if not wrong:
        return files, []
    remedy = "see that they are whole and of this data set, with the same stride or frame rate"
    wrong.sort(reverse=True)
    problem = stride is not None or wrong[0][0] > 2 or len(wrong) > SYSTEMATIC * compared
    items = tuple(what for _, what in wrong)
    return files, [Finding("wrong length", problem, items, remedy)]


def duplicates(
    folder: Path,
    files: Mapping[str, CheckedFile],
    present: Sequence[str],
    videos: Mapping[str, VideoAnnotation],
) -> Iterator[Finding]:
    """Videos that have two files, and files of equal content under two names."""
    stems = defaultdict(list)
    for file in present:
        stems[file.rpartition(".")[0]].append(file)
    candidates = (stems.get(name, []) + stems.get(f"v_{name}", []) for name in videos)
    double = tuple(" and ".join(several) for several in candidates if len(several) > 1)
    if double:
        yield Finding(
            "videos with two files",
            True,
            double,
            "keep one of each, so that it is clear which is read",
        )
    groups = defaultdict(list)
    for name, file in files.items():
        groups[file.bytes, file.frames].append(name)
    same = []
    for group in groups.values():
        if len(group) == 1 or not files[group[0]].bytes:
            continue
        for equal in _equal(folder, group):
            same.append(" = ".join(equal))
    if same:
        yield Finding(
            "equal files under several names", False, tuple(same), "one of them may be wrong"
        )


def _equal(folder: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Groups of files with the same content: by their middle first, then by all of it."""
    for whole in (False, True):
        groups = defaultdict(list)
        for name in names:
            groups[_digest(folder / name, whole=whole)].append(name)
        names = [name for group in groups.values() if len(group) > 1 for name in group]
    yield from (group for group in groups.values() if len(group) > 1)


def _digest(path: Path, *, whole: bool) -> bytes:
    with path.open("rb") as file:
        if whole:
            return hashlib.file_digest(file, "blake2b").digest()
        file.seek(path.stat().st_size // 2)
        return file.read(4096)


def damaged(files: Mapping[str, CheckedFile]) -> Iterator[Finding]:
    """Files that can be read in part."""
    notes = tuple(f"{n}: {f.note}" for n, f in files.items() if f.note and not f.problem)
    if notes:
        yield Finding("damaged files", False, notes, "training uses what can be decoded of them")


# Names


def is_draft(name: str) -> bool:
    """Whether a name is one of `written_whole` or of an unfinished download."""
    return name.endswith(".part") or re.search(r"\.\d+\.part\.\w+$", name) is not None


def without_view(name: str) -> str:
    """The video's name in that of a file, without suffix and number of the view."""
    return re.sub(r"\.\d+$", "", name.rpartition(".")[0])


def _key(name: str) -> str:
    """What is left of a name without prefix, suffixes and the kinds of letters people mix up."""
    bare = re.sub(r"(\.(npy|mp4|mkv|webm|avi|mov|\d+))+$", "", name).removeprefix("v_")
    return re.sub(r"[^a-z0-9]", "", bare.casefold())


def _share(pattern: str, names: Sequence[str]) -> float:
    return Counter(re.fullmatch(pattern, name) is not None for name in names)[True] / len(names)
