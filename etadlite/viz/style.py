"""One look for all pictures."""

import io
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from etadlite.base.errors import InputError
from etadlite.base.files import written_whole

# The palette of Okabe and Ito, which people with every kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#BBBBBB")


# Hatches for more classes than there are colours: each alone, then two of them.
LINES = ("//", "..", "\\\\", "||", "--", "oo", "xx", "++")
HATCHES = ("", *LINES, *map("".join, combinations(LINES, 2)))


class Look(NamedTuple):
    """How a class is drawn: a colour, and white hatches on it."""

    colour: str
    hatch: str = ""


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """Return a look for every label, in the labels' order; looks repeat after 296."""
    places = ((label, *divmod(i, len(COLOURS))) for i, label in enumerate(labels))
    return {label: Look(COLOURS[c], HATCHES[h % len(HATCHES)]) for label, h, c in places}


def readable(labels: Iterable[str]) -> dict[str, str]:
    """Return how pictures write each label, see `fonts.readable`."""
    names = list(labels)
    if "".join(names).isascii():
        return dict(zip(names, names, strict=True))
    from etadlite.viz.fonts import readable as in_letters  # many users never need it

    return in_letters(names)


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
    """Put the legend of a figure beside its axes, at a `place` such as "lower center"."""
    figure.legend(loc=f"outside {place}", frameon=False, **options)


def plain(figure: Figure) -> Figure:
    """Return a figure whose texts are shown as they are written, in letters of any script.

    $ begins no formula in a name.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    for text in texts:
        text.set_parse_math(False)
    if not all(text.get_text().isascii() for text in texts):
        from etadlite.viz.fonts import use_fonts  # many users never need it

        use_fonts(texts)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, or as its suffix says; an `InputError` names an unknown one."""
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise InputError(f"{path} is no name of a picture; it should end in .{', .'.join(kinds)}")
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
