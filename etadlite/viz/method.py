"""The method in one picture: three passes, what each keeps in memory, and what is sampled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from etadlite.viz.style import COLOURS

Lit = Literal["all", "detector", "passes", "snippets", "proposals", "test", "windows", "videos"]

Part = Callable[[str], Any]  # a context: what is drawn in it belongs to this part
Point = tuple[float, float]

FORWARD, GRADIENT, KEPT = COLOURS[0], COLOURS[3], COLOURS[2]
INK, QUIET, PALE, WORKING = "#222222", "#5F5F5F", "#F6F6F6", "#B8B8B8"
DIM = 0.25  # opacity of what is not lit
WIDTH, HEIGHT = 12.0, 6.9  # inches; also the units of the drawing
PANELS = (0.1, 4.1, 8.1)  # left sides of the three passes
PANEL = 3.8  # width of a pass
TOP, BOTTOM = 5.72, 1.72  # of a pass
COUNT, CHUNK = 12, 4  # snippets that are drawn, and in a chunk
SAMPLED = (1, 4, 5, 10)  # snippets with a gradient
PROPOSALS = ((0, 3), (1, 5), (4, 6), (5, 9), (8, 10), (7, 12))  # start and end in cells
TRAINED = (1, 2, 4)  # of the proposals

# What lights which parts.
PARTS: dict[str, tuple[str, ...]] = {
    "detector": ("features", "detector", "proposals"),
    "passes": ("pass 1", "replay", "snippets", "memory"),
    "snippets": ("snippets", "replay"),
    "proposals": ("proposals",),
    "test": ("test",),
    "windows": ("windows",),
    "videos": ("videos",),
}


def draw_method(lit: Lit = "all") -> Figure:
    """Draw a training step of ETAD as three passes, with the memory that each holds below.

    `lit` is what stays bright while all else is dimmed: the detector (pass 2), the passes through
    the encoder (1 and 3), the sampled snippets (pass 3), the sampled proposals (in pass 2), or
    what comes before and after: the videos, windows, and the test. The memory is a sketch.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axis.axis("off")
    shining = None if lit == "all" else PARTS[lit]

    @contextmanager
    def part(name: str) -> Iterator[None]:
        """Dim what is drawn meanwhile unless this part is lit."""
        before = set(axis.get_children())
        yield
        if shining is not None and name not in shining:
            for artist in set(axis.get_children()) - before:
                artist.set_alpha(DIM)

    _draw_course(axis, part)
    _draw_first(axis, part)
    _draw_second(axis, part)
    _draw_third(axis, part)
    with part("memory"):
        _draw_memory(axis)
    return figure


def _draw_course(axis: Axes, part: Part) -> None:
    """Draw what comes before and after the training step, on one line."""
    steps = (
        ("videos", "videos and labels", "07", 0.1, 2.35),
        ("windows", "windows of long videos", "06", 2.85, 2.75),
        ("training", "a training step: three passes", "", 6.0, 2.95),
        ("test", "test: classes, NMS, mAP", "05", 9.35, 2.55),
    )
    middle, height = HEIGHT - 0.42, 0.5
    with part("training"):  # the panels below show this step in detail
        low = middle - height / 2
        corners = [(6.22, low), (8.73, low), (PANELS[2] + PANEL - 0.1, TOP), (PANELS[0] + 0.1, TOP)]
        axis.add_patch(Polygon(corners, facecolor="#EDEDED", edgecolor="none"))
    for place, (name, text, number, left, width) in enumerate(steps):
        with part(name):
            _box(axis, (left, middle - height / 2, width, height), PALE, "#999999", 0.22)
            _text(axis, left + width / 2, middle, text, 10.5)
            if number:
                _number(axis, left + width - 0.34, middle + height / 2, number)
            if place:
                before = steps[place - 1]
                _arrow(axis, (before[3] + before[4] + 0.06, middle), (left - 0.06, middle), QUIET)


def _draw_first(axis: Axes, part: Part) -> None:
    left = PANELS[0]
    with part("pass 1"):
        _panel(axis, left, "1", "encode all, without gradient", "02")
        strip = _film(axis, left, 4.55, lit=range(CHUNK, 2 * CHUNK))
        _text(axis, left + PANEL / 2, 5.1, "snippets, a chunk at a time", 9.5, QUIET)
        chunk = strip[CHUNK : 2 * CHUNK]
        low, high = chunk[0] - 0.02, chunk[-1] + 0.26
        _box(
            axis, (low - 0.03, 4.47, high - low + 0.06, 0.44), "none", FORWARD, 0.06, linewidth=1.8
        )
        centre = left + PANEL / 2
        _arrow(axis, (centre, 4.43), (centre, 4.03), FORWARD)
        _encoder(axis, centre, 3.68, "encoder")
        _arrow(axis, (centre, 3.33), (centre, 2.93), FORWARD)
        _cells(axis, left, 2.5, FORWARD, filled=range(2 * CHUNK))
        _text(axis, centre, 2.28, "features", 9.5, QUIET)
        _kept(axis, left, "keeps", "the features only")


def _draw_second(axis: Axes, part: Part) -> None:
    left = PANELS[1]
    centre = left + PANEL / 2
    with part("detector"):
        _panel(axis, left, "2", "detector: forward and backward", "01")
    with part("features"):
        _text(axis, centre, 5.1, "features, and their gradient", 9.5, QUIET)
        _cells(axis, left, 4.72, FORWARD, filled=range(COUNT))
        _cells(axis, left, 4.47, GRADIENT, filled=range(COUNT))
    with part("detector"):
        _arrow(axis, (centre - 0.3, 4.4), (centre - 0.3, 4.03), FORWARD)
        _arrow(axis, (centre + 0.3, 4.03), (centre + 0.3, 4.4), GRADIENT)
        _box(axis, (centre - 0.85, 3.37, 1.7, 0.62), "white", INK, 0.08, linewidth=1.6)
        _text(axis, centre, 3.68, "detector", 11.5, weight="bold")
        _arrow(axis, (centre - 0.3, 3.32), (centre - 0.3, 3.0), FORWARD)
        _arrow(axis, (centre + 0.3, 3.0), (centre + 0.3, 3.32), GRADIENT)
        _kept(axis, left, "keeps", "the features' gradient")
    with part("proposals"):
        _text(axis, centre, 2.26, "a sample of the proposals", 9.5, QUIET)
        _number(axis, left + PANEL - 0.4, 2.26, "04")
        cell = _width()
        for index, (start, end) in enumerate(PROPOSALS):
            row = 2.95 - 0.1 * index
            chosen = index in TRAINED
            x, width = left + 0.22 + start * cell, (end - start) * cell - 0.04
            face = COLOURS[4] if chosen else "none"
            edge, style = (COLOURS[4], "-") if chosen else ("#999999", (0, (3, 2)))
            axis.add_patch(
                Rectangle((x, row - 0.035), width, 0.07, facecolor=face, edgecolor=edge, ls=style)
            )


def _draw_third(axis: Axes, part: Part) -> None:
    left = PANELS[2]
    centre = left + PANEL / 2
    with part("replay"):
        _panel(axis, left, "3", "encode a sample, with gradient", "02")
    with part("snippets"):
        _text(axis, centre, 5.1, "a sample of the snippets", 9.5, QUIET)
        _film(axis, left, 4.55, lit=SAMPLED, frame=True)
        _number(axis, left + PANEL - 0.4, 5.1, "03")
    with part("replay"):
        _arrow(axis, (centre - 0.3, 4.45), (centre - 0.3, 4.03), FORWARD)
        _encoder(axis, centre, 3.68, "encoder")
        _arrow(axis, (centre + 0.3, 2.93), (centre + 0.3, 3.33), GRADIENT)
        _kept(axis, left, "keeps", "the weights' gradient")
        _text(axis, centre + 0.95, 3.68, "learns", 10, GRADIENT, ha="left", weight="bold")
    with part("snippets"):
        _cells(axis, left, 2.5, GRADIENT, filled=SAMPLED)
        _text(axis, centre, 2.28, "their features' gradient", 9.5, QUIET)


def _draw_memory(axis: Axes) -> None:
    """Sketch the memory over the step: what stays, and the activations, which come and go."""
    base, top = 0.12, 1.28
    time = np.linspace(0, 3, 1801)
    first, second, third = time < 1, (time >= 1) & (time < 2), time >= 2
    chunks = COUNT // CHUNK
    encoded = np.minimum(np.floor(time * chunks + 1e-9) / chunks, 1)
    features = 0.1 * encoded
    gradient = 0.1 * np.clip(2 * time - 3, 0, 1)  # filled while the detector goes backward
    chunk = 0.14 * ((time * chunks) % 1 < 0.8)  # layer after layer, nothing is kept
    detector = 0.4 * np.clip(1 - np.abs(2 * time - 3), 0, 1)
    replayed = 0.46 * np.clip(1 - np.abs(2 * ((2 * time) % 1) - 1), 0, 1)
    working = (
        np.where(first, chunk, 0) + np.where(second, detector, 0) + np.where(third, replayed, 0)
    )
    edges = [edge for left in PANELS for edge in (left, left + PANEL)]
    x = np.interp(time, (0, 1, 1.001, 2, 2.001, 3), edges)
    levels = np.cumsum([np.full_like(time, base), features, gradient, working], axis=0)
    for low, high, colour in zip(
        levels[:-1], levels[1:], (FORWARD, GRADIENT, WORKING), strict=True
    ):
        axis.fill_between(x, low, high, color=colour, linewidth=0)
    axis.plot([edges[0], edges[-1]], [base, base], color=INK, linewidth=1)
    axis.plot([edges[0], edges[-1]], [top, top], color=QUIET, linewidth=1.2, linestyle=(0, (5, 3)))
    beside = "plain back-propagation: all snippets at once, far above"
    _text(axis, edges[-1], top + 0.15, beside, 9.5, QUIET, ha="right")
    _text(axis, edges[0], top + 0.15, "memory (a sketch):", 9.5, ha="left", weight="bold")
    place = edges[0] + 1.55
    for text, colour in (
        ("features", FORWARD),
        ("their gradient", GRADIENT),
        ("activations", WORKING),
    ):
        axis.add_patch(Rectangle((place, top + 0.09), 0.16, 0.12, facecolor=colour))
        _text(axis, place + 0.22, top + 0.15, text, 9.5, QUIET, ha="left")
        place += 0.42 + 0.075 * len(text)
    for pass_, text, height in ((0, "chunk by chunk", 0.34), (1, "detector", 0.72), (2, "", 0)):
        _text(axis, PANELS[pass_] + PANEL / 2, base + height, text, 9, QUIET)
    for side in (0.25, 0.75):
        _text(axis, PANELS[2] + side * PANEL, base + 0.76, "a chunk", 9, QUIET)


def _panel(axis: Axes, left: float, number: str, title: str, notebook: str) -> None:
    _box(axis, (left, BOTTOM, PANEL, TOP - BOTTOM), PALE, "#CCCCCC", 0.12)
    axis.add_patch(Circle((left + 0.3, TOP - 0.3), 0.17, facecolor=INK, edgecolor="none"))
    _text(axis, left + 0.3, TOP - 0.31, number, 11, "white", weight="bold")
    _text(axis, left + 0.56, TOP - 0.3, title, 11.5, ha="left", weight="bold")
    _number(axis, left + PANEL - 0.4, TOP, notebook)


def _number(axis: Axes, x: float, y: float, number: str) -> None:
    """Write the number of the notebook that builds this part."""
    _box(axis, (x - 0.17, y - 0.1, 0.34, 0.2), "white", "#999999", 0.1)
    _text(axis, x, y - 0.005, number, 8.5, QUIET)


def _width() -> float:
    return (PANEL - 0.44) / COUNT


def _film(
    axis: Axes, left: float, low: float, lit: Sequence[int] | range, *, frame: bool = False
) -> list[float]:
    """Draw the snippets as little pictures of a moving figure; return their left sides."""
    cell, places = _width(), []
    for index in range(COUNT):
        x = left + 0.22 + index * cell + 0.02
        bright = index in lit
        face = "#DCEBF5" if bright else "#E6E6E6"
        edge = FORWARD if bright and frame else "white"
        box = Rectangle((x, low), 0.24, 0.28, facecolor=face, edgecolor=edge, linewidth=1.4)
        axis.add_patch(box)
        ink = FORWARD if bright else "#AAAAAA"
        swing = 0.06 * np.sin(index * 1.1)
        head = Circle((x + 0.12, low + 0.21), 0.032, facecolor=ink, edgecolor="none")
        axis.add_patch(head)
        for line in (
            ([0.12, 0.12], [0.18, 0.1]),
            ([0.12, 0.12 + swing], [0.1, 0.03]),
            ([0.12, 0.12 - swing], [0.1, 0.03]),
            ([0.12, 0.2], [0.155, 0.14 + swing]),
            ([0.12, 0.04], [0.155, 0.14 - swing]),
        ):
            axis.plot(np.add(x, line[0]), np.add(low, line[1]), color=ink, linewidth=1.2)
        places.append(x)
    return places


def _cells(axis: Axes, left: float, low: float, colour: str, filled: Sequence[int] | range) -> None:
    """Draw a feature, or a gradient, of every snippet as a cell."""
    cell = _width()
    for index in range(COUNT):
        x = left + 0.22 + index * cell + 0.02
        face = colour if index in filled else "white"
        edge = colour if index in filled else "#BBBBBB"
        axis.add_patch(Rectangle((x, low), 0.24, 0.2, facecolor=face, edgecolor=edge))


def _encoder(axis: Axes, x: float, y: float, text: str) -> None:
    corners = [(x - 0.85, y + 0.31), (x + 0.85, y + 0.31), (x + 0.6, y - 0.31), (x - 0.6, y - 0.31)]
    axis.add_patch(Polygon(corners, facecolor="white", edgecolor=INK, linewidth=1.6))
    _text(axis, x, y, text, 11.5, weight="bold")


def _kept(axis: Axes, left: float, verb: str, text: str) -> None:
    axis.plot([left + 0.2, left + PANEL - 0.2], [2.1, 2.1], color="#CCCCCC", linewidth=1)
    _text(axis, left + 0.22, 1.91, verb, 10, KEPT, ha="left", weight="bold")
    _text(axis, left + 0.8, 1.91, text, 10, ha="left")


def _box(
    axis: Axes,
    place: tuple[float, float, float, float],
    face: str,
    edge: str,
    radius: float,
    *,
    linewidth: float = 1.0,
) -> None:
    style = f"round,pad=0,rounding_size={radius}"
    options = {"facecolor": face, "edgecolor": edge, "linewidth": linewidth}
    axis.add_patch(FancyBboxPatch(place[:2], *place[2:], boxstyle=style, **options))


def _arrow(axis: Axes, start: Point, end: Point, colour: str) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "linewidth": 2, "color": colour}
    axis.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))


def _text(
    axis: Axes, x: float, y: float, text: str, size: float, colour: str = INK, **options: Any
) -> None:
    options = {"ha": "center", "va": "center"} | options
    axis.text(x, y, text, fontsize=size, color=colour, **options)
