"""Stick-figure videos on disk, and studio clips for pre-training."""

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from tqdm.auto import tqdm

from etadlite.base.containers import usable_cores
from etadlite.base.errors import InputError
from etadlite.base.files import write_json, written_whole
from etadlite.base.folders import claim_folder
from etadlite.base.processes import end_with_parent
from etadlite.stickfigures.classes import CLASSES, FPS
from etadlite.stickfigures.motion import Motion, plan_clip, plan_video
from etadlite.stickfigures.scene import STUDIO, TARGET, SceneSettings, render

SUBSETS = ("training", "validation")
VERSION = "stickfigures-1"  # changes whenever the same settings and seed give other videos


@dataclass(frozen=True)
class Size:
    """How much is made."""

    training: int  # number of videos
    validation: int
    longest: float = 120.0  # seconds; the shortest video has 30 s, and short ones are more common
    pixels: int = 80  # width and height of a frame


SIZES = {"smoke": Size(6, 4, longest=40.0), "laptop": Size(100, 40), "large": Size(1000, 400)}


def as_size(size: str | Size) -> Size:
    """Look a size up by its name; raise `InputError` if the name does not exist."""
    if isinstance(size, Size):
        return size
    if size not in SIZES:
        raise InputError(f"There is no data size {size!r}; choose one of {', '.join(SIZES)}.")
    return SIZES[size]


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
    """Make trimmed clips of F = `frames` consecutive frames from within one action, or from idling.

    Returns clips uint8 [count, 3, F, size, size] and labels int64 [count]. Clip i depends only on
    the seed and i. With `TARGET` as the scene the clips look like the untrimmed videos. `labels`
    holds one label per clip, 0-7 for `CLASSES` and 8 for idling, else `InputError` is raised; by
    default the labels are drawn.
    """
    if labels is None:
        labels = np.random.default_rng([seed, 2]).integers(len(CLASSES) + 1, size=count)
    labels = np.asarray(labels, dtype=np.int64)
    if labels.shape != (count,) or not ((labels >= 0) & (labels <= len(CLASSES))).all():
        raise InputError(f"labels: give {count} numbers from 0 to {len(CLASSES)}, one per clip.")
    clips = np.empty((count, 3, frames, size, size), np.uint8)
    for index in tqdm(range(count), desc="studio clips", disable=not progress):
        chance, looks = np.random.default_rng([seed, 3, index]).spawn(2)
        motion = plan_clip(chance, int(labels[index]), frames)
        for frame, picture in enumerate(render(looks, motion, scene, size)):
            clips[index, :, frame] = picture.transpose(2, 0, 1)
    return clips, labels


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = FPS) -> None:
    """Write H.264 in MP4 (yuv420p, a key frame every 15 frames), whole or not at all.

    `path` ends in .mp4; frames are pictures uint8 [H, W, 3] RGB, H and W even.
    """
    with written_whole(path) as draft, av.open(draft, "w") as container:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                # With one thread the bytes do not depend on the machine's number of cores.
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt, stream.gop_size, stream.thread_count = "yuv420p", 15, 1
                stream.options = {"preset": "ultrafast", "crf": "26"}
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def make_dataset(
    root: Path,
    size: str | Size = "laptop",
    seed: int = 0,
    *,
    workers: int | None = None,
    progress: bool = True,
    scene: SceneSettings = TARGET,
) -> Path:
    """Write untrimmed videos and their annotations; keep those that exist already.

    The files are ROOT/annotations.json, whose path is returned (ActivityNet structure, with "fps"
    and "frame", the number of frames, of each video), ROOT/videos/NAME.mp4 and ROOT/manifest.json.
    Video i of a subset depends on seed, subset, i and the settings, but not on the number of videos
    or of processes (`workers`; by default one per core that this process may use).

    Raises:
        InputError: the size does not exist, or the folder holds something else.
    """
    root, size = Path(root), as_size(size)
    if root.is_dir() and any(root.iterdir()) and not (root / "manifest.json").exists():
        raise InputError(f"{root} holds files that are no stick figures; choose an empty folder.")
    made_with = {"seed": seed, "size": asdict(size), "scene": asdict(scene)}
    manifest = {"version": VERSION, **made_with, "classes": list(CLASSES)}
    claim_folder(root, manifest, "stick figures")
    annotations, folder = root / "annotations.json", root / "videos"
    names = [f"{subset}_{i:05d}" for subset in SUBSETS for i in range(getattr(size, subset))]
    missing = [name for name in names if not (folder / f"{name}.mp4").exists()]
    if annotations.exists() and not missing:
        return annotations
    workers = min(workers or usable_cores(), max(len(missing), 1))
    spawn = multiprocessing.get_context("spawn")
    options = {"mp_context": spawn, "initializer": end_with_parent}
    pool = ProcessPoolExecutor(workers, **options) if workers > 1 else None
    write = partial(_write_one, folder, seed=seed, size=size, scene=scene)
    with pool or nullcontext():
        written = pool.map(write, missing) if pool else map(write, missing)
        bar = {"desc": "stick figures", "unit": "video", "disable": not progress}
        list(tqdm(written, total=len(missing), **bar))  # waits for all
    database = {name: _entry(name, _plan(name, seed, size)[0]) for name in names}
    write_json(annotations, {"version": VERSION, "database": database})
    return annotations


def _plan(name: str, seed: int, size: Size) -> tuple[Motion, np.random.Generator]:
    """Return the motion of a video, and the generator of its looks, which never sees the motion."""
    subset, index = name.split("_")
    chance, looks = np.random.default_rng([seed, SUBSETS.index(subset), int(index)]).spawn(2)
    duration = 30.0 * (size.longest / 30.0) ** (chance.random() ** 2)
    return plan_video(chance, round(duration * FPS)), looks


def _write_one(folder: Path, name: str, *, seed: int, size: Size, scene: SceneSettings) -> None:
    motion, looks = _plan(name, seed, size)
    write_video(folder / f"{name}.mp4", render(looks, motion, scene, size.pixels))


def _entry(name: str, motion: Motion) -> dict:
    return {
        "subset": name.partition("_")[0],
        "duration": len(motion.phases) / FPS,
        "fps": FPS,
        "frame": len(motion.phases),
        "annotations": [
            {"segment": [first / FPS, last / FPS], "label": CLASSES[label]}
            for first, last, label in motion.actions
        ],
    }
