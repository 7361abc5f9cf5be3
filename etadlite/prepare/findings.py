"""What a check of a data set looks for: one function for each kind of finding."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from etadlite.base.errors import InputError, nearest
from etadlite.base.files import is_draft
from etadlite.base.names import Names, loosest
from etadlite.config import Settings
from etadlite.data.annotations import read_annotations
from etadlite.data.feature_archives import members
from etadlite.data.features import FEATURE_SUFFIXES, feature_files, stale_features
from etadlite.data.manifest import CheckedFile
from etadlite.data.no_video import why_no_video
from etadlite.data.split import read_split
from etadlite.data.video import Video
from etadlite.data.video_files import USUAL, video_files
from etadlite.prepare.boxes import not_followed

SHOWN = 3  # items of a finding that are printed
# A length is wrong if it differs by more than both; four videos of ActivityNet-1.3 do.
LENGTH_SECONDS, LENGTH_SHARE = 5.0, 0.2
COUNT_SHARE = 0.05  # of a protocol's videos may be missing or surplus: some have been withdrawn
SYSTEMATIC = 0.01  # wrong lengths are a problem from this share on, or if one is twice or half
REMARKABLE = 0.1  # seconds off an even clock
CONVERTED = (15, 256)  # rate and short side of videos, as published for end-to-end training


class Protocol(NamedTuple):
    """A data set with the splits on which published numbers are measured."""

    name: str
    videos: Mapping[str, int]  # number in each split, without those that are blocked in the test
    looks: str  # a pattern that the names of its videos match


ACTIVITYNET = Protocol("ActivityNet-1.3", {"training": 10_024, "test": 4_728}, r"(v_)?[\w-]{11}")
THUMOS = Protocol("THUMOS-14", {"training": 200, "test": 211}, r"video_(test|validation)_\d{7}")
PROTOCOLS = {  # of presets
    "anet_tsp": ACTIVITYNET,
    "e2e_anet_tsp": ACTIVITYNET,
    "thumos_i3d": THUMOS,
    "e2e_thumos_tsp": THUMOS,
}


class Finding(NamedTuple):
    """Something that was found about several items, and what to do."""

    what: str
    items: Sequence[str]
    remedy: str
    problem: bool = True  # training should not start before it is repaired; else it is a note


class DataFolder:
    """The folder of features or of videos that settings name, beside the annotations.

    Raises:
        InputError: the annotations cannot be read, or there is no such folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = data = settings.data
        folder = data.features or data.videos
        if folder is None:
            raise InputError("the settings name no data: give data.videos or data.features")
        one_file = data.features is not None and folder.is_file()
        if not (folder.is_dir() or one_file):
            raise InputError(
                f"{folder}: there is no such folder; get the data, or correct its name"
            )
        self.folder, self.is_features = folder, data.features is not None
        self.suffixes = FEATURE_SUFFIXES if self.is_features else tuple(USUAL)
        self.protocol = PROTOCOLS.get(settings.name)
        splits = {"training": True, "test": False}
        self.splits = {name: read_split(data, training=flag) for name, flag in splits.items()}
        self.videos = {video.name: video for split in self.splits.values() for video in split}
        find = feature_files if self.is_features else video_files
        # name of a video of a split -> its file; the first if there are two
        self.paths = {name: files[0] for name in self.videos if (files := find(folder, name))}
        if one_file:
            self.names = sorted(members(folder)[0])
        else:
            self.names = sorted(path.name for path in folder.iterdir() if path.is_file())
        finished = [name for name in self.names if not is_draft(name) and name[0] != "."]
        # name of a file without the suffix of a video -> why it is none; empty if it is one
        self.unusual = {
            name: why_no_video(folder / name)
            for name in finished
            if not (self.is_features or name.lower().endswith(self.suffixes))
        }
        self.present = [
            name
            for name in finished
            if one_file or name.lower().endswith(self.suffixes) or self.unusual.get(name) == ""
        ]
        self.used = {path.name for path in self.paths.values()}  # by annotated videos
        if self.is_features:  # further views lie beside the first
            stems = {path.stem for path in self.paths.values()}
            self.used |= {name for name in self.present if without_view(name) in stems}


def find_all(
    data: DataFolder, files: Mapping[str, CheckedFile]
) -> tuple[dict[str, CheckedFile], list[Finding]]:
    """Compare the opened files (by name) with the annotations and the protocol; problems first.

    In the files that are returned, a video that is cut off and too short has become unusable.
    """
    files, wrong_lengths = compare_lengths(data, files)
    found = [
        *other_data_set(data),
        *files_further_below(data),
        *wrong_counts(data),
        *missing_files(data),
        *broken_files(files),
        *features_of_other_videos(data),
        special_clocks(files),
        *wrong_names(data),
        *half_converted(data, files),
        double_files(data),
        equal_files(data, files),
        wrong_lengths,
    ]
    return files, sorted((f for f in found if f.items), key=lambda finding: not finding.problem)


def other_data_set(data: DataFolder) -> Iterator[Finding]:
    """Find that hardly any file belongs to an annotated video."""
    files, own = len(data.present), len(data.paths)
    if not files or own > 0.1 * min(len(data.videos), files):
        return
    stems = [without_view(name) for name in data.present]
    like = "no known data set has such names"
    for protocol in (ACTIVITYNET, THUMOS):
        if sum(bool(re.fullmatch(protocol.looks, stem)) for stem in stems) > 0.9 * files:
            like = f"the files look like those of {protocol.name}"
    item = f"{own:,} of {files:,} files belong to an annotated video, {like}"
    remedy = "give the folder of this data set, or the annotations of that one"
    yield Finding("another data set?", [item], remedy)


def files_further_below(data: DataFolder) -> Iterator[Finding]:
    """Find subfolders that contain the files, as archives often unpack them."""
    if not data.present:
        files = (p for p in data.folder.rglob("*") if p.name.lower().endswith(data.suffixes))
        below = Counter(path.parent for path in files).most_common()
        items = [f"{folder}: {count:,} files" for folder, count in below]
        remedy = "give that folder, or move its files up: subfolders are not searched"
        yield Finding("files in a folder below", items, remedy)


def wrong_counts(data: DataFolder) -> Iterator[Finding]:
    """Find more or fewer annotated videos than the protocol has."""
    if data.protocol is None:
        return
    items, far = [], False
    for split, expected in data.protocol.videos.items():
        count = len(data.splits[split])
        far = far or abs(count - expected) > COUNT_SHARE * expected
        if count != expected:
            items.append(
                f"{split}: {count:,} videos in {data.settings.annotations}, the protocol has "
                f"{expected:,}"
            )
    remedy = (
        "results on other videos can be compared with published ones only roughly; make sure that "
        "the annotations and data.blocked are the published ones"
    )
    yield Finding(f"counts differ from {data.protocol.name}'s", items, remedy, far)


def missing_files(data: DataFolder) -> Iterator[Finding]:
    """Find annotated videos without a file, and files that are not finished."""
    remedy = f"complete {data.folder}, or leave them out with data.allow_missing=true"
    for split, videos in data.splits.items():
        missing = [video.name for video in videos if video.name not in data.paths]
        yield Finding(f"{split} videos without a file", missing, remedy)
    unfinished = [name for name in data.names if is_draft(name)]
    remedy = "run what wrote them again; delete those that stay when nothing is running"
    yield Finding("unfinished files", unfinished, remedy)


def broken_files(files: Mapping[str, CheckedFile]) -> Iterator[Finding]:
    """Find files that cannot be read, have another shape, or are damaged."""
    broken = [file for file in files.values() if file.problem and not file.frames]
    unusable = [file.problem for file in broken if not file.wrong_shape]
    remedy = "get or make them again, or leave them out with data.allow_missing=true"
    yield Finding("unusable files", unusable, remedy)
    remedy = (
        "take the features that the preset is made for, set detector.in_channels to their width, "
        "or transpose them"
    )
    shapes = [file.problem for file in broken if file.wrong_shape]
    yield Finding("features of another shape", shapes, remedy)
    damaged = [f"{name}: {f.note}" for name, f in files.items() if f.note and not f.problem]
    remedy = "training uses what can be decoded of them"
    yield Finding("damaged files", damaged, remedy, problem=False)


def clock_in_words(video: Video) -> str:
    """Say what is special about the clock of a video; empty if it counts like frames."""
    said, info = [], video.info
    if info.start > REMARKABLE:
        said.append(f"its pictures start {info.start:.2f} s after its clock")
    if (off := video.timeline.uneven) > REMARKABLE:
        said.append(f"its frame rate varies, by up to {off:.1f} s")
    if restarts := video.timeline.restarts:
        said.append(f"its clock starts again {restarts} time{'s' * (restarts > 1)}")
    return ", ".join([*said, *not_followed(video.path)])


def features_of_other_videos(data: DataFolder) -> Iterator[Finding]:
    """Find features that were extracted from other versions of their videos."""
    videos = data.settings.videos
    if not data.is_features or videos is None or data.folder.is_file():
        return
    other, newer = stale_features(videos, [data.folder / name for name in sorted(data.used)])
    remedy = "run `etadlite extract` again, or leave data.videos out to use them as they are"
    yield Finding("features of other versions of their videos", other, remedy)
    remedy = "if the videos were changed, and not only copied, run `etadlite extract` again"
    what = "features extracted before their videos were copied or changed"
    yield Finding(what, newer, remedy, problem=False)


def special_clocks(files: Mapping[str, CheckedFile]) -> Finding:
    """Find videos whose rate varies, whose pictures start late, or whose clock starts again."""
    items = [f"{name}: {file.clock}" for name, file in files.items() if file.clock]
    remedy = "they are read by the time that players show; make sure that annotations use it, too"
    return Finding("clocks that count differently from frames", items, remedy, problem=False)


def wrong_names(data: DataFolder) -> Iterator[Finding]:
    """Find files without an annotated video; some may belong to a video without a file."""
    annotations, as_published = data.settings.annotations, data.settings.as_published
    known = Names(read_annotations(annotations, as_published=as_published))  # of all subsets
    by_key = {_key(name): name for name in data.videos.keys() - data.paths.keys()}
    near, far = [], []
    for name in data.present:
        stem = without_view(name)
        if name in data.used or known.like(stem):
            continue
        meant = by_key.get(_key(name))
        if meant is None and len(near) + len(far) < SHOWN:  # slow, so only if it is printed
            meant = by_key.get(nearest(_key(name), by_key, 0.8) or "")
        if meant:
            near.append(f"{name}: no video has this name; {meant} has no file")
        else:
            far.append(name)
    yield Finding("files of another name", near, "rename them to NAME + suffix")
    yield Finding("files nobody annotated", far, "they are not used", problem=False)
    why = [f"{name}: {reason}" for name, reason in data.unusual.items() if reason]
    yield Finding("files that are no videos", why, "they are not used", problem=False)


def half_converted(data: DataFolder, files: Mapping[str, CheckedFile]) -> Iterator[Finding]:
    """Find videos of another rate or size; ActivityNet's must be converted, others all or none."""
    rate, side = CONVERTED
    shapes = {n: (round(file.fps), file.short_side) for n, file in files.items() if file.fps}
    others = {name: shape for name, shape in shapes.items() if shape != CONVERTED}
    converted = len(shapes) - len(others)
    required = data.protocol is ACTIVITYNET
    if converted or required:
        yield Finding(
            "videos not converted",
            [f"{name}: {shape[0]} fps, short side {shape[1]}" for name, shape in others.items()],
            f"{converted:,} others have {rate} fps and a short side of {side}; finish "
            "data_scripts/convert_videos.py",
            problem=required or converted > len(others),
        )


def compare_lengths(
    data: DataFolder, files: Mapping[str, CheckedFile]
) -> tuple[dict[str, CheckedFile], Finding]:
    """Compare the lengths of files with the annotations; for the returned files see `find_all`."""
    annotated = {path.name: data.videos[name] for name, path in data.paths.items()}
    stride, checked = data.settings.window_stride, dict(files)
    good = {n: f for n, f in files.items() if n in annotated and not f.problem}
    rates = [
        file.frames / annotated[name].duration
        for name, file in good.items()
        if file.duration is None and annotated[name].duration > 0
    ]
    usual = median(rates) if rates else 0.0
    resized = len({file.frames for file in good.values()}) == 1
    wrong, compared = [], 0
    for name, file in good.items():
        video = annotated[name]
        if file.duration is not None:
            length, expected, unit = file.duration, video.duration, "s"
            slack = max(LENGTH_SECONDS, LENGTH_SHARE * expected)
        elif stride and video.frames:  # windows of features
            length, expected, unit = file.frames, -(-video.frames // stride), "features"
            slack = max(16, expected / 3)
        elif not resized and video.duration > 0:  # features per second, as of the other videos
            length, expected, unit = file.frames, round(usual * video.duration), "features"
            slack = max(LENGTH_SECONDS, expected / 3)
        else:
            continue
        compared += 1
        if abs(length - expected) > slack:
            item = f"{name}: {length:g} {unit}, annotated {expected:g}"
            wrong.append((max(length, expected) / max(1, min(length, expected)), item))
            if stride or (file.note and length < expected):
                checked[name] = replace(file, problem=f"{item}; {file.note or 'wrong stride?'}")
    wrong.sort(reverse=True)
    return checked, Finding(
        "wrong length",
        [item for _, item in wrong],
        "make sure that they are whole and of this data set, with the same stride or frame rate",
        problem=bool(stride) or len(wrong) > SYSTEMATIC * compared or any(r > 2 for r, _ in wrong),
    )


def double_files(data: DataFolder) -> Finding:
    """Find videos that have two files."""
    by_name = defaultdict(list)
    for name in data.present:
        by_name[loosest(Path(name).stem)].append(name)
    files = (by_name[loosest(name)] for name in data.videos)
    double = [" and ".join(names) for names in files if len(names) > 1]
    remedy = "keep one of each, so that it is clear which one is read"
    return Finding("videos with two files", double, remedy)


def equal_files(data: DataFolder, files: Mapping[str, CheckedFile]) -> Finding:
    """Find files with the same content but different names."""

    def middle(name: str) -> bytes:
        with (data.folder / name).open("rb") as file:
            file.seek(files[name].bytes // 2)
            return file.read(4096)

    def digest(name: str) -> bytes:
        with (data.folder / name).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    groups = [[name for name, file in files.items() if file.bytes]]
    for key in (lambda name: files[name].bytes, middle, digest):  # the cheapest comparison first
        parts = defaultdict(list)
        for number, group in enumerate(groups):
            for name in group:
                parts[number, key(name)].append(name)
        groups = [part for part in parts.values() if len(part) > 1]
    items = [" = ".join(group) for group in groups]
    remedy = "one of them may be wrong"
    return Finding("equal files under several names", items, remedy, problem=False)


def without_view(name: str) -> str:
    """Return the video's name in a file's name, without suffix and number of the view."""
    return re.sub(r"\.\d+$", "", Path(name).stem)


def _key(name: str) -> str:
    """Return a name without prefix, suffixes, upper case and separators, which are mixed up."""
    bare = re.sub(r"(\.(np[yz]|h5|hdf5|mp4|mkv|webm|avi|mov|\d+))+$", "", name)
    return re.sub(r"[\W_]", "", bare.removeprefix("v_").casefold())
