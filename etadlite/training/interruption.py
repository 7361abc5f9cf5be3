"""Signals that end a training: between two steps, or at once where nothing can be lost.

A second Ctrl-C ends it without waiting.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from etadlite.base.distributed import torchrun_rank
from etadlite.base.errors import StoppedError

SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
]
"""Job schedulers, kill and Ctrl-C send them; Slurm's `--signal=USR1@60` warns before the limit."""


class Interruption:
    """Notes the signals that come while the context is open; in the main thread only."""

    def __init__(self) -> None:
        self.received = 0  # number of the last signal; 0 if none came
        self._nothing_to_lose = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        # When one process is lost, torchrun sends SIGTERM to the others, which have yet to say why.
        fails_with_others = error[0] is not None and torchrun_rank()[1] > 1
        for number, handler in self._before.items():
            if not (fails_with_others and number == signal.SIGTERM):
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.let_processes_end()  # a signal to the whole group ends those that load videos, too
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._nothing_to_lose:
            raise stopped_by(number)

    def let_processes_end(self) -> None:
        """Keep PyTorch from raising an error, perhaps within a step, when loading ones end.

        It still finds out where it waits for them.
        """
        if self._before and hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this context a signal raises its error at once."""
        self._nothing_to_lose = True
        try:
            yield
        finally:
            self._nothing_to_lose = False


def stopped_by(number: int) -> StoppedError:
    """Return the error that stands for a signal."""
    return StoppedError(f"stopped by {signal.Signals(number).name}", 128 + number)
