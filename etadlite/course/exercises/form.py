"""Helpers of the checkers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

Checker = Callable[[Callable], Iterator[str]]
"""Takes the student's function, yields what is wrong with it."""


class Unattempted(Exception):
    """The student's function still returns `...`."""


def answer(value: Any) -> Any:
    """Return what the student's function returned.

    Raises:
        Unattempted: it returned nothing.
    """
    if value is None or value is ...:
        raise Unattempted
    return value


def misfit(value: Any, shape: tuple[int, ...]) -> str:
    """Return the end of "it should ..." if the shape of a tensor is wrong, else ""."""
    if not isinstance(value, torch.Tensor):
        return f"return a tensor, not {type(value).__name__}"
    if tuple(value.shape) != shape:
        return f"have the shape {list(shape)}, yours has {list(value.shape)}"
    return ""


def wrong_numbers(
    name: str, attempt: Callable, cases: Sequence[tuple[tuple, float, str]]
) -> Iterator[str]:
    """Yield a sentence for each case (arguments, expected number, reason) that comes out wrong."""
    for arguments, expected, reason in cases:
        given = float(answer(attempt(*arguments)))
        if given != expected and not abs(given - expected) <= 1e-6:
            yield f"{name}{arguments} should be {expected:.5g}, yours gives {given:.5g}: {reason}."
