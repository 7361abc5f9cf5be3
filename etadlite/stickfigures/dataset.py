"""Stick-figure videos in memory and on disk, and studio clips for pre-training."""

import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import write_json, written_whole
from etadlite.stickfigures.classes import CLASSES, FPS
from etadlite.stickfigures.motion import Motion, plan_clip, plan_video
from etadlite.stickfigures.scene import STUDIO, TARGET, SceneSettings, render

SUBSETS = ("training", "validation")
VERSION = "stickfigures-1"
"""Changes whenever the same settings and seed give other videos."""


@dataclass(frozen=True)
class Size:
    """How much is made.

    Attributes:
        training: Number of training videos.
        validation: Number of validation videos.
        longest: Longest duration in seconds; the shortest is 30 s and short ones are more common.
        pixels: Width and height of a frame.
    """

    training: int
    validation: int
    longest: float = 120.0
    pixels: int = 80


SIZES = {"smoke": Size(6, 4, longest=40.0), "laptop": Size(100, 40), "large": Size(1000, 400)}


def as_size(size: str | Size) -> Size:
    """Looks a size up by name; raises `InputError` for a name that does not exist."""
    if isinstance(size, Size):
        return size
    if size not in SIZES:
        raise InputError(f"There is no data size {size!r}; choose one of {', '.join(SIZES)}.")
    return SIZES[size]


def video_name(subset: str, index: int) -> str:
    """File name without ending."""
    return f"{subset}_{index:05d}"


def _plan(subset: str, index: int, seed: int, size: Size) -> tuple[Motion, np.random.Generator]:
    """The motion of one video and the chance for its looks, which never sees the motion."""
    root = np.random.default_rng([seed, SUBSETS.index(subset), index])
    chance, looks = root.spawn(2)
    duration = 30.0 * (size.longest / 30.0) ** (chance.random() ** 2)
    return plan_video(chance, round(duration * FPS)), looks


def _entry(subset: str, motion: Motion) -> dict:
    """One video in the annotation file."""
    return {
        "subset": subset,
        "duration": len(motion.phases) / FPS,
        "fps": FPS,
        "frame": len(motion.phases),
        "annotations": [
            {"segment": [first / FPS, last / FPS], "label": CLASSES[label]}
            for first, last, label in motion.actions
        ],
    }


def render_video(
    subset: str = "training",
    index: int = 0,
    seed: int = 0,
    size: str | Size = "laptop",
    scene: SceneSettings = TARGET,
) -> tuple[np.ndarray, list[dict]]:
    """One untrimmed video in memory, as `make_dataset` writes it (before compression).

    Args:
        subset: "training" or "validation".
        index: Number of the video in its subset.
        seed: Seed of the data set.
        size: A name of `SIZES` or a `Size`.
        scene: `TARGET`, `STUDIO` or anything between.

    Returns:
        Frames uint8 [F, H, W, 3] at 15 frames per second and the actions,
        [{"segment": [start s, end s], "label": str}].

    Raises:
        InputError: Size or subset is unknown.
    """
    size = as_size(size)
    if subset not in SUBSETS:
        raise InputError(f"There is no subset {subset!r}; choose one of {', '.join(SUBSETS)}.")
    motion, looks = _plan(subset, index, seed, size)
    frames = np.stack(list(render(looks, motion, scene, size.pixels)))
    return frames, _entry(subset, motion)["annotations"]


def studio_clips(
    count: int,
    frames: int = 8,
    size: int = 80,
    *,
    seed: int = 0,
    scene: SceneSettings = STUDIO,
    labels: Sequence[int] | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Trimmed clips, each `frames` consecutive frames from within one action or from idling.

    Args:
        count: Number of clips.
        frames: Frames per clip, at 15 frames per second.
        size: Width and height of a frame in pixels.
        seed: Clip i depends on the seed and i only.
        scene: Where the clips are filmed; with `TARGET` they look like the untrimmed videos.
        labels: Label of every clip, 0-7 for `CLASSES` and 8 for idling; None draws them uniformly.
        progress: Show a progress bar.

    Returns:
        Clips uint8 [count, 3, F, H, W] and labels int64 [count].

    Raises:
        InputError: `labels` is not one label from 0 to 8 a clip.
    """
    if labels is None:
        labels = np.random.default_rng([seed, 2]).integers(len(CLASSES) + 1, size=count)
    labels = np.asarray(labels, dtype=np.int64)
    if labels.shape != (count,) or not ((labels >= 0) & (labels <= len(CLASSES))).all():
        raise InputError(f"labels: give {count} numbers from 0 to {len(CLASSES)}, one for a clip.")
    clips = np.empty((count, 3, frames, size, size), np.uint8)
    for index in tqdm(range(count), desc="studio clips", disable=not progress):
        chance, looks = np.random.default_rng([seed, 3, index]).spawn(2)
        motion = plan_clip(chance, int(labels[index]), frames)
        for frame, picture in enumerate(render(looks, motion, scene, size)):
            clips[index, :, frame] = picture.transpose(2, 0, 1)
    return clips, labels


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = FPS) -> None:
    """Writes H.264 in MP4 (yuv420p, a key frame every 15 frames).

    The file appears under its name only when it is complete.

    Args:
        path: Where to; ends in .mp4.
        frames: Pictures uint8 [H, W, 3] RGB, H and W even.
        fps: Frames per second.
    """
    with written_whole(path) as draft, av.open(draft, "w") as container:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                # One thread: the bytes then do not depend on the machine's number of cores.
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt, stream.gop_size, stream.thread_count = "yuv420p", 15, 1
                stream.options = {"preset": "ultrafast", "crf": "26"}
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def _write_one(
    folder: Path, video: tuple[str, int], seed: int, size: Size, scene: SceneSettings
) -> None:
    subset, index = video
    motion, looks = _plan(subset, index, seed, size)
    path = folder / f"{video_name(subset, index)}.mp4"
    write_video(path, render(looks, motion, scene, size.pixels))


def _claim(root: Path, manifest: dict) -> None:
    """Makes the folder this data set's own, or raises `InputError` if it is another's."""
    path = root / "manifest.json"
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != manifest:
            raise InputError(
                f"{root} holds stick figures made with another size, seed or scene (see {path}); "
                "choose another folder or delete this one."
            )
    elif root.is_dir() and any(root.iterdir()):
        raise InputError(f"{root} holds files that are no stick figures; choose an empty folder.")
    else:
        (root / "videos").mkdir(parents=True, exist_ok=True)
        write_json(path, manifest)


def make_dataset(
    root: Path,
    size: str | Size = "laptop",
    seed: int = 0,
    *,
    workers: int | None = None,
    progress: bool = True,
    scene: SceneSettings = TARGET,
) -> Path:
    """Writes the untrimmed videos and their annotations; what is there already is kept.

    Video i of a subset depends on seed, subset, i and the settings, not on how many are made or
    by how many processes. Files: ROOT/annotations.json, ROOT/videos/NAME.mp4, ROOT/manifest.json.

    Args:
        root: Folder of the data set; made if it does not exist.
        size: "smoke", "laptop", "large" or a `Size`.
        seed: Seed of everything.
        workers: Number of processes; None takes one per core.
        progress: Show a progress bar.
        scene: Where the videos are filmed.

    Returns:
        The path of the annotation file (ActivityNet structure, subsets "training" and
        "validation", each video with "fps" and "frame", its number of frames).

    Raises:
        InputError: The size does not exist, or the folder holds something else.
    """
    root, size = Path(root), as_size(size)
    manifest = {
        "version": VERSION,
        "seed": seed,
        "size": asdict(size),
        "scene": asdict(scene),
        "classes": list(CLASSES),
    }
    _claim(root, manifest)
    annotations, folder = root / "annotations.json", root / "videos"
    counts = {"training": size.training, "validation": size.validation}
    videos = [(subset, index) for subset in SUBSETS for index in range(counts[subset])]
    missing = [v for v in videos if not (folder / f"{video_name(*v)}.mp4").exists()]
    if annotations.exists() and not missing:
        return annotations

    jobs = [(folder, video, seed, size, scene) for video in missing]
    bar = tqdm(total=len(jobs), desc="stick figures", unit="video", disable=not progress)
    workers = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    with bar:
        if workers == 1:
            for job in jobs:
                _write_one(*job)
                bar.update()
        else:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
                for done in as_completed([pool.submit(_write_one, *job) for job in jobs]):
                    done.result()
                    bar.update()
    database = {
        video_name(*video): _entry(video[0], _plan(*video, seed, size)[0]) for video in videos
    }
    write_json(annotations, {"version": VERSION, "database": database})
    return annotations
