"""A run: a training from settings to a directory with all its results.

A run directory holds `config.json` (the full settings), `metrics.jsonl` (a record per line),
`tensorboard/`, `checkpoint.safetensors`, `predictions.json` (ActivityNet structure), `report.json`,
`report.html` (the same to read, and more) and `pictures/`; if videos could not be read,
`failed_videos.json`; and, until it is finished, `state.safetensors`, from which it can be resumed.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from etadlite.base import distributed
from etadlite.base.errors import InputError, StoppedError, disk_is_full, never_fatal
from etadlite.base.files import read_json, read_text, write_json, written_whole
from etadlite.base.folders import IN_USE, used_alone
from etadlite.config import Settings
from etadlite.runs.pictures import draw_run_curves, draw_test_videos
from etadlite.runs.testing import EpochTests
from etadlite.training.loop import prepare, run
from etadlite.training.recorder import Recorder
from etadlite.training.report import RunReport, read_report, report_record
from etadlite.training.state import BANK_FILES, STATE, Training


def run_training(
    settings: Settings,
    folder: Path | Callable[[], Path],
    *,
    resume: bool = False,
    progress: bool = True,
) -> RunReport | None:
    """Train, test and draw, all into a folder, and return the report; None except in process 0.

    `folder` is the run directory, or a function that makes it, which is called once data and
    settings are known to be usable. `resume` continues the run in the folder. Its settings must be
    the same, except those that say where things lie and how they are computed. A finished run is
    only reported; a run without a state begins anew. Without `resume`, a folder with a state of
    exactly these settings is gone on with, and any other begins anew.

    Raises:
        InputError: the data or the settings cannot be used, or the folder holds another run.
        StoppedError: a signal, a full disk or lost data stopped it; it can be resumed.
    """
    with ExitStack() as locks:
        try:
            return _run(settings, folder, locks, resume=resume, progress=progress)
        except distributed.LostProcessError as error:  # not within the steps, which save the state
            reason = "another process of this training was lost; run the same command again"
            raise StoppedError(reason, everywhere=True) from error


def _run(
    settings: Settings,
    folder: Path | Callable[[], Path],
    locks: ExitStack,
    *,
    resume: bool,
    progress: bool,
) -> RunReport | None:
    """Do what `run_training` says; `locks` hold the directory until the end."""
    # 1. The run to resume.
    state = None
    if resumed := resume or (isinstance(folder, Path) and _stopped(settings, folder)):
        folder = _run_to_resume(folder, settings, locks)
        if (folder / "report.json").exists():
            return read_report(folder) if distributed.is_first() else None
        state = folder / STATE if (folder / STATE).exists() else None
    # 2. System and videos; whatever is wrong with them shows before a directory is made.
    chosen = settings
    if None in (settings.encoder.chunk_size, settings.encoder.checkpointing):
        from etadlite.memory.plan import with_chunk_size  # few runs need the room of memory

        chosen = with_chunk_size(settings)
    training, data = prepare(chosen, state)
    training.explain = _explain_memory
    tests = EpochTests(training.settings, progress=progress)
    # 3. The run directory; only the first process writes to it.
    if isinstance(folder, Path):
        place = folder
    else:
        place = distributed.broadcast(folder() if distributed.is_first() else None)
    if not distributed.is_first():
        run(training, data, after_epoch=tests, folder=place)
        return None
    place.mkdir(parents=True, exist_ok=True)
    if not resumed:
        locks.enter_context(used_alone(place))
    _make_ready(place, settings, keep=training.progress.records if state else None)
    # 4. The training, with a test after the last epoch at least.
    try:
        with Recorder(place, training.progress.steps) as recorder:
            log = recorder.log
            run(training, data, log=log, after_epoch=tests, folder=place, progress=progress)
    except StoppedError:
        if failed := training.progress.failed:
            with suppress(OSError):
                write_json(place / "failed_videos.json", {"training": failed})
        raise
    except InputError:
        if place is not folder and not training.progress.steps:  # it never began
            shutil.rmtree(place)
        raise
    # 5. Predictions, pictures and report.
    with _stopped_by_a_full_disk(place):
        return _finish(training, tests, place)


@contextmanager
def _stopped_by_a_full_disk(folder: Path) -> Iterator[None]:
    """Say how a complete training goes on whose results cannot be written."""
    try:
        yield
    except OSError as error:
        if not disk_is_full(error):
            raise
        raise StoppedError(
            f"the disk of {error.filename or folder} is full; the training is complete, and "
            f"{folder} goes on from its last test",
            folder=folder,
        ) from error


def finished(settings: Settings, folder: Path) -> bool:
    """Return True if the folder holds a finished run of exactly these settings."""
    return (folder / "report.json").exists() and _has_settings(settings, folder)


def _stopped(settings: Settings, folder: Path) -> bool:
    """Return True if the folder holds a run of exactly these settings that can go on."""
    state = (folder / STATE).exists() and not (folder / "report.json").exists()
    return state and _has_settings(settings, folder)


def _has_settings(settings: Settings, folder: Path) -> bool:
    path, wanted = folder / "config.json", settings.model_dump(mode="json")
    return path.exists() and read_json(path, "settings file of a run") == wanted


def new_run_folder(root: Path, name: str) -> Path:
    """Make the next free directory ROOT/NAME/001, 002, ... and return it."""
    for number in count(1):
        with suppress(FileExistsError):
            (root / name / f"{number:03d}").mkdir(parents=True)
            break
    return root / name / f"{number:03d}"


def last_run_folder(root: Path, name: str) -> Path | None:
    """Return the directory in ROOT/NAME with the highest number; None if there is none."""
    folders = [f for f in (root / name).glob("*") if f.name.isdecimal() and f.is_dir()]
    return max(folders, key=lambda folder: int(folder.name), default=None)


def _run_to_resume(folder: Path | Callable[[], Path], settings: Settings, locks: ExitStack) -> Path:
    """Return the run directory to resume; the first process finds and checks it.

    An unfinished one is locked before its state is read, which another process might write.
    """
    with distributed.raise_together():
        if distributed.is_first():
            folder = folder() if callable(folder) else folder
            config = folder / "config.json"
            if config.exists():
                from etadlite.training.resume import refuse_other_settings

                refuse_other_settings(read_json(config, "settings file of a run"), settings, config)
            elif not folder.is_dir() or any(path.name != IN_USE for path in folder.iterdir()):
                raise InputError(
                    f"{folder} is no run directory: it has no config.json; check the path"
                )
            if not (folder / "report.json").exists():
                locks.enter_context(used_alone(folder))
    return distributed.broadcast(folder)


def _explain_memory(settings: Settings, chunks: Sequence[int]) -> str:
    from etadlite.memory.plan import plan_in_words  # once memory has run out

    return plan_in_words(settings, chunks)


def _make_ready(folder: Path, settings: Settings, keep: int | None) -> None:
    """Make a run directory for a new training, or go back to its first `keep` records."""
    for draft in folder.glob("*.part.*"):  # of a process that was killed
        draft.unlink()
    for name in ("report.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    if keep is None:
        for name in (STATE, *BANK_FILES, "failed_videos.json", "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        write_json(folder / "config.json", settings.model_dump(mode="json"))
    else:
        lines = read_text(folder / "metrics.jsonl", "record of a run").splitlines(keepends=True)
        with written_whole(folder / "metrics.jsonl") as draft:
            draft.write_text("".join(lines[:keep]))


def _finish(training: Training, tests: EpochTests, folder: Path) -> RunReport:
    """Write the results of a finished training, and delete its state at the very end."""
    at, pictures = training.progress, folder / "pictures"
    failed_tests = tests.predictions["external_data"].get("unreadable", {})
    unreadable = {"training": at.failed, "test": failed_tests}
    (folder / "failed_videos.json").unlink(missing_ok=True)
    if any(unreadable.values()):
        write_json(folder / "failed_videos.json", unreadable)
    write_json(folder / "predictions.json", tests.predictions)
    with never_fatal("the pictures"):
        draw_run_curves({training.settings.name: folder}, pictures / "curves.png")
        draw_test_videos(training.settings, {"detected": tests.predictions}, pictures)
    report = RunReport(
        folder,
        tuple(tests.precision.tiou.tolist()),
        tuple(tests.precision.per_tiou.tolist()),
        tests.precision.average,
        at.peak_activation_bytes,
        at.seconds_per_step,
        training.videos_per_second,
        at.waiting_share,
        at.skipped,
        sum(map(len, unreadable.values())),
    )
    with never_fatal("the page report.html"):
        from etadlite.runs import page  # once a run is finished

        page.write_page(folder, report)
    write_json(folder / "report.json", report_record(report))
    for name in (*BANK_FILES, STATE):
        (folder / name).unlink(missing_ok=True)
    return report
