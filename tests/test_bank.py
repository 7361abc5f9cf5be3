"""A feature bank: exact gradients, what staleness is, and runs that are killed with one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_processes import in_processes
from test_resume import at_step, killed_at, killed_often, left
from test_sequential import Pixels, Small, gradients, scaled, some_frames
from torch import nn

from etadlite.base.draws import Draws
from etadlite.base.errors import InputError, StoppedError
from etadlite.data.datasets import SampleKey, VideoDataset, collate
from etadlite.model.picks import Picks
from etadlite.model.sequential_encoder import Recalled, SequentialEncoder
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.runs import run as runs
from etadlite.runs.run import run_training
from etadlite.sampling.proposals import PROPOSAL_STRATEGIES
from etadlite.sampling.snippets import SNIPPET_STRATEGIES, SnippetContext
from etadlite.training import bank as banks
from etadlite.training import loop
from etadlite.training.bank import FeatureBank
from etadlite.training.recorder import Recorder, read_metrics
from etadlite.training.state import ABOUT, BANK, STATE, Progress

CHANGES = (
    *("training.epochs=3", "training.batch_size=1", "training.checkpoint_minutes=0"),
    *("detector.max_duration=4", "data.cache=null", "sampling.snippet_ratio=0.3"),
)


def e2e(tiny, *changes):
    changes = ("sampling.others=bank", *changes)
    return preset("e2e_stickfigures", [*tiny.assignments, *CHANGES, *changes])


# The gradient


def recalled_of(batch, snippets, channels, unknown=()):
    """Random features in double precision; of the videos `unknown` the bank has none."""
    stamps = torch.ones(batch, snippets, dtype=torch.long)
    stamps[list(unknown)] = 0
    features = torch.randn(batch, snippets, channels, dtype=torch.float64)
    return Recalled(features * (stamps[..., None] > 0), stamps)


@pytest.mark.parametrize("strategy", ["random", "grid", "farthest", "kdpp"])
@pytest.mark.parametrize(
    ("keep", "stages"),
    [("device", 2), ("nothing", 1), ("device", None), ("graph", 2), ("graph", None)],
)
def test_the_gradient_is_that_of_features_put_together_by_hand(strategy, keep, stages):
    encoder, head = Small(stages).double(), nn.Conv1d(6, 4, 3, padding=1).double()
    frames = torch.randint(0, 256, (3, 7, 3, 4, 8, 8)).byte()
    recalled = recalled_of(3, 7, 6, unknown=[1])
    sampler = SNIPPET_STRATEGIES[strategy]
    engine = SequentialEncoder(encoder, 2, sampler, 0.4, keep=keep)
    features = engine(frames, Draws([5, 6, 7]), recalled=recalled)
    head(features).square().sum().backward()
    found = [*gradients(encoder), *gradients(head)]

    encoder.zero_grad()
    head.zero_grad()
    context = SnippetContext(Draws([5, 6, 7]), 7, features=recalled.features.mT)
    is_picked = torch.zeros(3, 7, 1).scatter(1, sampler.pick(context, 3)[..., None], 1).bool()
    everything = encoder(frames.flatten(0, 1)).unflatten(0, (3, 7))
    known = torch.tensor([True, False, True])[:, None, None]
    others = torch.where(known, recalled.features, everything.detach())
    by_hand = torch.where(is_picked, everything, others).mT
    head(by_hand).square().sum().backward()
    torch.testing.assert_close(features, by_hand)
    for ours, plain in zip(found, [*gradients(encoder), *gradients(head)], strict=True):
        assert scaled(ours, plain) < 1e-10
    fresh = (is_picked | ~known).flatten().nonzero().flatten()
    assert recalled.rows.sort().values.tolist() == fresh.tolist()
    torch.testing.assert_close(recalled.encoded, everything.detach().flatten(0, 1)[recalled.rows])


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 3), snippets=st.integers(1, 9), chunk=st.integers(1, 30))
def test_at_ratio_one_nothing_comes_from_the_bank(batch, snippets, chunk):
    encoder, frames = Pixels(), some_frames(batch, snippets)
    recalled = recalled_of(batch, snippets, 5)
    recalled.features = recalled.features.float()
    found = []
    for known in (None, recalled):
        encoder.zero_grad()
        features = SequentialEncoder(encoder, chunk)(frames, recalled=known)
        features.square().sum().backward()
        found.append((features.detach(), *gradients(encoder)))
    for ours, plain in zip(*found, strict=True):
        assert torch.equal(ours, plain)


def test_only_sampled_snippets_are_encoded():
    encoder, seen = Pixels(), []
    encoder.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    engine, frames = SequentialEncoder(encoder, 4, ratio=0.3), some_frames(2, 10)
    recalled = recalled_of(2, 10, 5)
    recalled.features = recalled.features.float()
    engine(frames, recalled=recalled).sum().backward()
    assert sum(seen) == 2 * 6  # 3 of 10 in each of 2 videos, in both passes
    seen.clear()
    with torch.no_grad():
        engine(frames, recalled=recalled)
    assert sum(seen) == 20


def test_a_choice_by_gradients_is_refused():
    engine = SequentialEncoder(Pixels(), 2, SNIPPET_STRATEGIES["gradient_norm"], 0.5)
    with pytest.raises(InputError, match="choose another, or no bank"):
        engine(some_frames(1, 4), recalled=recalled_of(1, 4, 5))


# The bank


def test_age_and_drift_are_what_they_say():
    progress = Progress()
    bank = FeatureBank((3, 4, 2), progress, epoch=3)
    bank.make(None)
    bank.put([0, 2], torch.ones(2, 2, 4))
    progress.steps = 6
    recalled = bank.recall([2, 1])
    assert (recalled.stamps > 0).tolist() == [[True] * 4, [False] * 4]
    # Rows 1 and 3 of sample 2 are encoded, and all of sample 1, which the bank lacks.
    recalled.rows = torch.tensor([1, 3, 4, 5, 6, 7])
    recalled.encoded = torch.tensor([[1.0, 1.0], [1.0, 3.0], *[[5.0, 5.0]] * 4])
    found = bank.collect([2, 1], recalled)
    assert found["bank_age"] == 2  # filled before step 0, used in step 6, of 3 steps an epoch
    assert found["bank_drift"] == pytest.approx((0 + 2 / 2**0.5) / 2)
    assert torch.equal(bank.recall([2]).features, torch.ones(1, 4, 2))  # until the update
    bank.refresh()
    progress.steps = 9
    again = bank.recall([2, 1, 0])
    assert again.features[:2].tolist() == [[[1, 1], [1, 1], [1, 1], [1, 3]], [[5, 5]] * 4]
    assert again.stamps.tolist() == [[1, 7, 1, 7], [7] * 4, [1] * 4]
    again.rows, again.encoded = torch.tensor([0]), torch.ones(1, 2)
    assert bank.collect([2, 1, 0], again)["bank_age"] == pytest.approx((6 * 1 + 5 * 3) / 11)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_file_and_state_are_the_bank_at_the_time_of_the_state(tmp_path_factory, data):
    """Random refreshments, saved states and kills, in a dict beside the file."""
    folder, size, progress = tmp_path_factory.mktemp("bank"), (3, 4, 2), Progress()
    bank = FeatureBank(size, progress, 3)
    bank.make(folder / BANK)
    now = np.zeros(size, "float32")
    saved, changes = now.copy(), bank.changes()
    for _ in range(data.draw(st.integers(1, 12))):
        event = data.draw(st.sampled_from(["refresh", "save", "kill", "kill while saving"]))
        if event == "refresh":
            sample = data.draw(st.integers(0, 2))
            rows = torch.tensor(sorted(data.draw(st.sets(st.integers(0, 3), min_size=1))))
            recalled = bank.recall([sample])
            np.testing.assert_array_equal(recalled.features[0], now[sample])
            recalled.rows, recalled.encoded = rows, torch.randn(len(rows), 2)
            bank.collect([sample], recalled)
            bank.refresh()
            progress.steps += 1
            now[sample, rows] = recalled.encoded
            continue
        if event != "kill":
            saved, changes = now.copy(), bank.changes()
            if event == "save":
                bank.write(changes)
            else:  # some rows were written before the kill
                part = data.draw(st.integers(0, len(changes[banks.STAMPS])))
                bank.write({name: rows[:part] for name, rows in changes.items()})
        if event != "save":
            bank = FeatureBank(size, progress, 3)
            bank.open(folder / BANK)
            bank.write(changes)
            now = saved.copy()
        for sample in range(3):
            np.testing.assert_array_equal(bank.recall([sample]).features[0], now[sample])
    shutil.rmtree(folder)


def test_the_file_can_be_read_as_numpy_reads_files(tmp_path):
    bank = FeatureBank((3, 4, 2), Progress(), 3)
    bank.make(tmp_path / BANK)
    bank.put([1], torch.arange(8.0).reshape(1, 2, 4))
    bank.flush()
    table = np.load(tmp_path / BANK, mmap_mode="r")
    assert table["stamp"].tolist() == [[0] * 4, [1] * 4, [0] * 4]
    assert table["feature"][1].T.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert table.nbytes == bank.nbytes


# Runs


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_at_ratio_one_a_training_is_the_same_with_and_without_a_bank(tiny, tmp_path):
    found = []
    for others in ("encode", "bank"):
        changes = (f"sampling.others={others}", "sampling.snippet_ratio=1", "training.epochs=2")
        run_training(e2e(tiny, *changes), tmp_path / others, progress=False)
        records = [r for r in read_metrics(tmp_path / others) if "loss" in r]
        stale = [(r.pop("bank_age", 0), r.pop("bank_drift", 0)) for r in records]
        found.append((records, left(tmp_path / others)))
    assert [age for age, _ in stale] == [0] * 4
    assert stale[0][1] < 1e-5 < stale[-1][1]  # in the first step: only other chunks
    for run in found:
        run[1].pop("metrics.jsonl")
    assert found[0] == found[1]
    assert not (tmp_path / "bank" / BANK).exists()  # a finished run needs none


def killed_with_bank(moment, settings, folder):
    """`killed_at`, with further moments: within the bank's own work."""
    passed = 0

    def before(function, share):
        def call(*arguments, **options):
            nonlocal passed
            passed += 1
            if passed == moment:
                if share:  # half of the rows are in the file
                    bank, changes = arguments
                    half = len(changes[banks.STAMPS]) // 2
                    function(bank, {name: rows[:half] for name, rows in changes.items()})
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("put", "collect", "refresh", "changes", "write"):
        setattr(FeatureBank, name, before(getattr(FeatureBank, name), share=name == "write"))
    killed_at(None, settings, folder)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks processes from a server")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kill", [killed_at, killed_with_bank])
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(tiny, tmp_path, kill):
    run = killed_often(kill, e2e(tiny), tmp_path, last_moment=16, seed=1)
    records = [r for r in read_metrics(run) if "loss" in r]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["bank_age"] > 1
    assert not list(tmp_path.rglob("bank*"))


def stopped_after(step, settings, folder, monkeypatch):
    with monkeypatch.context() as patch:
        stop = at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(Recorder, "log", stop)
        with pytest.raises(StoppedError):
            run_training(settings, folder, progress=False)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_bank_of_something_else_is_refused_by_name(tiny, tmp_path, monkeypatch):
    folder, chosen = tmp_path / "run", e2e(tiny)
    stopped_after(3, chosen, folder, monkeypatch)
    about = json.loads((folder / ABOUT).read_text())
    others = {
        "samples": ("0", "other data"),
        "grid": (about["grid"] | {"snippets": 8}, "another grid"),
        "encoder": ("r3d_18", "another encoder"),
        "weights": ("0", "another encoder"),
        "run": ("0", "another run"),
    }
    for name, (value, what) in others.items():
        (folder / ABOUT).write_text(json.dumps(about | {name: value}))
        with pytest.raises(InputError, match=f"bank.npy is a feature bank of {what} than this"):
            run_training(chosen, folder, resume=True, progress=False)
    (folder / ABOUT).write_text(json.dumps(about))
    # Videos with other names, as many as before.
    content = json.loads((tiny.data / "annotations.json").read_text())
    database = content["database"]
    for name in list(database):
        database[name.replace("training_0000", "other")] = database.pop(name)
    shutil.copytree(tiny.data / "videos", tmp_path / "videos")
    for path in (tmp_path / "videos").glob("training_*"):
        path.rename(path.with_name(path.name.replace("training_0000", "other")))
    (tmp_path / "other.json").write_text(json.dumps(content))
    moved = (f"data.annotations={tmp_path / 'other.json'}", f"data.videos={tmp_path / 'videos'}")
    with pytest.raises(InputError, match="bank.npy is a feature bank of other data than this"):
        run_training(e2e(tiny, *moved), folder, resume=True, progress=False)
    whole = (folder / BANK).read_bytes()
    other = FeatureBank((2, 16, 8), Progress(), 2)
    other.make(folder / BANK)
    with pytest.raises(InputError, match=r"another grid: \[2, 16, 8\] .* instead of \[2, 16, 48\]"):
        run_training(chosen, folder, resume=True, progress=False)
    (folder / BANK).write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"bank.npy is no feature bank \("):
        run_training(chosen, folder, resume=True, progress=False)
    (folder / BANK).unlink()
    with pytest.raises(InputError, match=r"bank.npy is no feature bank \(No such file"):
        run_training(chosen, folder, resume=True, progress=False)
    (folder / BANK).write_bytes(whole)
    run_training(chosen, folder, resume=True, progress=False)
    run_training(chosen, tmp_path / "whole", progress=False)
    assert left(folder) == left(tmp_path / "whole")


def test_a_disk_that_is_too_small_is_said_before_the_first_step(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(loop, "step_in_memory", None)
    size = 2 * 16 * (4 + 4 * 48)
    words = f"2 samples with 16 snippets of 48 channels takes {size:,} bytes in .* 1,000 bytes are"
    with pytest.raises(InputError, match=words):
        run_training(e2e(tiny), tmp_path, progress=False)
    assert not list(tmp_path.glob("bank*"))
    monkeypatch.setattr("etadlite.base.devices.free_memory", lambda device=None: 1000)
    bank = FeatureBank((2, 16, 48), Progress(), 1)
    with pytest.raises(InputError, match="48 channels needs memory"):
        bank.make(None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sampling.snippet_ratio=0", "needs sampling.snippet_ratio above 0"),
        ("sampling.snippet_strategy=gradient_norm", "gradient_norm chooses by the gradients"),
        ("data.features=somewhere", "is for videos that are encoded"),
    ],
)
def test_settings_without_sense_are_refused(tiny, change, words):
    change = change.replace("somewhere", str(tiny.features))
    with pytest.raises(InputError, match=words):
        loop.prepare(e2e(tiny, change))


def test_a_signal_in_the_filling_leaves_no_state(tiny, tmp_path, monkeypatch):
    put = FeatureBank.put

    def interrupted(*arguments):
        put(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureBank, "put", interrupted)
        with pytest.raises(StoppedError, match="goes on from its beginning"):
            run_training(e2e(tiny), tmp_path, progress=False)
    assert not (tmp_path / STATE).exists()
    assert not (tmp_path / ABOUT).exists()


def test_features_that_are_not_finite_name_the_video(tiny, tmp_path, monkeypatch):
    features = loop.System.features
    spoilt = lambda *given: features(*given) / 0  # noqa: E731
    monkeypatch.setattr(loop.System, "features", spoilt)
    with pytest.raises(InputError, match="features of training_0000. are not finite"):
        run_training(e2e(tiny), tmp_path, progress=False)


@pytest.mark.usefixtures("one_thread")
def test_a_video_that_cannot_be_read_at_first_is_encoded_whole_later(tiny, monkeypatch):
    read, broken, seen = VideoDataset.read, [True], []

    def reading(self, video, window, rows):
        if broken[0] and video.name == "training_00001":
            raise InputError(f"{video.name} is away")
        return read(self, video, window, rows)

    def step(training, batch):
        broken[0] = False
        stamps = training.bank.recall(batch.indices).stamps
        seen.append((batch.names, bool((stamps > 0).all())))
        return stepping(training, batch)

    stepping = loop.step_in_memory
    monkeypatch.setattr(VideoDataset, "read", reading)
    monkeypatch.setattr(loop, "step_in_memory", step)
    chosen = e2e(tiny, "data.workers=0", "training.max_unreadable=1", "training.epochs=2")
    training = loop.train(chosen, progress=False)
    assert list(training.progress.failed) == ["training_00001"]
    first = next(known for names, known in seen if names == ["training_00001"])
    assert not first
    assert all(known for names, known in seen if names == ["training_00000"])
    assert seen[-1][1]
    assert (training.bank.recall([0, 1]).stamps > 0).all()


# What is read


EARLY = [name for name, strategy in SNIPPET_STRATEGIES.items() if strategy.needs != "features"]


@pytest.mark.parametrize("strategy", [name for name in EARLY if name != "gradient_norm"])
@pytest.mark.parametrize("proposals", PROPOSAL_STRATEGIES)
def test_the_loader_draws_the_snippets_that_the_step_draws(strategy, proposals):
    names = f"sampling.snippet_strategy={strategy}", f"sampling.proposal_strategy={proposals}"
    small = "data.snippets=20", "detector.max_duration=5", "sampling.snippet_ratio=0.3"
    chosen = preset("e2e_stickfigures", [*small, *names])
    system, picks = System(chosen, pretrained=False), Picks(chosen, unknown=[4])
    seeds, actions = [7, 8, 9], [torch.rand(n, 2).sort().values * 20 for n in (1, 0, 3)]
    draws = Draws(seeds)
    system.sample_proposals(draws, actions)
    expected, _ = system.encoder.pick(SnippetContext(draws, 20, actions))
    for number, seed in enumerate(seeds):
        assert torch.equal(picks(3, seed, actions[number]), expected[number])
        assert picks(4, seed, actions[number]) is None


def test_choices_by_features_and_all_snippets_are_read_whole():
    for change in ("snippet_strategy=farthest", "snippet_strategy=kdpp", "snippet_ratio=1"):
        picks = Picks(preset("e2e_stickfigures", [f"sampling.{change}"]))
        assert picks(1, 5, torch.empty(0, 2)) is None


@pytest.mark.parametrize("change", ["data.cache=null", "", "data.window_stride=4"])
def test_a_part_of_a_video_is_that_part_of_the_whole(tiny, tmp_path, change):
    cache = f"data.cache={tmp_path}" if not change else "data.cache=null"
    data = loop.open_split(e2e(tiny, cache, *filter(None, [change])), training=True)
    key, rows = SampleKey(0, 7), torch.tensor([0, 2, 7])
    whole = data[key]
    assert whole.rows is None
    data.picks = lambda index, seed, actions: rows if (index, seed) == key else None
    for _ in range(2):
        part = data[key]
        assert torch.equal(part.inputs, whole.inputs[rows])
        assert torch.equal(part.rows, rows)
        both = collate([part, whole]).inputs
        assert both.shape == (2, *whole.inputs.shape)
        assert torch.equal(both[0, rows], whole.inputs[rows])
        assert torch.equal(both[1], whole.inputs)
    for other in (SampleKey(0, 8), 0):
        assert data[other].rows is None


RESIDENT = """
import os
import torch
from pathlib import Path
from etadlite.data.datasets import Sample, collate
from etadlite.data.timegrid import TimeGrid

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

rows = torch.arange(512)[::5]
read = torch.ones(len(rows), 3, 8, 48, 48, dtype=torch.uint8)
grid = TimeGrid.over_video(10.0, 512)
parts = [Sample("a", read, torch.empty(0, 2), torch.empty(0), grid, 10.0, rows=rows)] * 2
before = resident()
inputs = collate(parts).inputs
print((resident() - before) / (2 * read.nbytes), inputs.nbytes / read.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the resident size")
def test_what_is_not_read_takes_no_room():
    # In a process of its own: this one may hold memory that was freed.
    command = [sys.executable, "-c", RESIDENT]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, whole = map(float, ended.stdout.split())
    assert 0.9 < taken < 2
    assert whole > 9


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_that_reads_only_what_it_encodes_ends_with_the_same_bits(
    tiny, monkeypatch, workers
):
    chosen, found, count = e2e(tiny, f"data.workers={workers}"), [], []
    reading = VideoDataset.read

    def noted(self, video, window, rows):
        count.append(None if rows is None else len(rows))
        return reading(self, video, window, rows)

    monkeypatch.setattr(VideoDataset, "read", noted)
    found.append(trained(chosen))
    if not workers:
        assert count == [None, None, *[5] * 6]  # filled from 2 videos; 5 of 16 snippets in 3 epochs
    monkeypatch.setattr(Picks, "__call__", lambda *arguments: None)
    found.append(trained(chosen))
    assert found[0][0] == found[1][0]
    for ours, whole in zip(found[0][1].values(), found[1][1].values(), strict=True):
        assert torch.equal(ours, whole)


def test_a_step_that_encodes_what_was_not_read_is_stopped():
    bank, known = FeatureBank((2, 4, 2), Progress(), 1), torch.tensor([0, 3])
    recalled = Recalled(torch.zeros(2, 4, 2), torch.ones(2, 4).long(), torch.tensor([0, 3, 5]))
    bank.require_read([known, None], recalled)
    bank.require_read([None, torch.tensor([1])], recalled)
    for rows in ([torch.tensor([0, 2]), None], [known, torch.tensor([2])]):
        with pytest.raises(RuntimeError, match="were not read"):
            bank.require_read(rows, recalled)


# Several processes


def trained(settings):
    """Train without a folder: records, weights, and what the bank has in the end."""
    records = []
    training = loop.train(settings, log=records.append, progress=False)
    recalled = training.bank.recall([0, 1])
    return records, training.system.state_dict(), recalled.features, recalled.stamps


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks processes from a server")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("batch", [1, 2])
def test_two_processes_do_what_one_does(tiny, tmp_path, batch):
    chosen = e2e(tiny, f"training.batch_size={batch}", "data.jitter=0", "training.clip_norm=0.5")
    records, weights, features, stamps = trained(chosen)
    assert [record["bank_age"] > 0 for record in records[1:]]
    for theirs, other, known, when in in_processes(2, tmp_path, trained, chosen):
        for ours, its in zip(records, theirs, strict=True):
            assert its == pytest.approx(ours, rel=1e-2, abs=1e-4)
        assert torch.equal(when, stamps)
        torch.testing.assert_close(known, features, rtol=1e-2, atol=1e-3)
        assert other.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=1e-3)


def test_a_bank_of_a_stopped_run_serves_a_training_without_a_folder(tiny, tmp_path, monkeypatch):
    chosen = e2e(tiny)
    stopped_after(3, chosen, tmp_path, monkeypatch)
    before = (tmp_path / BANK).read_bytes()
    training, data = loop.prepare(chosen, tmp_path / STATE)
    loop.run(training, data, progress=False)
    assert (tmp_path / BANK).read_bytes() == before
    assert runs.finished(chosen, tmp_path) is False
