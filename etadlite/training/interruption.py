"""Signals that end a training: between two steps, or at once where nothing can be lost.

A second Ctrl-C ends it without waiting.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_stack
from types import FrameType
from typing import Any, Self

from etadlite.base.distributed import torchrun_rank
from etadlite.base.errors import StoppedError
from etadlite.data.loading import let_processes_end

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
        let_processes_end()  # a signal to the whole group ends those that load videos, too
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # Python prints and forgets an error in a `__del__`.
        names = (frame.f_code.co_name for frame, _ in walk_stack(frame))
        if self._nothing_to_lose and "__del__" not in names:
            raise stopped_by(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this context a signal raises its error at once, or at the end where none can."""
        self._nothing_to_lose = True
        try:
            self._stop()  # it may have come since anyone asked
            yield
            self._stop()
        finally:
            self._nothing_to_lose = False

    def _stop(self) -> None:
        if self.received:
            raise stopped_by(self.received)


def stopped_by(number: int) -> StoppedError:
    """Return the error that stands for a signal."""
    return StoppedError(f"stopped by {signal.Signals(number).name}", 128 + number)
