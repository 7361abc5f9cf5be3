"""The memory of a training step as stacked bars."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from etadlite.memory.measurement import StepMemory
from etadlite.viz.style import COLOURS


def draw_memory(bars: Mapping[str, StepMemory], *, title: str = "") -> Figure:
    """What a step holds at its peak, a bar each, such as predicted beside measured.

    Args:
        bars: name -> rows.
        title: above the picture.

    Returns:
        The figure; bars are labelled with their total in MiB.
    """
    figure = Figure(figsize=(2.5 + 1.5 * len(bars), 4.5), layout="constrained")
    axis = figure.subplots()
    titles = dict.fromkeys(name for rows in bars.values() for name in rows.stack())
    bottom = [0.0] * len(bars)
    for colour, name in zip(COLOURS, titles, strict=False):
        sizes = [rows.stack().get(name, 0) / 2**20 for rows in bars.values()]
        if any(sizes):
            axis.bar(list(bars), sizes, 0.6, bottom, color=colour, label=name)
            bottom = [low + size for low, size in zip(bottom, sizes, strict=True)]
    for place, height in enumerate(bottom):
        axis.annotate(
            f"{height:,.0f}", (place, height), (0, 3), textcoords="offset points", ha="center"
        )
    axis.set(ylabel="MiB at the peak of a step", title=title)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.15, y=0.08)
    figure.legend(loc="outside right center", frameon=False, reverse=True)
    return figure
