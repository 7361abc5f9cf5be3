"""Check the files of a data set against its annotations and its protocol."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ByteSize
from tqdm.auto import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import write_json
from etadlite.config import DataSettings, Settings
from etadlite.data.damage import damaged_frames
from etadlite.data.decoders import decode, with_doubts
from etadlite.data.features import FeatureShapeError, as_features, open_features
from etadlite.data.manifest import VERSION, CheckedFile, read_manifest
from etadlite.data.split import manifest_file
from etadlite.data.video import Video
from etadlite.prepare.findings import SHOWN, DataFolder, Finding, clock_in_words, find_all
from etadlite.prepare.isolated import in_processes
from etadlite.presets import PRESETS, preset

KEPT_EVERY = 60.0  # seconds after which results are written: a deep check may take hours
SECONDS_PER_VIDEO = {False: 120.0, True: 1800.0}  # time limit in a plain and in a deep check


class Split(NamedTuple):
    """A split: how many videos the protocol has, are annotated, and have a usable file."""

    name: str
    expected: int | None
    annotated: int
    usable: int


@dataclass(frozen=True)
class Checked:
    """The result of `check_data`."""

    folder: Path
    kind: str  # features or videos
    splits: Sequence[Split]
    findings: Sequence[Finding]  # problems first
    files: Mapping[str, CheckedFile]  # by name
    manifest: Path | None  # None if it cannot be written

    @property
    def sound(self) -> bool:
        """True if there are no problems."""
        return not any(finding.problem for finding in self.findings)

    def as_json(self) -> str:
        """Return the result as one JSON object."""
        size = sum(file.bytes for file in self.files.values())
        record = {"folder": str(self.folder), "kind": self.kind, "sound": self.sound}
        record |= {"files": len(self.files), "bytes": size}
        record["manifest"] = None if self.manifest is None else str(self.manifest)
        lists = {"splits": self.splits, "findings": self.findings}
        return json.dumps(record | {n: [i._asdict() for i in items] for n, items in lists.items()})

    def as_text(self) -> str:
        """Return the result as lines to print."""
        size = ByteSize(sum(file.bytes for file in self.files.values())).human_readable()
        lines = [f"{self.folder}: {len(self.files):,} files of {self.kind}, {size}", ""]
        lines.append(f"{'split':<12}{'expected':>10}{'annotated':>11}{'usable':>8}")
        for name, expected, annotated, usable in self.splits:
            count = "-" if expected is None else f"{expected:,}"
            lines.append(f"{name:<12}{count:>10}{annotated:>11,}{usable:>8,}")
        for finding in self.findings:
            kind = "PROBLEM" if finding.problem else "note"
            lines += ["", f"{kind:<8} {finding.what}: {len(finding.items):,}"]
            lines += [f"         {item}" for item in finding.items[:SHOWN]]
            if len(finding.items) > SHOWN:
                lines.append(f"         ... and {len(finding.items) - SHOWN:,} more")
            lines.append(f"         -> {finding.remedy}")
        manifest = f"manifest: {self.manifest}"
        if self.manifest is None:
            manifest = (
                f"no manifest: {manifest_file(self.folder)} cannot be written, so training does "
                "not know which files are broken until it opens them"
            )
        verdict = "the data are fit for training" if self.sound else "the data need mending"
        return "\n".join([*lines, "", manifest, verdict])


def check_data(
    settings: Settings, *, deep: bool = False, workers: int = 2, progress: bool = True
) -> Checked:
    """Check the folder of features or of videos that settings name, and write its manifest.

    Files that have not changed since the last check are not opened again. A deep check reads every
    value and decodes every frame, not only headers and packets. Workers are processes for videos,
    threads for features.

    Raises:
        InputError: the annotations cannot be read, or there is no folder to check.
    """
    data = DataFolder(settings)
    how = {"deep": deep, "channels": settings.detector.in_channels if data.is_features else None}
    files, findings = find_all(data, _examined(data, how, workers, progress))
    splits = []
    for name, videos in data.splits.items():
        paths = [data.paths[video.name] for video in videos if video.name in data.paths]
        usable = sum(not files[path.name].problem for path in paths)
        expected = data.protocol.videos[name] if data.protocol else None
        splits.append(Split(name, expected, len(videos), usable))
    manifest = None
    with suppress(OSError):
        manifest = write_manifest(data.folder, files, how, [f._asdict() for f in findings])
    kind = "features" if data.is_features else "videos"
    return Checked(data.folder, kind, splits, findings, files, manifest)


def settings_of(what: str, changes: Sequence[str] = ()) -> Settings:
    """Return the settings of a preset, of a file of settings, or of a folder; changed.

    Raises:
        InputError: there is none of that name, or a change does not fit.
    """
    if what not in PRESETS and Path(what).is_dir():
        return folder_settings(Path(what)).changed(changes)
    return preset(what, changes)


def folder_settings(root: Path) -> Settings:
    """Return the settings of a data set of your own: those that `etadlite init-dataset` wrote.

    Without ROOT/settings.json they are made for annotations.json and a folder videos or features.

    Raises:
        InputError: the folder has another layout.
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


def _examined(
    data: DataFolder, how: Mapping[str, Any], workers: int, progress: bool
) -> dict[str, CheckedFile]:
    """Return what each file holds, from an equal or deeper check before, or by opening it."""
    folder = data.folder
    before, checked = read_manifest(folder)
    comparable = checked.get("channels") == how["channels"]
    broken = {name: file for name, file in before.items() if file.problem and comparable}
    if checked not in (how, {**how, "deep": True}):
        before = {}
    files = {
        # A file that could be read may have a wrong length, which is compared anew.
        name: replace(file, problem="") if file.frames else file
        for name, file in before.items()
        if name in data.used and file.still_describes(folder / name) and not file.lost
    }
    rest = [folder / name for name in sorted(data.used - files.keys())]
    examine = examine_features if data.is_features else examine_videos
    silent = not (progress and rest)
    written = time.monotonic()
    opened = examine(rest, how, workers)
    for name, file in tqdm(opened, "check", len(rest), unit="file", disable=silent):
        files[name] = file
        if time.monotonic() - written > KEPT_EVERY:
            with suppress(OSError):
                write_manifest(folder, broken | files, how, [])
            written = time.monotonic()
    return files


def write_manifest(
    folder: Path, files: Mapping[str, CheckedFile], how: Mapping[str, Any], findings: list[Any]
) -> Path:
    """Write what was found about files (by name), and return the path of the manifest.

    `how` says what was checked: a check of another kind does not use the entries.
    """
    entries = {}
    for name in sorted(files):
        values = asdict(files[name]).items()
        entries[name] = {k: v for k, v in values if v not in (None, "") and v is not False}
    content = {"version": VERSION, "checked": dict(how), "findings": findings, "files": entries}
    path = manifest_file(folder)
    write_json(path, content)
    return path


def examine_features(
    paths: Sequence[Path], how: Mapping[str, Any], workers: int
) -> Iterator[tuple[str, CheckedFile]]:
    """Open feature files; yield their names and what they hold."""

    def examine(path: Path) -> tuple[str, CheckedFile]:
        file = _as_found(path)
        try:
            array = open_features(path, how["channels"])
            if how["deep"]:
                as_features(array, path)
        except InputError as error:
            wrong_shape = isinstance(error, FeatureShapeError)
            return path.name, replace(file, problem=str(error), wrong_shape=wrong_shape)
        return path.name, replace(file, frames=len(array))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        yield from pool.map(examine, paths)


def examine_videos(
    paths: Sequence[Path], how: Mapping[str, Any], workers: int
) -> Iterator[tuple[str, CheckedFile]]:
    """Open videos in processes of their own; yield their names and what they hold."""
    examine, seconds = partial(examine_video, deep=how["deep"]), SECONDS_PER_VIDEO[how["deep"]]
    for path, file, error in in_processes(examine, paths, workers=workers, seconds=seconds):
        problem = f"{path} cannot be read: {error}; copy or download the video again"
        yield path.name, file or replace(_as_found(path), problem=problem, lost=True)


def examine_video(path: Path, *, deep: bool = False) -> CheckedFile:
    """Return what a video file holds; one that cannot be read has a `problem`."""
    file = _as_found(path)
    try:
        video = Video(path)
        info, notes = video.info, [video.info.note]
        if deep:
            every = decode(path, video.timeline, np.arange(info.frames))
            marks = [(decoded.corrupt, decoded.doubted) for decoded in with_doubts(every)]
            if len(marks) < 2:
                raise InputError(f"{path}: none of its {info.frames} frames can be decoded")
            corrupt, behind = map(sum, zip(*marks, strict=True))
            notes.append(damaged_frames(info.frames - len(marks), corrupt, behind, info.frames))
    except InputError as error:
        return replace(file, problem=str(error))
    return replace(
        file,
        frames=info.frames,
        duration=round(info.duration, 3),
        fps=round(info.fps, 3),
        short_side=min(info.width, info.height),
        note="; ".join(filter(None, notes)),
        clock=clock_in_words(video),
    )


def _as_found(path: Path) -> CheckedFile:
    """Return a file's size and time of change; an array of an archive has no size of its own."""
    if path.parent.is_file():
        return CheckedFile(0, path.parent.stat().st_mtime_ns)
    stat = path.stat()
    return CheckedFile(stat.st_size, stat.st_mtime_ns)
