"""Helpers of the checkers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
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


def misfit(value: Any, shape: tuple[int, ...], *, whole: bool = False) -> str:
    """Return the end of "it should ..." if a tensor has a wrong shape or no `whole` numbers."""
    if not isinstance(value, torch.Tensor):
        return f"return a tensor, not {type(value).__name__}"
    if tuple(value.shape) != shape:
        return f"have the shape {list(shape)}, yours has {list(value.shape)}"
    if whole and value.dtype != torch.long:
        return f"hold whole numbers (torch.long), yours are {value.dtype}"
    return ""


def wrong_numbers(
    name: str, attempt: Callable, cases: Sequence[tuple[tuple, float, str]], tolerance: float = 1e-6
) -> Iterator[str]:
    """Yield a sentence for each case (arguments, expected number, reason) that comes out wrong."""
    for arguments, expected, reason in cases:
        call = f"{name}({', '.join(map(repr, arguments))}) should be {expected:.5g}, yours"
        try:
            given = answer(attempt(*arguments))
            if isinstance(given, torch.Tensor) and given.numel() != 1:
                yield f"{call} has the shape {list(given.shape)}: return one number."
            given = float(given)
        except ValueError as error:
            yield f"{call} fails ({error}): {reason}."
            return
        if not np.isclose(given, expected, rtol=0, atol=tolerance, equal_nan=True):
            yield f"{call} gives {given:.5g}: {reason}."
