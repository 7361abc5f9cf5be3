"""Check the files of a data set against its annotations and its protocol."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.config import DataSettings, Settings
from etadlite.data.annotations import VideoAnnotation, read_annotations
from etadlite.data.features import as_features, find_features, open_features
from etadlite.data.manifest import (
    CheckedFile,
    examine_video,
    manifest_file,
    read_manifest,
    write_manifest,
)
from etadlite.data.split import VIDEO_SUFFIXES, read_split, video_file
from etadlite.prepare import findings as look_for
from etadlite.prepare.findings import SHOWN, Finding, is_draft, without_view
from etadlite.prepare.isolated import in_processes
from etadlite.prepare.protocols import PROTOCOLS, Protocol
from etadlite.presets import preset

KEPT_EVERY = 60.0
"""Seconds after which what is known so far is written: a deep check may take hours."""

SECONDS_A_VIDEO = {False: 120.0, True: 1800.0}
"""Time limit of a video, by whether all of it is decoded."""


class Split(NamedTuple):
    """The videos of a split: how many are expected, annotated and have a file training can use."""

    name: str
    expected: int | None
    annotated: int
    usable: int


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

    protocol = PROTOCOLS.get(settings.name)
    splits = {training: read_split(data, training=training) for training in (True, False)}
    videos = {video.name: video for split in splits.values() for video in split}
    known = set(read_annotations(data.annotations, as_published=data.as_published))
    paths = {name: path for name in videos if (path := find(name)) is not None}
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    present = [n for n in names if n.lower().endswith(suffixes) and not is_draft(n)]

    how = {"deep": deep, "channels": settings.detector.in_channels if features else None}
    examine = _examine_features if features else _examine_videos
    used = {path.name for path in paths.values()}
    if features:  # further views of a video lie beside its first
        stems = {path.stem for path in paths.values()}
        used |= {name for name in present if without_view(name) in stems}
    files = _examined(folder, sorted(used), how, partial(examine, workers=workers), progress)
    files, lengths = look_for.with_lengths(files, videos, paths, settings)

    findings = [
        *look_for.of_another_set(videos, paths, present),
        *look_for.further_below(folder, present, suffixes),
        *look_for.counts(protocol, splits, data.annotations),
        *look_for.missing(splits, paths, folder),
        *look_for.unusable(files),
        *look_for.misnamed(present, used, known, videos.keys() - paths.keys()),
        *look_for.unfinished(names),
        *look_for.half_converted(files, protocol),
        *lengths,
        *look_for.duplicates(folder, files, present, videos),
        *look_for.damaged(files),
    ]
    findings.sort(key=lambda finding: not finding.problem)
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


def _bytes(count: int) -> str:
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1024 and (larger := next(units, None)):
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"
