"""Make data to rehearse a training on: real annotations, generated features or videos.

    python data_scripts/make_rehearsal.py anet_tsp rehearsal --annotations FOLDER
    cd rehearsal && etadlite train anet_tsp

FOLDER holds the downloaded annotation files of the data set. In the folder `rehearsal` every file
lies where the preset looks for it, in the published layout, so the commands are those of the real
training. The same seed makes the same data on every machine. At the end the script prints the mAP
of a detector that predicts the same for every video.

Features (`anet_tsp`, `thumos_i3d`) are sums of a constant of the video, slow changes, noise, and
directions that carry the annotations: one for all actions, one for each class, one for starts and
one for ends. Annotations are slightly wrong, events without an action have parts of these
directions too, and some actions are hardly visible.

Videos (`e2e_anet_tsp`, `e2e_thumos_tsp`) show stick figures that act during the annotated actions;
class k is shown as the (k mod 8)th of their eight actions. Without --videos all hours of a data set
are rendered, so choose a number of videos, and a small --side.
"""

import os
import shlex
import sys
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json, written_whole
from etadlite.base.segments import tiou as overlap_of
from etadlite.config import Settings
from etadlite.data.annotations import NOT_A_CLASS, VideoAnnotation, labels_of, read_annotations
from etadlite.data.split import read_split
from etadlite.inference.classifiers import classes_of_videos
from etadlite.inference.nms import soft_nms
from etadlite.presets import home, placed, preset
from etadlite.runs.testing import evaluate
from etadlite.stickfigures.classes import CLASSES, FPS
from etadlite.stickfigures.dataset import write_video
from etadlite.stickfigures.motion import plan_timeline
from etadlite.stickfigures.scene import TARGET, render

VERSION = "rehearsal-2"
"""It changes whenever the same seed gives other data."""

SOURCES = {
    "anet_tsp": ("activity_net.v1-3*.json", "blocked.json"),
    "thumos_i3d": ("thumos_14_anno.json", "uNet_test.npy"),
}
SOURCES |= {"e2e_anet_tsp": SOURCES["anet_tsp"], "e2e_thumos_tsp": SOURCES["thumos_i3d"]}
"""Preset -> the files that it needs from `--annotations`; the annotations come first."""

ON_CPU = (
    "encoder.name=tiny",
    "encoder.weights=null",
    "encoder.frozen_stages=0",
    "encoder.chunk_size=16",
    "detector.in_channels=48",
    "data.snippets=64",
    "data.frames=8",
    "data.decode_size=[52,52]",
    "data.crop=48",
    "training.encoder_lr=5e-4",
    "training.detector_lr=1e-3",
    "training.clip_norm=10",
)
"""Changes that make a training on videos small enough for a laptop, with the tiny encoder."""

ON_CPU_IN_WINDOWS = ("data.window_stride=8", "detector.max_duration=32")
"""Further changes for windows: half as many snippets cover the published length."""

ACTING, CLASS, BOUNDARY = 1.2, 0.8, 2.0
"""Lengths of the directions that carry the annotations; noise has length 1 in each direction."""

STRENGTH = 1.5
"""Factor for all of these lengths: the larger, the easier the task."""

SLOW = 8
"""Number of directions in which a video changes slowly."""


def main(
    name: Annotated[str, typer.Argument(metavar="PRESET", help=", ".join(SOURCES))],
    root: Annotated[Path, typer.Argument(help="Folder to train in.")],
    *,
    annotations: Annotated[Path, typer.Option(help="Folder of the downloaded annotations.")],
    videos: Annotated[int | None, typer.Option(min=4, help="Their number; default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    side: Annotated[int, typer.Option(min=32, help="Height and width of videos.")] = 256,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one per core.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Make the rehearsal of a preset."""
    try:
        settings = preset(name)
        more = {"side": side, "workers": workers, "progress": progress}
        make(settings, root, annotations, videos, seed, **more)
        reached = chance(below(root, settings))
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"a detector that predicts the same for every video: average mAP {100 * reached:.1f} %")
    print(f"cd {root} && etadlite train {name}")
    data = settings.data
    if data.videos is not None:
        changes = ON_CPU if data.window_stride is None else (*ON_CPU, *ON_CPU_IN_WINDOWS)
        print(f"or, without a GPU: etadlite train {name} {' '.join(map(shlex.quote, changes))}")


def make(
    settings: Settings,
    root: Path,
    annotations: Path,
    videos: int | None = None,
    seed: int = 0,
    *,
    side: int = 256,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write the files of a preset below `root`; existing files are kept.

    Args:
        settings: those of the preset, with or without changes.
        root: where everything is written.
        annotations: folder of the downloaded annotations.
        videos: number of videos; None: all.
        seed: seed of everything.
        side: height and width of videos in pixels.
        workers: processes; None: one per core.
        progress: show a bar.

    Raises:
        InputError: the preset has no rehearsal, the annotations are missing, or the folder holds
            another rehearsal.
    """
    name = settings.name
    if name not in SOURCES:
        raise InputError(f"there is no rehearsal of {name}; choose one of {', '.join(SOURCES)}")
    made = {"version": VERSION, "preset": name, "seed": seed, "videos": videos, "side": side}
    claim = root / "rehearsal.json"
    if claim.exists() and read_json(claim, "rehearsal") != made:
        raise InputError(f"{root} holds another rehearsal (see {claim}); choose another folder")
    settings = below(root, settings)
    source, beside = (found(annotations, pattern) for pattern in SOURCES[name])
    database = read_json(source, "annotation file")["database"]
    filmed = settings.data.videos is not None
    chosen = choose(database, videos, seed)
    write_json(claim, made)
    write_json(settings.data.annotations, {"version": VERSION, "database": chosen})
    everything = read_annotations(source, ignore=NOT_A_CLASS, as_published=True)
    labels, read = labels_of(everything), {name: everything[name] for name in chosen}
    if settings.data.window_stride is None:
        copy(beside, settings.data.blocked)
        tested = read_split(settings.data, training=False)
        write_classifier(settings.inference.classifier, tested, labels, seed)
    else:
        copy(beside, settings.inference.classifier)
    prefix = "v_" if settings.data.window_stride is None else ""
    if filmed:
        film = partial(write_film, rate=FPS if prefix else 2 * FPS, side=side, labels=labels)
        folder, suffix, write = settings.data.videos, "mp4", partial(film, seed=seed)
    else:
        folder, suffix = settings.data.features, "npy"
        write = partial(write_features, settings=settings, labels=labels, seed=seed)
    targets = {folder / f"{prefix}{video.name}.{suffix}": video for video in read.values()}
    jobs = [(path, video) for path, video in targets.items() if not path.exists()]
    in_processes(write, jobs, workers or os.cpu_count() or 1, title=name, progress=progress)


def below(root: Path, settings: Settings) -> Settings:
    """Return the settings with all their data below `root`."""
    return placed(settings, root / home(settings))


def found(folder: Path, pattern: str) -> Path:
    files = sorted(folder.rglob(pattern))
    if not files:
        raise InputError(f"{folder} holds no {pattern}; download the annotations first")
    return files[0]


def copy(source: Path, target: Path) -> None:
    with written_whole(target) as draft:
        draft.write_bytes(source.read_bytes())


def choose(database: dict[str, Any], count: int | None, seed: int) -> dict[str, Any]:
    """Draw a number of videos in total, from each subset in proportion to its size."""
    if count is None:
        return database
    chosen: list[str] = []
    chance = np.random.default_rng(seed)
    for subset in ("training", "validation"):
        names = [k for k, v in database.items() if v["subset"] == subset and v["annotations"]]
        share = max(2, round(count * len(names) / len(database)))
        chosen += chance.permutation(names)[:share].tolist()
    return {name: database[name] for name in sorted(chosen, key=list(database).index)}


def in_processes(
    write: Callable[..., None],
    jobs: Sequence[tuple[Path, VideoAnnotation]],
    workers: int,
    *,
    title: str,
    progress: bool,
) -> None:
    with tqdm(total=len(jobs), desc=title, unit="file", disable=not progress) as bar:
        if workers == 1 or len(jobs) < 2:
            for job in jobs:
                write(*job)
                bar.update()
            return
        with ProcessPoolExecutor(workers) as pool:
            for _ in pool.map(write, *zip(*jobs, strict=True), chunksize=8):
                bar.update()


def chance_of(seed: int, name: str) -> np.random.Generator:
    """Return a generator that depends only on the seed and a video's name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


# Features


def write_features(
    path: Path, video: VideoAnnotation, *, settings: Settings, labels: Sequence[str], seed: int
) -> None:
    """Write a video's features, float32 [T, C]."""
    if settings.data.window_stride is None:  # TSP: clips of 16 frames without gaps, at 15 fps
        rate, stride = 15.0, 16
        rows = int(video.duration * rate) // stride
    else:  # I3D: clips of 16 frames at the video's own rate
        rate, stride = video.frames / video.duration, settings.data.window_stride
        rows = (video.frames - 16) // stride + 1
    first = np.arange(max(rows, 1)) * (stride / rate)
    values = features(
        np.stack([first, first + 16 / rate], axis=1),
        video,
        labels,
        settings.detector.in_channels,
        seed,
    )
    with written_whole(path) as draft:
        np.save(draft, values)


def features(
    clips: np.ndarray, video: VideoAnnotation, labels: Sequence[str], channels: int, seed: int
) -> np.ndarray:
    """Return the features of a video, float32 [T, C]; see the top of this file.

    Args:
        clips: [T, 2] start and end of each feature's clip, in seconds.
        video: its annotation.
        labels: all classes.
        channels: C.
        seed: seed of everything.
    """
    directions = unit_vectors(len(labels) + 4 + SLOW, channels, seed)
    acting, start, end, still = directions[:4]
    slow, of_class = directions[4 : 4 + SLOW], directions[4 + SLOW :]
    chance = chance_of(seed, video.name)
    length = float(clips[-1, 1])

    def share(first: float, last: float) -> np.ndarray:
        """Return the share of each clip that lies between two moments."""
        inside = np.minimum(clips[:, 1], last) - np.maximum(clips[:, 0], first)
        return (inside.clip(0) / (clips[:, 1] - clips[:, 0])).astype("float32")

    def around(moment: float, width: float) -> np.ndarray:
        return np.exp(-(((clips.mean(1) - moment) / width) ** 2)).astype("float32")

    rows = len(clips)
    values = chance.standard_normal((rows, channels), dtype="float32")
    values += 0.5 * chance.standard_normal(channels, dtype="float32")
    steps = chance.standard_normal((rows, SLOW), dtype="float32")
    values += (0.3 * np.cumsum(steps, axis=0)).clip(-4, 4) @ slow
    # Pairs of strengths [T] and a direction [C]: one small matrix product adds them all.
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for first, last, label in video.actions:
        lasts = last - first
        blur = min(0.05 * lasts, 1.0)
        first, last = np.array([first, last]) + blur * chance.standard_normal(2)  # noqa: PLW2901
        shown = chance.uniform(0.2, 1.8)
        width = np.clip(0.1 * lasts, 0.5, 4.0)
        inside = share(first, max(last, first)) * shown
        what = ACTING * acting + CLASS * of_class[labels.index(label)]
        parts += [
            (inside, what),
            (around(first, width) * shown, BOUNDARY * start),
            (around(last, width) * shown, BOUNDARY * end),
        ]
    for _ in range(chance.poisson(2 + length / 60)):  # events that look like actions but are none
        moment, lasts = chance.uniform(0, length), chance.exponential(length / 15)
        where = share(moment - lasts / 2, moment + lasts / 2)
        kind = chance.integers(3)
        if kind == 0:
            parts.append((where, (ACTING + 0.5) * still + 0.6 * ACTING * acting))
        else:
            width = np.clip(0.1 * lasts, 0.5, 4.0)
            parts.append((around(moment, width), 0.7 * BOUNDARY * (start if kind == 1 else end)))
    if parts:
        strengths, what = (np.stack(column) for column in zip(*parts, strict=True))
        values += STRENGTH * (strengths.T @ what)
    return values


@lru_cache
def unit_vectors(count: int, channels: int, seed: int) -> np.ndarray:
    """Return the directions that all videos share, [count, channels]."""
    drawn = np.random.default_rng([seed, channels]).standard_normal((count, channels), "float32")
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


# Videos


def write_film(
    path: Path,
    video: VideoAnnotation,
    *,
    rate: int,
    side: int,
    labels: Sequence[str],
    seed: int,
) -> None:
    """Write a video of stick figures that act during the annotated actions."""
    chance, looks = chance_of(seed, video.name).spawn(2)
    actions = [
        (round(a.start * FPS), round(a.end * FPS), labels.index(a.label) % len(CLASSES))
        for a in video.actions
    ]
    motion = plan_timeline(chance, max(2, round(video.duration * FPS)), actions)
    frames = render(looks, motion, TARGET, side)
    write_video(path, (frame for frame in frames for _ in range(rate // FPS)), rate)


# The classifier, and a detector that does not look at the videos


def write_classifier(
    path: Path, videos: Sequence[VideoAnnotation], labels: Sequence[str], seed: int
) -> None:
    """Write scores in CUHK's structure; for nine of ten videos their class is the best."""
    results = {}
    for video in videos:
        logits = chance_of(seed + 1, video.name).standard_normal(len(labels))
        for label in {action.label for action in video.actions}:
            logits[labels.index(label)] += 4.2
        scores = np.exp(2 * (logits - logits.max()))
        results[video.name] = (scores / scores.sum()).round(5).tolist()
    write_json(path, {"results": results, "class": list(labels)})


def chance(settings: Settings) -> float:
    """Return the average mAP of a detector that predicts the same for every video.

    It knows the classifier and the segments of the training videos. For whole videos it predicts
    the segments, in shares of the video, that fit most actions; for windows it predicts overlapping
    segments of the median length over the whole video.
    """
    data, inference = settings.data, settings.inference
    tested = read_split(data, training=False)
    trained = [v for v in read_split(data, training=True) if v.actions]
    names = classes_of_videos(inference, [video.name for video in tested])
    if data.window_stride is None:
        segments, scores = usual_segments(trained, inference.tiou, inference.nms_sigma)
    median = float(np.median([a.end - a.start for v in trained for a in v.actions]))
    results = {}
    for video in tested:
        if data.window_stride is None:
            shown, weights = segments * video.duration, scores
        else:
            starts = np.arange(0, video.duration, median / 2)
            shown, weights = np.stack([starts, starts + median], axis=1), np.ones(len(starts))
        results[video.name] = [
            {"segment": segment, "label": label, "score": weight * score}
            for label, score in names[video.name]
            for segment, weight in zip(shown.tolist(), weights.tolist(), strict=True)
        ]
    return evaluate(settings, {"results": results}).average


def usual_segments(
    videos: Sequence[VideoAnnotation], tiou: Sequence[float], sigma: float, cells: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Return segments [S, 2] in shares of a video, and how often they fit an action."""
    pairs = [(i, j) for i in range(cells) for j in range(i + 1, cells + 1)]
    grid = torch.tensor(pairs, dtype=torch.float64) / cells
    thresholds, fits = torch.tensor(tiou, dtype=torch.float64), torch.zeros(len(grid)).double()
    for video in videos:
        times = torch.tensor([(a.start, a.end) for a in video.actions], dtype=torch.float64)
        best = overlap_of(grid[:, None], times / video.duration).amax(1)
        fits += (best[:, None] >= thresholds).double().mean(1)
    kept, scores = soft_nms(grid, fits / len(videos), sigma=sigma, max_segments=100)
    return kept.numpy(), scores.numpy()


if __name__ == "__main__":
    typer.run(main)
