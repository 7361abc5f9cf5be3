"""Runs side by side, each in a process of its own with its share of the threads.

A small network gains little from a second thread: two trainings with a thread each end sooner than
the same two, one after the other, with two threads.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etadlite.base.devices import free_memory, resolve_device
from etadlite.base.errors import StoppedError
from etadlite.base.processes import end_with_parent
from etadlite.config import Settings
from etadlite.prepare.extract import extract
from etadlite.runs.run import finished, run_training
from etadlite.training.recorder import read_metrics
from etadlite.training.report import RunReport, read_report
from etadlite.training.state import STATE

Job = tuple[Settings, Path, str]  # of a run: settings, run directory and title
Show = Callable[[list[dict[str, Any]]], None]  # shows the records of a training so far

ROOM = 1.5 * 2**30  # bytes that must be free for each process: a small training takes about 1 GiB


def report_of(settings: Settings, folder: Path, title: str, *, progress: bool) -> RunReport:
    """Train and test unless the folder holds a finished run of the same settings; print its mAP.

    If the run takes features, they are extracted first.
    """
    _train(settings, folder, progress=progress)
    return _said(settings, folder, title)


def reports_of(
    jobs: Sequence[Job], *, progress: bool = True, watch: Callable[[str, int], Show] | None = None
) -> list[RunReport]:
    """Do what `report_of` does for every job, as many at a time as `processes_for` says.

    The last job begins first, so let the longest be the last. `watch` gets a title and the number
    of epochs and returns what shows the records of that training, again and again while it runs; by
    default a bar or lines show it. Without `progress`, nothing is shown.

    Raises:
        InputError: the data or the settings of a job cannot be used.
        StoppedError: something stopped a training; the same call goes on with it.
    """
    count = processes_for(jobs)
    with ExitStack() as watching:
        for settings, folder, title in jobs if progress and (count or watch) else ():
            if not finished(settings, folder):
                show = (watch or epoch_lines)(title, settings.training.epochs)
                watching.enter_context(following(folder, show))
        if not count:
            return [report_of(*job, progress=progress and not watch) for job in jobs]
        shared = Counter(settings.data.features for settings, *_ in jobs)
        for settings, folder, _ in jobs:  # in their order, so that the first one's seed counts
            if shared[settings.data.features] > 1 and not finished(settings, folder):
                _extract(settings, progress=progress)
        threads = torch.get_num_threads() // count
        start = {"initializer": _start, "initargs": (threads,)}
        with ProcessPoolExecutor(count, get_context("spawn"), **start) as pool:
            work = {pool.submit(_train, *job[:2], progress=False): job for job in reversed(jobs)}
            for done in _completed(work):
                _said(*work[done])
    return [read_report(folder) for _, folder, _ in jobs]


def processes_for(jobs: Sequence[Job]) -> int:
    """Return how many jobs run at a time beside this process; 0: one after the other, within it.

    These are as many as there are threads and free memory for, and none on a GPU.
    """
    left = [settings for settings, folder, _ in jobs if not finished(settings, folder)]
    if any(resolve_device(settings.device).type != "cpu" for settings in left):
        return 0
    count = min(len(left), torch.get_num_threads(), int(free_memory() / ROOM))
    return count if count > 1 else 0


@contextmanager
def following(folder: Path, show: Show, *, resume: bool = False) -> Iterator[None]:
    """Show the records of a training that writes its metrics to `folder` meanwhile.

    With `resume`, or beside a state, existing metrics belong to the same training and are kept.
    """
    metrics, done = folder / "metrics.jsonl", threading.Event()
    if not (resume or (folder / STATE).exists()):
        metrics.unlink(missing_ok=True)

    def follow() -> None:
        over, seen = False, 0
        while not over:
            over = done.wait(2.0)  # after the end, look once more
            records = read_metrics(folder) if metrics.exists() else []
            if len(records) > seen:
                show(records)
                seen = len(records)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def epoch_lines(title: str, epochs: int) -> Show:
    """Return a function that prints one line for every new epoch of a training's records."""
    said = 0

    def show(records: list[dict[str, Any]]) -> None:
        nonlocal said
        steps = [record for record in records if "loss" in record]
        for epoch in range(said + 1, int(steps[-1]["epoch"] + 1e-9) + 1 if steps else 0):
            losses = [r["loss"] for r in steps if epoch - 1 < r["epoch"] <= epoch + 1e-9]
            print(f"{title}: epoch {epoch:2d} of {epochs}, loss {np.mean(losses):.2f}", flush=True)
            said = epoch

    return show


def _train(settings: Settings, folder: Path, *, progress: bool) -> None:
    if not finished(settings, folder):
        _extract(settings, progress=progress)
        run_training(settings, folder, progress=progress)


def _extract(settings: Settings, *, progress: bool) -> None:
    if settings.data.features is not None:
        extract(settings, progress=progress)


def _said(settings: Settings, folder: Path, title: str) -> RunReport:
    report = read_report(folder)
    print(f"{title}, seed {settings.seed}: average mAP {100 * report.average:.1f} %", flush=True)
    return report


def _start(threads: int) -> None:
    """Make a new process ready; runs in it."""
    end_with_parent()
    torch.set_num_threads(threads)


def _completed(work: Mapping[Future[None], Any]) -> Iterator[Future[None]]:
    """Yield what ends, as it ends; whatever stops it is raised as the error of a training."""
    try:
        for future in as_completed(work):
            future.result()
            yield future
    except KeyboardInterrupt as error:  # the processes have got it, too, and save their states
        errors = [future.exception() for future in work if not future.cancel()]
        raise next((e for e in errors if isinstance(e, StoppedError)), error) from error
    except BrokenProcessPool as error:
        raise StoppedError(
            "a training's process was killed, perhaps because memory ran out; close other "
            "programs, or set OMP_NUM_THREADS=1 so that one trains at a time, and do the same "
            "again: finished runs are kept, and others go on"
        ) from error
