"""A training that is interrupted, in any way, continues as if it had not been."""

import errno
import json
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from etadlite.base.errors import InputError, StoppedError
from etadlite.base.weights import load_weights
from etadlite.cli import main
from etadlite.data import loading
from etadlite.data.features import FeatureDataset
from etadlite.presets import preset
from etadlite.runs import run as runs
from etadlite.runs import testing
from etadlite.runs.run import last_run_folder, run_training
from etadlite.training import loop, stopping
from etadlite.training import state as checkpoint
from etadlite.training.recorder import Recorder, read_metrics
from etadlite.training.state import STATE

CHANGES = (
    *("training.epochs=3", "training.batch_size=1", "training.test_every=1"),
    *("training.checkpoint_minutes=0", "detector.max_duration=4"),
)


def e2e(tiny, *changes):
    return preset("e2e_stickfigures", [*tiny.assignments, *CHANGES, *changes])


def on_features(tiny, *changes):
    return preset("stickfigures", [*tiny.on_features, *CHANGES, *changes])


def left(folder):
    """The files of a run that must not depend on how often it was interrupted."""
    files = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "predictions.json")}
    weights, _ = load_weights(folder / "checkpoint.safetensors")
    return files | {name: value.numpy().tobytes() for name, value in weights.items()}


@pytest.fixture(scope="module")
def uninterrupted(tiny, one_thread, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_training(on_features(tiny), folder, progress=False)
    return left(folder)


# Killed


def killed_at(moment, settings, folder):
    """Run a training that kills itself, like kill -9, at the n-th of many moments."""
    passed = 0

    def before(function):
        def call(*arguments, **options):
            nonlocal passed
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    def half_written(tensors, path, metadata):
        save_file(tensors, path, metadata)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        before(path.write_bytes)(whole)

    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    checkpoint.save_file = half_written
    loop.step_in_memory = before(loop.step_in_memory)
    loop.save_state = before(loop.save_state)
    loop.save_checkpoint = before(loop.save_checkpoint)
    torch.optim.AdamW.step = before(torch.optim.AdamW.step)
    Recorder.log = before(Recorder.log)
    testing.test_system = before(testing.test_system)
    runs.draw_run_curves = before(runs.draw_run_curves)
    run_training(settings, folder, resume=True, progress=False)


def killed_often(kill, settings, root, *, last_moment, seed):
    """Run a training undisturbed, and one that is killed until it ends with the same files.

    `kill` is a function like `killed_at`. Returns the directory of the run that was killed.
    """
    moments, processes = random.Random(seed), multiprocessing.get_context("forkserver")
    folders = {False: root / "whole", True: root / "killed"}
    deaths = 0
    for often, folder in folders.items():
        ended = None
        while ended != 0:
            moment = moments.randint(2, last_moment) if often else None
            process = processes.Process(target=kill, args=(moment, settings, folder))
            process.start()
            process.join()
            ended = process.exitcode
            assert ended in (0, -signal.SIGKILL)
            deaths += ended != 0
    assert deaths >= 3
    assert left(folders[True]) == left(folders[False])
    return folders[True]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks processes from a server")
@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(tiny, tmp_path):
    run = killed_often(killed_at, e2e(tiny, "data.cache=null"), tmp_path, last_moment=22, seed=0)
    assert [r["step"] for r in read_metrics(run) if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.rglob("*.part.*"))
    assert not (run / STATE).exists()


# Stopped


def at_step(step, action):
    """A recorder's `log` that does something after a step was written."""
    log = Recorder.log

    def acting(self, record):
        log(self, record)
        if record["step"] == step and "loss" in record:
            action()

    return acting


def goes_on(tiny, folder, uninterrupted, monkeypatch):
    monkeypatch.undo()
    run_training(on_features(tiny), folder, resume=True, progress=False)
    return left(folder) == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_the_step(tiny, tmp_path, monkeypatch, uninterrupted, number):
    before = signal.getsignal(number)
    # No state is due for ten minutes: it must be the signal that leaves one.
    settings = on_features(tiny, "training.checkpoint_minutes=10")
    monkeypatch.setattr(Recorder, "log", at_step(3, lambda: os.kill(os.getpid(), number)))
    words = f"stopped by {number.name}; .* goes on from its last saved step"
    with pytest.raises(StoppedError, match=words) as stop:
        run_training(settings, tmp_path, progress=False)
    assert (stop.value.code, stop.value.folder) == (128 + number, tmp_path)
    assert signal.getsignal(number) == before
    assert len([r for r in read_metrics(tmp_path) if "loss" in r]) == 3
    assert goes_on(tiny, tmp_path, uninterrupted, monkeypatch)


def test_a_signal_ends_a_test_at_once(tiny, tmp_path, monkeypatch, uninterrupted):
    test_system = testing.test_system
    tests = []

    def interrupted(*arguments, **options):
        tests.append(0)
        if len(tests) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal did not end the test")
        return test_system(*arguments, **options)

    monkeypatch.setattr(testing, "test_system", interrupted)
    with pytest.raises(StoppedError) as stop:
        run_training(on_features(tiny), tmp_path, progress=False)
    assert stop.value.code == 143
    assert goes_on(tiny, tmp_path, uninterrupted, monkeypatch)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_while_something_is_deleted_ends_the_test_without_a_traceback(
    tiny, tmp_path, monkeypatch, uninterrupted
):
    test_system = testing.test_system

    class Loading:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def interrupted(*arguments, **options):
        tested = test_system(*arguments, **options)
        Loading()  # deleted at once
        return tested

    monkeypatch.setattr(testing, "test_system", interrupted)
    with pytest.raises(StoppedError) as stop:
        run_training(on_features(tiny), tmp_path, progress=False)
    assert stop.value.code == 143
    monkeypatch.setattr(testing, "test_system", test_system)
    assert goes_on(tiny, tmp_path, uninterrupted, monkeypatch)


def test_a_signal_ends_the_wait_for_videos_at_once(tiny, tmp_path, monkeypatch):
    def endless(*arguments):
        time.sleep(3600)

    def to_the_group():  # as timeout, Slurm and systemd send it
        os.kill(os.getpid(), signal.SIGTERM)
        for process in multiprocessing.active_children():
            process.kill()

    begin = loop._Loader.__iter__

    def begun(batches):
        threading.Timer(1.0, to_the_group).start()
        return begin(batches)

    monkeypatch.setattr(FeatureDataset, "read", endless)
    monkeypatch.setattr(loop._Loader, "__iter__", begun)
    settings = on_features(tiny, "data.workers=1", "training.patience_minutes=5")
    started = time.monotonic()
    with pytest.raises(StoppedError) as stop:
        run_training(settings, tmp_path, progress=False)
    assert stop.value.code == 143
    assert time.monotonic() - started < 120  # PyTorch alone would wait for five minutes


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")


@pytest.mark.parametrize("where", ["metrics.jsonl", STATE])
def test_a_full_disk_ends_a_run_with_the_state_before(
    tiny, tmp_path, monkeypatch, uninterrupted, where
):
    if where == STATE:  # safetensors has an error of its own for it
        text = "Error while serializing: I/O error: No space left on device (os error 28)"

        def refuse(*arguments):
            raise SafetensorError(text)

        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        later = at_step(3, lambda: monkeypatch.setattr(checkpoint, "save_file", refuse))
        monkeypatch.setattr(Recorder, "log", later)
    else:
        monkeypatch.setattr(Recorder, "log", at_step(3, full))
    with pytest.raises(StoppedError, match=f"the disk of .*{where} is full; .* last saved step"):
        run_training(on_features(tiny), tmp_path, progress=False)
    assert goes_on(tiny, tmp_path, uninterrupted, monkeypatch)


def test_a_lost_disk_ends_a_run_with_the_state_before(tiny, tmp_path, monkeypatch, uninterrupted):
    def lost(*arguments):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "metrics.jsonl")

    monkeypatch.setattr(Recorder, "log", at_step(3, lost))
    words = "metrics.jsonl cannot be written any more .* goes on from its last saved step"
    with pytest.raises(StoppedError, match=words):
        run_training(on_features(tiny), tmp_path, progress=False)
    assert goes_on(tiny, tmp_path, uninterrupted, monkeypatch)


def test_a_loading_process_that_dies_ends_a_run_with_the_state_before(
    tiny, tmp_path, monkeypatch, uninterrupted
):
    last = tmp_path / "last"
    read = FeatureDataset.read

    def dying(*arguments):
        if last.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*arguments)

    monkeypatch.setattr(FeatureDataset, "read", dying)
    monkeypatch.setattr(Recorder, "log", at_step(2, last.touch))
    settings = on_features(tiny, "data.workers=1")
    with pytest.raises(StoppedError, match="a process that loads videos died .* goes on from"):
        run_training(settings, tmp_path / "run", progress=False)
    last.unlink()
    assert goes_on(tiny, tmp_path / "run", uninterrupted, monkeypatch)


def test_another_loading_process_that_dies_meanwhile_changes_no_error(tiny, tmp_path, monkeypatch):
    def another(*arguments):  # as PyTorch's handler does while a loader has lost a process
        raise RuntimeError("another process is killed")

    def stopped(error, *arguments, **options):
        os.kill(os.getpid(), signal.SIGCHLD)
        return StoppedError(str(error))

    def first():
        signal.signal(signal.SIGCHLD, another)
        raise RuntimeError("the first process is killed")

    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setattr(loading, "_HANDLERS", [])
    monkeypatch.setattr(stopping, "stopped", stopped)
    monkeypatch.setattr(Recorder, "log", at_step(2, first))
    try:
        with pytest.raises(StoppedError, match="the first process is killed"):
            run_training(on_features(tiny), tmp_path, progress=False)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_lost_process_is_noticed_again_after_a_stopped_training(tiny, tmp_path, monkeypatch):
    def lost(*arguments):
        raise AssertionError

    before = signal.signal(signal.SIGCHLD, lost)  # stands for PyTorch's handler
    monkeypatch.setattr(loading, "_HANDLERS", [])
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "log", at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)))
            with pytest.raises(StoppedError):
                run_training(on_features(tiny), tmp_path, progress=False)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        run_training(on_features(tiny), tmp_path, resume=True, progress=False)
        assert signal.getsignal(signal.SIGCHLD) == lost
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_disk_full_after_the_last_test_leaves_what_was_trained(
    tiny, tmp_path, monkeypatch, uninterrupted
):
    monkeypatch.setattr(runs, "draw_test_videos", full)
    words = "disk of metrics.jsonl is full; the training is complete, and .* from its last test"
    with pytest.raises(StoppedError, match=words) as stop:
        run_training(on_features(tiny), tmp_path, progress=False)
    assert stop.value.folder == tmp_path
    monkeypatch.setattr(loop, "step_in_memory", None)
    monkeypatch.setattr(runs, "draw_test_videos", lambda *_: [])
    run_training(on_features(tiny), tmp_path, resume=True, progress=False)
    assert left(tmp_path) == uninterrupted


# Resumed


@pytest.fixture
def stopped(tiny, tmp_path, monkeypatch, one_thread):
    """The directory of a run that ended after its third step."""
    folder = tmp_path / "stickfigures" / "001"
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log", at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(StoppedError):
            run_training(on_features(tiny), folder, progress=False)
    return folder


def test_other_settings_are_refused_by_name_and_leave_the_run_alone(tiny, stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*") if path.is_file()}
    changed = on_features(tiny, "seed=4", "training.detector_lr=0.5", "data.workers=1")
    with pytest.raises(InputError) as error:
        run_training(changed, stopped, resume=True, progress=False)
    words = "with other settings: seed is 0 there and 4 here; training.detector_lr is 0.002 there"
    assert words in str(error.value)
    assert "workers" not in str(error.value)
    assert before == {p: p.stat().st_mtime_ns for p in stopped.rglob("*") if p.is_file()}


def test_a_run_continues_with_another_loader_elsewhere(tiny, stopped, tmp_path, uninterrupted):
    (tmp_path / "moved").symlink_to(tiny.features)
    changed = on_features(tiny, f"data.features={tmp_path / 'moved'}", "data.workers=1")
    run_training(changed, stopped, resume=True, progress=False)
    assert left(stopped) == uninterrupted


def test_another_number_of_videos_is_refused(tiny, stopped):
    content = json.loads((tiny.data / "annotations.json").read_text())
    del content["database"]["training_00001"]
    (stopped.parent / "fewer.json").write_text(json.dumps(content))
    settings = on_features(tiny, f"data.annotations={stopped.parent / 'fewer.json'}")
    with pytest.raises(InputError, match="on 2 samples, but here are 1; resume with the same"):
        run_training(settings, stopped, resume=True, progress=False)


def test_a_broken_state_is_refused(tiny, stopped):
    (stopped / STATE).write_bytes((stopped / STATE).read_bytes()[:100])
    with pytest.raises(InputError, match=r"state\.safetensors is no state of a training that can"):
        run_training(on_features(tiny), stopped, resume=True, progress=False)


def test_a_finished_run_is_only_reported(tiny, stopped, monkeypatch):
    first = run_training(on_features(tiny), stopped, resume=True, progress=False)
    monkeypatch.setattr(runs, "prepare", None)
    again = run_training(on_features(tiny), stopped, resume=True, progress=False)
    assert again == first


def test_tensorboard_shows_each_step_once(tiny, stopped):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_training(on_features(tiny), stopped, resume=True, progress=False)
    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


# The command


def etadlite(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["etadlite", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, *capsys.readouterr()


@pytest.mark.usefixtures("one_thread")
def test_the_command_says_how_to_continue_and_that_command_works(
    tiny, tmp_path, monkeypatch, capsys, uninterrupted
):
    arguments = ("train", "stickfigures", *tiny.on_features, *CHANGES, "--quiet", "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log", at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        code, _, err = etadlite(patch, capsys, *arguments)
    assert code == 143
    said, command = err.splitlines()
    assert said.startswith("error: stopped by SIGTERM")
    folder = tmp_path / "stickfigures" / "001"
    words = shlex.split(command.removeprefix("continue with: "))
    assert words == ["etadlite", *map(str, arguments), "--resume", str(folder)]
    assert last_run_folder(tmp_path, "stickfigures") == folder
    code, out, err = etadlite(monkeypatch, capsys, *arguments, "--resume", "last")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"run: {folder}"
    assert left(folder) == uninterrupted
    assert etadlite(monkeypatch, capsys, *words[1:])[0] == 0  # it is finished: only reported


def test_a_folder_without_a_run_is_not_resumed(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").touch()
    arguments = ("train", "stickfigures", *tiny.on_features, "--quiet", "--out", tmp_path / "runs")
    for folder in ("notes", "nowhere"):
        code, _, err = etadlite(monkeypatch, capsys, *arguments, "--resume", tmp_path / folder)
        assert code == 2
        assert f"{folder} is no run directory: it has no config.json" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_refused_training_leaves_no_folder(tiny, tmp_path, monkeypatch, capsys):
    start = ("train", "stickfigures", *tiny.on_features, "--quiet", "--out", tmp_path / "runs")
    for change in ("data.annotations=no.json", "detector.in_channels=64"):
        assert etadlite(monkeypatch, capsys, *start, change)[0] == 2
    assert not list((tmp_path / "runs").rglob("001"))


@pytest.mark.slow
def test_a_budget_chooses_the_chunk_of_a_training(tiny, tmp_path):
    budget = ("encoder.chunk_size=null", "training.memory=1GB", "training.epochs=1")
    settings = e2e(tiny, *budget, "training.test_every=0")
    run_training(settings, tmp_path, progress=False)
    assert runs.finished(settings, tmp_path)
