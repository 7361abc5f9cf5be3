"""Checkers of 01_feature_based_tad."""

from collections.abc import Callable, Iterator

import torch

from etadlite.course.exercises.form import answer, wrong_numbers


def count_proposals(attempt: Callable) -> Iterator[str]:
    """Check the number of proposals of (cells, longest)."""
    cases = [
        ((5, 1), 5, "a proposal of one cell can start in every cell"),
        ((5, 2), 9, "5 starts for one cell but 4 for two: the last would end after the video"),
        ((4, 4), 10, "4 + 3 + 2 + 1; does the shortest or the longest go missing?"),
        ((64, 32), 1552, "64 + 63 + ... + 33; proposals longer than 32 cells are not listed"),
    ]
    yield from wrong_numbers("count_proposals", attempt, cases)


def recall_at(attempt: Callable) -> Iterator[str]:
    """Check the share of actions that the best k segments find: (segments, actions, k, tiou)."""
    segments = torch.tensor([[0.0, 10.0], [0.0, 9.0], [20.0, 26.0], [40.0, 50.0]])
    actions = torch.tensor([[0.0, 10.0], [20.0, 30.0]])
    cases = [
        ((1, 0.5), 0.5, "the best segment finds one of two actions; only the first k count"),
        ((2, 0.5), 0.5, "both segments find the same action, which counts once"),
        ((3, 0.5), 1.0, "the third finds the second action (tIoU 0.6): both of two are found"),
        ((4, 0.5), 1.0, "the fourth finds nothing, but recall is a share of the actions"),
        ((3, 0.7), 0.5, "a tIoU of 0.6 does not reach a threshold of 0.7"),
        ((1, 1.0), 0.5, "a tIoU of 1 reaches a threshold of 1: at least, not more than"),
        ((9, 0.5), 1.0, "k may exceed the number of segments"),
    ]

    def recall(k: int, threshold: float) -> float:
        return attempt(segments.clone(), actions.clone(), k, threshold)

    yield from wrong_numbers("recall for k and threshold of ", recall, cases)


def hard_nms(attempt: Callable) -> Iterator[str]:
    """Check the picks of hard NMS for (segments, scores, threshold)."""
    segments = torch.tensor([[0.0, 10.0], [4.0, 14.0], [8.0, 18.0], [30.0, 40.0]])
    same = torch.tensor([[0.0, 5.0], [0.0, 10.0]])
    falling, rising, mixed = [0.9, 0.5, 0.3, 0.2], [0.2, 0.3, 0.5, 0.9], [0.3, 0.9, 0.5, 0.2]
    overlap = "0 removes 1 (tIoU 6 / 14); 2 overlaps only the removed one, so it stays"
    cases = [
        (segments, falling, 0.9, [0, 1, 2, 3], "no tIoU reaches 0.9, so all stay, best first"),
        (segments, rising, 0.9, [3, 2, 1, 0], "the best goes first, at any place in the list"),
        (segments, falling, 0.4, [0, 2, 3], overlap),
        (segments, mixed, 0.4, [1, 3], "the best removes both of its neighbours"),
        (same, [0.5, 0.9], 0.5, [1], "a tIoU of exactly the threshold removes"),
    ]
    for spans, scores, threshold, expected, reason in cases:
        given = answer(attempt(spans.clone(), torch.tensor(scores), threshold))
        given = given.tolist() if isinstance(given, torch.Tensor) else given
        if given != expected:
            case = f"scores {scores} and threshold {threshold:g} should pick {expected}"
            yield f"{case}, yours picks {given}: {reason}."
