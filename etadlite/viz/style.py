"""One look for all pictures."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from etadlite.base.files import written_whole

# The palette of Okabe and Ito, which people with every kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#BBBBBB")


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """Return a colour for every label, in the labels' order; the colours repeat after eight."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}


def tidy(
    axis: Axes,
    grid: Literal["x", "y", "both"] | None = None,
    hidden: Sequence[str] = ("top", "right"),
) -> None:
    """Hide sides of the frame, and draw a faint grid if one is asked for."""
    axis.spines[list(hidden)].set_visible(False)
    if grid:
        axis.grid(axis=grid, alpha=0.3)


def legend_outside(figure: Figure, place: str, **options: Any) -> None:
    """Put the legend of a figure beside its axes; `place` is such as "lower center"."""
    figure.legend(loc=f"outside {place}", frameon=False, **options)


def plain(figure: Figure) -> Figure:
    """Return a figure whose texts are shown as they are written: $ begins no formula in a name."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file."""
    with written_whole(path) as draft:
        figure.savefig(draft, dpi=120, bbox_inches="tight")
    return path


def png(figure: Figure, dpi: float = 120) -> bytes:
    """Return a figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    return file.getvalue()


def pixels(figure: Figure, dpi: float = 120) -> np.ndarray:
    """Return a figure as it is drawn: uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png(figure, dpi))).convert("RGB"))
