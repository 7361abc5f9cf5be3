"""Helpers of the checkers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

Checker = Callable[[Callable], Iterator[str]]  # of the student's function; yields its faults
Cases = Sequence[tuple[tuple, float, str]]  # arguments, the number that they should give, reason


class UnfitError(Exception):
    """What the student's function returned cannot be compared; the message says why."""


def answer(
    value: Any, shape: tuple[int, ...] | None = None, case: str = "", *, whole: bool = False
) -> Any:
    """Return a student's answer; raise `UnfitError` if it is missing or no tensor like this."""
    if value is None or value is ...:
        raise UnfitError("not attempted yet.")
    wrong = ""
    if shape is not None and not isinstance(value, torch.Tensor):
        wrong = f"return a tensor, not {type(value).__name__}"
    elif shape is not None and tuple(value.shape) != shape:
        wrong = f"have the shape {list(shape)}, yours has {list(value.shape)}"
    elif whole and value.dtype != torch.long:
        wrong = f"hold whole numbers (torch.long), yours are {value.dtype}"
    if wrong:
        raise UnfitError(f"{case} it should {wrong}.".lstrip())
    return value


def wrong_numbers(
    name: str, attempt: Callable, cases: Cases, tolerance: float = 1e-6
) -> Iterator[str]:
    """Yield a sentence for each case that comes out wrong."""
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
