"""Runs in processes of their own end like runs one after the other, and say what stops them."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from etadlite.base.errors import InputError, StoppedError
from etadlite.base.files import write_json
from etadlite.base.weights import load_weights
from etadlite.presets import preset
from etadlite.runs import side_by_side
from etadlite.runs.run import finished
from etadlite.runs.side_by_side import processes_for, report_of, reports_of

LONG = "training.epochs=1000"


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def jobs_of(tiny, folder, *changes, seeds=(0, 1)):
    """A job on features, which are not there yet, and one end to end, for each seed."""
    features = f"data.features={folder / 'features'}"
    of_seeds = [(f"seed={seed}", *changes) for seed in seeds]
    frozen = [
        preset("stickfigures", [*tiny.on_features, features, "data.feature_views=2", *own])
        for own in of_seeds
    ]
    trained = [preset("e2e_stickfigures", [*tiny.assignments, *own]) for own in of_seeds]
    return [
        (settings, folder / str(number), f"job {number}")
        for number, settings in enumerate([*frozen, *trained])
    ]


@pytest.mark.slow
def test_runs_side_by_side_end_like_runs_one_after_the_other(tiny, tmp_path, capsys, two_threads):
    jobs = jobs_of(tiny, tmp_path / "together")
    assert processes_for(jobs) == 2
    together = reports_of(jobs, progress=False)
    said = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(",")[0] for line in said) == [title for *_, title in jobs]
    torch.set_num_threads(1)  # as each of the processes has
    alone = [report_of(*job, progress=False) for job in jobs_of(tiny, tmp_path / "alone")]
    for one, other in zip(together, alone, strict=True):
        assert one.per_tiou == other.per_tiou
        weights = [load_weights(r.folder / "checkpoint.safetensors")[0] for r in (one, other)]
        assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    assert reports_of(jobs, progress=False) == together  # kept


@pytest.mark.slow
def test_a_line_is_printed_for_every_epoch(tiny, tmp_path, capsys, two_threads):
    jobs = jobs_of(tiny, tmp_path, "training.epochs=2", seeds=[0])
    reports_of(jobs)
    lines = capsys.readouterr().out.splitlines()
    for *_, title in jobs:
        own = [line.partition(", loss")[0] for line in lines if line.startswith(f"{title}: epoch")]
        assert own == [f"{title}: epoch  {epoch} of 2" for epoch in (1, 2)]


@pytest.mark.slow
def test_what_is_wrong_with_a_run_is_said_and_the_others_are_kept(tiny, tmp_path, two_threads):
    jobs = jobs_of(tiny, tmp_path)
    wrong = jobs[3][0].changed([f"data.videos={tmp_path / 'nowhere'}"])
    jobs[3] = (wrong, *jobs[3][1:])
    with pytest.raises(InputError, match="nowhere"):
        reports_of(jobs, progress=False)
    assert finished(*jobs[2][:2])


def in_the_background(work):
    """Begin some work; the result waits for its end and returns its error."""
    errors = []

    def run():
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def ended():
        thread.join(120)
        return errors[0]

    return ended


def wait_for(condition):
    """Return the first result of a condition that is true."""
    until = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def training_processes(of=None):
    """The processes that train, without the one that watches over what they share."""
    children = psutil.Process(of).children()
    return [c for c in children if "spawn_main" in " ".join(c.cmdline())]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes of Linux")
def test_a_killed_process_is_explained(tiny, tmp_path, two_threads):
    jobs = jobs_of(tiny, tmp_path, LONG, seeds=[0])
    before = {c.pid for c in training_processes()}
    ended = in_the_background(lambda: reports_of(jobs, progress=False))
    wait_for(lambda: all((folder / "metrics.jsonl").exists() for _, folder, _ in jobs))
    mine = [c for c in training_processes() if c.pid not in before]
    os.kill(mine[0].pid, signal.SIGKILL)
    error = ended()
    assert isinstance(error, StoppedError)
    assert "killed" in str(error)
    assert "do the same again" in str(error)


def test_one_thread_little_memory_or_finished_runs_need_no_processes(
    tiny, tmp_path, monkeypatch, trained, two_threads
):
    jobs = jobs_of(tiny, tmp_path)
    assert processes_for(jobs) == 2
    assert processes_for(jobs[:1]) == 0
    done = preset("e2e_stickfigures", tiny.assignments), trained, "finished"
    assert processes_for([jobs[0], done]) == 0
    monkeypatch.setattr(side_by_side, "free_memory", lambda: 2 * 2**30)
    assert processes_for(jobs) == 0
    monkeypatch.undo()
    torch.set_num_threads(1)
    assert processes_for(jobs) == 0


SCRIPT = """
import sys, torch
from pathlib import Path
from etadlite.presets import preset
from etadlite.runs.side_by_side import reports_of
torch.set_num_threads(2)
reports_of([(preset(file), Path(file).parent / "run", file) for file in sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="sends a signal as a terminal does"
)
def test_ctrl_c_stops_all_runs_and_saves_their_states(tiny, tmp_path):
    jobs = jobs_of(tiny, tmp_path, LONG, seeds=[0])
    files = [tmp_path / title / "settings.json" for *_, title in jobs]
    for file, (settings, *_) in zip(files, jobs, strict=True):
        write_json(file, settings.model_dump(mode="json"))
    command = [sys.executable, "-c", SCRIPT, *files]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        runs = [file.parent / "run" for file in files]
        wait_for(lambda: all((run / "metrics.jsonl").exists() for run in runs))
        children = training_processes(process.pid)
        assert len(children) == 2
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert "StoppedError" in said.splitlines()[-1]
    assert all((run / "state.safetensors").exists() for run in runs)
    assert not any(child.is_running() for child in children)
