"""Errors that the command reports in one sentence."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class InputError(ValueError):
    """Something from outside cannot be used: one sentence that names it and the remedy.

    The command prints the sentence and ends with exit code 2.
    """

    def __init__(self, *sentence: str, everywhere: bool = False) -> None:
        super().__init__(*sentence)
        self.everywhere = everywhere  # every process reports it, because each has its own cause


class StoppedError(Exception):
    """A training ended early and can continue from its saved state."""

    def __init__(
        self, sentence: str, code: int = 1, folder: Path | None = None, *, everywhere: bool = False
    ) -> None:
        super().__init__(sentence)
        self.code = code  # exit code of the command; 128 + the number of a signal
        self.folder = folder  # run directory to resume; None if nothing was written
        self.everywhere = everywhere  # every process reports it, because the first may be gone


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like `name`; None if no one is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean "X"?` with the nearest known name, or "" if no one is near."""
    near = nearest(name, known, cutoff)
    return f'; did you mean "{near}"?' if near else ""
