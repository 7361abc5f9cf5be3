"""Checkers of 05_end_to_end_activitynet."""

from collections.abc import Callable, Iterator

import torch

from etadlite.course.exercises.form import answer, wrong_numbers


def hours_left(attempt: Callable) -> Iterator[str]:
    """Check the hours of a training from (videos, batch, epochs, seconds per step)."""
    cases = [
        ((3600, 4, 1, 4.0), 1.0, "900 steps of 4 s; a step takes a whole batch"),
        ((3600, 4, 6, 4.0), 6.0, "every epoch sees all videos again"),
        ((10, 4, 1, 1200.0), 1.0, "10 videos are 2 full batches and a smaller one: 3 steps"),
        ((10, 4, 2, 600.0), 1.0, "each epoch ends with its own smaller batch"),
    ]
    if abs(float(answer(attempt(*cases[0][0]))) - 3600) < 1e-3:
        yield "900 steps of 4 s take 1 hour, yours gives 3600; is it in seconds?"
    yield from wrong_numbers("hours_left", attempt, cases)


def fuse(attempt: Callable) -> Iterator[str]:
    """Check scores [S, k] from segments' scores [S], class scores [K] and k."""
    scores, classes = torch.tensor([0.5, 1.0, 0.2]), torch.tensor([0.1, 0.6, 0.0, 0.3])
    expected = torch.tensor([[0.3, 0.15], [0.6, 0.3], [0.12, 0.06]])
    got = answer(attempt(scores, classes, 2), (3, 2), "for 3 segments and 2 of 4 classes")
    if torch.allclose(got, expected.flip(1)):
        yield "the best class should stand first; yours come in the opposite order."
    if torch.allclose(got, scores[:, None] * classes[:2]):
        yield "yours takes the first 2 classes; take the 2 with the highest scores."
    if torch.allclose(got, scores[:, None] + classes.topk(2).values):
        yield "yours adds the scores; fusion multiplies them."
    if not torch.allclose(got, expected):
        yours = "{:.2f} and {:.2f}".format(*got[0].tolist())
        yield f"0.5 with classes of 0.6 and 0.3 should score 0.30 and 0.15, yours gives {yours}."
    if not torch.allclose(answer(attempt(scores, classes, 1)), expected[:, :1]):
        yield "with k = 1 only the best class should remain; does k reach your answer?"
