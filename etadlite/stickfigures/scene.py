"""Where the figures are filmed: a plain studio, or the world with its textures and noise.

Nothing in a scene depends on the action.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from etadlite.stickfigures.body import HAIR, SKIN, Body, capsules
from etadlite.stickfigures.classes import FPS
from etadlite.stickfigures.motion import Motion, smooth_noise, stroll

UPSIDE_DOWN = np.array([1, -1, 1, 1, -1, 1])  # turns capsules from y up to y down
SUPERSAMPLING = 3
FINE = 2  # background pixels per frame pixel, so many that no interpolation is needed
VARIATION = {  # by which share the proportions of figures vary at most
    "leg": 0.12, "torso": 0.15, "arm": 0.12, "head": 0.25, "thickness": 0.35, "width": 0.8
}  # fmt: skip


@dataclass(frozen=True)
class SceneSettings:
    """Strengths of everything in which the world differs from the studio; 0 is none."""

    texture: float = 1.0  # contrast of the pattern behind the figure
    colour: float = 1.0  # how freely the colours of clothes, skin and background are drawn
    body: float = 1.0  # how much proportions, thickness, size and position vary
    camera: float = 1.0  # shake, wandering and slow zoom
    light: float = 1.0  # flicker, colour cast and contrast
    noise: float = 8.0  # standard deviation of the sensor noise, in grey levels
    extras: float = 1.0  # mean number of moving things behind the figure (a small walker, a ball)


STUDIO = SceneSettings(0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0)
TARGET = SceneSettings()


def _bright(rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Draw a colour with some saturation: float [3] in 0-255."""
    hue = rng.uniform(0, 2 * np.pi)
    wheel = np.cos(hue - np.array([0, 2, 4]) * np.pi / 3)
    return np.clip(rng.uniform(40, 215) + strength * rng.uniform(20, 75) * wheel, 5, 250)


def _contrast(colour: np.ndarray, other: np.ndarray) -> float:
    """Return how well one colour stands out from another, in grey levels."""
    change = np.abs(np.asarray(colour) - other)
    return float(abs((colour - other) @ [0.3, 0.59, 0.11]) + 0.3 * change.max())


def _unlike(rng: np.random.Generator, other: np.ndarray, least: float) -> tuple[int, int, int]:
    """Draw a colour that stands out from `other`, so that the figure stays visible."""
    while True:
        colour = _bright(rng)
        if _contrast(colour, other) > least:
            return tuple(int(value) for value in colour)


def draw_body(rng: np.random.Generator, settings: SceneSettings, ground: np.ndarray) -> Body:
    """Draw a figure's proportions and clothes with the given strengths."""
    body = Body()
    varied = {
        part: getattr(body, part) * (1 + share * settings.body * rng.uniform(-1, 1))
        for part, share in VARIATION.items()
    }
    body = replace(body, **varied)
    if settings.colour == 0:
        return body
    skin = sorted(SKIN, key=lambda colour: -_contrast(colour, ground))[rng.integers(3)]
    hair = sorted(HAIR, key=lambda colour: -_contrast(colour, np.array(skin)))[rng.integers(3)]
    clothes = {part: _unlike(rng, ground, 70) for part in ("shirt", "trousers", "shoes")}
    return replace(body, skin=skin, hair=hair, **clothes)


def _pattern(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw smooth noise, stripes or blobs: float [side, side] in about [-1, 1]."""
    kind = rng.integers(3)
    if kind == 0:
        y, x = np.mgrid[:side, :side] / side
        angle, count = rng.uniform(0, np.pi), rng.uniform(4, 16)
        wave = np.sin(2 * np.pi * count * (x * np.cos(angle) + y * np.sin(angle)))
        return np.tanh(rng.uniform(1, 4) * wave)
    cells = int(rng.integers(6, 28))
    grid = rng.normal(size=(cells, cells)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
    return np.tanh(3 * smooth) if kind == 1 else smooth / 1.5


def draw_background(
    rng: np.random.Generator, settings: SceneSettings, side: int
) -> tuple[Image.Image, np.ndarray]:
    """Draw the side x side pixels that the camera moves over; also return their colour [3]."""
    base = np.array([225.0, 228.0, 232.0]) if settings.colour == 0 else _bright(rng, 0.6)
    picture = np.broadcast_to(base, (side, side, 3)).copy()
    if settings.texture > 0:
        for strength in (28.0, 20.0, 12.0):
            tint = 1 + 0.4 * rng.normal(size=3)
            picture += settings.texture * strength * _pattern(rng, side)[..., None] * tint
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), base


def _outline(shapes: np.ndarray, points: int = 7) -> np.ndarray:
    """Turn capsules [F, n, 6] into polygons [F, n, 4 * points] (x and y in turn)."""
    way = np.arctan2(shapes[..., 4] - shapes[..., 1], shapes[..., 3] - shapes[..., 0])
    half = np.linspace(np.pi / 2, 3 * np.pi / 2, points)
    angle = way[..., None] + np.concatenate([half, half + np.pi])
    ends = np.repeat(shapes.reshape(*shapes.shape[:2], 2, 3), points, axis=2)
    x = ends[..., 0] + ends[..., 2] * np.cos(angle)
    y = ends[..., 1] + ends[..., 2] * np.sin(angle)
    return np.stack([x, y], -1).reshape(*shapes.shape[:2], -1)


def _extras(
    rng: np.random.Generator, settings: SceneSettings, frames: int, ground: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the things that move behind the figure: capsules (in frame widths, y down), colours."""
    things = []
    for _ in range(rng.poisson(settings.extras)):
        if rng.random() < 0.6:
            body, height = draw_body(rng, settings, ground), rng.uniform(0.2, 0.32)
            shapes, colours = capsules(body, stroll(rng, frames))
            shapes = shapes * height * UPSIDE_DOWN
            start = rng.uniform([0.0, 0.6], [1.0, 0.95])
            way = np.array([rng.uniform(0.03, 0.08), 0])
        else:
            radius = rng.uniform(0.03, 0.09)
            shapes = np.tile([0, 0, radius, rng.uniform(0, 0.15), 0, radius], (frames, 1, 1))
            colours = _bright(rng)[None].astype(np.uint8)
            start, way = rng.random(2), rng.normal(size=2) * 0.05
        # A thing that leaves the picture on one side comes back on the other.
        path = (start + np.outer(np.arange(frames) / FPS, way) + 0.25) % 1.5 - 0.25
        shapes[..., 0::3] += path[:, None, :1]
        shapes[..., 1::3] += path[:, None, 1:]
        # Colours halfway to the background: distant things are paler than the figure.
        things.append((shapes, ((colours.astype(float) + ground) / 2).astype(np.uint8)))
    return things


def _tinted(colours: np.ndarray, cast: np.ndarray) -> np.ndarray:
    return np.clip(colours * cast, 0, 255).astype(np.uint8)


def _stamps(
    shapes: np.ndarray, zoom: np.ndarray, shift: np.ndarray, size: int
) -> list[tuple[list, list, list]]:
    """Return, per frame, a window (corner and extent in pixels) and the polygons of all capsules.

    It is the smallest that holds them. Polygons are in supersampled pixels from its corner.
    """
    shapes = shapes.copy()
    for axis in (0, 1):
        centred = shapes[..., axis::3] - 0.5
        shapes[..., axis::3] = 0.5 + zoom[:, :, None] * centred + shift[:, axis, None, None]
    shapes[..., 2::3] *= zoom[:, :, None]
    polygons = _outline(shapes * size)
    points = polygons.reshape(len(shapes), -1, 2)
    low = np.clip(np.floor(points.min(1)), 0, size).astype(int)
    high = np.clip(np.ceil(points.max(1)) + 1, low, size).astype(int)
    polygons = (polygons - np.tile(low, polygons.shape[-1] // 2)[:, None]) * SUPERSAMPLING
    return list(zip(low.tolist(), (high - low).tolist(), polygons.tolist(), strict=True))


def _stamp(picture: Image.Image, corner: list, extent: list, polygons: list, colours: list) -> None:
    """Draw anti-aliased polygons into a picture."""
    if min(extent) == 0:
        return
    canvas = Image.new("RGBX", (extent[0] * SUPERSAMPLING, extent[1] * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for polygon, colour in zip(polygons, colours, strict=True):
        draw.polygon(polygon, fill=colour)
    # Opaque colour on black, averaged, is colour times coverage. The fourth band is the coverage.
    small = canvas.reduce(SUPERSAMPLING)
    front = Image.frombytes("RGBa", small.size, small.tobytes()).convert("RGBA")
    picture.paste(front, tuple(corner), front)


def render(
    rng: np.random.Generator, motion: Motion, settings: SceneSettings, size: int
) -> Iterator[np.ndarray]:
    """Film a motion, its looks drawn by `rng`: yield its F frames, uint8 [size, size, 3] RGB."""
    frames, loose = len(motion.phases), settings.body
    background, ground = draw_background(rng, settings, 2 * size * FINE)
    body = draw_body(rng, settings, ground)
    shapes, colours = capsules(body, motion.phases)
    height = 0.67 * (1 + loose * rng.uniform(-0.2, 0.1))
    foot = np.array([0.47, 0.89]) + loose * rng.uniform(-1, 1, 2) * [0.06, 0.03]
    shapes = shapes * height * UPSIDE_DOWN
    shapes[..., 0::3] += (foot[0] + motion.place)[:, None, None]
    shapes[..., 1::3] += foot[1]
    things = [*_extras(rng, settings, frames, ground), (shapes, colours)]
    # The camera shakes fast and little, wanders slowly and zooms slowly. Wandering moves the
    # background more than the figure, as if the camera followed the figure.
    zoom = 1 + settings.camera * 0.05 * smooth_noise(rng, frames, 1, 0.03, 0.12)
    shift = settings.camera * 0.006 * smooth_noise(rng, frames, 2, 1.0, 3.0)
    shift += settings.camera * 0.02 * smooth_noise(rng, frames, 2, 0.05, 0.3)
    wander = settings.camera * 0.09 * smooth_noise(rng, frames, 2, 0.03, 0.15)
    stamps = [_stamps(shapes, zoom, shift, size) for shapes, _ in things]
    # Upper left corner of the frame on the background, which is twice as large.
    corners = np.clip(size * (1 - shift - wander - 0.5 / zoom), 0, size * (2 - 1 / zoom)) * FINE
    steps = FINE / zoom[:, 0]
    # The light has one colour cast per video and a slow flicker; the sensor adds grain.
    cast = 1 + settings.light * rng.uniform(-0.12, 0.12, 3)
    background = Image.fromarray(_tinted(np.asarray(background), cast))
    fills = [[(*fill, 255) for fill in _tinted(colours, cast).tolist()] for _, colours in things]
    gain = 1 + settings.light * 0.06 * smooth_noise(rng, frames, 1, 0.1, 0.8)
    gain = gain[:, 0].astype(np.float32)
    pixels = size * size * 3
    strength = settings.noise * rng.uniform(0.5, 1.5)
    grain = rng.normal(0, strength, 4 * pixels if strength > 0 else 0).astype(np.float32)
    offsets = rng.integers(3 * pixels, size=frames)
    for index, ((left, top), step) in enumerate(zip(corners, steps, strict=True)):
        view = (step, 0, left, 0, step, top)
        picture = background.transform((size, size), Image.Transform.AFFINE, view)
        for stamp, fill in zip(stamps, fills, strict=True):
            _stamp(picture, *stamp[index], fill)
        lit = np.asarray(picture).ravel() * gain[index]
        if strength > 0:
            lit += grain[offsets[index] : offsets[index] + pixels]
        yield np.clip(lit, 0, 255, out=lit).astype(np.uint8).reshape(size, size, 3)
