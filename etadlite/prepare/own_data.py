"""A data set of your own: check videos and annotations, split them, and choose settings."""

import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, log2
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from etadlite.base.errors import InputError, did_you_mean
from etadlite.base.files import write_json
from etadlite.base.names import Names
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.data.annotations import NOT_A_CLASS, TOLERANCE, Action
from etadlite.data.video import Video, VideoInfo
from etadlite.data.video_files import is_video
from etadlite.data.video_folders import videos_in
from etadlite.detector import valid_proposals
from etadlite.prepare.choose_encoder import TINY, Wish, choose
from etadlite.prepare.findings import LENGTH_SHARE, clock_in_words
from etadlite.prepare.importers import ImportedAction, read_rows
from etadlite.stickfigures.classes import FPS

SUBSETS = {"train": "training", "training": "training"} | dict.fromkeys(
    ("val", "valid", "validation", "test", "testing"), "validation"
)
# What the eye takes for the same in two names of classes: spaces, hyphens, signs of no width.
UNSEEN = re.compile(r"[\s_\-\u00ad\u200b-\u200f\u2060\ufeff]")
PROPOSALS = 400  # per video in a training of e2e_stickfigures
MOST_EPOCHS = 100


class Rules(NamedTuple):
    """Rules of thumb for an encoder, which this project found with its presets."""

    fewest: int  # snippets
    most: int
    steps: int  # of a training


STUDENTS = Wish(TINY)  # quick to train, as notebook 07 needs it
OF_TINY, OF_OTHERS = Rules(64, 256, 600), Rules(32, 128, 240)


@dataclass(frozen=True)
class ImportOptions:
    """How annotations are read and videos are split (unless the files name the subsets)."""

    validation: float = 0.25  # share of the videos that are kept for the test; see `split_videos`
    tier: str | None = None  # see `read_rows`
    fps: float | None = None  # frame rate of times in frames; None: each video's own
    skip: bool = False  # leave out what cannot be used, instead of refusing it
    encoder: Wish = STUDENTS  # Wish(): chosen by what this machine can do


class OwnVideo(NamedTuple):
    """A video of the data set; its actions are ordered by their start."""

    file: Video
    actions: tuple[Action, ...]
    subset: str

    @property
    def info(self) -> VideoInfo:
        """What the file holds."""
        return self.file.info


def init_dataset(
    folder: Path,
    annotations: Sequence[Path],
    out: Path,
    options: ImportOptions | None = None,
    *,
    seed: int = 0,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> dict[str, OwnVideo]:
    """Write annotations.json (ActivityNet structure) and settings.json; return videos by name.

    `folder` or its subfolder `videos` has the videos; annotations are files or folders in any
    format that `etadlite.prepare.importers` reads. The two files are written to `out`. The seed is
    that of the draw of the test videos. `log` gets problems, notes and a summary, line by line.

    Raises:
        InputError: something cannot be used, or the files exist without `overwrite`.
    """
    options = options or ImportOptions()
    targets = out / "annotations.json", out / "settings.json"
    existing = [path for path in targets if path.exists()]
    if existing and not overwrite:
        raise InputError(
            f"{existing[0]} exists: choose another --out, or replace it with --overwrite"
        )
    if {path.resolve() for path in existing} & {path.resolve() for path in annotations}:
        raise InputError(f"{existing[0]} would replace what is read: choose another --out")
    below = folder / "videos"
    is_below = below.is_dir() and not any(map(is_video, folder.iterdir()))
    files = videos_in(below if is_below else folder)
    rows = [row for path in annotations for row in read_rows(path, options.tier)]
    rows = _of_files(rows, files)
    opened, broken = _open_all(files, progress)
    found, wrong = _usable(rows, files, opened, options.fps)
    problems = broken + wrong
    for problem in problems:
        log(f"{'left out' if options.skip else 'wrong'}: {problem}")
    if problems and not options.skip:
        raise InputError(
            f"{len(problems)} annotations or videos cannot be used, as said above; correct them, "
            "or leave them out with --skip"
        )
    if not any(found.values()):
        raise InputError("no annotation is left that can be used")
    actions = {name: tuple(sorted(set(found[name]))) for name in sorted(found)}
    classes = {name: {action.label for action in own} for name, own in actions.items()}
    given = _given_subsets(rows, actions)
    subsets = given or split_videos(classes, options.validation, seed)
    videos = {name: OwnVideo(opened[name], actions[name], subsets[name]) for name in actions}
    notes = [*_repetitions(found, actions), *_notes(videos, files), *_other_videos(rows, videos)]
    if options.fps is None and any(row.in_frames for row in rows):
        notes.append(
            "times in frames are read at each video's own rate; if they were counted at another, "
            "such as Label Studio's frameRate (24 unless it is set), give it with --fps"
        )
    if not given and any(row.subset for row in rows if row.video in actions):
        notes.append(
            "the subsets of the annotations are not used: they do not put every video into either "
            "training or validation"
        )
    for note in notes:
        log(f"note: {note}")
    settings, reasons = settings_for(folder, videos, targets[0], options.encoder)
    write_json(targets[0], {"version": "etadlite 1", "database": _database(videos)})
    write_json(targets[1], settings.model_dump(mode="json"))
    for line in ["", *_summary(videos), "", *reasons]:
        log(line)
    return videos


def settings_for(
    folder: Path, videos: Mapping[str, OwnVideo], annotations: Path, encoder: Wish
) -> tuple[Settings, list[str]]:
    """Return settings fitted to a data set by this project's rules of thumb, and why.

    Raises:
        InputError: the encoder that is wished for cannot be used.
    """
    training = sum(video.subset == "training" for video in videos.values())
    reasons: list[str] = []

    def fit(base: Settings) -> Settings:
        fitted, reasons[:] = _fitted(base, folder, videos, annotations)
        return fitted

    settings, why = choose(fit, encoder, training)
    return settings, [why, *reasons]


def _fitted(
    base: Settings, folder: Path, videos: Mapping[str, OwnVideo], annotations: Path
) -> tuple[Settings, list[str]]:
    """Return settings of an encoder fitted to a data set, and why."""
    rules = OF_TINY if base.encoder.name == TINY else OF_OTHERS
    infos = [video.info for video in videos.values()]
    actions = [(action, video) for video in videos.values() for action in video.actions]
    longest = max(info.duration for info in infos)
    short = float(np.percentile([action.end - action.start for action, _ in actions], 10))
    wanted = 2 * longest / short
    snippets = min(max(2 ** ceil(log2(wanted)), rules.fewest), rules.most)
    share = max((action.end - action.start) / video.info.duration for action, video in actions)
    span = min(ceil(1.25 * share * snippets), snippets)
    proposals = len(valid_proposals(snippets, span))
    rate = statistics.median(info.fps for info in infos)
    step = max(1, round(base.data.frame_step * rate / FPS))
    training = sum(video.subset == "training" for video in videos.values())
    steps = ceil(training / base.training.batch_size)
    epochs = min(max(ceil(rules.steps / steps), base.training.epochs), MOST_EPOCHS)
    settings = base.changed(
        {
            "name": re.sub(r"[^\w-]+", "_", folder.resolve().name) or "own",
            "data.annotations": annotations.resolve(),
            "data.videos": next(iter(videos.values())).file.path.parent.resolve(),
            "data.cache": annotations.resolve().parent / "frames",
            "data.snippets": snippets,
            "data.frame_step": step,
            "data.flip": False,
            "detector.classes": tuple(sorted({action.label for action, _ in actions})),
            "detector.max_duration": span,
            "sampling.proposal_ratio": round(min(1.0, PROPOSALS / proposals), 4),
            "training.epochs": epochs,
            "training.test_every": ceil(epochs / 3),
        }
    )
    cached = snippets * base.data.frames * 3 * np.prod(base.data.decode_size) / 2**20
    seen = f"{rate:.3g} frames per second / {FPS} that the encoder has seen"
    if base.data.frame_step > 1:
        seen = f"{base.data.frame_step} x {rate:.3g} frames per second / {FPS}"
    lines = [
        f"data.snippets {snippets}: two for every {short:.2g} s (nine of ten actions are longer) "
        f"in {longest:.0f} s (the longest video) are {wanted:.0f}; the next power of two from "
        f"{rules.fewest} to {rules.most}",
        f"data.frame_step {step}: {seen}",
        f"detector.max_duration {span}: the longest action fills {share:.0%} of its video; "
        "a quarter more, in cells",
        f"training.epochs {epochs}: about {rules.steps} steps with {steps} per epoch, from "
        f"{base.training.epochs} to {MOST_EPOCHS} epochs",
        f"data.cache: decoded frames, {cached:.1f} MiB per video",
        "data.flip false: left and right may distinguish classes; data.flip=true if not",
    ]
    if wanted > 1.5 * rules.most:
        lines.append(
            "the videos are long for such short actions: cut them into pieces, or train with "
            "windows (data.window_stride=4 data.cache=null)"
        )
    return settings, lines


def split_videos(
    classes: Mapping[str, Collection[str]], share: float, seed: int = 0
) -> dict[str, str]:
    """Say which videos (names -> classes) are "training" and which "validation".

    The share of validation is drawn; the draw depends on the seed and the names, not on their
    order. Videos with most classes that validation lacks come first. A video with the last training
    example of a class is taken only if no other video is left. Each subset gets a video.

    Raises:
        InputError: there are fewer than two videos.
    """
    if len(classes) < 2:
        raise InputError(
            "a data set needs at least two annotated videos: one to train, one to test"
        )
    labels = {name: set(own) for name, own in classes.items()}
    order = sorted(labels)
    random.Random(seed).shuffle(order)
    count = min(max(1, round(share * len(order))), len(order) - 1)
    left = Counter(label for name in order for label in labels[name])  # in training
    lacking, chosen = set(left), set()
    while len(chosen) < count:
        rest = [name for name in order if name not in chosen]
        harmless = [name for name in rest if all(left[label] > 1 for label in labels[name])]
        name = max(harmless or rest[:1], key=lambda name: len(lacking & labels[name]))
        chosen.add(name)
        lacking -= labels[name]
        left.subtract(labels[name])
    return {name: "validation" if name in chosen else "training" for name in order}


def _open_all(files: Mapping[str, Path], progress: bool) -> tuple[dict[str, Video], list[str]]:
    """Return the videos that can be used, and what is wrong with the others."""
    opened, problems = {}, []
    bar = tqdm(files.items(), "videos", unit="video", disable=not progress, leave=False)
    for name, path in bar:
        try:
            video = Video(path)
            if video.info.note:
                raise InputError(f"{path}: {video.info.note}")
            opened[name] = video
        except InputError as error:
            problems.append(str(error))
    return opened, problems


def _of_files(rows: Sequence[ImportedAction], files: Mapping[str, Path]) -> list[ImportedAction]:
    """Return the rows with the names that their videos have among the files, in whatever form."""
    names = {path.name: name for name, path in files.items()} | {name: name for name in files}
    known, found = Names(names), []
    for row in rows:
        like = known.like(row.video) or known.like(row.also)
        meant = sorted({names[name] for name in like})
        if len(meant) == 1:
            row = replace(row, video=meant[0])  # noqa: PLW2901
        elif meant:
            problem = f'"{row.video}" may be {" or ".join(meant)}; rename one of them'
            row = replace(row, problem=row.problem or problem)  # noqa: PLW2901
        found.append(row)
    return found


def _usable(
    rows: Sequence[ImportedAction],
    files: Mapping[str, Path],
    opened: Mapping[str, Video],
    fps: float | None,
) -> tuple[dict[str, list[Action]], list[str]]:
    """Return the actions of every annotated video, and what is wrong with the other rows."""
    actions: dict[str, list[Action]] = {}
    problems = []
    for row in rows:
        video, action, problem = opened.get(row.video), None, row.problem
        if row.video in files and video is None:
            problem = f"its video {row.video} cannot be read"
        elif not problem and video is None:
            problem = f'there is no video "{row.video}"{did_you_mean(row.video, files)}'
        elif not problem and row.label:
            start, end = row.start, row.end
            if row.in_frames:
                start, end = (frame / fps if fps else _due(video, frame) for frame in (start, end))
            action = Action(start, end, row.label)
            problem = _misplaced(action, video.info.duration)
            if row.label in NOT_A_CLASS:
                problem = f'the label "{row.label}" stands for what is no class; rename it'
        if problem:
            problems.append(f"{row.where}: {problem}")
            continue
        found = actions.setdefault(row.video, [])
        if action is not None:
            found.append(action._replace(end=min(action.end, video.info.duration)))
    return actions, problems


def _due(video: Video, frame: float) -> float:
    """Return the second at which a frame is due; outside the video at the file's mean rate."""
    inside = min(max(frame, 0), video.info.frames)
    due = np.interp(inside, np.arange(len(video.times)), video.times)
    return float(due) + (frame - inside) / video.info.fps


def _misplaced(action: Action, duration: float) -> str:
    """Return what is wrong with an action's times; empty if nothing is."""
    start, end, label = action
    if start < 0:
        return f"{label} starts before the video, at {start:g} s"
    if end <= start:
        return f"{label} ends at {end:g} s, not after its start at {start:g} s"
    if end > duration + TOLERANCE or start >= duration:
        return f"{label} at {start:g}-{end:g} s lies beyond the video's end at {duration:.2f} s"
    return ""


def _given_subsets(rows: Sequence[ImportedAction], names: Collection[str]) -> dict[str, str]:
    """Return the subset of every video if the files give exactly one for each; else nothing."""
    given: dict[str, set[str]] = {name: set() for name in names}
    for row in rows:
        if row.video in given and row.subset:
            given[row.video].add(SUBSETS.get(row.subset.lower(), row.subset))
    subsets = {name: own.pop() for name, own in given.items() if len(own) == 1}
    complete = len(subsets) == len(given) and set(subsets.values()) == {"training", "validation"}
    return subsets if complete else {}


def _repetitions(
    found: Mapping[str, Sequence[Action]], kept: Mapping[str, Sequence[Action]]
) -> Iterator[str]:
    """Yield notes on annotations that occur twice or overlap another one of their class."""
    for name, actions in kept.items():
        if surplus := len(found[name]) - len(actions):
            yield f"{name}: {surplus} annotations occur twice; one of each is kept"
        for one, other in pairwise(sorted(actions, key=lambda action: action.label)):
            if one.label == other.label and other.start < one.end:
                yield (
                    f"{name}: {one.label} at {one.start:g}-{one.end:g} s and at "
                    f"{other.start:g}-{other.end:g} s overlap"
                )


def _notes(videos: Mapping[str, OwnVideo], files: Collection[str]) -> Iterator[str]:
    """Yield notes on classes and videos: no errors, but worth knowing."""
    for label, examples in _examples(videos).items():
        subsets = {subset for subset, _ in examples}
        if len(examples) == 1:
            yield f"{label} has one example; it cannot be both trained and tested"
        elif len(subsets) == 1:
            yield f"{label} occurs only in {subsets.pop()} videos"
    folded: dict[str, str] = {}
    for label in _examples(videos):
        other = folded.setdefault(UNSEEN.sub("", label.casefold()), label)
        if other != label:
            yield (
                f"{other} and {label} are two classes, which differ only in upper and lower case, "
                "spaces, hyphens or signs that are not seen"
            )
    empty = [name for name, video in videos.items() if not video.actions]
    if empty:
        names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        yield f"{len(empty)} of {len(videos)} videos are used as videos without any action: {names}"
    without = sorted(set(files) - videos.keys())
    if without:
        names = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        yield f"{len(without)} videos have no annotation and are left out: {names}"
    for name, video in videos.items():
        if said := clock_in_words(video.file):
            yield f"{name}: {said}; players' times are used"
    rates = [video.info.fps for video in videos.values()]
    if max(rates) > 1.1 * min(rates):
        yield (
            f"the videos have {min(rates):.3g} to {max(rates):.3g} frames per second: motion looks "
            "faster in some; convert them to one rate"
        )


def _other_videos(rows: Sequence[ImportedAction], videos: Mapping[str, OwnVideo]) -> Iterator[str]:
    """Yield notes on videos that the annotations say to have another length, or two folders."""
    folders: dict[str, dict[str, None]] = {name: {} for name in videos}
    for row in rows:
        if row.folder and row.video in folders:
            folders[row.video][row.folder] = None
    for name, given in folders.items():
        if len(given) > 1:
            yield (
                f"{name} has annotations of a video in {' and of one in '.join(given)}: make sure "
                "that they are the same video"
            )
    lengths = {row.video: row.lasts for row in rows if row.video in videos}
    for name, lasts in lengths.items():
        own = videos[name].info.duration
        if abs(lasts - own) > TOLERANCE + LENGTH_SHARE * own:
            yield (
                f"{name} lasts {own:.1f} s, but {lasts:.1f} s in the annotations: make sure that "
                "they were made on this file"
            )


def _examples(videos: Mapping[str, OwnVideo]) -> dict[str, list[tuple[str, float]]]:
    """Return the classes, sorted, with the subset and the seconds of each of their actions."""
    examples = defaultdict(list)
    for video in videos.values():
        for start, end, label in video.actions:
            examples[label].append((video.subset, end - start))
    return dict(sorted(examples.items()))


def _database(videos: Mapping[str, OwnVideo]) -> dict[str, object]:
    return {
        name: {
            "subset": video.subset,
            "duration": video.info.duration,
            "frame": video.file.count,
            "annotations": [{"segment": [a.start, a.end], "label": a.label} for a in video.actions],
        }
        for name, video in videos.items()
    }


def _summary(videos: Mapping[str, OwnVideo]) -> list[str]:
    """Return the size of the data set, and a table of its classes, as lines."""
    sides = Counter(video.subset for video in videos.values())
    durations = [video.info.duration for video in videos.values()]
    head = (
        f"{len(videos)} videos ({sides['training']} training, {sides['validation']} validation), "
        f"{sum(durations) / 60:.1f} minutes, {min(durations):.0f} to {max(durations):.0f} s each"
    )
    rows = [["class", "training", "validation", "median s", "shortest", "longest"]]
    for label, examples in _examples(videos).items():
        subsets, seconds = zip(*examples, strict=True)
        counts = [str(subsets.count(subset)) for subset in ("training", "validation")]
        numbers = statistics.median(seconds), min(seconds), max(seconds)
        rows.append([label, *counts, *(f"{number:.1f}" for number in numbers)])
    return [head, "", *aligned(rows).splitlines()]
