"""Why a detector fails, in one picture: kinds of errors, what each costs, which actions suffer."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etadlite.base.files import write_json
from etadlite.evaluation.arrays import Source
from etadlite.evaluation.diagnosis import (
    KINDS,
    RANKS,
    Diagnosis,
    diagnose,
    diagnosis_record,
    diagnosis_table,
    spans_of,
)
from etadlite.viz.style import COLOURS, plain, save, tidy

# Of `KINDS`: what is right in blue, what has nothing to do with an action in grey.
OF_KIND = dict(zip(KINDS, (COLOURS[i] for i in (0, 5, 3, 1, 4, 7)), strict=True))
MISSED = COLOURS[3]


def draw_diagnosis(found: Diagnosis, *, title: str = "") -> Figure:
    """Draw the profile of the best predictions, the gain of each kind, and groups of actions.

    Shares and mAP are means over the thresholds, in %.
    """
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 0.9))
    above, below = parts
    profile, gains = above.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_profile(profile, found)
    _draw_gains(gains, found)
    sizes = [len(groups.names) for groups in found.groups.values()]
    axes = below.subplots(1, len(sizes), width_ratios=sizes, sharey=True)
    for axis, trait in zip(axes, found.groups, strict=True):
        _draw_groups(axis, found, trait)
    axes[0].set_ylabel("%")
    handles, names = axes[0].get_legend_handles_labels()
    below.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    handles, names = profile.get_legend_handles_labels()
    above.legend(handles[::-1], names[::-1], loc="outside right center", frameon=False, fontsize=9)
    over = f"mean over tIoU {found.tiou.min():g} to {found.tiou.max():g}"
    line = f"average mAP {100 * found.average:.1f} %, {over}"
    figure.suptitle(f"{title}\n{line}" if title else line, fontsize=11)
    return plain(figure)


def write_diagnosis(
    ground_truth: Source, predictions: Path, picture: Path, **chosen: Any
) -> tuple[str, dict[str, Any]]:
    """Diagnose predictions; write the picture and, beside it, its values as JSON.

    `chosen` are the other arguments of `diagnose`. Returns a table and the values.
    """
    found = diagnose(ground_truth, predictions, **chosen)
    record = diagnosis_record(found)
    save(draw_diagnosis(found, title=predictions.name), picture)
    write_json(picture.with_suffix(".json"), record)
    return diagnosis_table(found), record


def _draw_profile(axis: Axes, found: Diagnosis) -> None:
    bottom = np.zeros(RANKS)
    for kind, shares in zip(KINDS, 100 * found.shares.T, strict=True):
        axis.bar(range(RANKS), shares, 0.85, bottom, color=OF_KIND[kind], label=kind)
        bottom += shares
    axis.set_xticks(range(RANKS), [f"{r + 1}G" for r in range(RANKS)])
    axis.set(ylim=(0, 100), ylabel="% of these predictions")
    axis.set(title="the best predictions of each class (G: its actions)")
    tidy(axis)


def _draw_gains(axis: Axes, found: Diagnosis) -> None:
    gains, rows = 100 * found.gain, np.arange(len(found.gain))
    bars = axis.barh(rows, gains, 0.7, color=[OF_KIND[kind] for kind in KINDS[1:]])
    axis.bar_label(bars, [f"{gain:+.1f}" for gain in gains], padding=3)
    axis.set_yticks(rows, KINDS[1:])
    axis.set(xlim=(0, 1.2 * max(*gains, 0.5)), xlabel="points of average mAP")
    axis.set(title="gained without these errors", ylim=(len(rows) - 0.4, -0.6))
    tidy(axis, "x")
    axis.set_axisbelow(True)


def _draw_groups(axis: Axes, found: Diagnosis, trait: str) -> None:
    groups = found.groups[trait]
    there, places = groups.count > 0, np.arange(len(groups.names))
    scores = 100 * np.nan_to_num(groups.precision)
    bars = axis.bar(places, scores, 0.7, color=COLOURS[0], label="average mAP_N (normalised)")
    shown = zip(scores, there, strict=True)
    texts = [f"{value:.0f}" if any_ else "none" for value, any_ in shown]
    axis.bar_label(bars, texts, label_type="center", fontsize=8, color="white")
    missed = 100 * groups.missed[there]
    axis.plot(places[there], missed, "D", color=MISSED, markersize=5, label="missed")
    whole = {"color": "black", "linestyle": "--", "linewidth": 1}
    axis.axhline(100 * found.normalised, **whole, label="average mAP_N of all")
    spans = [*spans_of(found.edges[trait], trait), ""]
    described = zip(groups.names, spans, groups.count, strict=False)
    axis.set_xticks(places, [f"{a}\n{b}\n({n})" for a, b, n in described], fontsize=7)
    titles = {"coverage": "share of the video", "instances": "actions of the class in the video"}
    axis.set(ylim=(0, 108), title=titles.get(trait, trait))
    tidy(axis, "y")
    axis.set_axisbelow(True)
