"""The two published feature protocols, from annotation files to a tested system."""

import json
import warnings

import numpy as np
import pytest
import torch
from conftest import SMALL
from parity import published_weights

from etadlite.base.errors import InputError
from etadlite.config import DataSettings, InferenceSettings
from etadlite.data.datasets import decode_snippets
from etadlite.data.loading import open_dataset
from etadlite.data.manifest import CoverageWarning
from etadlite.data.split import read_split
from etadlite.data.video import Video
from etadlite.detector import ETADDetector
from etadlite.encoders import R2Plus1D
from etadlite.inference.classifiers import classes_of_videos
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.runs.run import run_training
from etadlite.sampling.snippets import snippet_count
from etadlite.stickfigures.dataset import write_video
from etadlite.training.loop import make_optimizer


@pytest.fixture
def activitynet(shared):
    folder = shared / "realdata" / "activitynet-1.3"
    return DataSettings(
        annotations=folder / "activity_net.v1-3.available.min.json", as_published=True
    )


def test_activitynet_as_published_has_4728_validation_videos(activitynet, shared):
    assert len(read_split(activitynet, training=True)) == 9649
    assert len(read_split(activitynet, training=False)) == 4728
    blocked = shared / "realdata" / "activitynet-1.3" / "blocked.json"
    fewer = activitynet.model_copy(update={"blocked": blocked})
    names = set(json.loads(blocked.read_text()))
    for training, count in ((True, 9649 - 46), (False, 4728 - 31)):
        videos = read_split(fewer, training=training)
        assert len(videos) == count
        assert not names & {video.name for video in videos}


def test_activitynet_is_refused_where_it_is_not_taken_as_published(activitynet):
    with pytest.raises(InputError, match="read a published benchmark's file as published"):
        read_split(activitynet.model_copy(update={"as_published": False}), training=True)


def test_thumos_is_tested_on_211_videos_without_ambiguous_actions(shared):
    settings = preset("thumos_i3d").data.model_copy(
        update={"annotations": shared / "realdata" / "thumos-14" / "thumos_14_anno.json"}
    )
    tested, trained = (read_split(settings, training=training) for training in (False, True))
    assert (len(tested), len(trained)) == (211, 200)
    assert len({action.label for video in tested + trained for action in video.actions}) == 20


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("anet_tsp", "etad_detector_keys.json"),
        ("thumos_i3d", "opentad_thumos_i3d_keys.json"),
    ],
)
def test_a_preset_has_the_published_detector(shared, name, keys):
    published = ETADDetector.from_published(published_weights(shared, keys)).state_dict()
    ours = System(preset(name)).detector.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [("anet_tsp", torch.optim.AdamW, 1e-3), ("thumos_i3d", torch.optim.Adam, 1e-4)],
)
def test_a_preset_has_the_published_optimiser(name, kind, rate):
    settings = preset(name, ["detector.width=32", "detector.hidden=8", "detector.head=8"])
    optimizer = make_optimizer(System(settings), settings.training)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (rate, 1e-4)


E2E = {
    "e2e_anet_tsp": ("anet_tsp", torch.optim.AdamW, 5e-4),
    "e2e_thumos_tsp": ("thumos_i3d", torch.optim.Adam, 1e-4),
}


@pytest.mark.parametrize(("name", "optimiser"), [(name, row[1:]) for name, row in E2E.items()])
def test_an_end_to_end_preset_trains_what_tsp_leaves_unfrozen(name, optimiser):
    kind, rate = optimiser
    system = System(preset(name), pretrained=False)
    assert isinstance(system.encoder.encoder, R2Plus1D)
    optimizer = make_optimizer(system, preset(name).training)
    assert type(optimizer) is kind
    assert [group["lr"] for group in optimizer.param_groups] == [rate, 5e-7]
    trained = {
        k.split(".")[0] for k, p in system.encoder.encoder.named_parameters() if p.requires_grad
    }
    assert trained == {"layer3", "layer4"}
    assert snippet_count(128, preset(name).sampling.snippet_ratio) == 40


@pytest.mark.parametrize("name", E2E)
def test_an_end_to_end_preset_is_tested_like_that_on_features(name):
    ours, features = preset(name), preset(E2E[name][0])
    assert ours.inference == features.inference
    assert ours.losses == features.losses
    kept = ("annotations", "blocked", "min_action", "snippets", "window_stride", "window_inside")
    assert all(getattr(ours.data, key) == getattr(features.data, key) for key in kept)


def test_the_published_end_to_end_preset_reads_the_published_frames(tmp_path, monkeypatch):
    asked = []
    spy = lambda video, out, indices, *rest: asked.append(indices)  # noqa: E731
    monkeypatch.setattr(Video, "_fill", spy)
    write_video(tmp_path / "v.mp4", np.zeros((300, 16, 16, 3), np.uint8))
    decode_snippets(Video(tmp_path / "v.mp4"), preset("e2e_anet_tsp").data)
    starts = np.round(np.linspace(0, 300 - 16, 128)).astype(int)
    assert (asked[0] == starts[:, None] + np.arange(16)).all()


# Coverage


@pytest.fixture
def five(tmp_path):
    """Five validation videos, of which two have features; one carries ActivityNet's prefix."""
    database = {
        name: {
            "subset": "validation",
            "duration": 10.0,
            "annotations": [{"segment": [1, 2], "label": "run"}],
        }
        for name in "abcde"
    }
    (tmp_path / "annotations.json").write_text(json.dumps({"database": database}))
    for file in ("b", "v_d"):
        np.save(tmp_path / f"{file}.npy", np.ones((4, 3), "float32"))
    return DataSettings(annotations=tmp_path / "annotations.json", features=tmp_path, snippets=4)


def opened(settings):
    return open_dataset(settings, (), 3, training=False)


def test_missing_videos_are_refused_or_left_out_with_a_warning(five):
    with pytest.raises(InputError, match=r"3 of the 5 videos .* first is a; .*allow_missing=true"):
        opened(five)
    with pytest.warns(CoverageWarning, match=r"3 of the 5 videos .* left out: a, c, e; in a test"):
        data = opened(five.model_copy(update={"allow_missing": True}))
    assert [data[i].name for i in range(len(data))] == ["b", "d"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(five.model_copy(update={"blocked": ("a", "c", "e")}))


@pytest.mark.parametrize(("one", "other"), [("caf\u00e9", "cafe\u0301"), ("b", "v_b")])
def test_two_forms_of_one_name_are_not_trained_on_twice(five, tmp_path, one, other):
    content = json.loads(five.annotations.read_text())["database"]
    database = dict.fromkeys((one, other), content["b"])
    five.annotations.write_text(json.dumps({"database": database}))
    np.save(tmp_path / f"{one}.npy", np.ones((4, 3), "float32"))
    with pytest.raises(InputError, match=f'is the file of "{one}" and of "{other}"'):
        opened(five)
    np.save(tmp_path / f"{other}.npy", np.ones((4, 3), "float32"))
    if one == "b":  # with a file of its own it is another video
        assert [video.name for video in opened(five).videos] == [one, other]


def test_without_any_file_or_video_there_is_no_data(five, tmp_path):
    gone = five.model_copy(update={"features": tmp_path / "gone", "allow_missing": True})
    with pytest.raises(InputError, match="gone: there is no such folder"):
        opened(gone)
    gone.features.mkdir()
    with pytest.raises(InputError, match="5 of the 5 videos .* no file .*check-data"):
        opened(gone)
    with pytest.raises(InputError, match="data.blocked leaves no video"):
        opened(five.model_copy(update={"blocked": tuple("abcde")}))


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "a\nb", None])
def test_a_bad_list_of_blocked_videos_is_refused(five, tmp_path, content):
    path = tmp_path / "blocked.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"blocked\.json"):
        opened(five.model_copy(update={"blocked": path}))


# Classifiers


def test_the_settings_classifier_names_the_best_classes(tmp_path):
    assert classes_of_videos(InferenceSettings(), ["a"]) is None
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"results": {"a": [0.1, 0.7, 0.2]}, "class": ["x", "y", "z"]}))
    settings = InferenceSettings(classifier=path)
    assert classes_of_videos(settings, ["a"]) == {"a": [("y", 0.7), ("z", 0.2)]}
    with pytest.raises(InputError, match=r"scores\.json: no scores for video 'b'"):
        classes_of_videos(settings, ["a", "b"])
    with pytest.raises(InputError, match=r"scores\.json"):
        classes_of_videos(InferenceSettings(classifier=path, classifier_kind="untrimmednet"), ["a"])


# Both presets, small

LABELS = ["Diving", "HighJump", "LongJump"]
NAMES = {
    "anet_tsp": ("v{:03d}", "v{:03d}"),
    "thumos_i3d": ("video_validation_{:07d}", "video_test_{:07d}"),
}


def benchmark(name, folder):
    """Twelve training and eight test videos of the protocol's kind, and assignments for them."""
    chance = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    database, scores = {}, {}
    for number in range(20):
        training = number < 12
        video = NAMES[name][0 if training else 1].format(number + 1)
        snippets = int(chance.integers(14, 36))
        duration = snippets * 4 / 25
        start = duration * chance.uniform(0.05, 0.4)
        database[video] = {
            "subset": "training" if training else "validation",
            "duration": duration,
            "frame": snippets * 4,
            "annotations": [
                {"segment": [start, start + 0.2 * duration], "label": LABELS[number % 3]},
                {"segment": [start, start], "label": "Diving"},
                {"segment": [start, duration + 0.5], "label": "HighJump"},
            ],
        }
        scores[video] = chance.uniform(size=3).tolist()
        features = chance.standard_normal((snippets - 2, 8), dtype="float32")
        np.save(folder / "features" / f"{video}.npy", features)
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    if name == "thumos_i3d":
        np.save(folder / "classifier", chance.uniform(size=(20, 101)))
        classifier = folder / "classifier.npy"
    else:
        classifier = folder / "classifier.json"
        classifier.write_text(json.dumps({"results": scores, "class": LABELS}))
    return (
        f"data.annotations={folder / 'annotations.json'}",
        f"data.features={folder / 'features'}",
        f"inference.classifier={classifier}",
        "data.blocked=[]",
        "data.workers=0",
        "detector.in_channels=8",
        "training.batch_size=8",
        *SMALL,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_trains_tests_and_leaves_valid_predictions(name, tmp_path):
    settings = preset(name, benchmark(name, tmp_path))
    report = run_training(settings, tmp_path / "run", progress=False)
    assert len(report.per_tiou) == len(settings.inference.tiou)
    assert 0 <= report.average <= 1
    database = json.loads((tmp_path / "annotations.json").read_text())["database"]
    results = json.loads((tmp_path / "run" / "predictions.json").read_text())["results"]
    assert set(results) == {k for k, v in database.items() if v["subset"] == "validation"}
    limit = settings.inference.max_detections * (2 if name == "anet_tsp" else 1)
    best = classes_of_videos(settings.inference, results)
    for video, found in results.items():
        assert 0 < len(found) <= limit
        assert {item["label"] for item in found} <= {label for label, _ in best[video]}
        scores = [item["score"] for item in found]
        assert scores == sorted(scores, reverse=True)
        for start, end in (item["segment"] for item in found):
            assert 0 <= start < end <= database[video]["duration"] + 1e-9
    records = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(record["loss"]) for record in records if "loss" in record)


def test_a_classifier_that_lacks_a_video_is_refused_before_the_training(tmp_path):
    assignments = benchmark("anet_tsp", tmp_path)
    path = tmp_path / "classifier.json"
    content = json.loads(path.read_text())
    del content["results"]["v015"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"classifier\.json: no scores for video 'v015'"):
        run_training(preset("anet_tsp", assignments), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
