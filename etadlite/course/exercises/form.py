"""Helpers of the checkers: they call the student's function, and read whatever it returns."""

import ctypes
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etadlite.base.draws import Draws

LONGEST = 20.0  # seconds of the processor in one call; right answers take less than one
Checker = Callable[[Callable], Iterator[str]]  # of the student's function; yields its faults
Cases = Sequence[tuple[tuple, float, str]]  # arguments, the number that they should give, reason


class UnfitError(Exception):
    """What the student's function did cannot be compared; the message says why."""


class _EndlessError(BaseException):
    """More time than allowed; no `except Exception` of the student catches it."""


class _TooLongError(BaseException):
    """More lines than allowed; no `except Exception` of the student catches it."""


class Student:
    """The student's function as the checkers call it, within `with Student(function) as attempt`.

    Raises:
        UnfitError: it raised an error, returned nothing or `...`, did not end, changed its
            arguments, or left a setting of torch changed.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.begun: float | None = None  # the processor's time at the call that runs
        self.over, self.caller = threading.Event(), threading.get_ident()
        # Early calls: copies of the arguments, what came back, and its numbers at that time.
        self.first: list[tuple[tuple, Any, Tensor]] = []
        self.is_endless = False

    def __enter__(self) -> "Student":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()

    def _watch(self) -> None:
        """End a call that takes more than `LONGEST` seconds, even one that runs no new line."""
        while not self.over.wait(0.2):
            begun = self.begun
            if begun is not None and time.process_time() - begun > LONGEST:
                caller, error = ctypes.c_ulong(self.caller), ctypes.py_object(_EndlessError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(caller, error)
                return

    def __call__(self, *arguments: Any) -> Any:
        """Call it and return what it returns."""
        before = [(part, part.detach().clone()) for part in _tensors(arguments)]
        lists = [(part, list(part)) for part in _lists(arguments)]
        kept = _copied(arguments) if len(self.first) < 2 else None
        try:
            self.begun = time.process_time()
            with _settings_of_torch():
                given = self.function(*arguments)
        except (UnfitError, _TooLongError, KeyboardInterrupt):
            raise
        except _EndlessError:
            self.is_endless = True
            raise UnfitError(
                "your function does not end: is there a loop that never stops?"
            ) from None
        except BaseException as error:  # anything, even SystemExit
            raise UnfitError(f"your function raised {type(error).__name__}: {error}") from None
        finally:
            self.begun = None
        if given is ...:
            raise UnfitError("not attempted yet.")
        if given is None:
            raise UnfitError("your function returns nothing; does every way end in `return`?")
        same = all(part.shape == kept.shape and part.equal(kept) for part, kept in before)
        if not same or any(_differ(part, kept) for part, kept in lists):
            raise UnfitError(
                "your function changes what it is given in place; work on a copy, as `x.clone()`."
            )
        if kept is not None:
            with suppress(Exception):  # what it can't read, the checker names
                self.first.append((kept, given, tensor(given).clone()))
        return given

    def remembers(self) -> str:
        """Return what is wrong if its answers depend on other calls or on chance; else nothing."""
        if self.is_endless:
            return ""
        answers = [id(given) for _, given, _ in self.first if isinstance(given, (list, Tensor))]
        for arguments, given, numbers in list(self.first):
            if len(set(answers)) < len(answers) or not _alike(as_tensor(given), numbers):
                return (
                    "a later call changes what your function returned before; make a new list or "
                    "tensor in each call, and none in a global or a default value (`kept=[]`)."
                )
            try:
                again = as_tensor(self(*_copied(arguments)))
            except UnfitError:
                again = None
            if again is None or not _alike(again, numbers):
                return (
                    "the same arguments give another answer in another call; use no chance, and "
                    "keep nothing between calls, neither in a global nor in a default value such "
                    "as `kept=[]`."
                )
        return ""


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _lists(value: Any) -> Iterator[list]:
    if isinstance(value, list):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _lists(part)


def _differ(now: list, before: list) -> bool:
    """Whether a list has other parts; the numbers of its tensors are compared by themselves."""
    pairs = zip(now, before, strict=False)
    return len(now) != len(before) or any(
        part is not old and (isinstance(part, Tensor) or isinstance(old, Tensor) or part != old)
        for part, old in pairs
    )


def _copied(arguments: tuple) -> tuple | None:
    """Return copies of numbers, texts, tensors and lists of these; None if there is more."""
    copies: list = []
    for value in arguments:
        if isinstance(value, Tensor):
            copies.append(value.detach().clone().requires_grad_(value.requires_grad))
        elif isinstance(value, (Real, str, list, tuple)) and not hasattr(value, "_fields"):
            copies.append(deepcopy(value))
        else:
            return None
    return tuple(copies)


def _alike(found: Tensor, before: Tensor) -> bool:
    """Whether two answers to one call are the same, up to rounding."""
    near = {"rtol": 1e-5, "atol": 1e-8, "equal_nan": True}
    return found.shape == before.shape and torch.allclose(found.double(), before.double(), **near)


def number(value: Any, call: str = "it") -> float:
    """Return an answer as a number: a plain one, or a tensor, array or list of one element."""
    if isinstance(value, (Tensor, np.ndarray, list, tuple)):
        found = tensor(value)
        if found.numel() != 1:
            raise UnfitError(f"{call} has the shape {list(found.shape)}: return one number.")
        value = found.item()
    if not isinstance(value, (Real, Decimal, np.bool_)):
        raise UnfitError(f"{call} is a {type(value).__name__}: return one number.")
    with _no_overflow(f"{call} is"):
        return float(value)


def tensor(
    value: Any, shape: tuple[int, ...] | None = None, case: str = "", *, whole: bool = False
) -> Tensor:
    """Return an answer as a tensor of float64, or of long for `whole` numbers.

    It may be a tensor of any real dtype, an array, or lists or tuples of these.
    """
    found = as_tensor(value, case)
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


def as_tensor(value: Any, case: str = "") -> Tensor:
    """Return a tensor, an array, a number, or lists of these, as a tensor of their own kind."""
    if isinstance(value, Tensor):
        if value.device.type == "meta":
            raise UnfitError(f"{case} your tensor lies on the device meta: no numbers.".lstrip())
        value = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        return value.as_subclass(Tensor).cpu()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        kind = np.float64 if value.dtype.kind == "f" else value.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(value, dtype=kind))
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, (Fraction, Decimal)):
        value = float(value)
    if isinstance(value, (Real, np.bool_)):
        with _no_overflow(f"{case} it holds"):
            return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    if isinstance(value, (list, tuple, range)):
        value = [float(x) if isinstance(x, (Fraction, Decimal)) else x for x in value]
        if all(isinstance(part, Real) for part in value):
            kinds = {type(part) for part in value}
            with _no_overflow(f"{case} it holds"):
                return torch.tensor(list(value), dtype=torch.float64 if float in kinds else None)
        parts = [as_tensor(part, case) for part in value]
        if len({part.shape for part in parts}) > 1:
            raise UnfitError(f"{case} the rows of your answer have different lengths.".lstrip())
        if any(part.is_floating_point() for part in parts):
            parts = [part.double() for part in parts]
        return torch.stack(parts)
    raise UnfitError(f"{case} it should return a tensor, not {type(value).__name__}.".lstrip())


@contextmanager
def _no_overflow(call: str) -> Iterator[None]:
    """Refuse a whole number that no float, or no tensor, can hold."""
    try:
        yield
    except (OverflowError, RuntimeError, ValueError):  # torch raises the last two
        raise UnfitError(f"{call} too large a number.".lstrip()) from None


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
            why = str(error).removeprefix("your function raised ")
            yield f"{call} fails ({why}): {reason}{_stop(reason)}"
            return
        if not np.isclose(given, expected, rtol=relative, atol=tolerance, equal_nan=True):
            why = _rounding(given, expected) or reason
            yield f"{call} gives {given:.9g}: {why}{_stop(why)}"


def _rounding(given: float, expected: float) -> str:
    """Return what to say of a number that is right up to its last decimal places."""
    for places in (2, 3, 4):  # a single place may be right by chance
        if given == round(expected, places) != round(expected):
            return f"yours is rounded to {places} decimal places; return the number as it is"
    return ""


def _stop(sentence: str) -> str:
    """Return the full stop that a sentence lacks."""
    return "" if sentence.endswith("?") else "."


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
def _settings_of_torch() -> Iterator[None]:
    """Refuse a call that leaves gradients switched off or another dtype, and put them back."""
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
        if torch.is_grad_enabled() != gradients:
            raise UnfitError(
                "your function leaves gradients switched off; write `with torch.no_grad():`, which "
                "switches them on again."
            )
        if torch.get_default_dtype() != dtype:
            raise UnfitError(
                "your function changes torch's default dtype for all that follows; give the dtype "
                "where a tensor is made."
            )
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)


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
