"""What the figures do: eight actions that only their motion tells apart, and all between them.

A body has six parts that move independently. One phase in [0, 1] says where on its path a part is.
A part either goes to and fro (phase 0 is one end of the path, 1 the other) or goes round. An action
runs one part through its path. The two classes of a pair share the part and differ in the timing:

    throw (slow wind-up, quick release)    catch (the same, backwards in time)
    kick  (quick up, slow down)            stomp (slow up, quick down)
    jump  (slow sink, quick rise)          squat (quick sink, slow rise)
    spin  (arm turns forwards)             unwind (arm turns backwards)

All phases start uniform and independent. An action starts at the phase where its part is, and stops
where the part is when the time is over. A part that runs at a constant rate in each direction keeps
a uniform phase uniform. So all phases are uniform and independent at every moment of every class: a
single frame carries no information about the class. This is the project's own definition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from etadlite.stickfigures.classes import CLASSES, FPS, IDLE

THROW_ARM, LEG, HEIGHT, TURN_ARM, LEAN, STRIDE = range(6)
PARTS = 6
WALK = 0.09  # how far a figure walks from its spot, in frame widths


class PartMotion(NamedTuple):
    """How the figure moves in one class."""

    part: int
    rise: float  # share of a cycle in which the phase grows; 0.75 is slow out and quick back


ACTIONS = (  # one for each of `CLASSES`, in their order
    PartMotion(THROW_ARM, 0.75), PartMotion(THROW_ARM, 0.25),
    PartMotion(LEG, 0.25), PartMotion(LEG, 0.75),
    PartMotion(HEIGHT, 0.25), PartMotion(HEIGHT, 0.75),
    PartMotion(TURN_ARM, 1.0), PartMotion(TURN_ARM, 0.0),
)  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """What a figure does in F frames."""

    phases: np.ndarray  # float [F, 6], the phase of every part
    place: np.ndarray  # float [F], how far the figure stands from its spot, in frame widths
    actions: tuple[tuple[int, int, int], ...]  # first frame, frame after the last, class; in order


def run_part(
    rng: np.random.Generator, phase: float, rise: float, cycle: float, frames: int
) -> np.ndarray:
    """Return the phases [frames] of a part that leaves `phase` and repeats its cycle.

    `rng` chooses whether it starts on its way out or on its way back. The phase grows in the share
    `rise` of the cycle, which is given in seconds.
    """
    start = rise * phase if rng.random() < rise else 1 - (1 - rise) * phase
    position = (start + np.arange(1, frames + 1) / (cycle * FPS)) % 1.0
    out = position / rise if rise > 0 else 0.0
    back = (1 - position) / (1 - rise) if rise < 1 else 0.0
    return np.where(position < rise, out, back)


def perform(
    rng: np.random.Generator, start: np.ndarray, label: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Do one action, or `IDLE`; return the same as `loiter`."""
    if label == IDLE:
        return loiter(rng, start, frames)
    part, rise = ACTIONS[label]
    phases = np.repeat(start[None], frames, axis=0)  # the other parts rest
    phases[:, part] = run_part(rng, start[part], rise, rng.uniform(0.6, 0.85), frames)
    return phases, np.zeros(frames)


def loiter(
    rng: np.random.Generator, start: np.ndarray, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill a gap without action: parts rest or drift slowly, and sometimes the figure walks.

    Returns phases [frames, 6], which go on from `start` [6], and the walking speed [frames] in
    frame widths per frame.
    """
    phases, speed, first = np.repeat(start[None], frames, axis=0), np.zeros(frames), 0
    while first < frames:
        last = min(frames, first + int(rng.integers(FPS, 3 * FPS)))
        here, piece = phases[first].copy(), phases[first:last]
        for part in range(PARTS):
            if rng.random() < 0.3:
                rise = float(rng.integers(2)) if part == TURN_ARM else 0.5
                piece[:, part] = run_part(rng, here[part], rise, rng.uniform(5, 12), last - first)
        if rng.random() < 0.25:
            cycle = rng.uniform(0.8, 1.2)
            piece[:, STRIDE] = run_part(rng, here[STRIDE], 0.5, cycle, last - first)
            speed[first:last] = rng.choice([-1, 1]) * rng.uniform(0.04, 0.12) / FPS
        phases[last:] = piece[-1]
        first = last
    return phases, speed


def smooth_noise(
    rng: np.random.Generator, frames: int, columns: int, low: float, high: float
) -> np.ndarray:
    """Add three sines per column, between `low` and `high` Hz: float [frames, columns], RMS 1."""
    time = np.arange(frames)[:, None, None] / FPS
    frequency = rng.uniform(low, high, (1, columns, 3))
    offset = rng.uniform(0, 2 * np.pi, (1, columns, 3))
    return np.sin(2 * np.pi * frequency * time + offset).sum(-1) * np.sqrt(2 / 3)


def sway(rng: np.random.Generator, phases: np.ndarray) -> np.ndarray:
    """Add the small movement of a living body, reflected (or wrapped) into [0, 1]."""
    phases = phases + 0.012 * smooth_noise(rng, len(phases), PARTS, 0.2, 0.7)
    swayed = 1 - np.abs(1 - np.abs(phases))
    swayed[:, TURN_ARM] = phases[:, TURN_ARM] % 1.0
    return swayed


def stroll(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Return the phases [frames, 6] of a figure that only walks."""
    phases = np.tile([0.15, 0.25, 0.7, 0.45, 0.5, 0.5], (frames, 1))
    phases[:, STRIDE] = run_part(rng, 0.5, 0.5, rng.uniform(0.9, 1.3), frames)
    return phases


def plan_clip(rng: np.random.Generator, label: int, frames: int) -> Motion:
    """Plan a trimmed clip: one action from the first frame to the last, or (`IDLE`) none."""
    phases, speed = perform(rng, rng.random(PARTS), label, frames)
    actions = () if label == IDLE else ((0, frames, label),)
    return Motion(sway(rng, phases), np.cumsum(speed), actions)


class _Timeline:
    """An untrimmed video that grows at its end; `at` is its length so far."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.at, self.here = rng, 0, rng.random(PARTS)
        self.pieces: list[tuple[np.ndarray, np.ndarray]] = []  # phases and walking speed
        self.actions: list[tuple[int, int, int]] = []

    def add(self, until: int, label: int = IDLE) -> None:
        phases, speed = perform(self.rng, self.here, label, until - self.at)
        self.pieces.append((phases, speed))
        if label != IDLE:
            self.actions.append((self.at, until, label))
        if until > self.at:
            self.at, self.here = until, phases[-1]

    def motion(self, frames: int) -> Motion:
        self.add(frames)
        phases, speed = map(np.concatenate, zip(*self.pieces, strict=True))
        # The figure turns back at WALK on both sides, so that it never leaves the picture.
        place = np.abs((np.cumsum(speed) + WALK) % (4 * WALK) - 2 * WALK) - WALK
        return Motion(sway(self.rng, phases), place, tuple(self.actions))


def plan_video(rng: np.random.Generator, frames: int) -> Motion:
    """Plan an untrimmed video: actions of 2-8 s with uniform labels, and gaps of 0.5-6 s."""
    line = _Timeline(rng)
    while True:
        gap, action = (round(rng.uniform(*span) * FPS) for span in ((0.5, 6.0), (2.0, 8.0)))
        if line.at + gap + action > frames - FPS // 2:
            # The last gap takes the rest, so that the end of the video cuts no action off.
            return line.motion(frames)
        line.add(line.at + gap)
        line.add(line.at + action, int(rng.integers(len(CLASSES))))


def plan_timeline(
    rng: np.random.Generator, frames: int, actions: Sequence[tuple[int, int, int]]
) -> Motion:
    """Plan an untrimmed video with given actions (first frame, frame after the last, class).

    An action that overlaps an earlier one starts when that one ends.
    """
    line = _Timeline(rng)
    for begins, ends, label in sorted(actions):
        first, last = max(begins, line.at), min(ends, frames)
        if last > first:
            line.add(first)
            line.add(last, label)
    return line.motion(frames)
