"""One look for all pictures."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from etadlite.base.files import written_whole

# Okabe and Ito's palette: told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#BBBBBB")


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """A colour for every label, in the labels' order; they repeat after eight."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    with written_whole(path) as draft:
        figure.savefig(draft, dpi=120, bbox_inches="tight")
    return path


def png(figure: Figure, dpi: float = 120) -> bytes:
    """A figure as a PNG file's content."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    return file.getvalue()


def pixels(figure: Figure, dpi: float = 120) -> np.ndarray:
    """A figure as it is drawn: uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png(figure, dpi))).convert("RGB"))
