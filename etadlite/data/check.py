"""Check the files of a data set against its annotations and its protocol."""

import difflib
import hashlib
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tqdm import tqdm

from etadlite.config import DataSettings, Settings
from etadlite.data.annotations import VideoAnnotation, read_annotations
from etadlite.data.features import as_features, find_features, open_features
from etadlite.data.isolated import in_processes
from etadlite.data.manifest import (
    CheckedFile,
    examine_video,
    manifest_file,
    read_manifest,
    write_manifest,
)
from etadlite.data.split import VIDEO_SUFFIXES, read_split, video_file
from etadlite.errors import InputError
from etadlite.presets import preset

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

KEPT_EVERY = 60.0
"""Seconds after which what is known so far is written: a deep check may take hours."""

SECONDS_A_VIDEO = {False: 120.0, True: 1800.0}
"""Time limit of a video, by whether all of it is decoded."""


class Protocol(NamedTuple):
    """How many videos published numbers stand for.

    Attributes:
        name: of the data set.
        training: videos to train on.
        test: videos of the test subset.
        scored: those of them that are not blocked.
        looks: what its videos' names look like.
    """

    name: str
    training: int
    test: int
    scored: int
    looks: str


ACTIVITYNET = Protocol("ActivityNet-1.3", 10_024, 4_926, 4_728, r"(v_)?[\w-]{11}")
THUMOS = Protocol("THUMOS-14", 200, 213, 211, r"video_(test|validation)_\d{7}")
PROTOCOLS = {
    "anet_tsp": ACTIVITYNET,
    "e2e_anet_tsp": ACTIVITYNET,
    "thumos_i3d": THUMOS,
    "e2e_thumos_tsp": THUMOS,
}
"""The protocol that each preset follows."""


class Split(NamedTuple):
    """The videos of a split: how many are expected, annotated and have a file training can use."""

    name: str
    expected: int | None
    annotated: int
    usable: int


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


@dataclass(frozen=True)
class Checked:
    """The result of `check_data`.

    Attributes:
        folder: where the files lie.
        kind: "features" or "videos".
        splits: training and test.
        findings: problems first.
        files: what each file holds, by file name.
        manifest: where this was written; None where the disk does not allow it.
    """

    folder: Path
    kind: str
    splits: tuple[Split, ...]
    findings: tuple[Finding, ...]
    files: Mapping[str, CheckedFile]
    manifest: Path | None

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not any(finding.problem for finding in self.findings)


def check_data(
    settings: Settings, *, deep: bool = False, workers: int = 2, progress: bool = True
) -> Checked:
    """Check the folder of features, or of videos, that settings name, and write its manifest.

    Files that have not changed since the last check are not opened again.

    Args:
        settings: where the data lie and what they should be.
        deep: read every value and decode every frame, instead of headers and packets alone.
        workers: processes that open videos, or threads that open features.
        progress: show a bar.

    Raises:
        InputError: the annotations cannot be read, or there is no folder to check.
    """
    data = settings.data
    folder = data.features or data.videos
    if folder is None:
        raise InputError("the settings name no data: give data.videos or data.features")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; get the data, or correct its name")
    features = data.features is not None
    find = partial(find_features if features else video_file, folder)
    suffixes = (".npy",) if features else VIDEO_SUFFIXES

    splits = {training: read_split(data, training=training) for training in (True, False)}
    videos = {video.name: video for split in splits.values() for video in split}
    known = set(read_annotations(data.annotations, as_published=data.as_published))
    paths = {name: path for name in videos if (path := find(name)) is not None}
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    present = [n for n in names if n.lower().endswith(suffixes) and not _is_draft(n)]

    how = {"deep": deep, "channels": settings.detector.in_channels if features else None}
    examine = _examine_features if features else _examine_videos
    used = {path.name for path in paths.values()}
    if features:  # further views of a video lie beside its first
        stems = {path.stem for path in paths.values()}
        used |= {name for name in present if _without_view(name) in stems}
    files = _examined(folder, sorted(used), how, partial(examine, workers=workers), progress)
    files, lengths = _with_lengths(files, videos, paths, settings)

    findings = [
        *_of_another_set(videos, paths, present),
        *_further_below(folder, present, suffixes),
        *_counts(PROTOCOLS.get(settings.name), splits, data.annotations),
        *_missing(splits, paths, folder),
        *_unusable(files),
        *_misnamed(present, used, known, videos.keys() - paths.keys()),
        *_unfinished(names),
        *_half_converted(files, PROTOCOLS.get(settings.name)),
        *lengths,
        *_duplicates(folder, files, present, videos),
        *_damaged(files),
    ]
    findings.sort(key=lambda finding: not finding.problem)
    protocol = PROTOCOLS.get(settings.name)
    summary = tuple(
        _split(training, videos, paths, files, protocol) for training, videos in splits.items()
    )
    told = [finding._asdict() for finding in findings]
    try:
        manifest = write_manifest(folder, files, how, told)
    except OSError:
        manifest = None
    return Checked(
        folder, "features" if features else "videos", summary, tuple(findings), files, manifest
    )


def folder_settings(root: Path) -> Settings:
    """Settings of a data set of one's own.

    They are those that `etadlite init-dataset` wrote there, or made for annotations.json beside
    videos/ or features/.

    Raises:
        InputError: the folder is laid out in another way.
    """
    if (root / "settings.json").is_file():
        return preset(str(root / "settings.json"))
    annotations, videos, features = (root / n for n in ("annotations.json", "videos", "features"))
    if not annotations.is_file() or not (videos.is_dir() or features.is_dir()):
        raise InputError(
            f"{root} has no annotations.json beside a folder videos or features; for a published "
            "data set give the preset's name, and data.features=FOLDER or data.videos=FOLDER"
        )
    found = {"videos": videos} if videos.is_dir() else {"features": features}
    return Settings(name=root.name, data=DataSettings(annotations=annotations, **found))


def report(checked: Checked) -> str:
    """The result as a table to print."""
    size = sum(file.bytes for file in checked.files.values())
    what = f"{len(checked.files):,} files of {checked.kind}, {_bytes(size)}"
    lines = [f"{checked.folder}: {what}", ""]
    lines.append(f"{'split':<12}{'expected':>10}{'annotated':>11}{'usable':>8}")
    for split in checked.splits:
        expected = "-" if split.expected is None else f"{split.expected:,}"
        lines.append(f"{split.name:<12}{expected:>10}{split.annotated:>11,}{split.usable:>8,}")
    for finding in checked.findings:
        kind = "PROBLEM" if finding.problem else "note"
        lines += ["", f"{kind:<8} {finding.what}: {len(finding.items):,}"]
        lines += [f"         {item}" for item in finding.items[:SHOWN]]
        if len(finding.items) > SHOWN:
            lines.append(f"         ... and {len(finding.items) - SHOWN:,} more")
        lines.append(f"         -> {finding.remedy}")
    lines.append("")
    if checked.manifest:
        lines.append(f"manifest: {checked.manifest}")
    else:
        lines.append(
            f"no manifest: {manifest_file(checked.folder)} cannot be written, so training does not "
            "know which files are broken until it opens them"
        )
    lines.append("the data are fit for training" if checked.sound else "the data need mending")
    return "\n".join(lines)


def _split(
    training: bool,
    videos: Sequence[VideoAnnotation],
    paths: Mapping[str, Path],
    files: Mapping[str, CheckedFile],
    protocol: Protocol | None,
) -> Split:
    usable = sum(
        1 for video in videos if video.name in paths and not files[paths[video.name].name].problem
    )
    expected = None
    if protocol:
        expected = protocol.training if training else protocol.scored
    return Split("training" if training else "test", expected, len(videos), usable)


# Opening files


def _examined(
    folder: Path,
    names: Sequence[str],
    how: Mapping[str, Any],
    examine: Callable[..., Iterable[tuple[str, CheckedFile]]],
    progress: bool,
) -> dict[str, CheckedFile]:
    """What each file holds: as known from an equal or deeper check, or by opening it."""
    before, checked = read_manifest(folder)
    broken = {
        n: f for n, f in before.items() if f.problem and checked.get("channels") == how["channels"]
    }
    if checked not in (how, {**how, "deep": True}):
        before = {}
    files = {
        # What could be read is compared with the annotations anew.
        name: replace(before[name], problem="") if before[name].frames else before[name]
        for name in names
        if name in before and before[name].still_describes(folder / name) and not before[name].lost
    }
    rest = [folder / name for name in names if name not in files]
    silent = not (progress and rest)
    written = time.monotonic()
    for name, file in tqdm(examine(rest, how), "check", len(rest), unit="file", disable=silent):
        files[name] = file
        if time.monotonic() - written > KEPT_EVERY:
            with suppress(OSError):
                write_manifest(folder, broken | files, how, [])
            written = time.monotonic()
    return files


def _examine_features(
    paths: Sequence[Path], how: Mapping[str, Any], *, workers: int
) -> Iterator[tuple[str, CheckedFile]]:
    def examine(path: Path) -> tuple[str, CheckedFile]:
        stat = path.stat()
        file = CheckedFile(stat.st_size, stat.st_mtime_ns)
        try:
            array = open_features(path, how["channels"], on_disk=True)
            if how["deep"]:
                as_features(array, path)
        except InputError as error:
            return path.name, replace(file, problem=str(error))
        return path.name, replace(file, frames=len(array))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        yield from pool.map(examine, paths)


def _examine_videos(
    paths: Sequence[Path], how: Mapping[str, Any], *, workers: int
) -> Iterator[tuple[str, CheckedFile]]:
    examine, seconds = partial(examine_video, decode=how["deep"]), SECONDS_A_VIDEO[how["deep"]]
    for path, file, error in in_processes(examine, paths, workers=workers, seconds=seconds):
        yield path.name, file or _lost(path, error)


def _lost(path: Path, error: str) -> CheckedFile:
    stat = path.stat()
    why = f"{path} cannot be read: {error}; copy or download the video again"
    return CheckedFile(stat.st_size, stat.st_mtime_ns, problem=why, lost=True)


# What is looked for


def _of_another_set(
    videos: Mapping[str, VideoAnnotation], paths: Mapping[str, Path], present: Sequence[str]
) -> Iterator[Finding]:
    if not present or len(paths) > 0.1 * min(len(videos), len(present)):
        return
    stems = [_without_view(name) for name in present]
    looks = [p.name for p in (THUMOS, ACTIVITYNET) if _share(p.looks, stems) > 0.9]
    like = f"the files look like those of {looks[0]}" if looks else "no known data set's names fit"
    yield Finding(
        "another data set?",
        True,
        (f"{len(paths):,} of {len(present):,} files belong to an annotated video, {like}",),
        "give the folder of this data set, or the annotations of that one",
    )


def _further_below(
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


def _counts(
    protocol: Protocol | None, splits: Mapping[bool, Sequence[VideoAnnotation]], file: Path
) -> Iterator[Finding]:
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


def _missing(
    splits: Mapping[bool, Sequence[VideoAnnotation]], paths: Mapping[str, Path], folder: Path
) -> Iterator[Finding]:
    for training, split in splits.items():
        names = tuple(video.name for video in split if video.name not in paths)
        if names:
            yield Finding(
                f"{'training' if training else 'test'} videos without a file",
                True,
                names,
                f"complete {folder}, or leave them out with data.allow_missing=true",
            )


def _unusable(files: Mapping[str, CheckedFile]) -> Iterator[Finding]:
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


def _misnamed(
    present: Sequence[str], used: Collection[str], known: Collection[str], missing: Collection[str]
) -> Iterator[Finding]:
    """Files that belong to no annotated video, with the missing one that each may be."""
    unknown = [
        n for n in present if n not in used and _without_view(n).removeprefix("v_") not in known
    ]
    unknown = [n for n in unknown if _without_view(n) not in known]
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


def _unfinished(names: Sequence[str]) -> Iterator[Finding]:
    drafts = tuple(name for name in names if _is_draft(name))
    if drafts:
        yield Finding(
            "unfinished files",
            True,
            drafts,
            "run what wrote them again; delete those that stay when nothing is running",
        )


def _half_converted(
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


def _with_lengths(
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


def _duplicates(
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


def _damaged(files: Mapping[str, CheckedFile]) -> Iterator[Finding]:
    notes = tuple(f"{n}: {f.note}" for n, f in files.items() if f.note and not f.problem)
    if notes:
        yield Finding("damaged files", False, notes, "training uses what can be decoded of them")


# Names


def _is_draft(name: str) -> bool:
    """Whether a name is one of `written_whole` or of an unfinished download."""
    return name.endswith(".part") or re.search(r"\.\d+\.part\.\w+$", name) is not None


def _without_view(name: str) -> str:
    """The video's name in that of a file, without suffix and number of the view."""
    return re.sub(r"\.\d+$", "", name.rpartition(".")[0])


def _key(name: str) -> str:
    """What is left of a name without prefix, suffixes and the kinds of letters people mix up."""
    bare = re.sub(r"(\.(npy|mp4|mkv|webm|avi|mov|\d+))+$", "", name).removeprefix("v_")
    return re.sub(r"[^a-z0-9]", "", bare.casefold())


def _share(pattern: str, names: Sequence[str]) -> float:
    return Counter(re.fullmatch(pattern, name) is not None for name in names)[True] / len(names)


def _bytes(count: int) -> str:
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1024 and (larger := next(units, None)):
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"
