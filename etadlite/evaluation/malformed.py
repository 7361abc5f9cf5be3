"""Which predictions cannot be evaluated or must be mistakes, and why."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from reprlib import repr as short
from typing import Any, NoReturn

from etadlite.base.errors import InputError, did_you_mean
from etadlite.data.annotations import VideoAnnotation
from etadlite.evaluation.arrays import PredictionWarning


def refuse_other_videos(
    name: str,
    others: Sequence[str],
    annotations: Mapping[str, VideoAnnotation],
    source: str,
    subset: str,
) -> NoReturn:
    """Name the first of the videos with predictions that the evaluated subset lacks."""
    known = annotations.get(others[0])
    place = f"in subset {known.subset!r} of" if known else "not in"
    raise InputError(
        f"{name}: video {others[0]!r} is {place} {source}, not in the evaluated subset"
        f" {subset!r} ({len(others)} such videos); evaluate another subset or remove them"
        f"{'' if known else did_you_mean(others[0], annotations)}."
    )


def refuse_malformed(
    name: str, results: Mapping[str, Any], read: Callable[[Sequence[Any]], object]
) -> NoReturn:
    """Name the first prediction that `read` cannot use."""
    for video, items in results.items():
        for number, item in enumerate(items if isinstance(items, list | tuple) else [items]):
            try:
                read([item])
            except (LookupError, TypeError, ValueError, OverflowError):
                raise InputError(
                    f"{name}: video {video!r}, prediction {number} is malformed: {short(item)};"
                    " it needs a segment of two numbers, start before end, a score and a label."
                ) from None
    raise InputError(f"{name}: malformed; every video needs a list of predictions.")


def warn_of_gaps(
    name: str,
    videos: Collection[str],
    results: Mapping[str, Any],
    owners: Sequence[str],
    segments: Sequence[Sequence[float]],
    predictions: int,
) -> None:
    """Warn of `videos` that are not in `results`, and of predictions of no length.

    These have their `owners` and `segments`; `predictions` is the number of all.
    """
    if missing := [video for video in videos if video not in results]:
        warnings.warn(
            f"{name}: {len(missing)} of the {len(videos)} videos of the subset have no predictions,"
            f" so their actions count as missed; the first of them is {missing[0]!r}",
            PredictionWarning,
            stacklevel=4,
        )
    if len(segments):
        warnings.warn(
            f"{name}: {len(segments)} of {predictions} predictions have no length and count as"
            f" wrong; the first belongs to video {owners[0]!r}, at {segments[0][0]:g} s",
            PredictionWarning,
            stacklevel=4,
        )
