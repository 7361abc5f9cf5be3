"""The memory of a training step as stacked bars, and its seconds as bars."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from etadlite.memory.measurement import StepMemory
from etadlite.viz.style import COLOURS, legend_outside, plain, tidy


def draw_memory(bars: Mapping[str, StepMemory], *, title: str = "") -> Figure:
    """Draw what a step holds at its peak (MiB): a bar per name, such as predicted and measured."""
    figure = Figure(figsize=(2.5 + 1.5 * len(bars), 4.5), layout="constrained")
    axis = figure.subplots()
    stacks = [rows.stack() for rows in bars.values()]
    bottom = np.zeros(len(bars))
    parts = dict.fromkeys(name for stack in stacks for name in stack)
    for colour, name in zip(COLOURS, parts, strict=False):
        sizes = np.array([stack.get(name, 0) / 2**20 for stack in stacks])
        if sizes.any():
            axis.bar(list(bars), sizes, 0.6, bottom, color=colour, label=name)
            bottom += sizes
    for place, height in enumerate(bottom):
        above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
        axis.annotate(f"{height:,.0f}", (place, height), **above)
    axis.set(ylabel="MiB at the peak of a step", title=title)
    axis.margins(x=0.15, y=0.08)
    tidy(axis)
    legend_outside(figure, "right center", reverse=True)
    return plain(figure)


def draw_seconds(parts: Mapping[str, float], *, title: str = "") -> Figure:
    """Draw the seconds of a step's parts: a bar each, from the top, with seconds and shares."""
    figure = Figure(figsize=(7, 1 + 0.4 * len(parts)), layout="constrained")
    axis = figure.subplots()
    names, total = list(parts), sum(parts.values())
    axis.barh(names, list(parts.values()), 0.7, color=COLOURS[0])
    for place, taken in enumerate(parts.values()):
        beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(f"{taken:.3g} s, {taken / total:.0%}", (taken, place), **beside)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.set(xlabel="seconds of a step", title=title)
    tidy(axis, "x")
    return plain(figure)
