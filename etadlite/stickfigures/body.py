"""How a figure looks: from phases to joints, and from joints to coloured capsules.

Lengths are in body heights. x points to where the figure looks, y points up, and the origin lies on
the ground below the hips. A capsule is a line between two points with a radius at each end. Heads,
hands, limbs and everything else that moves in a scene are capsules.
"""

from dataclasses import dataclass

import numpy as np

from etadlite.stickfigures.motion import HEIGHT, LEAN, LEG, STRIDE, THROW_ARM, TURN_ARM

SKIN = ((247, 206, 172), (232, 181, 140), (198, 139, 96), (141, 90, 59), (96, 62, 43))
HAIR = ((45, 34, 30), (94, 58, 34), (160, 110, 50), (205, 170, 95), (120, 120, 125))


@dataclass(frozen=True)
class Body:
    """Proportions (in body heights) and colours (RGB, 0-255) of one figure."""

    leg: float = 0.46  # from hip to ankle
    torso: float = 0.29  # from hip to shoulder
    arm: float = 0.37  # from shoulder to wrist
    head: float = 0.085  # radius
    thickness: float = 1.05  # factor of all limb radii
    width: float = 0.05  # between the shoulders, as the slanted view shows it
    skin: tuple[int, int, int] = SKIN[0]
    hair: tuple[int, int, int] = HAIR[1]
    shirt: tuple[int, int, int] = (46, 117, 182)
    trousers: tuple[int, int, int] = (62, 68, 84)
    shoes: tuple[int, int, int] = (160, 40, 40)


def _between(low: float, high: float, share: np.ndarray) -> np.ndarray:
    return low + (high - low) * share


def _towards(angle: np.ndarray) -> np.ndarray:
    """Return unit vectors [F, 2]; the angle grows from straight down to the front."""
    return np.stack([np.sin(angle), -np.cos(angle)], -1)


def _knee(hip: np.ndarray, foot: np.ndarray, leg: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the knee and the reachable foot [F, 2] of two equal bones that bend forwards."""
    way = foot - hip
    far = np.linalg.norm(way, axis=-1, keepdims=True)
    way = way / np.maximum(far, 1e-6)
    far = np.minimum(far, 0.995 * leg)
    aside = np.stack([-way[:, 1], way[:, 0]], -1)
    bulge = np.sqrt((leg / 2) ** 2 - (far / 2) ** 2)
    return hip + way * far / 2 + aside * bulge, hip + way * far


def joints(body: Body, phases: np.ndarray) -> dict[str, np.ndarray]:
    """Place the joints of a figure whose parts have the phases [F, 6]: name -> float [F, 2]."""
    # The easing belongs to the path, not to time: movements swing, and phases stay uniform.
    share = (1 - np.cos(np.pi * phases)) / 2
    bent = 1 - share[:, HEIGHT]
    hip_y = body.leg * _between(1.10, 0.52, bent)
    lift = np.maximum(0, hip_y - 0.985 * body.leg)
    hip = np.stack([-0.14 * body.leg * bent, hip_y], -1)
    lean = np.radians(_between(2, 26, bent) + _between(-8, 8, share[:, LEAN]))
    up = np.stack([np.sin(lean), np.cos(lean)], -1)
    neck = hip + body.torso * up
    head = neck + (body.head + 0.035) * up + np.array([[0.01, 0]])
    at = {"hip": hip, "neck": neck, "head": head, "up": up}
    aside = np.array([[body.width / 2, 0.0]])

    stride = body.leg * _between(-0.28, 0.28, share[:, STRIDE])
    raised = share[:, LEG]
    near_x = (1 - raised) * (stride - 0.12 * body.leg) + raised * 0.78 * body.leg
    near_foot = np.stack([near_x, lift + 0.04 + 0.62 * body.leg * raised], -1)
    far_foot = np.stack([0.05 * body.leg - stride, lift + 0.04], -1)
    legs = (("near", -aside, near_foot, 82 + 50 * raised), ("far", aside, far_foot, 82))
    for side, shift, foot, toe in legs:
        at[f"{side}_hip"] = hip + shift / 2
        at[f"{side}_knee"], at[f"{side}_foot"] = _knee(at[f"{side}_hip"], foot, body.leg)
        at[f"{side}_toe"] = at[f"{side}_foot"] + 0.07 * _towards(np.radians(toe))

    turn, cocked = -2 * np.pi * phases[:, TURN_ARM], share[:, THROW_ARM]
    upper, lower = np.radians(_between(72, 238, cocked)), np.radians(_between(74, 195, cocked))
    arms = (("near", -aside, turn, turn + np.radians(18)), ("far", aside, upper, lower))
    for side, shift, above, below in arms:
        at[f"{side}_shoulder"] = neck + shift
        at[f"{side}_elbow"] = at[f"{side}_shoulder"] + 0.5 * body.arm * _towards(above)
        at[f"{side}_hand"] = at[f"{side}_elbow"] + 0.5 * body.arm * _towards(below)
    return at


def capsules(body: Body, phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw a figure whose parts have the phases [F, 6].

    Returns capsules float [F, n, 6] (x0, y0, r0, x1, y1, r1), farthest first, and colours uint8
    [n, 3].
    """
    at = joints(body, phases)
    parts: list[np.ndarray] = []
    colours: list[np.ndarray] = []

    def add(start: np.ndarray, end: np.ndarray, radii: tuple, colour: tuple, lit: float) -> None:
        ends = np.broadcast_to(radii, (len(start), 2))
        parts.append(np.concatenate([start, ends[:, :1], end, ends[:, 1:]], -1))
        colours.append(np.clip(np.array(colour) * lit, 0, 255))

    def limb(start: np.ndarray, end: np.ndarray, radii: tuple, colour: tuple, lit: float) -> None:
        add(start, end, tuple(body.thickness * radius for radius in radii), colour, lit)

    def arm(side: str, lit: float) -> None:
        shoulder, elbow, hand = (at[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "hand"))
        limb(elbow, hand, (0.024, 0.021), body.skin, min(lit, 1.0))
        limb(shoulder, elbow, (0.034, 0.029), body.shirt, lit)
        limb(hand, hand, (0.031, 0.031), body.skin, min(lit, 1.0))

    def leg(side: str, lit: float) -> None:
        hip, knee, foot, toe = (at[f"{side}_{joint}"] for joint in ("hip", "knee", "foot", "toe"))
        limb(foot, toe, (0.030, 0.024), body.shoes, lit)
        limb(knee, foot, (0.035, 0.027), body.trousers, lit)
        limb(hip, knee, (0.046, 0.036), body.trousers, lit)

    size, head, up = body.head, at["head"], at["up"]
    forward = np.stack([up[:, 1], -up[:, 0]], -1)
    arm("far", 0.72)
    leg("far", 0.72)
    leg("near", 1.0)
    add(at["neck"], head, (0.028, 0.028), body.skin, 0.85)
    limb(at["hip"], at["neck"] - 0.02 * up, (0.050, 0.066), body.shirt, 0.9)
    hair = head + size * (0.22 * up - 0.2 * forward)
    add(hair, hair, (0.95 * size, 0.95 * size), body.hair, 1.0)
    front, chin = head + 0.15 * size * forward, head - 0.15 * size * up
    add(front, chin, (0.86 * size, 0.8 * size), body.skin, 1.0)
    eye, slit = head + size * (0.58 * forward + 0.1 * up), 0.07 * size * up
    add(eye + slit, eye - slit, (0.1 * size, 0.1 * size), (30, 26, 28), 1.0)
    arm("near", 1.1)
    return np.stack(parts, 1), np.stack(colours).astype(np.uint8)
