"""What never ends a run, who else uses its folder, and how it goes on or ends from outside."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import psutil
import pytest
import torch
from matplotlib.figure import Figure

from etadlite.base.distributed import LostProcessError
from etadlite.base.errors import InputError, StoppedError
from etadlite.base.folders import IN_USE, used_alone
from etadlite.data import shared_memory
from etadlite.data.features import FeatureDataset
from etadlite.presets import preset
from etadlite.runs import page, predictions
from etadlite.runs import run as runs
from etadlite.runs.run import _run_to_resume, run_training
from etadlite.training import loop, recorder
from etadlite.training.recorder import Recorder
from etadlite.training.state import STATE
from etadlite.viz.style import plain, png
from etadlite.viz.timeline import draw_timeline

SMALL = ("detector.max_duration=4", "training.batch_size=1")


def on_features(tiny, *changes):
    return preset("stickfigures", [*tiny.on_features, *SMALL, *changes])


def test_names_with_formulas_are_drawn_as_they_are_written(tiny, tmp_path):
    name = r"$x^{$"
    database = json.loads((tiny.data / "annotations.json").read_text())
    for entry in database["database"].values():
        for action in entry["annotations"]:
            action["label"] = name
    (tmp_path / "annotations.json").write_text(json.dumps(database))
    settings = on_features(tiny, f"data.annotations={tmp_path / 'annotations.json'}")
    settings = settings.changed({"detector.classes": (name,)})
    assert run_training(settings, tmp_path / "run", progress=False).folder == tmp_path / "run"
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 2
    rows = {name: [{"segment": [1, 2], "label": name}]}
    assert png(draw_timeline(torch.zeros(0, 1, 1, 3).numpy(), 9, rows, title=name, labels=[name]))
    figure = Figure()
    figure.subplots().set(yticks=[0], yticklabels=[name], title=name)
    assert png(plain(figure))


def test_a_picture_or_a_board_that_fails_ends_no_run(tiny, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise ValueError("no picture")

    monkeypatch.setattr(runs, "draw_test_videos", fails)
    monkeypatch.setattr(page, "write_page", fails)
    (tmp_path / "report.html").write_text("of an older run")
    monkeypatch.setattr(recorder, "SummaryWriter", fails)
    with pytest.warns(UserWarning, match="could not be made: no picture") as said:
        report = run_training(on_features(tiny), tmp_path, progress=False)
    assert len({str(warning.message) for warning in said}) == 3
    assert (tmp_path / "report.json").exists()
    assert not (tmp_path / "report.html").exists()
    assert report.average >= 0


def test_a_board_that_fails_later_is_left_out_from_then_on(tmp_path, monkeypatch):
    asked = []

    def fails(self, name, *rest):
        asked.append(name)
        raise OSError("gone")

    with Recorder(tmp_path, 0) as record:
        monkeypatch.setattr(type(record._board), "add_scalar", fails)
        with pytest.warns(UserWarning, match="TensorBoard's file could not be made: gone"):
            record.log({"step": 1, "loss": 1.0})
        record.log({"step": 2, "loss": 1.0})
    assert asked == ["loss"]
    assert len(recorder.read_metrics(tmp_path)) == 2


# The folder

HOLD = """
import sys, time
from pathlib import Path
from etadlite.base.folders import used_alone
with used_alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_who_else_uses_a_run_folder_and_dies_with_him(tiny, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    try:
        with pytest.raises(InputError, match=rf"is in use by process {other.pid} on .* since"):
            run_training(on_features(tiny), tmp_path, progress=False)
        assert not (tmp_path / "config.json").exists()
    finally:
        other.kill()
        other.wait()
    with used_alone(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_locked_before_its_state_is_read(tiny, tmp_path, monkeypatch):
    settings = on_features(tiny, "training.epochs=2")

    def stop(training, batch):
        raise StoppedError("enough", 1)

    monkeypatch.setattr(loop, "step_in_memory", stop)
    with pytest.raises(StoppedError):
        run_training(settings, tmp_path, progress=False)
    (tmp_path / STATE).write_bytes(b"another process writes it")
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    try:
        for resume in (False, True):
            with pytest.raises(InputError, match=rf"is in use by process {other.pid} on .* since"):
                run_training(settings, tmp_path, resume=resume, progress=False)
    finally:
        other.kill()
        other.wait()
    with pytest.raises(InputError, match="is no state of a training"):
        run_training(settings, tmp_path, resume=True, progress=False)


def test_a_run_that_was_killed_before_its_first_file_can_be_resumed(tiny, tmp_path):
    (tmp_path / IN_USE).write_text("process 1 on x since yesterday")
    with ExitStack() as locks:
        assert _run_to_resume(tmp_path, on_features(tiny), locks) == tmp_path
        assert str(os.getpid()) in (tmp_path / IN_USE).read_text()
    (tmp_path / "other.txt").write_text("a")
    with pytest.raises(InputError, match="is no run directory"), ExitStack() as locks:
        _run_to_resume(tmp_path, on_features(tiny), locks)


def test_a_process_that_is_lost_before_the_first_step_is_said(tiny, tmp_path, monkeypatch):
    def lost(*given):
        raise LostProcessError("Connection closed by peer")

    monkeypatch.setattr(runs, "prepare", lost)
    with pytest.raises(StoppedError, match="was lost; run the same command again") as stop:
        run_training(on_features(tiny), tmp_path, progress=False)
    assert stop.value.everywhere


def test_windows_locks_a_byte_behind_the_text(tmp_path, monkeypatch):
    locked = []

    def locking(number, mode, count):
        place = os.lseek(number, 0, os.SEEK_CUR)
        if (mode, place) in locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        locked.append((mode, place))

    windows = SimpleNamespace(LK_NBLCK=2, locking=locking)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    with used_alone(tmp_path):
        assert locked == [(2, 2**20)]
        with (
            pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on .* since"),
            used_alone(tmp_path),
        ):
            pass
        text = (tmp_path / "in_use.txt").read_text()
        assert text.startswith(f"process {os.getpid()} on ")
    locked.clear()
    with used_alone(tmp_path):
        assert (tmp_path / "in_use.txt").read_text().count("process") == 1


def test_a_second_call_goes_on_where_the_first_was_stopped(tiny, tmp_path, monkeypatch):
    settings = on_features(tiny, "training.epochs=3")
    steps = []

    def stop(training, batch):
        steps.append(training.progress.steps)
        if len(steps) == 4:
            raise StoppedError("enough", 1)
        return step(training, batch)

    step = loop.step_in_memory
    monkeypatch.setattr(loop, "step_in_memory", stop)
    with pytest.raises(StoppedError):
        run_training(settings, tmp_path, progress=False)
    assert (tmp_path / STATE).exists()
    run_training(settings, tmp_path, progress=False)
    assert steps == [0, 1, 2, 3, 3, 4, 5]
    records = recorder.read_metrics(tmp_path)
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4, 5, 6]


def test_a_folder_of_other_settings_begins_anew(tiny, tmp_path, monkeypatch):
    (tmp_path / STATE).write_bytes(b"of another run")
    (tmp_path / "config.json").write_text("{}")
    assert run_training(on_features(tiny), tmp_path, progress=False) is not None


# Loading processes


def test_too_little_shared_memory_is_said_before_the_training(tiny, monkeypatch):
    settings = preset("e2e_stickfigures", [*tiny.assignments, "data.workers=2"])
    room = type("Room", (), {"f_bavail": 64, "f_frsize": 2**10})
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: room)
    with pytest.raises(InputError, match=r"but /dev/shm has 0 MiB; set data.workers=0"):
        loop.prepare(settings)
    loop.prepare(settings.changed({"data.workers": 0}))
    loop.prepare(on_features(tiny, "data.workers=2"))


SMALL_ROOM = "mount -t tmpfs -o size=64M tmpfs /dev/shm"


@pytest.mark.slow
def test_a_container_with_little_shared_memory_trains_or_says_so(tiny, tmp_path):
    """Docker's /dev/shm of 64 MB, in a mount namespace of its own."""
    try:
        allowed = subprocess.run(
            ["unshare", "-m", "sh", "-c", SMALL_ROOM], check=False, capture_output=True
        )
    except OSError as error:
        pytest.skip(f"no mount namespaces here: {error}")
    if allowed.returncode:
        pytest.skip(f"no mount namespaces here: {allowed.stderr.decode().strip()}")

    def trained(*changes):
        train = [sys.executable, "-m", "etadlite", "train", "e2e_stickfigures", *tiny.assignments]
        train += ["data.workers=2", "data.cache=null", *changes, "--quiet", "--out", str(tmp_path)]
        small = ["unshare", "-m", "sh", "-c", f'{SMALL_ROOM} && exec "$@"', "sh", *train]
        return subprocess.run(small, check=False, capture_output=True, text=True, timeout=600)

    large = trained("data.frames=16", "data.decode_size=[171,171]", "data.crop=160")
    assert large.returncode == 2, large.stderr
    assert "but /dev/shm has 64 MiB; set data.workers=0" in large.stderr
    assert "Traceback" not in large.stderr
    assert not list(tmp_path.rglob("checkpoint*"))
    fitting = trained()
    assert fitting.returncode == 0, fitting.stderr
    assert list(tmp_path.rglob("checkpoint.safetensors"))


@pytest.mark.slow
def test_a_loading_process_that_stops_ends_the_run_after_a_time(tiny, tmp_path, monkeypatch):
    last = tmp_path / "last"
    read = FeatureDataset.read

    def stopping(*arguments):
        if last.exists():
            os.kill(os.getpid(), signal.SIGSTOP)
        return read(*arguments)

    log = Recorder.log

    def noted(self, record):
        log(self, record)
        last.touch()

    monkeypatch.setattr(FeatureDataset, "read", stopping)
    monkeypatch.setattr(Recorder, "log", noted)
    settings = on_features(tiny, "data.workers=1", "training.patience_minutes=0.05")
    settings = settings.changed({"training.epochs": 20})
    began = time.monotonic()
    with pytest.raises(StoppedError, match=r"not answered for 0\.05 minutes; set data\.workers=0"):
        run_training(settings, tmp_path / "run", progress=False)
    assert time.monotonic() - began < 60
    assert (tmp_path / "run" / STATE).exists()
    alive = [child for child in psutil.Process().children() if child.status() == "stopped"]
    assert alive == []


@pytest.mark.slow
def test_a_signal_to_the_group_ends_a_run_with_its_code_and_a_fresh_state(tiny, tmp_path):
    changes = ("training.epochs=9999", "data.workers=2", "data.cache=null", *SMALL)
    command = [sys.executable, "-m", "etadlite", "train", "e2e_stickfigures", *tiny.assignments]
    with subprocess.Popen(
        [*command, *changes, "--quiet", "--out", str(tmp_path)],
        **{"stderr": subprocess.PIPE, "text": True, "start_new_session": True},
    ) as process:
        metrics = tmp_path / "e2e_stickfigures" / "001" / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "stopped by SIGTERM" in said
    assert "goes on from its last saved step" in said
    assert (metrics.parent / STATE).exists()


@pytest.mark.slow
def test_make_data_that_is_killed_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "etadlite", "make-data", str(tmp_path / "d"), "--quiet"]
    with subprocess.Popen(command, start_new_session=True) as process:
        while not list((tmp_path / "d").glob("videos/*.mp4")):
            assert process.poll() is None
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    assert children
    assert not alive
    shutil.rmtree(tmp_path / "d")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    trained, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(predictions, "predict", None)
    video = tmp_path / "a.mp4"
    video.write_bytes(b"x")
    with pytest.raises(OSError, match="file"):
        predictions.predict_videos(
            [video], trained / "checkpoint.safetensors", tmp_path / "file" / "out", progress=False
        )
