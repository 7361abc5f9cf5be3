"""The classes that a video shows, from files of video-level scores that others published."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError, damage_named
from etadlite.base.files import read_json
from etadlite.base.names import Names
from etadlite.config import InferenceSettings

_NUMBERS = (7, 9, 12, 21, 22, 23, 24, 26, 31, 33, 36, 40, 45, 51, 68, 79, 85, 92, 93, 97)
_NAMES = (  # noqa: SIM905
    "BaseballPitch BasketballDunk Billiards CleanAndJerk CliffDiving CricketBowling CricketShot "
    "Diving FrisbeeCatch GolfSwing HammerThrow HighJump JavelinThrow LongJump PoleVault Shotput "
    "SoccerPenalty TennisSwing ThrowDiscus VolleyballSpiking"
).split()
THUMOS_CLASSES = dict(zip(_NUMBERS, _NAMES, strict=True))
"""THUMOS-14's twenty detection classes, by their rows in UCF101's class list, counted from 1."""

UCF101_CLASSES = 101


class LabelScores:
    """The scores of every class for every video, by name.

    They are given as video name -> scores, with the `labels` in the order of the scores, or as a
    JSON file ``{"results": {video: scores}, "class": names}``, such as CUHK's
    (`cuhk_val_simp_share.json`, `cuhk_val_simp_7.json`, which BMN and G-TAD distribute). A name
    is found in any form, such as without ActivityNet's prefix "v_", as these files need.

    Raises:
        InputError: the file cannot be read or has another structure.
    """

    source = "the given scores"

    def __init__(self, scores: str | Path | Mapping[str, Any], labels: Sequence[str] = ()) -> None:
        if isinstance(scores, str | Path):
            self.source = str(scores)
            scores, labels = _read_scores(Path(scores))
        self.scores, self.labels, self._names = scores, list(labels), Names(scores)

    def top(self, video: str, k: int) -> list[tuple[str, float]]:
        """Return the k best classes of a video with their scores, best first.

        Among equal scores the class that stands earlier in `labels` comes first.

        Raises:
            InputError: the video is not in the file, or its scores do not fit the classes.
        """
        scores = self._of(video)
        if not 1 <= k <= len(scores):
            raise InputError(f"k is {k}; there are {len(scores)} classes to choose from.")
        order = np.argsort(-scores, kind="stable")[:k]
        return [(self.labels[i], float(scores[i])) for i in order]

    def _of(self, video: str) -> NDArray[np.float64]:
        names = [video] if video in self.scores else self._names.like(video)
        if len(names) != 1:
            found = " and ".join(names) or "none"
            raise InputError(f"{self.source}: no scores for video {video!r} ({found}); add them.")
        try:
            values = np.asarray(self.scores[names[0]], dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            values = np.zeros(0)
        if values.shape != (len(self.labels),) or not np.isfinite(values).all():
            raise InputError(
                f"{self.source}: video {video!r} needs {len(self.labels)} finite scores, one per"
                " class."
            )
        return values


class UntrimmedNet(LabelScores):
    """UntrimmedNet's classification of the THUMOS-14 test videos, a .npy file [videos, 101].

    Row n - 1 of the file belongs to `video_test_` n. Its columns are UCF101's classes; the twenty
    of THUMOS-14 are ranked. Among equal scores the later class comes first, as published.

    Raises:
        InputError: the file cannot be read or has another shape.
    """

    def __init__(self, path: str | Path) -> None:
        with damage_named(f"{path}: cannot be read as .npy", "check the path."):
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        fits = isinstance(rows, np.ndarray) and rows.shape[1:] == (UCF101_CLASSES,)
        if not fits or rows.dtype.kind != "f" or not np.isfinite(rows).all():
            raise InputError(f"{path}: not finite scores [videos, {UCF101_CLASSES}]; check it.")
        names = (f"video_test_{number:07d}" for number in range(1, len(rows) + 1))
        backwards = rows[:, np.array(_NUMBERS)[::-1] - 1]
        super().__init__(dict(zip(names, backwards, strict=True)), _NAMES[::-1])
        self.source = str(path)


KINDS = {"cuhk": LabelScores, "untrimmednet": UntrimmedNet, "scores": LabelScores}


def classes_of_videos(
    settings: InferenceSettings, videos: Iterable[str]
) -> dict[str, list[tuple[str, float]]] | None:
    """Return video -> its `classes_per_segment` best classes with their scores, best first.

    They come from the classifier that the settings name; without one the result is None.

    Raises:
        InputError: the file cannot be read or lacks a video.
    """
    if settings.classifier is None:
        return None
    classifier = KINDS[settings.classifier_kind](settings.classifier)
    return {video: classifier.top(video, settings.classes_per_segment) for video in videos}


def _read_scores(path: Path) -> tuple[Mapping[str, Any], list[str]]:
    match read_json(path, "file of class scores"):
        case {"results": dict(scores), "class": [*labels]} if labels:
            return scores, [str(label) for label in labels]
    raise InputError(f'{path}: needs "results" by video and "class" names.')
