"""Curves of runs: training over epochs."""

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from etadlite.viz.style import COLOURS, plain, tidy

Records = Sequence[Mapping[str, Any]]
LOOKS = [*product(("-", "--", ":", "-."), COLOURS)]  # of runs


def draw_curves(runs: Mapping[str, Records]) -> Figure:
    """Draw loss and average mAP over epochs, one colour per run.

    Runs are name -> records as in a run's metrics.jsonl: steps with `epoch` and `loss`, tests with
    `epoch` and `average_mAP` (0..1).
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    loss_axis, map_axis = figure.subplots(1, 2)
    tops = []
    for (style, colour), (name, records) in zip(cycle(LOOKS), runs.items(), strict=False):
        steps = [(r["epoch"], r["loss"]) for r in records if "loss" in r]
        tests = [(r["epoch"], 100 * r["average_mAP"]) for r in records if "average_mAP" in r]
        if steps:
            epochs, losses = np.array(steps).T
            loss_axis.plot(epochs, losses, color=colour, alpha=0.15, linewidth=0.8)
            smooth = _smooth(losses)
            loss_axis.plot(epochs, smooth, style, color=colour, label=name)
            tops.append(max(np.percentile(losses, 99), 1.1 * smooth.max()))
        if tests:
            map_axis.plot(*np.array(tests).T, f"o{style}", color=colour, label=name)
    loss_axis.set(xlabel="epoch", ylabel="loss (faint: single steps)", title="Training loss")
    if tops and max(tops) > 0:  # one very large loss does not flatten all others
        loss_axis.set_ylim(0, 1.05 * max(tops))
    map_axis.set(xlabel="epoch", ylabel="average mAP (%)", title="Test videos")
    map_axis.set_ylim(0, 1.05 * map_axis.get_ylim()[1])  # above the highest marker
    for axis in (loss_axis, map_axis):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        tidy(axis, "both")
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False)
    return plain(figure)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the running mean over a twentieth of the run, or less near the ends."""
    half = max(len(values) // 40, 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    left = np.maximum(np.arange(len(values)) - half, 0)
    right = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[right] - total[left]) / (right - left)
