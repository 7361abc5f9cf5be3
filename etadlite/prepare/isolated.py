"""Work on files that may hang or kill whoever opens them: each in a process that may be lost."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from etadlite.base.errors import InputError


class Outcome(NamedTuple):
    """What became of one item.

    Attributes:
        item: the item.
        result: what the function returned; None if it failed.
        error: why it failed, in words; empty if it did not.
    """

    item: Any
    result: Any
    error: str = ""


START_SECONDS = 600.0
"""Time limit of a process's start, which takes long on a busy machine, and is no item's fault."""

_READY = "ready"


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


def in_processes(
    function: Callable[[Any], Any], items: Iterable[Any], *, workers: int, seconds: float
) -> Iterator[Outcome]:
    """Call a function on every item, in processes that are replaced when one dies or hangs.

    A pool of the standard library ends as a whole when one of its processes is killed, as a decoder
    may be by a broken file, and waits for ever for one that hangs.

    Args:
        function: what to call; it, its items and its results must be picklable.
        items: what to call it on.
        workers: number of processes.
        seconds: time limit of an item; the start of a process does not count.

    Yields:
        The outcomes, as they come.
    """
    context = get_context("spawn")  # a fork may copy the locks of other threads
    waiting, idle = iter(items), []
    busy: dict[Connection, tuple[_Worker, Any, float]] = {}
    try:
        while True:
            while len(busy) < max(1, workers):
                try:
                    item = next(waiting)
                except StopIteration:
                    break
                worker, limit = (idle.pop() if idle else None), seconds
                if worker is None or not worker.process.is_alive():
                    worker, limit = _start(context, function), START_SECONDS + seconds
                worker.connection.send(item)
                busy[worker.connection] = (worker, item, time.monotonic() + limit)
            if not busy:
                return
            next_limit = min(limit for _, _, limit in busy.values())
            ready = wait(list(busy), timeout=max(0.0, next_limit - time.monotonic()))
            for connection in ready:
                worker, item, _ = busy.pop(connection)
                outcome = _heard(worker, item)
                if outcome is None:
                    busy[connection] = (worker, item, time.monotonic() + seconds)
                    continue
                if not connection.closed:
                    idle.append(worker)
                yield outcome
            now = time.monotonic()
            for connection, (worker, item, limit) in list(busy.items()):
                if limit <= now and not connection.poll():
                    del busy[connection]
                    _end(worker)
                    yield Outcome(item, None, f"it took longer than {seconds:g} s")
    finally:
        for worker in [*idle, *(entry[0] for entry in busy.values())]:
            _end(worker)


def _start(context: Any, function: Callable[[Any], Any]) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its death closes the pipe
    return _Worker(process, ours)


def _heard(worker: _Worker, item: Any) -> Outcome | None:
    """What a process says of its item; None where it has only just started."""
    try:
        answer = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        worker.connection.close()
        return Outcome(item, None, f"its process died (exit code {worker.process.exitcode})")
    return None if answer == _READY else Outcome(item, *answer)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """In the process: answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    connection.send(_READY)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = function(item), ""
        except InputError as error:
            answer = None, str(error)
        except Exception as error:
            answer = None, f"{type(error).__name__}: {error}"
        connection.send(answer)
