"""What the figures do: eight actions told apart by motion only, and everything between them.

A body has six parts that move on their own, each placed by one phase in [0, 1]. A part either
goes to and fro along its path (phase 0 at one end, 1 at the other) or round and round. An action
runs one part through its path; the classes of a pair share the part and differ in their timing:

    throw (slow wind-up, quick release)    catch (the same, backwards in time)
    kick  (quick up, slow down)            stomp (slow up, quick down)
    jump  (slow sink, quick rise)          squat (quick sink, slow rise)
    spin  (arm turns forwards)             unwind (arm turns backwards)

All phases start uniform and independent; an action starts at the phase where its part was held
and stops wherever it is when its time is over. Running along the path at a constant rate each way
keeps a uniform phase uniform, so at every instant of every class all phases are uniform and
independent: a single frame carries no information on the class. This is the project's definition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etadlite.stickfigures.classes import CLASSES, FPS, IDLE

THROW_ARM, LEG, HEIGHT, TURN_ARM, LEAN, STRIDE = range(6)
PARTS = 6

WALK = 0.09
"""How far a figure walks from its spot, in frame widths."""


@dataclass(frozen=True)
class PartMotion:
    """How the figure moves in one class.

    Attributes:
        part: which of the six parts moves.
        rise: share of a cycle in which the phase grows: 0.75 is slow out and quick back.
    """

    part: int
    rise: float


ACTIONS = (
    PartMotion(THROW_ARM, 0.75),
    PartMotion(THROW_ARM, 0.25),
    PartMotion(LEG, 0.25),
    PartMotion(LEG, 0.75),
    PartMotion(HEIGHT, 0.25),
    PartMotion(HEIGHT, 0.75),
    PartMotion(TURN_ARM, 1.0),
    PartMotion(TURN_ARM, 0.0),
)
"""One for each of `CLASSES`, in their order."""


@dataclass(frozen=True)
class Motion:
    """What a figure does over F frames.

    Attributes:
        phases: float [F, 6], the phase of every part.
        place: float [F], how far the figure stands from its spot, in frame widths.
        actions: (first frame, frame after the last, class) of each action, in order.
    """

    phases: np.ndarray
    place: np.ndarray
    actions: tuple[tuple[int, int, int], ...]


def run_part(
    rng: np.random.Generator, phase: float, rise: float, cycle: float, frames: int
) -> np.ndarray:
    """Phases of a part that leaves `phase` and repeats its cycle.

    Args:
        rng: Chooses whether the part starts on its way out or on its way back.
        phase: Where it is before, in [0, 1].
        rise: share of the cycle in which the phase grows.
        cycle: Length of a cycle in seconds.
        frames: How many frames.

    Returns:
        float [frames]; the last is where the part stops.
    """
    start = rise * phase if rng.random() < rise else 1 - (1 - rise) * phase
    position = (start + np.arange(1, frames + 1) / (cycle * FPS)) % 1.0
    growing = position < rise
    out = position / rise if rise > 0 else 0.0
    back = (1 - position) / (1 - rise) if rise < 1 else 0.0
    return np.where(growing, out, back)


def perform(rng: np.random.Generator, start: np.ndarray, label: int, frames: int) -> np.ndarray:
    """Phases [frames, 6] of one action: its part moves, the others are held."""
    action = ACTIONS[label]
    phases = np.repeat(start[None], frames, axis=0)
    cycle = rng.uniform(0.6, 0.85)
    phases[:, action.part] = run_part(rng, start[action.part], action.rise, cycle, frames)
    return phases


def loiter(
    rng: np.random.Generator, start: np.ndarray, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """A gap without action: parts rest or drift slowly, now and then the figure walks.

    Args:
        rng: Source of chance.
        start: float [6], the phases before.
        frames: Length of the gap.

    Returns:
        Phases [frames, 6] and the walking speed [frames] in frame widths per frame.
    """
    phases = np.repeat(start[None], frames, axis=0)
    speed = np.zeros(frames)
    first = 0
    while first < frames:
        last = min(frames, first + int(rng.integers(FPS, 3 * FPS)))
        here = phases[first].copy()
        phases[first:] = here
        for part in range(PARTS):
            if rng.random() < 0.3:
                rise = float(rng.integers(2)) if part == TURN_ARM else 0.5
                drift = run_part(rng, here[part], rise, rng.uniform(5.0, 12.0), last - first)
                phases[first:last, part] = drift
        if rng.random() < 0.25:
            phases[first:last, STRIDE] = run_part(
                rng, here[STRIDE], 0.5, rng.uniform(0.8, 1.2), last - first
            )
            speed[first:last] = rng.choice([-1, 1]) * rng.uniform(0.04, 0.12) / FPS
        phases[last:] = phases[last - 1]
        first = last
    return phases, speed


def smooth_noise(
    rng: np.random.Generator, frames: int, columns: int, low: float, high: float
) -> np.ndarray:
    """Three sines a column, between `low` and `high` Hz: float [frames, columns], RMS 1."""
    time = np.arange(frames)[:, None, None] / FPS
    frequency = rng.uniform(low, high, (1, columns, 3))
    offset = rng.uniform(0, 2 * np.pi, (1, columns, 3))
    return np.sin(2 * np.pi * frequency * time + offset).sum(-1) * np.sqrt(2 / 3)


def sway(rng: np.random.Generator, phases: np.ndarray) -> np.ndarray:
    """The small movement of a body that is alive, reflected (or wrapped) into [0, 1]."""
    phases = phases + 0.012 * smooth_noise(rng, len(phases), PARTS, 0.2, 0.7)
    swayed = 1 - np.abs(1 - np.abs(phases))
    swayed[:, TURN_ARM] = phases[:, TURN_ARM] % 1.0
    return swayed


def stroll(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Phases [frames, 6] of someone who just walks by."""
    phases = np.tile([0.15, 0.25, 0.7, 0.45, 0.5, 0.5], (frames, 1))
    phases[:, STRIDE] = run_part(rng, 0.5, 0.5, rng.uniform(0.9, 1.3), frames)
    return phases


def plan_clip(rng: np.random.Generator, label: int, frames: int) -> Motion:
    """A trimmed clip: one action all the way through, or (`IDLE`) none."""
    start = rng.random(PARTS)
    if label == IDLE:
        phases, speed = loiter(rng, start, frames)
        return Motion(sway(rng, phases), np.cumsum(speed), ())
    phases = perform(rng, start, label, frames)
    return Motion(sway(rng, phases), np.zeros(frames), ((0, frames, label),))


def plan_video(rng: np.random.Generator, frames: int) -> Motion:
    """An untrimmed video: actions of 2-8 s with labels drawn uniformly, gaps of 0.5-6 s.

    Args:
        rng: Source of chance.
        frames: Length of the video.

    Returns:
        The motion with its actions.
    """
    pieces, speeds, actions = [], [], []
    here, first = rng.random(PARTS), 0

    def seconds(low: float, high: float) -> int:
        return round(rng.uniform(low, high) * FPS)

    while True:
        gap, action = seconds(0.5, 6.0), seconds(2.0, 8.0)
        # The last gap takes what is left, so that no action is cut off by the end of the video.
        last_gap = first + gap + action > frames - FPS // 2
        phases, speed = loiter(rng, here, frames - first if last_gap else gap)
        pieces.append(phases)
        speeds.append(speed)
        if last_gap:
            break
        label = int(rng.integers(len(CLASSES)))
        pieces.append(perform(rng, phases[-1], label, action))
        speeds.append(np.zeros(action))
        actions.append((first + gap, first + gap + action, label))
        here, first = pieces[-1][-1], first + gap + action
    return _joined(rng, pieces, speeds, actions)


def plan_timeline(
    rng: np.random.Generator, frames: int, actions: Sequence[tuple[int, int, int]]
) -> Motion:
    """An untrimmed video with given actions; what overlaps an earlier one waits for its end.

    Args:
        rng: Source of chance.
        frames: Length of the video.
        actions: (first frame, frame after the last, class) of each.

    Returns:
        The motion with its actions, in order.
    """
    pieces, speeds, performed = [], [], []
    here, at = rng.random(PARTS), 0
    for begins, ends, label in sorted(actions):
        first, last = max(begins, at), min(ends, frames)
        if last <= first:
            continue
        phases, speed = loiter(rng, here, first - at)
        here = phases[-1] if len(phases) else here
        pieces += [phases, perform(rng, here, label, last - first)]
        speeds += [speed, np.zeros(last - first)]
        performed.append((first, last, label))
        here, at = pieces[-1][-1], last
    phases, speed = loiter(rng, here, frames - at)
    return _joined(rng, [*pieces, phases], [*speeds, speed], performed)


def _joined(
    rng: np.random.Generator,
    pieces: list[np.ndarray],
    speeds: list[np.ndarray],
    actions: list[tuple[int, int, int]],
) -> Motion:
    # Walking turns back at WALK on both sides: the figure never leaves the picture.
    walked = np.cumsum(np.concatenate(speeds))
    place = np.abs((walked + WALK) % (4 * WALK) - 2 * WALK) - WALK
    return Motion(sway(rng, np.concatenate(pieces)), place, tuple(actions))
