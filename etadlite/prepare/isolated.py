"""Work on files that may hang or kill the process that opens them: every file in a spare process.

A pool of the standard library breaks as a whole when one of its processes is killed, as a decoder
may be by a broken file, and it waits forever for a process that hangs.
"""

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from etadlite.base.errors import InputError
from etadlite.base.processes import end_with_parent

START_SECONDS = 600.0  # time limit for the start of a process, which is slow on a busy machine


class Outcome(NamedTuple):
    """The result of one item; `error` says in words why there is none."""

    item: Any
    result: Any
    error: str = ""


def in_processes(
    function: Callable[[Any], Any], items: Iterable[Any], *, workers: int, seconds: float
) -> Iterator[Outcome]:
    """Yield the outcomes of a function in the order in which they are ready; all must be picklable.

    Processes that die or hang are replaced; closing the iterator ends all of them. Items are taken
    only when a process is free. `seconds` limit the time of an item, not the start of a process.
    """
    workers, items, idle = max(1, workers), iter(items), []
    busy: dict[Future[Outcome], _Worker] = {}
    with ThreadPoolExecutor(workers) as threads:
        try:
            while True:
                for item in islice(items, workers - len(busy)):
                    worker = idle.pop() if idle else None
                    if worker is None or not worker.process.is_alive():
                        worker = _Worker(function)
                    busy[threads.submit(worker.ask, item, seconds)] = worker
                if not busy:
                    return
                for done in wait(busy, return_when=FIRST_COMPLETED).done:
                    idle.append(busy.pop(done))
                    yield done.result()
        finally:
            for worker in [*idle, *busy.values()]:
                worker.end()


class _Worker:
    """A process that calls the function on one item after the other."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = get_context("spawn")  # a fork may copy the locks of other threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the death of the process closes the pipe

    def ask(self, item: Any, seconds: float) -> Outcome:
        """Return the outcome of an item; a process that takes too long is ended."""
        try:
            self.connection.send(item)
            for limit in (START_SECONDS, seconds):  # first it says that it has the item
                if not self.connection.poll(limit):
                    self.end()
                    return Outcome(item, None, f"it took longer than {limit:g} s")
                answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Outcome(item, None, f"its process died (exit code {self.process.exitcode})")
        return Outcome(item, *answer)

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """Answer every item that comes through the pipe; runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    end_with_parent()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        connection.send("started")
        try:
            answer = function(item), ""
        except InputError as error:
            answer = None, str(error)
        except Exception as error:
            answer = None, f"{type(error).__name__}: {error}"
        connection.send(answer)
