"""Why a detector fails, after DETAD: kinds of false positives, what each costs, what is missed.

Source: Alwassel et al., "Diagnosing Error in Temporal Action Detectors", ECCV 2018. G is the number
of true actions of a class, and mAP_N is mAP with normalised precision: its true positives are
scaled to as many actions as a class has on average, so that rare and frequent classes, or groups of
actions of different sizes, can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.base.tables import aligned
from etadlite.evaluation.arrays import (
    Duplicates,
    GroundTruth,
    Names,
    Predictions,
    Source,
    as_numbers,
    as_published,
    check_tiou,
    pairs_of,
    read_ground_truth,
    read_predictions,
)
from etadlite.evaluation.average_precision import match_predictions, rank_by_class

# With the true action that a prediction overlaps most:
KINDS = (
    "true positive",  # it takes a true action, as in average precision
    "duplicate",  # tIoU and class suffice, but a better prediction has taken the action
    "wrong label",  # tIoU suffices, another class
    "localisation",  # tIoU is at least `NEAR` and too low, the same class
    "confusion",  # tIoU is at least `NEAR` and too low, another class
    "background",  # tIoU is below `NEAR`
)
NEAR = 0.1  # tIoU
RANKS = 10  # the profile shows the best 10 G predictions of every class
# Upper bounds of the groups but the last: seconds, share of the video, and number of actions of the
# class in the video. DETAD has these for ActivityNet; for THUMOS-14 it has lengths of 3, 6, 12 and
# 18 s, coverages of .02, .04, .06 and .08, and 1, 40 and 80 actions.
EDGES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"length": (30, 60, 120, 180), "coverage": (0.2, 0.4, 0.6, 0.8), "instances": (1, 4, 8)}
)
GROUP_NAMES = ("XS", "S", "M", "L", "XL", "XXL", "XXXL")


class Groups(NamedTuple):
    """True actions in n groups by one of their traits; shares are means over the thresholds."""

    names: tuple[str, ...]  # XS and larger; "unknown" where a video has no duration
    count: NDArray[np.int64]  # [n]
    missed: NDArray[np.float64]  # [n] share that no prediction takes; NaN for an empty group
    precision: NDArray[np.float64]  # [n] average mAP_N of the group; NaN for an empty group


@dataclass(frozen=True)
class Diagnosis:
    """Result of `diagnose`; shares and mAP lie in 0..1."""

    tiou: NDArray[np.float64]  # [K] thresholds
    average: float  # average mAP
    normalised: float  # average mAP_N
    profile: NDArray[np.int64]  # [K, 10, 6] predictions ranked (r G, (r + 1) G], by kind
    gain: NDArray[np.float64]  # [5] of average mAP, if the errors of a kind were not predicted
    normalised_gain: NDArray[np.float64]  # [5] of average mAP_N
    missed: NDArray[np.float64]  # [K] share of the true actions that no prediction takes
    edges: Mapping[str, tuple[float, ...]]  # of the groups
    groups: Mapping[str, Groups]  # by the names of `EDGES`

    @property
    def shares(self) -> NDArray[np.float64]:
        """The profile as shares of the predictions of these ranks, mean over thresholds: [10, 6].

        Ranks without predictions have 0.
        """
        counts = self.profile.mean(axis=0)
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def diagnose(
    ground_truth: Source,
    predictions: Source,
    *,
    subset: str,
    tiou: Sequence[float],
    edges: Mapping[str, Sequence[float]] = EDGES,  # ascending; those that are given replace EDGES
    blocked: Names = (),
    duplicates: Duplicates = "keep",  # see `read_ground_truth`
) -> Diagnosis:
    """Find which kinds of errors a detector makes, and which actions it finds worst.

    Every prediction is exactly one of `KINDS` at each threshold. Of several true actions that it
    overlaps equally, one of its own class counts. The gain of a kind is that of the mAP over all
    predictions; DETAD drops predictions ranked behind 10 G first. mAP_N of a group ignores the
    predictions that take actions of other groups, and is the mean over the classes in the group.
    The other arguments are as in `mean_average_precision`.

    Raises:
        InputError: as `mean_average_precision`, or ``edges`` are malformed.
    """
    thresholds = check_tiou(tiou)
    bounds = {trait: _checked(trait, given) for trait, given in {**EDGES, **edges}.items()}
    truth = read_ground_truth(ground_truth, subset, blocked, duplicates)
    ranked = rank_by_class(read_predictions(predictions, truth))
    holder = match_predictions(truth, ranked, thresholds)
    kinds = kinds_of(truth, ranked, holder, thresholds)
    counts = np.bincount(truth.label, minlength=len(truth.labels))
    rank = np.arange(len(ranked.label)) - np.searchsorted(ranked.label, ranked.label)
    place = rank // counts[ranked.label]
    shown, cells = place < RANKS, RANKS * len(KINDS)
    found = [np.bincount((place * len(KINDS) + kind)[shown], minlength=cells) for kind in kinds]
    whole = np.ones(len(truth.label), bool)

    def average(keep: NDArray[np.bool_], mine: NDArray[np.bool_], *, normalise: bool) -> float:
        """Return the average mAP of the predictions `keep` [K, N] for the actions `mine` [G]."""
        usual = counts.mean() if normalise else None
        columns = zip(holder, keep, strict=True)
        return float(
            np.mean([_precision(truth, ranked, *column, mine, usual).mean() for column in columns])
        )

    scores = {}
    for normalise in (False, True):
        every = [kinds != error for error in range(len(KINDS))]
        every[0] = np.ones_like(kinds, bool)  # nothing is removed
        scores[normalise] = np.array([average(k, whole, normalise=normalise) for k in every])
    traits = _traits(truth)
    groups = {}
    for trait, edge in bounds.items():
        group, values = np.searchsorted(edge, traits[trait]), traits[trait]
        group[np.isnan(values)] = len(edge) + 1
        names = GROUP_NAMES[: len(edge) + 1] + ("unknown",) * bool(np.isnan(values).any())
        rows = []
        for number in range(len(names)):
            mine = group == number
            keep = np.stack([_without(row[~mine], len(ranked.label)) for row in holder])
            missed = (holder[:, mine] < 0).mean() if mine.any() else np.nan
            score = average(keep, mine, normalise=True) if mine.any() else np.nan
            rows.append((mine.sum(), missed, score))
        groups[trait] = Groups(names, *map(np.array, zip(*rows, strict=True)))
    return Diagnosis(
        thresholds,
        float(scores[False][0]),
        float(scores[True][0]),
        np.reshape(found, (len(kinds), RANKS, len(KINDS))),
        scores[False][1:] - scores[False][0],
        scores[True][1:] - scores[True][0],
        (holder < 0).mean(axis=1),
        bounds,
        groups,
    )


def even_edges(
    ground_truth: Source, subset: str, blocked: Names = (), duplicates: Duplicates = "keep"
) -> dict[str, tuple[float, ...]]:
    """Return edges, to two digits, that cut the actions of a subset into groups of equal size.

    Ground truths whose videos have no durations keep the coverages of `EDGES`.
    """
    edges = dict(EDGES)
    for trait, values in _traits(
        read_ground_truth(ground_truth, subset, blocked, duplicates)
    ).items():
        known = values[np.isfinite(values)]
        if known.size:
            parts = np.linspace(0, 1, len(EDGES[trait]) + 2)[1:-1]
            cuts = np.quantile(known, parts, method="lower")
            edges[trait] = tuple(sorted({float(f"{cut:.2g}") for cut in cuts}))
    return edges


def kinds_of(
    truth: GroundTruth,
    ranked: Predictions,
    holder: NDArray[np.int64],
    tiou: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return the index in `KINDS` of every prediction at each threshold [K]: [K, N].

    `holder` [K, G] is of `match_predictions` for `ranked`, which come from `rank_by_class`.
    """
    pred, gt, overlap = pairs_of(ranked, truth, same_class=False)
    own = truth.label[gt] == ranked.label[pred]
    order = np.lexsort((own, overlap, pred))
    last = order[np.flatnonzero(np.diff(pred[order], append=-1))]  # the nearest action of each
    nearest, same = np.zeros(len(ranked.label)), np.zeros(len(ranked.label), bool)
    nearest[pred[last]], same[pred[last]] = overlap[last], own[last]
    kinds = np.empty((len(holder), len(nearest)), np.int64)
    for k, threshold in enumerate(as_published(tiou)):
        near = np.where(nearest >= NEAR, np.where(same, 3, 4), 5)
        kinds[k] = np.where(nearest >= threshold, np.where(same, 1, 2), near)
        kinds[k, holder[k][holder[k] >= 0]] = 0
    return kinds


def diagnosis_table(found: Diagnosis) -> str:
    """Return the profile, the gains, and the groups as two tables for a terminal, in %."""
    head = ["kind", *(f"{r + 1}G" for r in range(RANKS)), "mAP gained", "mAP_N gained"]
    rows = [head]
    gains = zip(found.gain, found.normalised_gain, strict=True)
    filled = found.profile.sum(axis=(0, 2)) > 0  # ranks that have predictions
    gained = [("", ""), *((_percent(a, "+"), _percent(b, "+")) for a, b in gains)]
    for kind, shares, gain in zip(KINDS, found.shares.T, gained, strict=True):
        cells = [
            _percent(share) if some else "" for share, some in zip(shares, filled, strict=True)
        ]
        rows.append([kind, *cells, *gain])
    actions = [["actions", "", "number", "missed", "mAP_N"]]
    total = next(iter(found.groups.values())).count.sum()
    average = _percent(found.normalised)
    actions.append(["all", "", str(total), _percent(found.missed.mean()), average])
    for trait, groups in found.groups.items():
        spans = [*spans_of(found.edges[trait], trait), ""][: len(groups.names)]
        for name, count, missed, score, span in zip(*groups, spans, strict=True):
            numbers = str(count), _percent(missed), _percent(score)
            actions.append([f"{trait} {name}", span, *numbers])
    over = f"mean over tIoU {found.tiou.min():g} to {found.tiou.max():g}, in %"
    return (
        f"predictions by kind, {over}\n1G are the best predictions of each class, as many as it "
        f"has actions; 2G are the next\n\n{aligned(rows)}\n\n"
        f"actions by trait, {over}; mAP_N has normalised precision\n\n{aligned(actions, left=2)}"
    )


def diagnosis_record(found: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as plain values for JSON; shares and mAP lie in 0..1, None for NaN."""

    def plain(values: NDArray[Any]) -> list[Any]:
        return [None if np.isnan(value) else value for value in values.tolist()]

    groups = {
        trait: {"groups": list(g.names), "edges": list(found.edges[trait])}
        | {"count": plain(g.count), "missed": plain(g.missed), "mAP_N": plain(g.precision)}
        for trait, g in found.groups.items()
    }
    return {
        "tiou": found.tiou.tolist(),
        "average_mAP": found.average,
        "average_mAP_N": found.normalised,
        "kinds": list(KINDS),
        "profile": found.profile.tolist(),
        "gain": dict(zip(KINDS[1:], found.gain.tolist(), strict=True)),
        "gain_N": dict(zip(KINDS[1:], found.normalised_gain.tolist(), strict=True)),
        "missed": found.missed.tolist(),
        "actions": groups,
    }


def spans_of(edges: Sequence[float], trait: str) -> list[str]:
    """Return the groups between edges as texts, such as "3-6 s"; the upper bound is included."""
    unit = {"length": " s", "coverage": " %"}.get(trait, "")
    above = int(trait == "instances")  # whole numbers: 2-4 is followed by 5-8
    shown = [100 * edge if trait == "coverage" else edge for edge in edges]
    spans = [(low + above, high) for low, high in pairwise(shown)]
    between = [f"{a:g}{f'-{b:g}' if a != b else ''}{unit}" for a, b in spans]
    return [f"to {shown[0]:g}{unit}", *between, f"over {shown[-1]:g}{unit}"]


def _checked(trait: str, edges: Sequence[float]) -> tuple[float, ...]:
    bounds, known = as_numbers(edges), ", ".join(EDGES)
    if trait not in EDGES:
        raise InputError(f'edges are given for "{trait}"; actions have the traits {known}.')
    if not 0 < len(bounds) < len(GROUP_NAMES) or not (np.diff(bounds) > 0).all():
        raise InputError(f"edges of {trait} are {edges!r}; give one to six ascending numbers.")
    return tuple(bounds.tolist())


def _traits(truth: GroundTruth) -> dict[str, NDArray[np.float64]]:
    """Return length (s), coverage of the video, and instances of the class in the video: [G]."""
    length = truth.segments[:, 1] - truth.segments[:, 0]
    durations = np.array([truth.annotations[name].duration for name in truth.videos])
    key = truth.video * len(truth.labels) + truth.label
    _, back, count = np.unique(key, return_inverse=True, return_counts=True)
    instances = count[back].astype(np.float64)
    coverage = length / durations[truth.video]
    return {"length": length, "coverage": coverage, "instances": instances}


def _without(removed: NDArray[np.int64], total: int) -> NDArray[np.bool_]:
    """Return which of `total` predictions remain; -1 among the removed rows stands for none."""
    keep = np.ones(total, bool)
    keep[removed[removed >= 0]] = False
    return keep


def _precision(
    truth: GroundTruth,
    ranked: Predictions,
    holder: NDArray[np.int64],
    keep: NDArray[np.bool_],
    mine: NDArray[np.bool_],
    usual: float | None,
) -> NDArray[np.float64]:
    """Return the interpolated average precision of the classes among the actions `mine`.

    `holder` [G] are the rows of `ranked` that take them; the predictions `keep` [N] count. With
    `usual`, the true positives of a class are scaled to so many actions (DETAD, equation 1).
    """
    place = np.cumsum(keep) - 1  # among those that count
    label, taken = ranked.label[keep], mine & (holder >= 0)
    total = np.bincount(truth.label[mine], minlength=len(truth.labels))
    first = np.searchsorted(label, np.arange(len(total)))
    values = []
    for c in np.flatnonzero(total):
        hits = np.sort(place[holder[taken & (truth.label == c)]])
        true = np.arange(1, len(hits) + 1)
        false = hits - first[c] + 1 - true
        true = true if usual is None else true * (usual / total[c])
        precision = true / (true + false)
        values.append(np.maximum.accumulate(precision[::-1]).sum() / total[c])
    return np.array(values)


def _percent(value: float, sign: str = "") -> str:
    return "" if np.isnan(value) else f"{100 * value:{sign}.1f}"
