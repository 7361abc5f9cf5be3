"""Which classes a video shows, from files of video-level scores that others published."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etadlite.base.errors import InputError
from etadlite.config import InferenceSettings

# Rows of UCF101's class list, counted from 1, that are THUMOS-14's twenty detection classes.
THUMOS_CLASSES = {
    7: "BaseballPitch",
    9: "BasketballDunk",
    12: "Billiards",
    21: "CleanAndJerk",
    22: "CliffDiving",
    23: "CricketBowling",
    24: "CricketShot",
    26: "Diving",
    31: "FrisbeeCatch",
    33: "GolfSwing",
    36: "HammerThrow",
    40: "HighJump",
    45: "JavelinThrow",
    51: "LongJump",
    68: "PoleVault",
    79: "Shotput",
    85: "SoccerPenalty",
    92: "TennisSwing",
    93: "ThrowDiscus",
    97: "VolleyballSpiking",
}
UCF101_CLASSES = 101
THUMOS_TEST_PREFIX = "video_test_"


class LabelScores:
    """Scores of every class for every video, by name.

    Args:
        scores: video name -> one score a class; or a JSON file ``{"results": {video: scores},
            "class": names}``.
        labels: the class names, in the order of the scores; not given with a file.

    Raises:
        InputError: the file cannot be read or is not of this structure.
    """

    def __init__(
        self, scores: str | Path | Mapping[str, Sequence[float]], labels: Sequence[str] = ()
    ) -> None:
        if isinstance(scores, str | Path):
            self.source = str(scores)
            self.scores, self.labels = _read_scores(scores)
        else:
            self.source = "the given scores"
            self.scores, self.labels = scores, list(labels)

    def top(self, video: str, k: int) -> list[tuple[str, float]]:
        """The k best classes of a video with their scores, best first, in list order on ties.

        Raises:
            InputError: the video is not in the file, or its scores do not fit the classes.
        """
        return _best(self._of(video), self.labels, k)

    def _of(self, video: str) -> NDArray[np.float64]:
        if video not in self.scores:
            raise InputError(f"{self.source}: no scores for video {video!r}; add them.")
        try:
            values = np.asarray(self.scores[video], dtype=np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != (len(self.labels),) or not np.isfinite(values).all():
            raise InputError(
                f"{self.source}: video {video!r} needs {len(self.labels)} finite scores, one a"
                " class."
            )
        return values


class CUHK(LabelScores):
    """CUHK's classification of ActivityNet-1.3, as BMN and G-TAD distribute it.

    The file (`cuhk_val_simp_share.json` or `cuhk_val_simp_7.json`) has the structure of
    `LabelScores` and names videos without the prefix "v_"; a name with it is accepted too.

    Args:
        path: the JSON file.

    Raises:
        InputError: the file cannot be read or is not of this structure.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)

    def _of(self, video: str) -> NDArray[np.float64]:
        bare = video.removeprefix("v_")
        return super()._of(video if video in self.scores or bare not in self.scores else bare)


class UntrimmedNet:
    """UntrimmedNet's classification of the THUMOS-14 test videos.

    Row n - 1 of the file belongs to `video_test_` n, and its columns are UCF101's classes, of which
    the twenty of THUMOS-14 are ranked.

    Args:
        path: the .npy file, [videos, 101].

    Raises:
        InputError: the file cannot be read or has another shape.
    """

    def __init__(self, path: str | Path) -> None:
        self.source = str(path)
        try:
            self.scores = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path}: cannot be read as .npy ({error}); check the path."
            ) from error
        fits = isinstance(self.scores, np.ndarray) and self.scores.shape[1:] == (UCF101_CLASSES,)
        if not fits or self.scores.dtype.kind != "f" or not np.isfinite(self.scores).all():
            raise InputError(f"{path}: not finite scores [videos, {UCF101_CLASSES}]; check it.")

    def top(self, video: str, k: int) -> list[tuple[str, float]]:
        """The k best of THUMOS-14's classes with their scores, best first.

        Of equal scores the class that stands later in the list goes first, as published.

        Raises:
            InputError: the video is not in the file, or is no THUMOS-14 test video.
        """
        number = video.removeprefix(THUMOS_TEST_PREFIX)
        known = video.startswith(THUMOS_TEST_PREFIX) and number.isascii() and number.isdigit()
        if not known or not 1 <= int(number) <= len(self.scores):
            raise InputError(
                f"{self.source}: no scores for video {video!r}; it holds"
                f" {THUMOS_TEST_PREFIX}0000001 to {THUMOS_TEST_PREFIX}{len(self.scores):07d}."
            )
        columns = np.array(list(THUMOS_CLASSES)[::-1]) - 1
        labels = list(THUMOS_CLASSES.values())[::-1]
        return _best(self.scores[int(number) - 1, columns], labels, k)


KINDS = {"cuhk": CUHK, "untrimmednet": UntrimmedNet, "scores": LabelScores}


def classes_of_videos(
    settings: InferenceSettings, videos: Iterable[str]
) -> dict[str, list[tuple[str, float]]] | None:
    """The best classes of videos, as many as `classes_per_segment`, from the settings' classifier.

    Args:
        settings: name the classifier's file and its kind.
        videos: names.

    Returns:
        Video -> labels with their scores, best first; None where the settings name no classifier.

    Raises:
        InputError: the file cannot be read or lacks a video.
    """
    if settings.classifier is None:
        return None
    classifier = KINDS[settings.classifier_kind](settings.classifier)
    return {video: classifier.top(video, settings.classes_per_segment) for video in videos}


def _best(scores: NDArray[Any], labels: Sequence[str], k: int) -> list[tuple[str, float]]:
    if not 1 <= k <= len(labels):
        raise InputError(f"k is {k}; there are {len(labels)} classes to choose from.")
    order = np.argsort(-scores, kind="stable")[:k]
    return [(labels[i], float(scores[i])) for i in order]


def _read_scores(path: str | Path) -> tuple[Mapping[str, Any], list[str]]:
    try:
        data = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); check the path.") from error
    try:
        scores, labels = data["results"], data["class"]
    except (KeyError, TypeError) as error:
        raise InputError(f'{path}: needs "results" by video and "class" names.') from error
    if not isinstance(scores, Mapping) or not isinstance(labels, list) or not labels:
        raise InputError(f'{path}: needs "results" by video and "class" names.')
    return scores, [str(label) for label in labels]
