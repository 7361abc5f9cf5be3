"""An unattended training: numbers that are not finite, too little memory, unreadable videos."""

import errno
import json
import shutil
import warnings
from itertools import pairwise
from math import nan
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from etadlite.base.devices import is_out_of_memory
from etadlite.base.errors import InputError, StoppedError
from etadlite.data.datasets import SampleKey
from etadlite.data.features import FeatureDataset
from etadlite.data.loading import Readable, Unreadable, collate_readable, raise_errors
from etadlite.presets import preset
from etadlite.runs import testing
from etadlite.runs.run import run_training
from etadlite.training import loop, step
from etadlite.training.loop import open_split, train
from etadlite.training.recorder import read_metrics

SMALL = ("detector.max_duration=4", "training.batch_size=1", "training.warmup_epochs=0")


def on_features(tiny, *changes):
    return preset("stickfigures", [*tiny.on_features, *SMALL, *changes])


def e2e(tiny, *changes):
    return preset("e2e_stickfigures", [*tiny.assignments, *SMALL, *changes])


# Not finite


def poisoned(monkeypatch, steps, what):
    """Make loss or gradient of some steps NaN; return the weights before each step."""
    detection_loss, before = step.detection_loss, []

    def poison(output, *arguments):
        parts = detection_loss(output, *arguments)
        if len(before) in steps:
            if what == "loss":
                parts["boundary"] = parts["boundary"] * nan
            else:
                output.boundaries.register_hook(lambda gradient: gradient * nan)
        return parts

    def watched(system, *arguments):
        before.append({k: v.clone() for k, v in system.state_dict().items()})
        return train_step(system, *arguments)

    train_step = step.train_step
    monkeypatch.setattr(step, "train_step", watched)
    monkeypatch.setattr(step, "detection_loss", poison)
    return before


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_counted_and_reported(
    tiny, tmp_path, monkeypatch, what
):
    before = poisoned(monkeypatch, {2, 4}, what)
    report = run_training(on_features(tiny, "training.epochs=3"), tmp_path, progress=False)
    assert report.skipped_steps == 2
    records = [r for r in read_metrics(tmp_path) if "mAP" not in r]
    assert [r.get("skipped") for r in records] == [None, 1, None, 2, None, None]
    assert len(records[1]["videos"]) == 1
    assert json.loads((tmp_path / "report.json").read_text())["skipped_steps"] == 2
    changed = [
        any(not torch.equal(now[name], after[name]) for name in now)
        for now, after in pairwise(before)
    ]
    assert changed == [True, False, True, False, True]


def test_ten_skipped_steps_in_a_row_end_the_run_with_the_names_of_the_videos(tiny, monkeypatch):
    poisoned(monkeypatch, set(range(3, 99)), "loss")
    records = []
    words = "10 steps in a row were not finite, with the videos training_0000[01], training_"
    with pytest.raises(InputError, match=words):
        train(on_features(tiny, "training.epochs=9"), log=records.append, progress=False)
    assert len(records) == 2 + 9


def test_nine_skipped_steps_in_a_row_do_not_end_the_run(tiny, monkeypatch):
    poisoned(monkeypatch, {*range(2, 11), *range(12, 21)}, "loss")
    result = train(on_features(tiny, "training.epochs=11"), progress=False)
    assert result.progress.skipped == 18


# Memory


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("could not create a primitive"), True),  # oneDNN's words
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, lacks):
    assert is_out_of_memory(error) == lacks


def test_where_memory_runs_out_chunks_become_smaller(tiny, monkeypatch):
    settings = e2e(tiny, "training.epochs=1", "encoder.chunk_size=16")
    whole = train(e2e(tiny, "training.epochs=1", "encoder.chunk_size=4"), progress=False).system
    encode = step.scored

    def small(system, *arguments):
        if system.encoder.chunk_size > 4:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: 9 bytes")
        return encode(system, *arguments)

    monkeypatch.setattr(step, "scored", small)
    with pytest.warns(UserWarning, match="ran out with") as said:
        result = train(settings, progress=False)
    numbers = [str(w.message).partition(" snippets")[0].split()[-1] for w in said]
    assert numbers == ["16", "8"]
    assert "goes on, with 4" in str(said[-1].message)
    assert result.system.encoder.chunk_size == 4
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(result.system.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_where_memory_runs_out_the_message_has_the_numbers_of_the_plan(tiny, tmp_path, monkeypatch):
    encode = step.scored

    def small(system, *arguments):
        if system.encoder.chunk_size > 8:
            raise torch.OutOfMemoryError("Tried to allocate 2 GiB")
        return encode(system, *arguments)

    monkeypatch.setattr(step, "scored", small)
    settings = e2e(tiny, "training.epochs=1", "encoder.chunk_size=16")
    words = r"2 GiB; the plan says [\d,]+ MiB with 16, [\d,]+ MiB with 8, of which [\d,]+ are"
    with pytest.warns(UserWarning, match=words):
        run_training(settings, tmp_path / "run", progress=False)
    monkeypatch.setattr(step, "scored", lambda *_: small(SimpleNamespace(encoder=settings.encoder)))
    with pytest.raises(InputError, match=r"2 GiB; the plan says [\d,]+ MiB, of which .*lower one"):
        run_training(on_features(tiny), tmp_path / "other", progress=False)


@pytest.mark.parametrize("settings", [on_features, e2e])
def test_where_nothing_helps_the_settings_are_named(tiny, monkeypatch, settings):
    def never(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(step, "scored", never)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"Tried to allocate 2 GiB.*training.batch_size \(1\)"):
            train(settings(tiny), progress=False)


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory(tiny, monkeypatch):
    def wrong(*arguments):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(step, "scored", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(e2e(tiny), progress=False)


# Videos that fail


class Files(torch.utils.data.Dataset):
    """Twenty samples; `failures` says how often a sample fails."""

    def __init__(self, failures):
        self.failures = failures
        self.reads = []

    def __len__(self):
        return 20

    def name(self, index):
        return f"video{index}"

    def __getitem__(self, key):
        index = key.index if isinstance(key, SampleKey) else key
        self.reads.append(index)
        if self.failures.get(index, 0) > 0:
            self.failures[index] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return index


def test_a_video_is_tried_twice():
    files = Files({3: 1})
    assert Readable(files)[SampleKey(3, 0)] == [3]
    assert files.reads == [3, 3]


def test_a_video_that_fails_twice_is_replaced_by_the_same_one_each_time():
    tried = [Readable(Files({3: 9}))[SampleKey(3, seed)] for seed in (0, 0, 1, 2, 3)]
    assert all(isinstance(first, Unreadable) and first.name == "video3" for first, _ in tried)
    assert tried[0] == tried[1]
    assert len({other for _, other in tried}) > 1
    assert Readable(Files({3: 9}))[3] == tried[0][:1]  # in a test nothing stands in


def test_a_folder_that_is_gone_ends_the_search_and_a_full_disk_is_no_fault_of_a_video():
    gone = Readable(Files(dict.fromkeys(range(20), 99)))
    with pytest.raises(InputError, match="10 videos in a row cannot be read; is the data folder"):
        next(raise_errors([collate_readable([gone[SampleKey(0, 0)]])]))

    class Full(Files):
        def __getitem__(self, key):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"the disk of data.cache is full; make room"):
        next(raise_errors([collate_readable([Readable(Full({}))[SampleKey(0, 0)]])]))


def test_a_full_cache_ends_a_training_with_its_state(tiny, tmp_path, monkeypatch):
    cache, save = tmp_path / "cache", np.save

    def filling(file, array):
        if len(list(tmp_path.rglob("*.npy"))) > 1:
            raise OSError(f"{array.size} requested and 0 written")  # as NumPy reports it
        save(file, array)

    monkeypatch.setattr(np, "save", filling)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    settings = e2e(tiny, f"data.cache={cache}", "data.workers=1", "training.epochs=2")
    with pytest.raises(StoppedError, match=r"^.*cache/.*npy: the disk of data.cache is full; make"):
        run_training(settings, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "state.safetensors").exists()


def test_a_batch_of_nothing_readable_is_empty():
    batch = collate_readable([[Unreadable("a", "broken")], [Unreadable("b", "gone")]])
    assert batch.names == []
    assert batch.failed == {"a": "broken", "b": "gone"}


@pytest.fixture
def features(tiny, tmp_path):
    """A copy of the features, and the assignment that selects it."""
    folder = tmp_path / "features"
    shutil.copytree(tiny.features, folder)
    return folder, f"data.features={folder}"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_cannot_be_read_is_replaced_and_listed(tiny, tmp_path, features, workers):
    folder, change = features
    (folder / "training_00001.npy").write_bytes(b"broken")
    changes = (change, "training.max_unreadable=0.5", f"data.workers={workers}")
    report = run_training(
        on_features(tiny, *changes, "training.epochs=2"), tmp_path / "run", progress=False
    )
    assert report.unreadable_videos == 1
    failed = json.loads((tmp_path / "run" / "failed_videos.json").read_text())
    assert failed["test"] == {}
    assert list(failed["training"]) == ["training_00001"]
    assert "training_00001.npy is no readable NumPy file" in failed["training"]["training_00001"]
    assert len([r for r in read_metrics(tmp_path / "run") if "loss" in r]) == 4


def test_too_many_unreadable_videos_end_the_run_with_their_names(tiny, tmp_path, features):
    folder, change = features
    good = (folder / "training_00001.npy").read_bytes()
    np.save(folder / "training_00001.npy", np.zeros((16, 7)))
    words = r"1 of 2 training videos .*: training_00001; .*\[16, 7\]"
    with pytest.raises(InputError, match=words):  # in the first step: nothing to go on from
        run_training(
            on_features(tiny, change, "training.batch_size=2"), tmp_path / "run", progress=False
        )
    settings = on_features(tiny, change, "training.epochs=2")
    with pytest.raises(StoppedError, match=words):
        run_training(settings, tmp_path / "run", progress=False)
    failed = json.loads((tmp_path / "run" / "failed_videos.json").read_text())
    assert list(failed["training"]) == ["training_00001"]
    (folder / "training_00001.npy").write_bytes(good)
    report = run_training(settings, tmp_path / "run", resume=True, progress=False)
    assert report.unreadable_videos == 0
    assert not (tmp_path / "run" / "failed_videos.json").exists()


def test_a_lost_folder_leaves_a_state_and_the_run_goes_on_when_it_is_back(
    tiny, tmp_path, features, monkeypatch
):
    folder, change = features
    settings = on_features(tiny, change, "training.epochs=4")
    whole = run_training(settings, tmp_path / "whole", progress=False)
    step_in_memory, taken = loop.step_in_memory, []

    def losing(*arguments):
        taken.append(0)
        if len(taken) == 3:
            folder.rename(tmp_path / "away")
        return step_in_memory(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step_in_memory", losing)
        with pytest.raises(StoppedError, match=r"cannot be read.* goes on from its last") as stop:
            run_training(settings, tmp_path / "run", progress=False)
    assert stop.value.code == 2
    (tmp_path / "away").rename(folder)
    again = run_training(settings, tmp_path / "run", resume=True, progress=False)
    assert again.average == whole.average
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_text()


def test_a_test_video_that_cannot_be_read_counts_as_missed(tiny, tmp_path, features, monkeypatch):
    folder, change = features
    annotations = json.loads((tiny.data / "annotations.json").read_text())
    annotations["database"]["training_00001"]["subset"] = "validation"
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    changes = (change, f"data.annotations={tmp_path / 'annotations.json'}")
    (folder / "training_00001.npy").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="1 of 2 test videos cannot be read, .* as missed: train"):
        report = run_training(on_features(tiny, *changes), tmp_path / "run", progress=False)
    predictions = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert list(predictions["results"]) == ["validation_00000"]
    assert list(predictions["external_data"]["unreadable"]) == ["training_00001"]
    assert report.unreadable_videos == 1


def test_a_test_of_nothing_readable_is_refused(tiny, tmp_path, features):
    folder, change = features
    (folder / "validation_00000.npy").write_bytes(b"broken")
    words = "none of the 1 test videos can be read; validation_00000.* goes on from its last"
    with pytest.raises(StoppedError, match=words):
        run_training(on_features(tiny, change), tmp_path / "run", progress=False)
    steps = len(read_metrics(tmp_path / "run"))
    shutil.copy(tiny.features / "validation_00000.npy", folder)
    run_training(on_features(tiny, change), tmp_path / "run", resume=True, progress=False)
    records = read_metrics(tmp_path / "run")
    assert ["mAP" in record for record in records] == [False] * steps + [True]


def test_too_little_memory_for_a_test_stops_a_run_with_its_state(tiny, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(testing, "predict_batches", never)
    words = r"for the test \(CUDA .* 2 GiB\); lower encoder.chunk_size .* goes on from its last"
    with pytest.raises(StoppedError, match=words):
        run_training(on_features(tiny), tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "state.safetensors").exists()


def test_every_data_set_names_its_samples(tiny):
    data = open_split(on_features(tiny), training=True)
    assert isinstance(data, FeatureDataset)
    assert [data.name(index) for index in range(len(data))] == [v.name for v in data.videos]
