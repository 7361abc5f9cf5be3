"""Rehearsals: the presets, by name, on generated data that carry real annotations."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file

from etadlite.base.errors import InputError
from etadlite.course.execute import run_notebook
from etadlite.data.annotations import labels_of, read_annotations
from etadlite.data.split import read_split
from etadlite.data.video import probe
from etadlite.presets import home, preset
from etadlite.runs.run import run_training
from etadlite.training.loop import open_split

SMALL = (
    "detector.width=32",
    "detector.roi_size=8",
    "detector.hidden=32",
    "detector.head=16",
    "training.detector_lr=3e-3",
    "data.workers=0",
    "device=cpu",
)
ON_FEATURES = {
    "anet_tsp": (
        "data.snippets=16",
        "detector.max_duration=16",
        "training.epochs=1",
    ),
    "thumos_i3d": (
        "data.snippets=16",
        "data.window_stride=32",
        "data.window_inside=0.5",
        "detector.max_duration=8",
        "detector.in_channels=64",
        "training.epochs=1",
        "training.detector_lr=1e-3",
    ),
}
TINY = (
    "encoder.name=tiny",
    "encoder.weights=null",
    "encoder.frozen_stages=0",
    "detector.in_channels=48",
    "detector.max_duration=8",
    "data.snippets=8",
    "data.frames=4",
    "data.decode_size=[26,26]",
    "data.crop=24",
    "training.epochs=1",
)
WINDOWS = (*TINY, "data.window_stride=48", "data.window_inside=0.1")
SOURCE = {"anet_tsp": "activitynet-1.3", "thumos_i3d": "thumos-14"}
SOURCE |= {"e2e_anet_tsp": SOURCE["anet_tsp"], "e2e_thumos_tsp": SOURCE["thumos_i3d"]}


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    path = REPOSITORY / "data_scripts" / "make_rehearsal.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def short_ones(script, folder, name, target):
    """The annotations of `folder` with videos of 10 to 40 s only: tests cannot wait for films."""
    target.mkdir()
    source, beside = (script.found(folder, pattern) for pattern in script.SOURCES[name])
    database = json.loads(source.read_text())["database"]
    short = {k: v for k, v in database.items() if 10 <= v["duration"] <= 40}
    (target / source.name).write_text(json.dumps({"database": short}))
    (target / beside.name).symlink_to(beside)
    return target


def make(script, shared, name, root, videos, *, changes=(), **more):
    folder = shared / "realdata" / SOURCE[name]
    if name.startswith("e2e"):
        root.mkdir(exist_ok=True)
        folder = short_ones(script, folder, name, root / "short")
    options = {"side": 32, "workers": 1, "progress": False} | more
    script.make(preset(name, changes), root, folder, videos, **options)
    return script.below(root, preset(name, (*SMALL, *changes)))


@pytest.mark.parametrize(("name", "seconds"), [("anet_tsp", 1.0), ("thumos_i3d", 0.25)])
def test_features_tell_actions_starts_and_ends_of_unseen_videos_but_not_surely(
    script, shared, name, seconds
):
    """A linear probe, fitted on some videos, asked about others."""
    path = script.found(shared / "realdata" / SOURCE[name], script.SOURCES[name][0])
    videos = [v for v in read_annotations(path, as_published=True).values() if v.actions][:240]
    labels, rows = labels_of({v.name: v for v in videos}), 64
    inputs, targets = [], []
    for video in videos:
        moments = (np.arange(rows) + 0.5) * seconds
        clips = np.stack([moments - seconds / 2, moments + seconds / 2], axis=1)
        inputs.append(script.features(clips, video, labels, 256, seed=0))
        spans = np.array([(a.start, a.end) for a in video.actions])
        inside = (spans[:, :1] <= moments) & (moments < spans[:, 1:])
        near = [np.abs(spans[:, k : k + 1] - moments) < 0.5 for k in (0, 1)]
        targets.append(np.stack([x.any(0) for x in (inside, *near)], axis=1))
    seen, unseen = slice(0, 160), slice(160, None)
    x, y = np.pad(np.stack(inputs), ((0, 0), (0, 0), (0, 1)), constant_values=1), np.stack(targets)
    known = x[seen].reshape(-1, 257), y[seen].reshape(-1, 3).astype("float32")
    fitted = np.linalg.lstsq(*known, rcond=None)[0]
    said, true = (x[unseen] @ fitted).reshape(-1, 3), y[unseen].reshape(-1, 3)
    for what, score, truth in zip(("inside", "start", "end"), said.T, true.T, strict=True):
        ranks = score.argsort().argsort()[truth] + 1
        wrong = (~truth).sum()
        area = (ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / (len(ranks) * wrong)
        print(f"{name}, {what}: area under the ROC curve {area:.3f}")
        assert 0.6 < area < 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("anet_tsp", ON_FEATURES["anet_tsp"]),
        ("thumos_i3d", ON_FEATURES["thumos_i3d"]),
        ("e2e_anet_tsp", TINY),
        ("e2e_thumos_tsp", WINDOWS),
    ],
)
def test_a_preset_trains_and_tests_on_its_rehearsal(script, shared, tmp_path, name, changes):
    settings = make(script, shared, name, tmp_path, 4, changes=changes)
    for training in (True, False):
        videos = read_split(settings.data, training=training)
        assert len(open_split(settings, training=training).videos) == len(videos)
    report = run_training(settings, tmp_path / "run", progress=False)
    assert 0 <= report.average <= 1
    assert 0 <= script.chance(settings) <= 1


def test_files_lie_and_look_as_published(script, shared, tmp_path):
    make(script, shared, "anet_tsp", tmp_path, 6)
    root = tmp_path / "data" / "activitynet-1.3"
    database = json.loads((root / "annotations" / "activity_net.v1-3.min.json").read_text())
    videos = database["database"]
    files = {path.name: path for path in (root / "features" / "anet_tsp_npy_unresize").iterdir()}
    assert set(files) == {f"v_{name}.npy" for name in videos}
    for name, video in videos.items():
        features = np.load(files[f"v_{name}.npy"])
        assert features.dtype == np.float32
        assert features.shape == (max(1, int(video["duration"] * 15) // 16), 512)
    scores = json.loads((root / "classifiers" / "cuhk_val_simp_7.json").read_text())
    assert len(scores["class"]) == 200
    tested = [name for name, video in videos.items() if video["subset"] == "validation"]
    assert sorted(scores["results"]) == sorted(tested)
    assert len(json.loads((root / "annotations" / "blocked.json").read_text())) == 79


@pytest.mark.slow
def test_films_last_as_long_as_annotated_at_the_published_rate(script, shared, tmp_path):
    for name, rate in (("e2e_anet_tsp", 15), ("e2e_thumos_tsp", 30)):
        settings = make(script, shared, name, tmp_path / name, 4)
        videos = json.loads(settings.data.annotations.read_text())["database"]
        for path in settings.data.videos.iterdir():
            info = probe(path)
            annotated = videos[path.stem.removeprefix("v_")]["duration"]
            assert info.duration == pytest.approx(annotated, abs=0.1)
            assert info.fps == pytest.approx(rate)
            assert (info.width, info.height) == (32, 32)


def test_the_same_seed_makes_the_same_data_however_many_and_another_seed_others(
    script, shared, tmp_path
):
    folder = "data/activitynet-1.3/features/anet_tsp_npy_unresize"
    for root, videos, seed in (("one", 40, 0), ("two", 6, 0), ("three", 6, 1)):
        make(script, shared, "anet_tsp", tmp_path / root, videos, seed=seed)
    one, two, three = (
        {path.name: np.load(path) for path in (tmp_path / root / folder).iterdir()}
        for root in ("one", "two", "three")
    )
    assert set(two) <= set(one)
    assert all(np.array_equal(one[name], two[name]) for name in two)
    assert not set(three) & {name for name in two if np.array_equal(two[name], three.get(name))}


def test_what_is_there_is_kept_and_another_rehearsal_is_refused(script, shared, tmp_path):
    make(script, shared, "anet_tsp", tmp_path, 6)
    files = sorted((tmp_path / "data/activitynet-1.3/features").rglob("*.npy"))
    files[0].unlink()
    before = files[1].stat().st_mtime_ns
    make(script, shared, "anet_tsp", tmp_path, 6)
    assert files[0].exists()
    assert files[1].stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another rehearsal"):
        make(script, shared, "anet_tsp", tmp_path, 6, seed=1)
    with pytest.raises(InputError, match="download the annotations first"):
        script.make(preset("anet_tsp"), tmp_path / "new", tmp_path / "nowhere")
    with pytest.raises(InputError, match="no rehearsal of stickfigures"):
        script.make(preset("stickfigures"), tmp_path / "new", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "name", "changes"),
    [
        ("05_end_to_end_activitynet", "anet_tsp", ON_FEATURES["anet_tsp"]),
        ("05_end_to_end_activitynet", "e2e_anet_tsp", TINY),
        ("06_end_to_end_thumos", "thumos_i3d", ON_FEATURES["thumos_i3d"]),
        ("06_end_to_end_thumos", "e2e_thumos_tsp", WINDOWS),
    ],
)
def test_the_notebooks_train_each_preset_with_what_the_command_takes(
    script, shared, tmp_path, notebook, name, changes
):
    """The profile `full`, by papermill, and the command give the same weights."""
    settings = make(script, shared, name, tmp_path, 6, changes=changes)
    words = [name, *SMALL[:-1], *changes]
    parameters = {
        "profile": "full",
        "data_root": str(tmp_path / home(preset(name))),
        "train": " ".join(words),
        "device": "cpu",
        "seed": 3,
    }
    done = run_notebook(notebook, parameters, out=tmp_path / "notebook")
    assert json.loads(done.metrics.read_text())["data"].endswith(parameters["train"])
    report = run_training(settings.changed(["seed=3"]), tmp_path / "run", progress=False)
    folders = tmp_path / "notebook" / "full_seed3", tmp_path / "run"
    ours, theirs = (load_file(folder / "checkpoint.safetensors") for folder in folders)
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert json.loads(done.metrics.read_text())["results"]["average mAP (%)"] == pytest.approx(
        100 * report.average, abs=0.05
    )
