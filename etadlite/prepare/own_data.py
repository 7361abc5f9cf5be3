"""A data set of one's own: videos and annotations are checked, split, and given settings."""

import difflib
import random
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2
from pathlib import Path

import numpy as np
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import write_json
from etadlite.base.tables import aligned
from etadlite.config import Settings
from etadlite.data.annotations import TOLERANCE, Action
from etadlite.data.split import is_video
from etadlite.data.video import Video, VideoInfo
from etadlite.detector import valid_proposals
from etadlite.inference.predict import UNEVEN
from etadlite.prepare.importers import ImportedAction, read_rows
from etadlite.presets import e2e_stickfigures
from etadlite.stickfigures.classes import FPS

SUBSETS = {"train": "training", "training": "training"} | dict.fromkeys(
    ("val", "valid", "validation", "test", "testing"), "validation"
)
FEWEST_SNIPPETS, MOST_SNIPPETS = 64, 256
STEPS = 600  # that e2e_stickfigures trains
PROPOSALS = 400  # that it trains a video
MOST_EPOCHS = 100


@dataclass(frozen=True)
class OwnVideo:
    """A video of the data set.

    Attributes:
        file: the opened video.
        actions: by their start.
        subset: "training" or "validation".
    """

    file: Video
    actions: tuple[Action, ...]
    subset: str

    @property
    def info(self) -> VideoInfo:
        return self.file.info


def init_dataset(
    folder: Path,
    annotations: Sequence[Path],
    out: Path,
    *,
    validation: float = 0.25,
    seed: int = 0,
    tier: str | None = None,
    fps: float | None = None,
    skip: bool = False,
    overwrite: bool = False,
    log: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> dict[str, OwnVideo]:
    """Start a data set: OUT/annotations.json (ActivityNet structure) and OUT/settings.json.

    Args:
        folder: of the videos, or the folder whose `videos/` has them.
        annotations: files or folders of any form that `etadlite.prepare.importers` reads.
        out: where the two files go.
        validation: share of the videos that are kept to test; they are drawn so that as many
            classes as possible occur in both subsets. Not used where the files give subsets.
        seed: of that draw.
        tier: see `read_rows`.
        fps: frames a second of times given in frames; by default each video's own.
        skip: leave out annotations and videos that cannot be used, instead of refusing them.
        overwrite: replace the two files.
        log: called with every finding, and at the end with what was found, line by line.
        progress: show a bar.

    Returns:
        The videos by name.

    Raises:
        InputError: something cannot be used, or the files are there already.
    """
    targets = out / "annotations.json", out / "settings.json"
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]} exists: choose another --out, or replace it with --overwrite")
    if {path.resolve() for path in there} & {path.resolve() for path in annotations}:
        raise InputError(f"{there[0]} is what is read: choose another --out")
    files = _video_files(folder)
    rows = [row for path in annotations for row in read_rows(path, tier)]
    problems: list[str] = []
    opened = _open_all(files, problems, progress=progress)
    actions = _usable(rows, files, opened, fps, problems)
    for problem in problems:
        log(f"{'left out' if skip else 'wrong'}: {problem}")
    if problems and not skip:
        raise InputError(
            f"{len(problems)} annotations or videos cannot be used, as said above; correct them, "
            "or leave them out with --skip"
        )
    actions = {name: _without_copies(name, found, log) for name, found in actions.items()}
    chosen = _subsets(rows, actions, log) or _draw_subsets(actions, validation, seed)
    videos = {n: OwnVideo(opened[n], tuple(actions[n]), chosen[n]) for n in sorted(actions)}
    _remark(videos, files, log)
    settings, arithmetic = settings_for(folder, videos, targets[0])
    write_json(targets[0], {"version": "etadlite 1", "database": _database(videos)})
    write_json(targets[1], settings.model_dump(mode="json"))
    log("")
    for line in [*_in_words(videos), "", *arithmetic]:
        log(line)
    return videos


def settings_for(
    folder: Path, videos: Mapping[str, OwnVideo], annotations: Path
) -> tuple[Settings, list[str]]:
    """The settings of `e2e_stickfigures` fitted to a data set (this project's rules of thumb).

    Returns:
        The settings, and lines that say how the numbers came about.
    """
    base = e2e_stickfigures()
    infos = [video.info for video in videos.values()]
    lengths = [a.end - a.start for video in videos.values() for a in video.actions]
    longest, short = max(info.duration for info in infos), float(np.percentile(lengths, 10))
    wanted = 2 * longest / short
    snippets = min(max(2 ** ceil(log2(wanted)), FEWEST_SNIPPETS), MOST_SNIPPETS)
    share = max(
        (a.end - a.start) / video.info.duration for video in videos.values() for a in video.actions
    )
    span = min(ceil(1.25 * share * snippets), snippets)
    proposals = len(valid_proposals(snippets, span))
    rate = statistics.median(info.fps for info in infos)
    step = max(1, round(rate / FPS))
    training = sum(video.subset == "training" for video in videos.values())
    steps = ceil(training / base.training.batch_size)
    epochs = min(max(ceil(STEPS / steps), base.training.epochs), MOST_EPOCHS)
    data = {
        "annotations": annotations.resolve(),
        "videos": next(iter(videos.values())).file.path.parent.resolve(),
        "cache": annotations.resolve().parent / "frames",
        "snippets": snippets,
        "frame_step": step,
    }
    labels = tuple(sorted({a.label for video in videos.values() for a in video.actions}))
    settings = base.model_copy(
        update={
            "name": re.sub(r"[^\w-]+", "_", folder.resolve().name) or "own",
            "data": base.data.model_copy(update=data),
            "detector": base.detector.model_copy(update={"classes": labels, "max_duration": span}),
            "sampling": base.sampling.model_copy(
                update={"proposal_ratio": round(min(1.0, PROPOSALS / proposals), 4)}
            ),
            "training": base.training.model_copy(
                update={"epochs": epochs, "test_every": ceil(epochs / 3)}
            ),
        }
    )
    cached = snippets * base.data.frames * 3 * np.prod(base.data.decode_size) / 2**20
    lines = [
        f"data.snippets {snippets}: two for each {short:.2g} s (nine of ten actions are longer) of "
        f"{longest:.0f} s (longest video) make {wanted:.0f}; a power of two from "
        f"{FEWEST_SNIPPETS} to {MOST_SNIPPETS}",
        f"data.frame_step {step}: {rate:.3g} frames a second / {FPS} that the encoder has seen",
        f"detector.max_duration {span}: the longest action fills {share:.0%} of its video, "
        "a quarter more in cells",
        f"training.epochs {epochs}: about {STEPS} steps at {steps} an epoch, "
        f"{base.training.epochs} to {MOST_EPOCHS}",
        f"data.cache: decoded frames, {cached:.1f} MiB a video",
        "data.flip false: left and right may tell classes apart; data.flip=true if not",
    ]
    if wanted > 1.5 * MOST_SNIPPETS:
        lines.append(
            "the videos are long for such short actions: cut them into pieces, or train with "
            "windows (data.window_stride=4 data.cache=null)"
        )
    return settings, lines


def split_videos(
    classes: Mapping[str, Collection[str]], share: float, seed: int = 0
) -> dict[str, str]:
    """Draw the validation videos, the same for the same seed whatever the order.

    Videos that bring a class that validation lacks come first, and none takes the last training
    video of a class as long as there are others.

    Args:
        classes: video -> its classes.
        share: of the videos; one at least goes to either side.
        seed: of the draw.

    Returns:
        Video -> "training" or "validation".

    Raises:
        InputError: there are less than two videos.
    """
    if len(classes) < 2:
        raise InputError(
            "a data set needs two annotated videos at least: one to train, one to test"
        )
    labels = {name: set(classes[name]) for name in classes}
    order = sorted(labels)
    random.Random(seed).shuffle(order)
    count = min(max(1, round(share * len(order))), len(order) - 1)
    left = Counter(label for name in order for label in labels[name])  # training videos
    missing, chosen = set(left), set()

    def harmless(name: str) -> bool:
        return all(left[label] > 1 for label in labels[name])

    def move(name: str) -> None:
        chosen.add(name)
        missing.difference_update(labels[name])
        left.subtract(labels[name])

    while len(chosen) < count:
        useful = [n for n in order if n not in chosen and harmless(n) and missing & labels[n]]
        if not useful:
            break
        move(max(useful, key=lambda name: len(missing & labels[name])))
    for kind in (harmless, lambda name: True):
        for name in order:
            if len(chosen) < count and name not in chosen and kind(name):
                move(name)
    return {name: "validation" if name in chosen else "training" for name in order}


def _video_files(folder: Path) -> dict[str, Path]:
    """The videos of a folder, or of its `videos/`, by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    for place in (folder, folder / "videos"):
        paths = sorted(filter(is_video, place.iterdir())) if place.is_dir() else []
        files: dict[str, Path] = {}
        for path in paths:
            if path.stem in files:
                raise InputError(f"{files[path.stem]} and {path} have one name; rename one of them")
            files[path.stem] = path
        if files:
            return files
    raise InputError(f"{folder} holds no video file, nor does {folder / 'videos'}")


def _open_all(
    files: Mapping[str, Path], problems: list[str], *, progress: bool
) -> dict[str, Video]:
    """Open the videos that can be used; what is wrong with others is added to the problems."""
    opened = {}
    for name, path in tqdm(
        files.items(), desc="videos", unit="video", disable=not progress, leave=False
    ):
        try:
            video = Video(path)
        except InputError as error:
            problems.append(str(error))
        else:
            if video.info.note:
                problems.append(f"{path}: {video.info.note}")
            else:
                opened[name] = video
    return opened


def _usable(
    rows: Sequence[ImportedAction],
    files: Mapping[str, Path],
    opened: Mapping[str, Video],
    fps: float | None,
    problems: list[str],
) -> dict[str, list[Action]]:
    """The actions of every annotated video; what is wrong with others is added to the problems."""
    actions: dict[str, list[Action]] = {}
    for row in rows:
        if row.video in files and row.video not in opened:
            problems.append(f"{row.where}: its video {row.video} cannot be read")
            continue
        wrong = row.problem
        if not wrong and row.video not in files:
            near = difflib.get_close_matches(row.video, files, n=1)
            hint = f'; is it "{near[0]}"?' if near else ""
            wrong = f'there is no video "{row.video}"{hint}'
        if not wrong and row.label:
            rate = (fps or opened[row.video].info.fps) if row.in_frames else 1.0
            action = Action(row.start / rate, row.end / rate, row.label)
            wrong = _misplaced(action, opened[row.video].info.duration)
        if wrong:
            problems.append(f"{row.where}: {wrong}")
            continue
        found = actions.setdefault(row.video, [])
        if row.label:
            end = min(action.end, opened[row.video].info.duration)
            found.append(action._replace(end=end))
    return actions


def _misplaced(action: Action, duration: float) -> str:
    """What is wrong with where an action lies; empty if nothing."""
    start, end, label = action
    if start < 0:
        return f"{label} starts before the video, at {start:g} s"
    if end <= start:
        return f"{label} ends at {end:g} s, not after its start at {start:g} s"
    if end > duration + TOLERANCE or start >= duration:
        return f"{label} at {start:g}-{end:g} s lies beyond the video's end at {duration:.2f} s"
    return ""


def _without_copies(
    name: str, actions: Sequence[Action], log: Callable[[str], None]
) -> list[Action]:
    """Actions by their start, each once; those of one class that overlap are said."""
    kept = sorted(set(actions))
    if len(kept) < len(actions):
        log(f"note: {name}: {len(actions) - len(kept)} annotations are there twice; one is kept")
    by_label = defaultdict(list)
    for action in kept:
        by_label[action.label].append(action)
    for label, same in by_label.items():
        for one, other in pairwise(same):
            if other.start < one.end:
                log(
                    f"note: {name}: {label} at {one.start:g}-{one.end:g} s and at "
                    f"{other.start:g}-{other.end:g} s overlap"
                )
    return kept


def _subsets(
    rows: Sequence[ImportedAction], actions: Mapping[str, object], log: Callable[[str], None]
) -> dict[str, str]:
    """The subsets that the files give, if they give one for every video; else nothing."""
    given: dict[str, set[str]] = {name: set() for name in actions}
    for row in rows:
        if row.video in given and row.subset:
            given[row.video].add(SUBSETS.get(row.subset.lower(), row.subset))
    if not any(given.values()):
        return {}
    told = {name: next(iter(names)) for name, names in given.items() if len(names) == 1}
    if len(told) == len(given) and set(told.values()) == {"training", "validation"}:
        return told
    log(
        "note: the subsets of the annotations are not used: they do not put every video into "
        "either training or validation"
    )
    return {}


def _draw_subsets(
    actions: Mapping[str, Sequence[Action]], share: float, seed: int
) -> dict[str, str]:
    return split_videos({n: {a.label for a in found} for n, found in actions.items()}, share, seed)


def _remark(
    videos: Mapping[str, OwnVideo], files: Mapping[str, Path], log: Callable[[str], None]
) -> None:
    """Say what is no error but worth knowing."""
    count = Counter(a.label for video in videos.values() for a in video.actions)
    if not count:
        raise InputError("no annotation is left that can be used")
    for label in sorted(count):
        inside = {v.subset for v in videos.values() if any(a.label == label for a in v.actions)}
        if count[label] == 1:
            log(f"note: {label} has one example; it cannot be both trained and tested")
        elif len(inside) == 1:
            log(f"note: {label} occurs in {inside.pop()} videos alone")
    without = sorted(files.keys() - videos.keys())
    if without:
        names = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        log(f"note: {len(without)} videos have no annotation and are left out: {names}")
    for name, video in videos.items():
        if (off := video.file.unevenness) > UNEVEN:
            log(
                f"note: {name}: its frame rate varies, by up to {off:.1f} s; convert it to a "
                "constant rate, or its actions are learnt that far off"
            )
    rates = [video.info.fps for video in videos.values()]
    if max(rates) > 1.1 * min(rates):
        log(
            f"note: the videos have {min(rates):.3g} to {max(rates):.3g} frames a second: motion "
            "looks faster in some; convert them to one rate"
        )


def _database(videos: Mapping[str, OwnVideo]) -> dict[str, object]:
    return {
        name: {
            "subset": video.subset,
            "duration": video.info.duration,
            "frame": video.info.frames,
            "annotations": [{"segment": [a.start, a.end], "label": a.label} for a in video.actions],
        }
        for name, video in videos.items()
    }


def _in_words(videos: Mapping[str, OwnVideo]) -> list[str]:
    """What was found, as a short table."""
    infos = [video.info for video in videos.values()]
    sides = Counter(video.subset for video in videos.values())
    durations = [info.duration for info in infos]
    head = (
        f"{len(videos)} videos ({sides['training']} training, {sides['validation']} validation), "
        f"{sum(durations) / 60:.1f} minutes, {min(durations):.0f} to {max(durations):.0f} s each"
    )
    rows = [["class", "training", "validation", "median s", "shortest", "longest"]]
    for label in sorted({a.label for video in videos.values() for a in video.actions}):
        lengths = [a.end - a.start for v in videos.values() for a in v.actions if a.label == label]
        counts = [
            sum(a.label == label for v in videos.values() if v.subset == side for a in v.actions)
            for side in ("training", "validation")
        ]
        numbers = statistics.median(lengths), min(lengths), max(lengths)
        rows.append([label, *map(str, counts), *(f"{number:.1f}" for number in numbers)])
    return [head, "", *aligned(rows).splitlines()]
