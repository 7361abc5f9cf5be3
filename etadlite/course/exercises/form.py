"""What the checkers share."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

Checker = Callable[[Callable], Iterator[str]]
"""Takes the student's function, yields what is wrong with it."""


class Unattempted(Exception):
    """The student's function still returns `...`."""


def answer(value: Any) -> Any:
    """What the student's function returned.

    Raises:
        Unattempted: nothing.
    """
    if value is None or value is ...:
        raise Unattempted
    return value


def misfit(value: Any, shape: tuple[int, ...]) -> str:
    """What is wrong with a tensor's shape, "" if nothing: the end of "it should ..."."""
    if not isinstance(value, torch.Tensor):
        return f"return a tensor, not {type(value).__name__}"
    if tuple(value.shape) != shape:
        return f"have the shape {list(shape)}, yours has {list(value.shape)}"
    return ""
