"""Joins short real clips to untrimmed videos with annotations: a small data set of real footage.

    python data_scripts/make_real_small.py CLIPS data/real_small --fold 0
    etadlite train real_small

CLIPS holds videos, in subfolders too, named INDEX_GROUP_CLASS.SUFFIX, as those of UT-Interaction
are; --name takes another pattern. Clips of the class --background show no action. What is staged:
the clips are real, their order is not.

- A fold tests whole groups (such as sequences of one recording), two of every ten. Nothing that a
  test video shows is seen in training.
- Every clip gets the same size, frame rate, and mean and deviation of its colours.
- Every clip begins and ends with a stretch of its own first or last frames, played to and fro for a
  random time, so that a cut never marks the start or the end of an action. Clips without an action
  are made as long as actions and joined in the same way, between and beside the actions.

At the end the script prints the average mAP of two detectors that look at no person: one says the
same for every video, one knows the cuts.
"""

import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from make_rehearsal import usual_segments
from tqdm import tqdm

from etadlite.base.errors import InputError
from etadlite.base.files import write_json
from etadlite.base.folders import claim_folder
from etadlite.data.annotations import read_annotations
from etadlite.data.video import Video, VideoWarning
from etadlite.data.video_files import is_video
from etadlite.presets import placed, preset
from etadlite.runs.testing import evaluate
from etadlite.stickfigures.dataset import write_video

VERSION = "real-small-2"
FOLDS = 5
FPS = 15
ACTIONS_PER_VIDEO = 3
TURNS = 2  # how often a training clip is used, in other company each time
HELD = 5  # frames that are played to and fro at both ends of a clip
PAUSE = (0.3, 2.5)  # seconds that this lasts, at random
COLOUR = (110.0, 45.0)  # mean and deviation of every clip's red, green and blue
UT_INTERACTION = ("handshake", "hug", "kick", "point", "punch", "push")


class Clip(NamedTuple):
    """A short video; `label` is empty if it shows no action."""

    path: Path
    group: int
    label: str


def main(
    clips: Annotated[Path, typer.Argument(help="Folder of the clips.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    *,
    fold: Annotated[int, typer.Option(min=0, max=FOLDS - 1, help="Which groups are tested.")] = 0,
    name: Annotated[
        str, typer.Option(help="Pattern of a clip's name, with the groups `group` and `label`.")
    ] = r"\d+_(?P<group>\d+)_(?P<label>\d+)",
    classes: Annotated[
        str, typer.Option(help="Names of the classes 0, 1, ...; empty: as the clips say.")
    ] = ",".join(UT_INTERACTION),
    background: Annotated[str, typer.Option(help="Class of clips without an action.")] = "6",
    side: Annotated[int, typer.Option(min=32, help="Height and width of the videos.")] = 128,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make a small data set of real footage."""
    names = classes.split(",") if classes else []
    try:
        made = make(found_clips(clips, name, names, background), root, fold, side, seed)
        scores = detectors_without_eyes(root, made)
    except InputError as error:
        sys.exit(f"error: {error}")
    write_json(root / "without_eyes.json", scores)
    for what, average in scores.items():
        print(f"{what}: average mAP {100 * average:.1f} %")


def found_clips(folder: Path, name: str, classes: Sequence[str], background: str) -> list[Clip]:
    """Return the clips of a folder and its subfolders, by group and path.

    Raises:
        InputError: there are none, a name does not fit the pattern, or a class has no name.
    """
    clips = []
    for path in sorted(folder.rglob("*")):
        if not is_video(path):
            continue
        match = re.fullmatch(name, path.stem)
        if match is None:
            raise InputError(f"{path}: its name does not fit {name}; give another --name")
        label = match["label"]
        if label == background:
            label = ""
        elif classes:
            if not (label.isdecimal() and int(label) < len(classes)):
                raise InputError(f"{path}: class {label} has no name; give more --classes")
            label = classes[int(label)]
        clips.append(Clip(path, int(match["group"]), label))
    if not clips:
        raise InputError(f"{folder} holds no videos; check the path")
    return sorted(clips, key=lambda clip: (clip.group, clip.path))


def make(
    clips: Sequence[Clip], root: Path, fold: int, side: int, seed: int
) -> dict[str, list[float]]:
    """Write videos and annotations; return the cuts of every video in seconds.

    Raises:
        InputError: the folder holds something else, or a subset has no action or no background.
    """
    claim = {"version": VERSION, "fold": fold, "side": side, "seed": seed, "clips": len(clips)}
    claim_folder(root, claim, "videos")
    groups = sorted({clip.group for clip in clips})
    tested = {group for number, group in enumerate(groups) if number // 2 % FOLDS == fold}
    database: dict[str, Any] = {}
    cuts: dict[str, list[float]] = {}
    for subset, turns in (("training", TURNS), ("validation", 1)):
        own = [clip for clip in clips if (clip.group in tested) == (subset == "validation")]
        chance = np.random.default_rng([seed, fold, turns])
        plans = list(planned(own, turns, chance))
        shown = tqdm(plans, subset, unit="video", disable=None)
        for number, plan in enumerate(shown):
            name = f"{subset}_{number:03d}"
            frames, actions, cuts[name] = joined(plan, side, chance)
            write_video(root / "videos" / f"{name}.mp4", frames, FPS)
            database[name] = {
                "subset": subset,
                "duration": len(frames) / FPS,
                "annotations": actions,
            }
    write_json(root / "annotations.json", {"version": VERSION, "database": database})
    return cuts


def planned(clips: Sequence[Clip], turns: int, chance: np.random.Generator) -> Iterator[list[Clip]]:
    """Yield the clips of each video of a subset: actions, and clips without between them.

    Raises:
        InputError: the subset lacks one of both.
    """
    actions = [clip for clip in clips if clip.label]
    others = [clip for clip in clips if not clip.label]
    if not actions or not others:
        raise InputError("both subsets need clips with and without an action; give other clips")
    for _ in range(turns):
        order = [actions[i] for i in chance.permutation(len(actions))]
        for first in range(0, len(order), ACTIONS_PER_VIDEO):
            plan = []
            for clip in order[first : first + ACTIONS_PER_VIDEO]:
                plan += [others[i] for i in chance.integers(len(others), size=chance.integers(2))]
                plan.append(clip)
            yield [*plan, others[chance.integers(len(others))]]


def joined(
    plan: Sequence[Clip], side: int, chance: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, Any]], list[float]]:
    """Return the frames [F, H, W, 3] of a video, its actions, and the times of its cuts."""
    parts, actions, cuts, now = [], [], [], 0
    lengths = [round(FPS * Video(clip.path).info.duration) for clip in plan if clip.label]
    for clip in plan:
        frames = levelled(clip.path, side)
        if not clip.label:  # as long as some action
            frames = of_length(frames, lengths[chance.integers(len(lengths))])
        before, after = (round(FPS * chance.uniform(*PAUSE)) for _ in range(2))
        start = frames[to_and_fro(before, len(frames))[::-1]]
        end = frames[::-1][to_and_fro(after, len(frames))]
        if clip.label:
            segment = [(now + before) / FPS, (now + before + len(frames)) / FPS]
            actions.append({"segment": segment, "label": clip.label})
        parts += [start, frames, end]
        now += before + len(frames) + after
        cuts.append(now / FPS)
    return np.concatenate(parts), actions, cuts[:-1]


def of_length(frames: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` frames of a clip that is played to and fro."""
    period = np.arange(count) % max(2 * (len(frames) - 1), 1)
    return frames[np.minimum(period, 2 * (len(frames) - 1) - period)]


def to_and_fro(count: int, frames: int) -> np.ndarray:
    """Return the indices of frames that are played to and fro next to the first one."""
    held = min(HELD, frames)
    return np.abs((np.arange(1, count + 1) + held - 1) % max(2 * (held - 1), 1) - (held - 1))


def levelled(path: Path, side: int) -> np.ndarray:
    """Return a clip at 15 frames per second, uint8 [F, H, W, 3], with the common colours."""
    video = Video(path)
    moments = np.arange(0, video.info.duration, 1 / FPS)
    nearest = np.abs(video.times[: video.info.frames, None] - moments).argmin(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)  # most of these files lack their last frame
        frames = video.frames(nearest, (side, side)).permute(0, 2, 3, 1).numpy()
    frames = frames.astype(np.float32)
    mean, deviation = frames.mean((0, 1, 2)), frames.std((0, 1, 2)).clip(1)
    frames = (frames - mean) / deviation * COLOUR[1] + COLOUR[0]
    return frames.round().clip(0, 255).astype(np.uint8)


def detectors_without_eyes(root: Path, cuts: dict[str, list[float]]) -> dict[str, float]:
    """Return the average mAP of a constant detector, and of one that knows the cuts."""
    settings = placed(preset("real_small"), root)
    videos = read_annotations(settings.data.annotations)
    training = [video for video in videos.values() if video.subset == "training"]
    tested = [video for video in videos.values() if video.subset == "validation"]
    labels = sorted({action.label for video in training for action in video.actions})
    segments, scores = usual_segments(training, settings.inference.tiou, 0.35)
    pause = sum(PAUSE) / 2
    results: dict[str, dict[str, list[Any]]] = defaultdict(dict)
    for video in tested:
        usual = zip((segments * video.duration).tolist(), scores.tolist(), strict=True)
        borders = [0.0, *cuts[video.name], video.duration]
        between = [
            ([a + pause, b - pause], b - a)  # a longer stretch is more likely an action
            for a, b in pairwise(borders)
            if b - a > 2 * pause
        ]
        for what, found in (("a constant detector", usual), ("one that knows the cuts", between)):
            results[what][video.name] = [
                {"segment": segment, "label": label, "score": score}
                for segment, score in found
                for label in labels
            ]
    return {what: evaluate(settings, {"results": r}).average for what, r in results.items()}


if __name__ == "__main__":
    typer.run(main)
