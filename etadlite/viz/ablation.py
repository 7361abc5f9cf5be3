"""What sampling strategies reach, over their cost."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from etadlite.training.report import RunReport
from etadlite.viz.style import COLOURS, legend_outside, plain, tidy

Reports = Mapping[tuple[str, float], Sequence[RunReport]]  # (strategy, ratio) -> one per seed

# A colour and a marker per strategy; they repeat after ten.
LOOKS = [*zip(COLOURS, "osD^vP<>", strict=True), ("black", "X"), ("black", "*")]
APART = 5  # points between neighbouring strategies that need the same memory


def draw_ablation(reports: Reports, *, title: str = "") -> Figure:
    """Draw average mAP against memory and time: one line per strategy, one marker per ratio.

    Markers are means over seeds, bars their standard deviation.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    memory, time = figure.subplots(1, 2, sharey=True)
    strategies = list(dict.fromkeys(strategy for strategy, _ in reports))
    for number, strategy in enumerate(strategies):
        of_ratio = {ratio: runs for (name, ratio), runs in reports.items() if name == strategy}
        look = LOOKS[number % len(LOOKS)]
        dodge = APART * (number - (len(strategies) - 1) / 2)
        _draw(memory, of_ratio, lambda run: run.peak_activation_bytes / 2**20, look, dodge)
        _draw(time, of_ratio, lambda run: run.seconds_per_step, look, 0)
        memory.plot([], [], color=look[0], marker=look[1], label=strategy)
    memory.set_xlabel("most activations at once (MiB), strategies set apart")
    memory.set_ylabel("average mAP (%)")
    time.set_xlabel("seconds a step")
    for axis in (memory, time):
        axis.autoscale_view()
        axis.set_xlim(0, 1.15 * axis.dataLim.x1)
        tidy(axis, "both")
    handles, _ = memory.get_legend_handles_labels()
    for ratio in sorted({ratio for _, ratio in reports}):
        dot = {"color": "grey", "marker": "o", "markersize": _area(ratio) ** 0.5, "linestyle": ""}
        handles.append(Line2D([], [], label=f"ratio {ratio:g}", **dot))
    legend_outside(figure, "right center", handles=handles)
    seeds = max(map(len, reports.values()))
    note = f"mean and deviation of {seeds} seeds" if seeds > 1 else "one seed"
    figure.suptitle(f"{title}: {note}" if title else note)
    return plain(figure)


def _draw(
    axis: Axes,
    of_ratio: Mapping[float, Sequence[RunReport]],
    cost: Callable[[RunReport], float],
    look: tuple[str, str],
    dodge: float,
) -> None:
    """Draw the line of a strategy, moved to the right by `dodge` points."""
    colour, marker = look
    moved = axis.transData + ScaledTranslation(dodge / 72, 0, axis.get_figure().dpi_scale_trans)
    x, y, bars = [], [], []
    for _, runs in sorted(of_ratio.items()):
        scores = [100 * run.average for run in runs]
        x.append(statistics.mean(map(cost, runs)))
        y.append(statistics.mean(scores))
        bars.append(statistics.stdev(scores) if len(scores) > 1 else 0.0)
        # Axes do not see the extent of moved artists.
        axis.update_datalim([(x[-1], y[-1] - bars[-1]), (x[-1], y[-1] + bars[-1])])
    axis.errorbar(x, y, bars, color=colour, linewidth=0.8, alpha=0.6, transform=moved)
    areas = [_area(ratio) for ratio in sorted(of_ratio)]
    axis.scatter(x, y, areas, color=colour, marker=marker, zorder=3, transform=moved)


def _area(ratio: float) -> float:
    """Return the area of a ratio's marker in square points."""
    return 12 + 100 * ratio
