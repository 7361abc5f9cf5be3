"""One look for all pictures."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#BBBBBB")


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """A colour for every label, in the labels' order; they repeat after eight."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    return path
