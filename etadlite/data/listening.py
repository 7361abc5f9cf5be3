"""What FFmpeg reports as an error while it reads a file or decodes it, and goes on.

PyAV drops these reports by default, because those of FFmpeg's own threads can wait for Python's
lock for ever. Here FFmpeg works in the thread that asks.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import av

_lock = RLock()
_before: list[tuple[int | None, bool, int]] = []  # how PyAV was set, for each who listens


@contextmanager
def listening() -> Iterator[None]:
    """Let `av.logging.Capture` collect the errors of its thread; none is printed meanwhile.

    Parts of the program may listen at the same time, and end in any order.
    """
    logger, now = logging.getLogger("libav"), av.logging
    with _lock:
        _before.append((now.get_level(), now.get_skip_repeated(), logger.level))
        now.set_level(now.ERROR)
        now.set_skip_repeated(False)
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _lock:
            level, skips, printed = _before.pop()
            if not _before:  # the last one restores what the first one found
                now.set_level(level)
                now.set_skip_repeated(skips)
                logger.setLevel(printed)
