"""Helpers of the checkers: they call the student's function, and read whatever it returns."""

import pickle
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etadlite.base.draws import Draws

Checker = Callable[[Callable], Iterator[str]]  # of the student's function; yields its faults
Cases = Sequence[tuple[tuple, float, str]]  # arguments, the number that they should give, reason


class UnfitError(Exception):
    """What the student's function did cannot be compared; the message says why."""


class _TooLongError(BaseException):
    """More lines than allowed; no `except Exception` of the student catches it."""


class Student:
    """The student's function as the checkers call it.

    Raises:
        UnfitError: it raised an error, returned nothing or `...`, or changed its arguments.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        """Call it and return what it returns."""
        before = [(part, part.detach().clone()) for part in _tensors(arguments)]
        lists = [(part, list(part)) for part in _lists(arguments)]
        try:
            given = self.function(*arguments)
        except (UnfitError, _TooLongError, KeyboardInterrupt):
            raise
        except BaseException as error:  # anything, even SystemExit
            raise UnfitError(f"your function raised {type(error).__name__}: {error}") from None
        if given is ...:
            raise UnfitError("not attempted yet.")
        if given is None:
            raise UnfitError("your function returns nothing; does every way end in `return`?")
        same = all(part.shape == kept.shape and part.equal(kept) for part, kept in before)
        if not same or any(part != kept for part, kept in lists):
            raise UnfitError(
                "your function changes what it is given in place; work on a copy, as `x.clone()`."
            )
        return given


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _lists(value: Any) -> Iterator[list]:
    """Lists of plain values; tensors in lists are compared by themselves."""
    if isinstance(value, list) and not any(isinstance(part, Tensor) for part in value):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _lists(part)


def number(value: Any, call: str = "it") -> float:
    """Return an answer as a number: a plain one, or a tensor or array of one element."""
    if isinstance(value, (Tensor, np.ndarray)):
        found = tensor(value)
        if found.numel() != 1:
            raise UnfitError(f"{call} has the shape {list(found.shape)}: return one number.")
        value = found.item()
    if not isinstance(value, (Real, np.bool_)):
        raise UnfitError(f"{call} is a {type(value).__name__}: return one number.")
    return float(value)


def tensor(
    value: Any, shape: tuple[int, ...] | None = None, case: str = "", *, whole: bool = False
) -> Tensor:
    """Return an answer as a tensor of float64, or of long for `whole` numbers.

    It may be a tensor of any real dtype, an array, or lists or tuples of these.
    """
    found = _read(value, case)
    wrong = ""
    if shape is not None and tuple(found.shape) != shape:
        wrong = f"have the shape {list(shape)}, yours has {list(found.shape)}"
    elif found.is_complex():
        wrong = "hold real numbers, yours are complex"
    elif whole and found.numel() and (found.is_floating_point() or found.dtype == torch.bool):
        wrong = f"hold whole numbers (torch.long), yours are {found.dtype}"
    if wrong:
        raise UnfitError(f"{case} it should {wrong}.".lstrip())
    return found.long() if whole else found.double()


def _read(value: Any, case: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.device.type == "meta":
            raise UnfitError(f"{case} your tensor lies on the device meta: no numbers.".lstrip())
        return value.detach().as_subclass(Tensor).cpu()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value))
    if isinstance(value, (Real, np.bool_)):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    if isinstance(value, (list, tuple, range)):
        if all(isinstance(part, Real) for part in value):
            kinds = {type(part) for part in value}
            return torch.tensor(list(value), dtype=torch.float64 if float in kinds else None)
        parts = [_read(part, case) for part in value]
        if len({part.shape for part in parts}) > 1:
            raise UnfitError(f"{case} the rows of your answer have different lengths.".lstrip())
        if any(part.is_floating_point() for part in parts):
            parts = [part.double() for part in parts]
        return torch.stack(parts)
    raise UnfitError(f"{case} it should return a tensor, not {type(value).__name__}.".lstrip())


def wrong_numbers(
    name: str,
    attempt: Callable,
    cases: Cases,
    *,
    tolerance: float = 1e-6,
    relative: float = 1e-5,
) -> Iterator[str]:
    """Yield a sentence for each case that comes out wrong; both tolerances at 0 mean exactly."""
    for arguments, expected, reason in cases:
        call = f"{name}({', '.join(map(_shown, arguments))}) should be {expected:.9g}, yours"
        try:
            given = number(attempt(*arguments), call)
        except UnfitError as error:
            if not str(error).startswith("your function raised"):
                raise
            yield f"{call} fails ({str(error).removeprefix('your function raised ')}): {reason}."
            return
        if not np.isclose(given, expected, rtol=relative, atol=tolerance, equal_nan=True):
            yield f"{call} gives {given:.9g}: {reason}."


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return repr(value)


@contextmanager
def at_most(lines: int, complaint: str) -> Iterator[None]:
    """Refuse an answer that executes more lines of Python than this, whatever the machine."""
    left, before = lines, sys.gettrace()

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooLongError
        return count

    sys.settrace(count)
    try:
        yield
    except _TooLongError:
        raise UnfitError(complaint) from None
    finally:
        sys.settrace(before)


@contextmanager
def no_global_draws(case: str) -> Iterator[None]:
    """Refuse an answer that draws from a generator which the context's streams do not govern."""

    def states() -> tuple:
        of_numpy = pickle.dumps(np.random.get_state())  # noqa: NPY002  (just what must not be used)
        return torch.get_rng_state().tolist(), of_numpy, random.getstate()

    before = states()
    yield
    if states() != before:
        raise UnfitError(
            f"{case} it draws from a global generator; context.draws gives each video its numbers."
        )


def of_own_draws(
    sample: Callable[[Draws], Any], read: Callable[[Any, int], Tensor], case: str
) -> Iterator[str]:
    """Yield what is wrong with how a sampler draws: it must follow each video's stream alone.

    `sample` calls the student's sampler with draws, `read` makes a tensor [B, ...] of its answer.
    """
    with no_global_draws(case):
        picked = read(sample(Draws(range(3))), 3)
    if not picked.equal(read(sample(Draws(range(3))), 3)):
        yield f"{case} the same draws should give the same picks; use no numbers but context.draws."
    for video in range(3):
        if not picked[video].equal(read(sample(Draws([video])), 1)[0]):
            yield (
                f"{case} what a video picks should not depend on the other videos of its batch; "
                "each has its own row of context.draws.rand(...)."
            )
            return
