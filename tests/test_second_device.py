"""No step and no prediction forgets a `.to(device)`; what differs on a GPU is in its place."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import REPOSITORY

from etadlite.base.gpu import copied_ahead
from etadlite.presets import PRESETS

DEVICE = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def found():
    """What `tests/second_device.py` reports."""
    command = [sys.executable, REPOSITORY / "tests" / "second_device.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_preset_steps_and_predicts_on_a_device_that_refuses_tensors_of_the_cpu(found):
    forgotten = found.pop("forgotten")
    assert "was given tensors of two devices" in forgotten
    assert PRESETS.keys() <= found.keys()
    assert {name: why for name, why in found.items() if isinstance(why, str)} == {}
    assert max(found.values()) < 1e-5  # the same losses, norms and proposals as on the CPU


@pytest.mark.slow
def test_what_a_gpu_must_show_runs_without_one_and_without_a_decoder(tmp_path):
    report, folder = tmp_path / "report.json", REPOSITORY / "tests" / "benchmarks"
    arguments = ["gpu.py", "--tiny", "--device", "cpu", "--minutes", "600", "--json", str(report)]
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(("av", "decord", "torchcodec")))  # as if they were not there
sys.path.insert(0, {str(folder)!r})
sys.argv = {arguments}
runpy.run_path({str(folder / "gpu.py")!r}, run_name="__main__")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(report.read_text())
    assert {"device", "versions"} <= found["machine"].keys()
    sections = found["sections"]
    for name, row in sections["memory"].items():
        assert row["ratio"] == pytest.approx(1, abs=0.05), name
    assert sections["speed"].keys() >= {"fp32", "bf16", "bf16, bank"}
    assert all(row["seconds"] > 0 and row["GB"] > 0 for row in sections["schemes"].values())
    assert sections["gradient"] == {"losses": 0, "gradients": 0}  # the CPU against itself
    assert sections["resume"] == {"equal bits": True, "deviation": 0}
    assert max(sections["processes"].values()) < 1e-4
    assert sections["compile"].keys() == {"plain", "compiled"}
    assert sections["graphs"] == {"needs a GPU": [8, 48]}


def test_no_other_file_asks_for_a_gpu():
    files = [*(REPOSITORY / "etadlite").rglob("*.py")]
    asking = {f.name for f in files if re.search(r"torch\.cuda|\.is_cuda", f.read_text())}
    assert asking == {"devices.py", "gpu.py"}


class Copy:
    """A copy on a GPU: it has its numbers when its stream has come to it."""

    def __init__(self):
        self.arrived, self.used_on = False, []

    def record_stream(self, stream):
        self.used_on.append(stream)


class Host:
    """A tensor of the host."""

    pinned = False

    def pin_memory(self):
        self.pinned = True
        return self

    def to(self, device, *, non_blocking):
        assert self.pinned
        assert non_blocking
        copy = Copy()
        Stream.present.waiting.append(copy)
        return copy


class Stream:
    """A stream that does nothing before another one waits for it."""

    def __init__(self, device=None):
        self.waiting = []

    def wait_stream(self, other):
        for copy in other.waiting:
            copy.arrived = True
        other.waiting = []


@contextmanager
def current(stream):
    before, Stream.present = Stream.present, stream
    yield
    Stream.present = before


Stream.present = Stream()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_next_copy_is_on_its_way_while_the_last_one_is_used(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream.present)
    asked = []

    def parts():
        for _ in range(count):
            asked.append(Host())
            yield asked[-1]

    using = Stream.present
    for number, copy in enumerate(copied_ahead(parts(), DEVICE), 1):
        assert copy.arrived  # or the encoder would see what was in its memory before
        assert copy.used_on == [using]
        assert len(asked) == min(number + 1, count)
        assert not using.waiting  # nothing is copied on the stream that computes
    assert len(asked) == count
