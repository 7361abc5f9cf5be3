"""Checkers of 06_end_to_end_thumos."""

from collections.abc import Callable, Iterator
from math import exp

import torch

from etadlite.course.exercises.form import answer, wrong_numbers


def seconds_of(attempt: Callable) -> Iterator[str]:
    """Check the seconds at (cell, first frame, stride, offset, frames per second)."""
    cases = [
        ((0, 300, 4, 0, 30.0), 10.0, "frame 300 at 30 frames per second is second 10"),
        ((15, 300, 4, 0, 30.0), 12.0, "15 cells of 4 frames are 60 frames, 2 s more"),
        ((0, 0, 4, 15, 30.0), 0.5, "a snippet stands for the frame `offset` after its first"),
        ((2.5, 25, 8, 5, 25.0), 2.0, "a position may lie between two cells: 25 + 5 + 20 frames"),
    ]
    yield from wrong_numbers("seconds_of", attempt, cases)


def lower(attempt: Callable) -> Iterator[str]:
    """Check lowered scores [P] from (scores, overlaps, labels, label, sigma)."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    overlaps, labels = torch.tensor([1.0, 0.5, 0.5, 0.0]), torch.tensor([1, 1, 0, 1])
    kept = scores.clone()
    got = answer(attempt(scores, overlaps, labels, 1, 0.5), (4,), "for 4 detections")
    if not torch.equal(scores, kept):
        yield "your function changes the given scores in place; return new ones."
    cases = [
        (2, 0.7, "of another class should keep its score of 0.70 (compare `labels` with `label`)"),
        (3, 0.6, "that does not overlap the pick should keep its score of 0.60"),
        (1, 0.8 * exp(-0.5), "with a tIoU of 0.5 should become 0.80 exp(-0.25 / 0.5) = 0.49"),
    ]
    for place, expected, what in cases:
        if abs(float(got[place]) - expected) > 1e-6:
            hint = "; is the tIoU squared, and sigma used?" if place == 1 else "."
            yield f"a detection {what}, yours has {float(got[place]):.2f}{hint}"
    other = answer(attempt(scores, overlaps, labels, 0, 0.25))
    if not torch.allclose(other, torch.tensor([0.9, 0.8, 0.7 * exp(-1), 0.6])):
        yield "with the pick in class 0 and sigma 0.25, only the third score should fall, to 0.26."
