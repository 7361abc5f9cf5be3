"""Checkers of the exercises: one sentence on what is wrong, and never an error.

A checker compares with values that can be worked out by hand, so that a wrong answer is told apart
by the mistake behind it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from etadlite.draws import Draws
from etadlite.sampling import SnippetContext


def check(exercise: str, attempt: Any) -> bool:
    """Print whether an attempt solves an exercise, and if not, what to look at.

    Args:
        exercise: its name: one of `CHECKERS`.
        attempt: what was asked for; None or ... where nothing was tried yet.

    Returns:
        Whether it is solved.
    """
    if exercise not in CHECKERS:
        print(f'There is no exercise "{exercise}"; there are {", ".join(CHECKERS)}.')
        return False
    if not callable(attempt):
        print(f"{exercise}: write a function and give it to check().")
        return False
    try:
        wrong = next(CHECKERS[exercise](attempt), None)
    except _Unattempted:
        print(f"{exercise}: not attempted yet.")
        return False
    except Exception as error:  # the reader's code may raise anything
        wrong = f"your function raised {type(error).__name__}: {error}"
    print(f"{exercise}: {wrong or 'correct!'}")
    return wrong is None


class _Unattempted(Exception):
    """The function still returns `...`."""


def _answer(value: Any) -> Any:
    if value is None or value is ...:
        raise _Unattempted
    return value


def _tiou(attempt: Callable) -> Iterator[str]:
    """Of tiou(a, b) for two segments (start, end)."""
    cases = [
        ((0, 10), (5, 15), 1 / 3, "they share 5 s of the 15 s that they cover together"),
        ((2, 6), (2, 6), 1.0, "a segment overlaps itself completely"),
        ((0, 4), (6, 9), 0.0, "segments that do not touch share nothing; can yours go negative?"),
        ((0, 10), (4, 6), 0.2, "2 s are shared; the union is the longer segment alone"),
        ((4, 6), (0, 10), 0.2, "swapping the two segments must change nothing"),
    ]
    for a, b, expected, reason in cases:
        given = float(_answer(attempt(a, b)))
        if abs(given - expected) > 1e-6:
            yield f"tiou({a}, {b}) should be {expected:.3f}, yours gives {given:.3f}: {reason}."


def _step_cost(attempt: Callable) -> Iterator[str]:
    """Of step_cost(ratio, replay): cost of a step's encoding relative to ratio 1."""
    cases = [
        (1.0, 3.0, 1.0, "all snippets are the yardstick, so the answer there is 1"),
        (0.0, 3.0, 0.25, "every snippet is still encoded once without gradient"),
        (0.3, 3.0, 0.475, "encode all once (cost 1), then replay 0.3 of them (cost 3 each)"),
        (0.5, 2.0, 2 / 3, "does the second argument reach the divisor, too?"),
    ]
    for ratio, replay, expected, reason in cases:
        given = float(_answer(attempt(ratio, replay)))
        if abs(given - expected) > 1e-6:
            yield (
                f"step_cost({ratio:g}, {replay:g}) should be {expected:.3f}, "
                f"yours gives {given:.3f}: {reason}."
            )


def _even_sampler(attempt: Callable) -> Iterator[str]:
    """Of evenly(context, count): indices [B, count], ascending, spread evenly."""
    for batch, snippets, count in ((1, 10, 5), (2, 64, 20), (3, 7, 7), (2, 9, 1)):
        context = SnippetContext(Draws.fresh(batch), snippets)
        picked = _answer(attempt(context, count))
        case = f"for {batch} videos of {snippets} snippets and count {count}"
        if not isinstance(picked, torch.Tensor):
            yield f"{case} it should return a tensor, not {type(picked).__name__}."
        if tuple(picked.shape) != (batch, count):
            shape = list(picked.shape)
            yield f"{case} the shape should be [{batch}, {count}], yours is {shape}."
        if picked.dtype != torch.long:
            yield f"{case} indices should be whole numbers (torch.long), yours are {picked.dtype}."
        if int(picked.min()) < 0 or int(picked.max()) >= snippets:
            yield f"{case} indices should lie in 0..{snippets - 1}; yours leave that range."
        steps = picked.diff(dim=1)
        if count > 1 and int(steps.min()) < 1:
            yield f"{case} each index should be larger than the one before; no snippet twice."
        if count > 1 and int(steps.max()) > -(-snippets // count):
            yield (
                f"{case} no gap should exceed {-(-snippets // count)} snippets, yours has one of "
                f"{int(steps.max())}."
            )


CHECKERS: dict[str, Callable[[Callable], Iterator[str]]] = {
    "tiou": _tiou,
    "step_cost": _step_cost,
    "evenly": _even_sampler,
}
"""Exercise -> what yields its faults, the first of which is shown."""
