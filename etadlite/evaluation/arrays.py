"""ActivityNet JSON as flat arrays: one row per ground truth, one row per prediction.

Every fault of the two files is found here, so that the metrics need not look for any.
"""

import gc
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.data.annotations import NOT_A_CLASS, read_annotations

Source = str | Path | Mapping[str, Any]


class PredictionWarning(UserWarning):
    """Predictions can be scored, but some of them must be mistakes: the message says which."""


@dataclass(frozen=True)
class GroundTruth:
    """The instances of one subset, G rows.

    Attributes:
        source: the file, for messages.
        videos: name -> number of every video of the subset that is not blocked.
        labels: the classes, in order of first occurrence.
        segments: [G, 2] start and end in seconds.
        video: [G] index into ``videos``.
        label: [G] index into ``labels``.
        subset_of: name -> subset of every video of the file.
        blocked: names of videos that are left out.
        other_labels: labels that occur only outside the subset.
    """

    source: str
    videos: dict[str, int]
    labels: list[str]
    segments: NDArray[np.float64]
    video: NDArray[np.int64]
    label: NDArray[np.int64]
    subset_of: dict[str, str]
    blocked: frozenset[str]
    other_labels: frozenset[str]


class Predictions(NamedTuple):
    """N predictions: [N, 2] seconds, [N] scores, [N] video index, [N] label index (or zeros)."""

    segments: NDArray[np.float64]
    scores: NDArray[np.float64]
    video: NDArray[np.int64]
    label: NDArray[np.int64]


def read_ground_truth(
    source: Source, subset: str, blocked: Iterable[str] | str | Path = ()
) -> GroundTruth:
    """Read the annotations of one subset, without instances labelled `Ambiguous`.

    An instance of no length is kept (ActivityNet-1.3 has some); as in the official evaluation,
    nothing matches it.

    Args:
        source: annotation file or its content.
        subset: for example "validation".
        blocked: names of videos to leave out, or the path of a JSON list of them.

    Raises:
        InputError: the file is unreadable, an entry is malformed, a segment of any subset is
            reversed, or the subset has no instance.
    """
    left_out = _read_blocked(blocked)
    every = read_annotations(source, ignore=NOT_A_CLASS, as_published=True)
    videos: dict[str, int] = {}
    labels: dict[str, int] = {}
    elsewhere = set()
    segments, video, label = [], [], []
    for entry in every.values():
        if entry.subset != subset or entry.name in left_out:
            elsewhere.update(action.label for action in entry.actions)
            continue
        for action in entry.actions:
            segments.append((action.start, action.end))
            video.append(len(videos))
            label.append(labels.setdefault(action.label, len(labels)))
        videos[entry.name] = len(videos)
    name = str(source) if isinstance(source, str | Path) else "the given annotations"
    if not segments:
        known = ", ".join(sorted({entry.subset for entry in every.values()}))
        raise InputError(
            f"{name}: subset {subset!r} holds no annotated action to evaluate against"
            f"{' outside the blocked videos' if left_out else ''}; subsets in the file: {known}."
        )
    return GroundTruth(
        name,
        videos,
        list(labels),
        np.array(segments, dtype=np.float64),
        np.array(video, dtype=np.int64),
        np.array(label, dtype=np.int64),
        {entry.name: entry.subset for entry in every.values()},
        left_out,
        frozenset(elsewhere - labels.keys()),
    )


def read_predictions(
    source: Source, truth: GroundTruth, *, subset: str, with_labels: bool = True
) -> Predictions:
    """Read the predictions for the videos of a ground truth.

    Predictions of blocked videos are dropped, as in published evaluations. So are predictions of a
    class that occurs in the file but not in the subset, since no class average contains them. A
    segment of no length is kept with a warning, because published files hold some: it matches
    nothing and counts as a false positive.

    Args:
        source: prediction file or its content.
        truth: the ground truth to compare with.
        subset: for messages.
        with_labels: False for class-agnostic metrics; then every ``label`` is 0.

    Raises:
        InputError: the file is unreadable; a video lies outside the subset; a label is unknown; a
            score is not finite; a segment is reversed or not finite.

    Warns:
        PredictionWarning: segments of no length.
    """
    name, results = _load_results(source)
    known = {key: items for key, items in results.items() if key not in truth.blocked}
    _refuse_other_videos(name, known, truth, subset)
    try:
        counts = [len(items) for items in known.values()]
        flat = [item for items in known.values() for item in items]
        segments = np.array([item["segment"] for item in flat], dtype=np.float64).reshape(-1, 2)
        scores = np.array([item["score"] for item in flat], dtype=np.float64)
        names = [item["label"] for item in flat] if with_labels else []
        fits = len(segments) == len(flat) and scores.ndim == 1 and all(map(_is_text, set(names)))
    except (KeyError, TypeError, ValueError, IndexError):
        fits = False
    if not fits:
        _refuse_malformed(name, known, with_labels)
    video = np.repeat(np.array([truth.videos[key] for key in known], dtype=np.int64), counts)

    good = np.isfinite(scores) & np.isfinite(segments).all(1) & (segments[:, 1] >= segments[:, 0])
    if not good.all():
        row = int(good.argmin())
        owner = list(truth.videos)[video[row]]
        raise InputError(
            f"{name}: video {owner!r}, prediction {row - int(np.argmax(video == video[row]))} has"
            f" segment {segments[row].tolist()} and score {scores[row]}; both must be finite and"
            " start must not come after end."
        )
    empty = np.flatnonzero(segments[:, 1] == segments[:, 0])
    if len(empty):
        owner = list(truth.videos)[video[empty[0]]]
        warnings.warn(
            f"{name}: {len(empty)} of {len(segments)} predictions have no length and count as"
            f" wrong; the first belongs to video {owner!r}, at {segments[empty[0], 0]:g} s",
            PredictionWarning,
            stacklevel=3,
        )
    if not with_labels:
        return Predictions(segments, scores, video, np.zeros(len(video), dtype=np.int64))
    return _with_labels(name, truth, Predictions(segments, scores, video, video), names)


def check_tiou(tiou: Sequence[float]) -> NDArray[np.float64]:
    """Return the thresholds as an array [K].

    Raises:
        InputError: they are not one or more numbers above 0 and up to 1.
    """
    try:
        values = np.asarray(tiou, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 1 or not values.size or not ((values > 0) & (values <= 1)).all():
        raise InputError(
            f"tiou is {tiou!r}; give a sequence of one or more thresholds above 0 and up to 1."
        )
    return values


def as_published(tiou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return thresholds [K] to compare with; evenly spaced ones as `numpy.linspace` gives them."""
    even = np.linspace(tiou[0], tiou[-1], len(tiou))
    return even if np.allclose(tiou, even, rtol=0, atol=1e-12) else tiou


def pairs_of(
    pred_key: NDArray[np.int64],
    pred_segments: NDArray[np.float64],
    gt_key: NDArray[np.int64],
    gt_segments: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs of a prediction and a ground truth of the same key, with their tIoU.

    Args:
        pred_key: [N] group of each prediction (a video, or a video and a class).
        pred_segments: [N, 2] seconds.
        gt_key: [G] group of each ground truth.
        gt_segments: [G, 2] seconds.

    Returns:
        prediction [M], ground truth [M] and tIoU [M]; two segments of no length have tIoU 0.
    """
    order = np.argsort(gt_key, kind="stable")
    low = np.searchsorted(gt_key[order], pred_key, side="left")
    count = np.searchsorted(gt_key[order], pred_key, side="right") - low
    pred = np.repeat(np.arange(len(pred_key)), count)
    step = np.arange(len(pred)) - np.repeat(np.cumsum(count) - count, count)
    gt = order[np.repeat(low, count) + step]
    (p0, p1), (g0, g1) = pred_segments[pred].T, gt_segments[gt].T
    shared = np.maximum(np.minimum(p1, g1) - np.maximum(p0, g0), 0.0)
    union = (g1 - g0) + (p1 - p0) - shared
    tiou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return pred, gt, tiou


def _load_results(source: Source) -> tuple[str, Mapping[str, Any]]:
    """Return the name for messages, and the predictions by video."""
    if isinstance(source, str | Path):
        name, data = str(source), _read_json(source)
    else:
        name, data = "the given predictions", source
    if not isinstance(data, Mapping) or not isinstance(data.get("results"), Mapping):
        raise InputError(
            f'{name}: no "results" by video name; give predictions as ActivityNet JSON.'
        )
    return name, data["results"]


def _read_json(path: str | Path) -> Any:
    # A million predictions are a million dicts. To search them for garbage takes three times as
    # long as to read them.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); check the path.") from error
    finally:
        if collecting:
            gc.enable()


def _read_blocked(blocked: Iterable[str] | str | Path) -> frozenset[str]:
    names = _read_json(blocked) if isinstance(blocked, str | Path) else blocked
    source = blocked if isinstance(blocked, str | Path) else "blocked"
    if isinstance(names, Mapping) or not isinstance(names, Iterable):
        raise InputError(f"{source}: not a list of video names.")
    names = list(names)
    if not all(map(_is_text, names)):
        raise InputError(f"{source}: holds something that is not a video name.")
    return frozenset(names)


def _refuse_other_videos(
    name: str, results: Mapping[str, Any], truth: GroundTruth, subset: str
) -> None:
    others = [key for key in results if key not in truth.videos]
    if others:
        where = truth.subset_of.get(others[0])
        place = f"in subset {where!r} of" if where is not None else "not in"
        raise InputError(
            f"{name}: video {others[0]!r} is {place} {truth.source}, not in the evaluated subset"
            f" {subset!r} ({len(others)} such videos); evaluate another subset or remove them."
        )


def _refuse_malformed(name: str, results: Mapping[str, Any], with_labels: bool) -> None:
    """Name the first prediction that cannot be read."""
    for key, items in results.items():
        if not isinstance(items, list | tuple):
            raise InputError(f"{name}: video {key!r} is malformed; it needs a list of predictions.")
        for number, item in enumerate(items):
            try:
                start, end = item["segment"]
                float(start), float(end), float(item["score"])
                if with_labels and not _is_text(item["label"]):
                    raise TypeError("label is no text")
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{name}: video {key!r}, prediction {number} is malformed ({error!r}); each"
                    " needs a segment of two numbers, a score and a label."
                ) from error
    raise InputError(f"{name}: predictions need a segment of two numbers, a score and a label.")


def _with_labels(
    name: str, truth: GroundTruth, found: Predictions, names: list[str]
) -> Predictions:
    index = {label: i for i, label in enumerate(truth.labels)}
    unknown = [label for label in dict.fromkeys(names) if label not in index]
    for label in unknown:
        if label not in truth.other_labels:
            owner = list(truth.videos)[found.video[names.index(label)]]
            raise InputError(
                f"{name}: video {owner!r} has the label {label!r}, which {truth.source} does not"
                " know; correct the label."
            )
    label = np.array([index.get(text, -1) for text in names], dtype=np.int64)
    if not unknown:
        return found._replace(label=label)
    keep = label >= 0
    return Predictions(found.segments[keep], found.scores[keep], found.video[keep], label[keep])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
