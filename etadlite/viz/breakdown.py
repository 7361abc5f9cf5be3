"""Where detections are good and where they are missed: by class and by length of the action."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etadlite.evaluation.error_analysis import Breakdown
from etadlite.viz.style import COLOURS, legend_outside, plain, readable, tidy

PRECISION, RECALL = COLOURS[0], COLOURS[1]
ROWS = 50  # classes per column


def draw_breakdown(breakdown: Breakdown, edges: Sequence[float], *, title: str = "") -> Figure:
    """Draw average precision and recall (means over the thresholds) by class and by length.

    `edges` are the four lengths in seconds that `breakdown` was made with.
    """
    best_first = np.argsort(-_percent(breakdown.class_precision), kind="stable")
    columns = np.array_split(best_first, -(-len(best_first) // ROWS))
    height = max(3.4, 0.9 + 0.2 * len(columns[0]))
    figure = Figure(figsize=(4.2 * len(columns) + 5.2, height), layout="constrained")
    widths = [1] * len(columns) + [1.5]
    *by_class, by_length = figure.subplots(1, len(widths), width_ratios=widths)
    for axis, chosen in zip(by_class, columns, strict=True):
        _draw_classes(axis, breakdown, chosen)
    by_length.set(box_aspect=0.7, anchor="N")
    _draw_lengths(by_length, breakdown, edges)
    handles, names = by_class[0].get_legend_handles_labels()
    legend_outside(figure, "lower center", handles=handles[::-1], labels=names[::-1], ncols=2)
    thresholds = f"mean over tIoU {breakdown.tiou.min():g} to {breakdown.tiou.max():g}"
    figure.suptitle(f"{title}\n{thresholds}" if title else thresholds, parse_math=False)
    return plain(figure)


def _percent(values: np.ndarray) -> np.ndarray:
    """Return the means over the thresholds in percent."""
    return 100 * values.mean(axis=1)


def _draw_classes(axis: Axes, breakdown: Breakdown, chosen: np.ndarray) -> None:
    precision, recall = _percent(breakdown.class_precision), _percent(breakdown.class_recall)
    rows = np.arange(len(chosen))
    axis.barh(rows, precision[chosen], color=PRECISION, height=0.7, label="average precision")
    axis.plot(recall[chosen], rows, "D", color=RECALL, markersize=4, label="recall")
    shown = readable(breakdown.labels)
    names = [f"{shown[breakdown.labels[c]]} ({breakdown.class_count[c]})" for c in chosen]
    axis.set_yticks(rows, names, fontsize=7, parse_math=False)
    axis.set(xlim=(0, 103), ylim=(len(chosen) - 0.4, -0.6), xlabel="%")
    axis.set_axisbelow(True)
    tidy(axis, "x")


def _draw_lengths(axis: Axes, breakdown: Breakdown, edges: Sequence[float]) -> None:
    precision, recall = _percent(breakdown.length_precision), _percent(breakdown.length_recall)
    counts, groups = breakdown.length_count, np.arange(len(breakdown.lengths))
    bars = axis.bar(groups, precision, color=PRECISION, width=0.7)
    counted = zip(precision, counts, strict=True)
    axis.bar_label(bars, [f"{value:.0f}" if count else "none" for value, count in counted])
    axis.plot(groups[counts > 0], recall[counts > 0], "D", color=RECALL, markersize=5)
    spans = [f"{low:g}-{high:g} s" for low, high in pairwise(edges)]
    spans = [f"to {edges[0]:g} s", *spans, f"over {edges[-1]:g} s"]
    described = zip(breakdown.lengths, spans, counts, strict=True)
    names = [f"{name}\n{span}\n({count})" for name, span, count in described]
    axis.set_xticks(groups, names, fontsize=7)
    axis.set(ylim=(0, 108), ylabel="%", title="by length (number of actions)")
    axis.set_axisbelow(True)
    tidy(axis, "y")
