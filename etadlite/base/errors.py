"""Errors that the command reports in one sentence."""

import difflib
import errno
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Characters that steer a terminal or turn the direction of writing, and halves of characters.
_STEERING = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text in which characters that steer a terminal are written as escapes."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


class InputError(ValueError):
    """Something from outside cannot be used: one sentence that names it and the remedy.

    The command prints the sentence and ends with exit code 2.
    """

    def __init__(self, *sentence: str, everywhere: bool = False) -> None:
        super().__init__(*map(printable, sentence))
        self.everywhere = everywhere  # every process reports it, because each has its own cause


class StoppedError(Exception):
    """A training ended early and can continue from its saved state."""

    def __init__(
        self, sentence: str, code: int = 1, folder: Path | None = None, *, everywhere: bool = False
    ) -> None:
        super().__init__(printable(sentence))
        self.code = code  # exit code of the command; 128 + the number of a signal
        self.folder = folder  # run directory to resume; None if nothing was written
        self.everywhere = everywhere  # every process reports it, because the first may be gone


def disk_is_full(error: OSError) -> bool:
    """Return True if a disk, or this user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextmanager
def damage_named(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a file does to its reader into an `InputError`: "`what` (reason); `remedy`".

    Readers raise nearly anything at broken files: errors of lookup, type and number, or their own.
    A signal that ends the reading and a lack of memory are left as they are; readers that refuse a
    size raise an error of their own.
    """
    try:
        yield
    except (InputError, StoppedError):
        raise
    except Exception as error:
        if type(error) is MemoryError:
            raise
        reason = getattr(error, "strerror", "") or first_line(error)
        if isinstance(error, LookupError):  # it says little without its name
            reason = repr(error)
        raise InputError(f"{what} ({reason}); {remedy}") from error


@contextmanager
def never_fatal(what: str) -> Iterator[None]:
    """Warn and go on if `what`, which only shows results, fails; a full disk has its own error."""
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and disk_is_full(error):
            raise
        reason = printable(first_line(error))
        warnings.warn(f"{what} could not be made: {reason}", stacklevel=3)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like `name`; None if no one is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean "X"?` with the nearest known name, or "" if no one is near."""
    near = nearest(name, known, cutoff)
    return f'; did you mean "{near}"?' if near else ""
