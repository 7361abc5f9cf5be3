"""Where detections are good and where they are missed: by class and by length of the action."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etadlite.evaluation import Breakdown
from etadlite.viz.style import COLOURS

PRECISION, RECALL = COLOURS[0], COLOURS[1]
ROWS = 50  # classes a column


def draw_breakdown(breakdown: Breakdown, edges: Sequence[float], *, title: str = "") -> Figure:
    """Average precision and recall: of every class, best first, and by length.

    Args:
        breakdown: what is drawn, as means over its thresholds.
        edges: the four lengths in seconds that it was made with.
        title: above the picture.

    Returns:
        The figure.
    """
    precision = 100 * breakdown.class_precision.mean(axis=1)
    recall = 100 * breakdown.class_recall.mean(axis=1)
    best_first = np.argsort(-precision, kind="stable")
    columns = np.array_split(best_first, -(-len(best_first) // ROWS))
    height = max(3.4, 0.9 + 0.2 * len(columns[0]))
    figure = Figure(figsize=(4.2 * len(columns) + 5.2, height), layout="constrained")
    grid = figure.add_gridspec(1, len(columns) + 1, width_ratios=[1] * len(columns) + [1.5])
    for number, chosen in enumerate(columns):
        axis = figure.add_subplot(grid[0, number])
        _draw_classes(axis, breakdown, chosen, precision, recall)
    by_length = figure.add_subplot(grid[0, -1])
    by_length.set_box_aspect(0.7)
    by_length.set_anchor("N")
    _draw_lengths(by_length, breakdown, edges)
    thresholds = f"mean over tIoU {breakdown.tiou.min():g} to {breakdown.tiou.max():g}"
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{title}\n{thresholds}" if title else thresholds, parse_math=False)
    return figure


def _draw_classes(
    axis: Axes,
    breakdown: Breakdown,
    chosen: np.ndarray,
    precision: np.ndarray,
    recall: np.ndarray,
) -> None:
    rows = np.arange(len(chosen))
    axis.barh(rows, precision[chosen], color=PRECISION, height=0.7, label="average precision")
    axis.plot(recall[chosen], rows, "D", color=RECALL, markersize=4, label="recall")
    names = [f"{breakdown.labels[c]} ({breakdown.class_count[c]})" for c in chosen]
    axis.set_yticks(rows, names, fontsize=7, parse_math=False)
    axis.set(xlim=(0, 103), ylim=(len(chosen) - 0.4, -0.6), xlabel="%")
    _quieten(axis, "x")


def _draw_lengths(axis: Axes, breakdown: Breakdown, edges: Sequence[float]) -> None:
    precision, recall = (
        100 * values.mean(axis=1)
        for values in (breakdown.length_precision, breakdown.length_recall)
    )
    bounds = [f"{edge:g}" for edge in edges]
    spans = [
        f"to {bounds[0]} s",
        *(f"{low}-{high} s" for low, high in pairwise(bounds)),
        f"over {bounds[-1]} s",
    ]
    groups = np.arange(len(breakdown.lengths))
    bars = axis.bar(groups, precision, color=PRECISION, width=0.7)
    counted = zip(precision, breakdown.length_count, strict=True)
    axis.bar_label(bars, [f"{value:.0f}" if count else "none" for value, count in counted])
    there = breakdown.length_count > 0
    axis.plot(groups[there], recall[there], "D", color=RECALL, markersize=5)
    names = [
        f"{name}\n{span}\n({count})"
        for name, span, count in zip(breakdown.lengths, spans, breakdown.length_count, strict=True)
    ]
    axis.set_xticks(groups, names, fontsize=7)
    axis.set(ylim=(0, 108), ylabel="%", title="by length (number of actions)")
    _quieten(axis, "y")


def _quieten(axis: Axes, grid: str) -> None:
    axis.grid(axis=grid, alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
