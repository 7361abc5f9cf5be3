"""What sampling strategies reach, against what they cost."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from etadlite.training.report import RunReport
from etadlite.viz.style import COLOURS

LOOKS = [*zip(COLOURS, "osD^vP<>", strict=True), ("black", "X"), ("black", "*")]
"""A colour and a marker for each strategy; they repeat after ten."""

APART = 5
"""Points between neighbouring strategies where they need the same memory."""

Reports = Mapping[str, Mapping[float, Sequence[RunReport]]]


def draw_ablation(reports: Reports, *, title: str = "") -> Figure:
    """Average mAP against memory and against time: a line a strategy, a marker a ratio.

    Markers are means over seeds, bars their standard deviation.

    Args:
        reports: strategy -> ratio -> one report a seed.
        title: above the picture.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    memory, time = figure.subplots(1, 2, sharey=True)
    for number, (strategy, of_ratio) in enumerate(reports.items()):
        look = LOOKS[number % len(LOOKS)]
        dodge = APART * (number - (len(reports) - 1) / 2)
        _draw(memory, of_ratio, lambda run: run.peak_activation_bytes / 2**20, look, dodge)
        _draw(time, of_ratio, lambda run: run.seconds_per_step, look, 0)
        memory.plot([], [], color=look[0], marker=look[1], label=strategy)
    memory.set(
        xlabel="most activations at once (MiB), strategies set apart", ylabel="average mAP (%)"
    )
    time.set(xlabel="seconds a step")
    for axis in (memory, time):
        axis.autoscale_view()
        axis.set_xlim(0, 1.15 * axis.dataLim.x1)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, _ = memory.get_legend_handles_labels()
    for ratio in sorted({ratio for of_ratio in reports.values() for ratio in of_ratio}):
        size = _size(ratio) ** 0.5
        dot = {"color": "grey", "marker": "o", "markersize": size, "linestyle": "none"}
        handles.append(Line2D([], [], label=f"ratio {ratio:g}", **dot))
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    seeds = max(len(runs) for of_ratio in reports.values() for runs in of_ratio.values())
    note = f"mean and deviation of {seeds} seeds" if seeds > 1 else "one seed"
    figure.suptitle(f"{title}: {note}" if title else note)
    return figure


def _draw(
    axis: Axes,
    of_ratio: Mapping[float, Sequence[RunReport]],
    cost: Callable[[RunReport], float],
    look: tuple[str, str],
    dodge: float,
) -> None:
    """The line of a strategy, moved to the right by `dodge` points."""
    figure = axis.get_figure()
    moved = axis.transData + ScaledTranslation(dodge / 72, 0, figure.dpi_scale_trans)
    ratios = sorted(of_ratio)
    scores = [[100 * run.average for run in of_ratio[ratio]] for ratio in ratios]
    x = [statistics.mean(map(cost, of_ratio[ratio])) for ratio in ratios]
    y = [statistics.mean(values) for values in scores]
    bars = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in scores]
    colour, marker = look
    axis.errorbar(x, y, bars, color=colour, linewidth=0.8, alpha=0.6, transform=moved)
    ends = [value + sign * bar for sign in (-1, 1) for value, bar in zip(y, bars, strict=True)]
    axis.update_datalim(
        [*zip(x * 2, ends, strict=True)]
    )  # moved artists do not count by themselves
    sizes = [_size(ratio) for ratio in ratios]
    axis.scatter(x, y, sizes, color=colour, marker=marker, zorder=3, transform=moved)


def _size(ratio: float) -> float:
    """Area of the marker of a ratio, in square points."""
    return 12 + 100 * ratio
