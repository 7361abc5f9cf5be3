"""ActivityNet JSON as flat arrays: one row per ground truth, one row per prediction.

Every fault of the two files is found here, so that the metrics need not look for any.
"""

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.base.files import read_json
from etadlite.data.annotations import (
    NOT_A_CLASS,
    Action,
    VideoAnnotation,
    labels_of,
    read_annotations,
    read_names,
)

Source = str | Path | Mapping[str, Any]
Names = Iterable[str] | str | Path
Duplicates = Literal["keep", "drop"]  # the official rule, and OpenTAD's
TWINS = 1e-3  # seconds by which two instances may differ that OpenTAD takes for the same


class PredictionWarning(UserWarning):
    """Predictions can be scored, but some of them must be mistakes: the message says which."""


@dataclass(frozen=True)
class GroundTruth:
    """The instances of one subset, G rows."""

    source: str  # the file, for messages
    annotations: Mapping[str, VideoAnnotation]  # of all subsets, by name of the video
    subset: str
    blocked: frozenset[str]  # names of videos that are left out
    videos: dict[str, int]  # name -> number of every video of the subset that is not blocked
    labels: dict[str, int]  # class -> number, in order of first occurrence
    segments: NDArray[np.float64]  # [G, 2] start and end in seconds
    video: NDArray[np.int64]  # [G] number of the video
    label: NDArray[np.int64]  # [G] number of the class


class Predictions(NamedTuple):
    """N predictions: [N, 2] seconds, [N] scores, [N] numbers of the video and of the class."""

    segments: NDArray[np.float64]
    scores: NDArray[np.float64]
    video: NDArray[np.int64]
    label: NDArray[np.int64]

    def rows(self, chosen: NDArray[Any]) -> "Predictions":
        """Return the chosen rows, in the order of `chosen` (indices or a mask)."""
        return Predictions(*(column[chosen] for column in self))


def read_ground_truth(
    source: Source, subset: str, blocked: Names = (), duplicates: Duplicates = "keep"
) -> GroundTruth:
    """Read the annotations of one subset, without instances labelled `Ambiguous`.

    An instance of no length is kept (ActivityNet-1.3 has some); as in the official evaluation,
    nothing matches it. So are instances that occur twice, unless `duplicates` is "drop": this is
    OpenTAD's rule, after ActionFormer. It drops the later one of two of a class in a video whose
    starts and ends differ by at most 1 ms, and those of no length. `blocked` videos are left out.

    Raises:
        InputError: the file is unreadable, an entry is malformed, a segment of any subset is
            reversed, or the subset has no instance.
    """
    left_out = _blocked_names(blocked)
    annotations = read_annotations(source, ignore=NOT_A_CLASS, as_published=True)
    videos = [v for v in annotations.values() if v.subset == subset and v.name not in left_out]
    chosen = _without_twins if duplicates == "drop" else iter
    actions = [(n, action) for n, video in enumerate(videos) for action in chosen(video.actions)]
    name = "the given annotations" if isinstance(source, Mapping) else str(source)
    if not actions:
        known = ", ".join(sorted({video.subset for video in annotations.values()}))
        raise InputError(
            f"{name}: subset {subset!r} holds no annotated action to evaluate against"
            f"{' outside the blocked videos' if left_out else ''}; subsets in the file: {known}."
        )
    labels = {label: n for n, label in enumerate(dict.fromkeys(a.label for _, a in actions))}
    return GroundTruth(
        name,
        annotations,
        subset,
        left_out,
        {video.name: n for n, video in enumerate(videos)},
        labels,
        np.array([(action.start, action.end) for _, action in actions], dtype=np.float64),
        np.array([n for n, _ in actions], dtype=np.int64),
        np.array([labels[action.label] for _, action in actions], dtype=np.int64),
    )


def _without_twins(actions: Iterable[Action]) -> list[Action]:
    kept: list[Action] = []
    for start, end, label in actions:
        twins = (
            abs(start - a) <= TWINS and abs(end - b) <= TWINS for a, b, c in kept if c == label
        )
        if end > start and not any(twins):
            kept.append(Action(start, end, label))
    return kept


def read_predictions(
    source: Source, truth: GroundTruth, *, with_labels: bool = True
) -> Predictions:
    """Read the predictions for the videos of a ground truth.

    Predictions of blocked videos are dropped, as in published evaluations. So are predictions of a
    class that occurs in the file but not in the subset, since no class average contains them. A
    segment of no length is kept with a warning, because published files hold some: it matches
    nothing and counts as a false positive. Without labels every ``label`` is 0.

    Raises:
        InputError: the file is unreadable; a video lies outside the subset; a label is unknown; a
            score is not finite; a segment is reversed or not finite.

    Warns:
        PredictionWarning: segments of no length, or videos without predictions.
    """
    name, results = _load_results(source)
    results = {video: items for video, items in results.items() if video not in truth.blocked}
    if others := [video for video in results if video not in truth.videos]:
        from etadlite.evaluation.malformed import refuse_other_videos

        refuse_other_videos(name, others, truth.annotations, truth.source, truth.subset)
    try:
        flat = [item for items in results.values() for item in items]
        segments, scores, labels = _columns(flat, with_labels)
    except (LookupError, TypeError, ValueError, OverflowError):
        from etadlite.evaluation.malformed import refuse_malformed

        refuse_malformed(name, results, lambda items: _columns(items, with_labels))
    counts = [len(items) for items in results.values()]
    owners = np.repeat(np.array(list(results), dtype=object), counts)
    video = np.repeat(np.array([truth.videos[key] for key in results], dtype=np.int64), counts)
    start, end = segments.T
    empty = np.flatnonzero(start == end)
    if empty.size or len(results) < len(truth.videos):
        from etadlite.evaluation.malformed import warn_of_gaps

        warn_of_gaps(name, truth.videos, results, owners[empty], segments[empty], len(segments))
    if not with_labels:
        return Predictions(segments, scores, video, np.zeros_like(video))
    unknown = set(labels) - truth.labels.keys() - set(labels_of(truth.annotations))
    if unknown:
        row = next(row for row, label in enumerate(labels) if label in unknown)
        raise InputError(
            f"{name}: video {owners[row]!r} has the label {labels[row]!r}, which {truth.source}"
            " does not know; correct the label."
        )
    label = np.array([truth.labels.get(label, -1) for label in labels], dtype=np.int64)
    return Predictions(segments, scores, video, label).rows(label >= 0)


def check_tiou(tiou: Sequence[float]) -> NDArray[np.float64]:
    """Return the thresholds as an array [K]; refuse all but numbers above 0 and up to 1."""
    values = as_numbers(tiou)
    if not values.size or not ((values > 0) & (values <= 1)).all():
        raise InputError(
            f"tiou is {tiou!r}; give a sequence of one or more thresholds above 0 and up to 1."
        )
    return values


def as_numbers(values: Sequence[float]) -> NDArray[np.float64]:
    """Return a sequence of numbers as an array; anything else becomes an empty one."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.zeros(0)
    return array if array.ndim == 1 else np.zeros(0)


def as_published(tiou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return thresholds [K] to compare with; evenly spaced ones as `numpy.linspace` gives them."""
    even = np.linspace(tiou[0], tiou[-1], len(tiou))
    return even if np.allclose(tiou, even, rtol=0, atol=1e-12) else tiou


def pairs_of(
    predictions: Predictions, truth: GroundTruth, *, same_class: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return all M pairs of a prediction and a ground truth of the same video, maybe also class.

    The rows of both are [M], and their tIoU is [M]; two segments of no length have tIoU 0.
    """
    pred_key, gt_key = predictions.video, truth.video
    if same_class:
        pred_key = pred_key * len(truth.labels) + predictions.label
        gt_key = gt_key * len(truth.labels) + truth.label
    order = np.argsort(gt_key, kind="stable")
    low = np.searchsorted(gt_key[order], pred_key, side="left")
    count = np.searchsorted(gt_key[order], pred_key, side="right") - low
    pred = np.repeat(np.arange(len(pred_key)), count)
    step = np.arange(len(pred)) - np.repeat(np.cumsum(count) - count, count)
    gt = order[np.repeat(low, count) + step]
    (p0, p1), (g0, g1) = predictions.segments[pred].T, truth.segments[gt].T
    shared = np.maximum(np.minimum(p1, g1) - np.maximum(p0, g0), 0.0)
    union = (g1 - g0) + (p1 - p0) - shared
    tiou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return pred, gt, tiou


def _load_results(source: Source) -> tuple[str, Mapping[str, Any]]:
    if isinstance(source, Mapping):
        name, content = "the given predictions", source
    else:
        # A million predictions are a million dicts. To search them for garbage takes three times
        # as long as to read them.
        name, collecting = str(source), gc.isenabled()
        gc.disable()
        try:
            content = read_json(Path(source), "prediction file", "check the path")
        finally:
            if collecting:
                gc.enable()
    results = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(results, Mapping):
        raise InputError(
            f'{name}: no "results" by video name; give predictions as ActivityNet JSON.'
        )
    return name, results


def _blocked_names(blocked: Names) -> frozenset[str]:
    if isinstance(blocked, str | Path):
        return frozenset(read_names(Path(blocked)))
    names = list(blocked)
    if isinstance(blocked, Mapping) or not _are_texts(names):
        raise InputError(f"blocked is {short(blocked)}, not a list of video names.")
    return frozenset(names)


def _columns(items: Sequence[Any], with_labels: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return segments [N, 2], scores [N] and labels; any error means that one cannot be used."""
    segments = np.array([item["segment"] for item in items], dtype=np.float64).reshape(-1, 2)
    scores = np.array([item["score"] for item in items], dtype=np.float64)
    labels = [item["label"] for item in items] if with_labels else []
    numbers = np.column_stack((segments, scores[:, None]))
    if not np.isfinite(numbers).all() or (np.diff(segments) < 0).any() or not _are_texts(labels):
        raise ValueError("malformed predictions")
    return segments, scores, labels


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
