"""From annotated files to what the detector is given: snippets or features, and cells."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

from etadlite.base.errors import InputError
from etadlite.config import DataSettings
from etadlite.data import datasets
from etadlite.data.annotations import read_annotations
from etadlite.data.datasets import (
    SampleKey,
    VideoDataset,
    augment,
    centre_crop,
    collate,
)
from etadlite.data.features import (
    FeatureDataset,
    feature_file,
    read_features,
    resize_features,
    write_features,
)
from etadlite.data.loading import open_dataset
from etadlite.encoders.build import build_encoder
from etadlite.model.chunks import encode_in_chunks
from etadlite.prepare.extract import extract_features
from etadlite.presets import preset

CLASSES = ("run", "jump")


@pytest.fixture
def folder(tmp_path):
    """Two training videos and one validation video as features of 3 channels and 8 cells."""
    database = {
        "a": {
            "subset": "training",
            "duration": 40.0,
            "annotations": [
                {"segment": [10, 20], "label": "jump"},
                {"segment": [30, 30.3], "label": "run"},
            ],
        },
        "b": {"subset": "training", "duration": 16.0, "annotations": []},
        "c": {
            "subset": "validation",
            "duration": 8.0,
            "annotations": [{"segment": [0, 8.5], "label": "run"}],
        },
    }
    (tmp_path / "annotations.json").write_text(json.dumps({"database": database}))
    for number, name in enumerate(database):
        write_features(tmp_path / "features" / f"{name}.npy", torch.full((3, 8), float(number)))
    return tmp_path


def data_settings(folder, **changes):
    given = {
        "annotations": folder / "annotations.json",
        "features": folder / "features",
        "snippets": 8,
    }
    return DataSettings(**given | changes)


def feature_data(folder, training=True, channels=3, classes=CLASSES, **changes):
    return FeatureDataset(data_settings(folder, **changes), classes, channels, training=training)


def test_a_sample_has_features_and_actions_in_cells(folder):
    data = feature_data(folder)
    assert [data[i].name for i in range(len(data))] == ["a", "b"]
    first, second = data[0], data[1]
    assert first.inputs.shape == (3, 8)
    assert first.inputs.dtype == torch.float32
    torch.testing.assert_close(first.actions, torch.tensor([[2.0, 4.0], [6.0, 6.06]]))
    assert first.labels.tolist() == [1, 0]
    torch.testing.assert_close(first.grid.to_seconds(first.actions[0]), torch.tensor([10.0, 20.0]))
    assert second.actions.shape == (0, 2)
    assert second.labels.shape == (0,)
    assert second.inputs.unique().tolist() == [1.0]


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_one_archive_gives_the_samples_of_a_folder(folder, suffix):
    rows = {p.stem: np.load(p) for p in (folder / "features").glob("*.npy")}
    views = {f"{name}.1": array + 1 for name, array in rows.items()}
    path = folder / f"all.{suffix}"
    if suffix == "npz":
        np.savez(path, **rows, **views)
    else:
        with h5py.File(path, "w") as file:
            for name, array in (rows | views).items():
                file[name] = array
    plain, archived = feature_data(folder), feature_data(folder, features=path)
    assert [archived.name(i) for i in range(len(archived))] == ["a", "b"]
    for one, other in zip(plain, archived, strict=True):
        assert torch.equal(one.inputs, other.inputs)
    drawn = feature_data(folder, features=path, feature_views=2)
    seen = {float((drawn[SampleKey(0, s)].inputs - plain[0].inputs).max()) for s in range(20)}
    assert seen == {0.0, 1.0}
    short = folder / f"short.{suffix}"
    short.write_bytes(path.read_bytes())
    if suffix == "npz":
        np.savez(short, a=rows["a"])
    else:
        with h5py.File(short, "a") as file:
            del file["b"]
    with pytest.raises(InputError, match=rf"1 of the 2 .* no file in .*short\.{suffix}"):
        feature_data(folder, features=short)


def test_an_action_that_overshoots_ends_with_the_video(folder):
    data = feature_data(folder, training=False)
    torch.testing.assert_close(data[0].actions, torch.tensor([[0.0, 8.0]]))


def test_short_actions_are_dropped_in_training_only(folder):
    assert len(feature_data(folder, min_action=0.01)[0].actions) == 1
    assert len(feature_data(folder, min_action=0.001)[0].actions) == 2
    assert len(feature_data(folder, training=False, min_action=1)[0].actions) == 1


def test_without_classes_every_label_is_zero(folder):
    assert feature_data(folder, classes=())[0].labels.tolist() == [0, 0]


def test_a_batch_stacks_inputs_and_lists_the_rest(folder):
    data = feature_data(folder)
    batch = collate([data[0], data[1]])
    assert batch.names == ["a", "b"]
    assert batch.inputs.shape == (2, 3, 8)
    assert [len(actions) for actions in batch.actions] == [2, 0]
    assert [grid.seconds_per_cell for grid in batch.grids] == [5.0, 2.0]


def test_features_of_another_length_are_resampled(folder):
    ramp = torch.arange(16.0).expand(3, 16)
    write_features(folder / "features" / "a.npy", ramp)
    inputs = feature_data(folder)[0].inputs
    assert inputs.shape == (3, 8)
    # Each of the eight cells spans two values of the ramp.
    torch.testing.assert_close(inputs[0], torch.arange(8) * 2 + 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.floats(-100, 100))
def test_resampling_keeps_a_constant_and_the_range(length, cells, value):
    constant = torch.full((2, length), value)
    torch.testing.assert_close(
        resize_features(constant, cells), torch.full((2, cells), value), rtol=1e-3, atol=1e-6
    )
    features = torch.rand(2, length)
    resized = resize_features(features, cells)
    assert resized.shape == (2, cells)
    assert float(resized.min()) >= float(features.min()) - 1e-3
    assert float(resized.max()) <= float(features.max()) + 1e-3


def test_in_training_one_of_the_views_is_drawn(folder):
    for name, value in (("a", 10.0), ("b", 11.0)):
        write_features(feature_file(folder / "features", name, 1), torch.full((3, 8), value))
    data = feature_data(folder, feature_views=2)
    assert {float(data[0].inputs.mean()) for _ in range(40)} == {0.0, 10.0}
    test = feature_data(folder, training=False, feature_views=2)
    assert {float(test[0].inputs.mean()) for _ in range(10)} == {2.0}


def test_an_absent_view_is_refused(folder):
    data = feature_data(folder, feature_views=50)
    with pytest.raises(InputError, match=r"a\.\d+\.npy: there is no such feature file"):
        [data[0] for _ in range(20)]


@given(channels=st.integers(1, 5), cells=st.integers(1, 9))
def test_features_come_back_as_they_were_written(tmp_path_factory, channels, cells):
    path = tmp_path_factory.mktemp("features") / "deep" / "a.npy"
    features = torch.randn(channels, cells)
    write_features(path, features)
    assert torch.equal(read_features(path, channels), features)
    assert np.load(path).shape == (cells, channels)
    assert [p.name for p in path.parent.iterdir()] == ["a.npy"]


def save_object(path):
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)


def save_archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((8, 3)))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.save(path, np.zeros((8, 4))), r"has shape \[8, 4\], expected \[T, 3\]$"),
        (lambda path: np.save(path, np.zeros((3, 8))), "expected .T, 3.; it looks transposed"),
        (lambda path: np.save(path, np.zeros(24)), r"has shape \[24\]"),
        (lambda path: np.save(path, np.zeros((1, 8, 3))), r"has shape \[1, 8, 3\]"),
        (lambda path: np.save(path, np.zeros((0, 3))), r"has shape \[0, 3\]"),
        (lambda path: np.save(path, np.full((8, 3), np.nan)), "not finite"),
        (lambda path: np.save(path, np.full((8, 3), "x")), "one array of numbers"),
        (lambda path: np.save(path, np.zeros((8, 3), complex)), "one array of numbers"),
        (save_object, "no readable NumPy file"),
        (save_archive, "one array of numbers"),
        (lambda path: path.write_bytes(b""), "no readable NumPy file"),
        (lambda path: path.write_text("features"), "no readable NumPy file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "no readable NumPy file"),
    ],
)
def test_a_bad_feature_file_is_refused_by_name(folder, write, message):
    data = feature_data(folder)
    write(folder / "features" / "a.npy")
    with pytest.raises(InputError, match=rf"a\.npy.*{message}") as error:
        data[0]
    assert "\n" not in str(error.value)


def test_a_feature_file_that_is_gone_is_named(folder):
    data = feature_data(folder)
    (folder / "features" / "a.npy").unlink()
    with pytest.raises(InputError, match="features: the file of a is gone"):
        data[0]


def test_whole_numbers_and_halves_are_features_too(folder):
    for kind in (np.int32, np.float16, np.uint8):
        np.save(folder / "features" / "a.npy", np.ones((8, 3), kind))
        assert feature_data(folder)[0].inputs.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": "nowhere"}, "nowhere: there is no such folder; get the data, or correct"),
        ({"train_subset": "train"}, 'no videos in the subset "train"; choose one of training, val'),
        ({"annotations": "nowhere.json"}, "there is no such annotation file"),
        ({"features": None}, "name no data: give data.videos or data.features"),
    ],
)
def test_unusable_data_are_refused_when_opened(folder, change, message):
    change = {k: folder / v if v and "now" in v else v for k, v in change.items()}
    with pytest.raises(InputError, match=message):
        open_dataset(data_settings(folder, **change), CLASSES, 3, training=True)


def test_an_unknown_label_is_refused_when_opened(folder):
    with pytest.raises(InputError, match='label "jump", which is none of the 1 known classes'):
        feature_data(folder, classes=("run",))


def test_features_are_preferred_to_videos(folder):
    given = data_settings(folder, videos=folder / "nowhere")
    assert isinstance(open_dataset(given, CLASSES, 3, training=True), FeatureDataset)


# Videos


def video_data(tiny, *changes, training=True):
    chosen = preset("e2e_stickfigures", [*tiny.assignments, *changes])
    return VideoDataset(chosen.data, chosen.detector.classes, training=training)


def test_test_videos_are_cut_in_the_centre(tiny):
    data = video_data(tiny, training=False)
    inputs = data[0].inputs
    assert inputs.dtype == torch.uint8
    assert inputs.shape == (16, 3, 8, 24, 24)
    assert torch.equal(inputs, data.decode(data.videos[0])[..., 1:25, 1:25])


def test_the_cache_holds_what_was_decoded_and_spares_the_decoder(tiny, tmp_path, monkeypatch):
    plain = video_data(tiny, "data.cache=null")
    expected = plain.decode(plain.videos[1])
    cached = video_data(tiny, f"data.cache={tmp_path}")
    assert torch.equal(cached.decode(cached.videos[1]), expected)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["training_00001.npy"]
    monkeypatch.setattr(datasets, "decode_snippets", None)
    assert torch.equal(cached.decode(cached.videos[1]), expected)


def write_other_shape(path):
    with path.open("rb") as file:
        origin = file.read()[np.load(path).nbytes + 128 :]
    np.save(path, np.zeros((3, 3, 1, 26, 26), np.uint8))
    with path.open("ab") as file:
        file.write(origin)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.load(path)),  # as an earlier version wrote it
        write_other_shape,
    ],
)
def test_a_file_of_the_cache_that_does_not_fit_is_made_again(tiny, tmp_path, damage):
    data = video_data(tiny, f"data.cache={tmp_path}")
    expected = data.decode(data.videos[0])
    (path,) = tmp_path.rglob("*.npy")
    whole = path.read_bytes()
    damage(path)
    assert torch.equal(data.decode(data.videos[0]), expected)
    assert path.read_bytes() == whole


def test_a_video_that_is_replaced_is_decoded_anew(tiny, tmp_path):
    videos = shutil.copytree(tiny.data / "videos", tmp_path / "videos")
    data = video_data(tiny, f"data.cache={tmp_path / 'frames'}", f"data.videos={videos}")
    before = data.decode(data.videos[0])
    shutil.copy(videos / "training_00001.mp4", videos / "training_00000.mp4")
    after = data.decode(data.videos[0])
    assert not torch.equal(after, before)
    assert torch.equal(after, data.decode(data.videos[1]))


def test_a_name_writes_nothing_outside_of_the_cache(tiny, tmp_path):
    data = video_data(tiny, f"data.cache={tmp_path / 'a' / 'b'}")
    outside = replace(data.videos[0], name="../../x")
    with pytest.raises(InputError, match="is no name of a file in"):
        data.decode(outside)


@pytest.mark.parametrize("change", ["data.frames=4", "data.snippets=8", "data.frame_step=2"])
def test_another_choice_of_frames_has_another_place_in_the_cache(tiny, tmp_path, change):
    data = video_data(tiny, f"data.cache={tmp_path}")
    first = data.decode(data.videos[0])
    other = video_data(tiny, f"data.cache={tmp_path}", change)
    again = other.decode(other.videos[0])
    assert first.shape != again.shape or not torch.equal(first, again)
    assert len(list(tmp_path.rglob("*.npy"))) == 2


def test_a_missing_video_is_named(tiny, tmp_path):
    shutil.copytree(tiny.data / "videos", tmp_path / "videos")
    (tmp_path / "videos" / "training_00001.mp4").unlink()
    with pytest.raises(InputError, match=r"1 of the 2 videos .* the first is training_00001"):
        video_data(tiny, f"data.videos={tmp_path / 'videos'}")


def test_videos_of_every_suffix_are_found(tiny, tmp_path):
    for number, suffix in enumerate((".mkv", ".webm")):
        (tmp_path / f"training_{number:05d}{suffix}").touch()
    data = video_data(tiny, f"data.videos={tmp_path}")
    assert data.find("training_00001") == tmp_path / "training_00001.webm"


# Augmentation


@pytest.mark.parametrize("shape", [(7, 3, 4, 40, 44), (1, 3, 29, 40, 44)])
def test_colours_that_change_in_parts_change_as_at_once(shape, monkeypatch):
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    steps = [v2.RandomCrop(32), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5, 0.5)]
    for seed in range(8):
        torch.manual_seed(seed)
        expected = v2.Compose(steps)(frames.transpose(1, 2)).transpose(1, 2)
        for size in (1, 2**15, 2**30):
            monkeypatch.setattr(datasets, "RECOLOURED", size)
            torch.manual_seed(seed)
            assert torch.equal(augment(frames, 32, flip=True, jitter=0.5), expected)


def test_a_video_is_augmented_as_one():
    frame = torch.randint(0, 256, (1, 3, 1, 20, 20), dtype=torch.uint8)
    out = augment(frame.expand(5, 3, 4, 20, 20), 16, flip=True, jitter=0.5)
    assert out.shape == (5, 3, 4, 16, 16)
    assert (out == out[:1, :, :1]).all()


def test_without_jitter_a_training_video_is_a_crop_mirrored_or_not():
    frames = torch.randint(0, 256, (2, 3, 2, 9, 9), dtype=torch.uint8)
    crops = [frames[..., y : y + 8, x : x + 8] for y in (0, 1) for x in (0, 1)]
    seen = set()
    for _ in range(60):
        out = augment(frames, 8, flip=True, jitter=0)
        where = [
            (number, mirrored)
            for number, crop in enumerate(crops)
            for mirrored in (False, True)
            if torch.equal(out, crop.flip(-1) if mirrored else crop)
        ]
        assert len(where) == 1
        seen.add(where[0])
    assert len(seen) == 8
    unmirrored = [augment(frames, 8, flip=False, jitter=0) for _ in range(20)]
    assert all(any(torch.equal(out, crop) for crop in crops) for out in unmirrored)


def test_jitter_changes_colours_not_shapes():
    frames = torch.randint(64, 192, (1, 3, 2, 8, 8), dtype=torch.uint8)
    out = augment(frames, 8, flip=False, jitter=0.3)
    assert out.dtype == torch.uint8
    assert not torch.equal(out, frames)
    pairs = torch.stack([v2.functional.rgb_to_grayscale(x.transpose(1, 2)) for x in (frames, out)])
    assert float(torch.corrcoef(pairs.flatten(1).float())[0, 1]) > 0.95


@given(st.integers(1, 12), st.integers(12, 20))
def test_the_centre_crop_keeps_the_centre(side, size):
    frames = torch.arange(size * size).reshape(1, size, size)
    out = centre_crop(frames, side)
    first = round((size - side) / 2)
    assert torch.equal(out, frames[:, first : first + side, first : first + side])


# Feature extraction


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_encoding_in_chunks_equals_encoding_at_once(chunk):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 4 * 4, 6)).double()
    cast = nn.Module()
    cast.encoder = encoder
    cast.forward = lambda x: encoder(x.double())
    frames = torch.randint(0, 256, (2, 7, 3, 2, 4, 4), dtype=torch.uint8)
    got = encode_in_chunks(cast, frames, chunk)
    assert not got.requires_grad
    torch.testing.assert_close(got, encoder(frames.flatten(0, 1).double()).view(2, 7, 6).mT)


def features_of(tiny, folder, *changes):
    chosen = preset("stickfigures", [*tiny.on_features, f"data.features={folder}", *changes])
    encoder = build_encoder(chosen.encoder)
    return extract_features(chosen, encoder, folder, progress=False), chosen, encoder


def test_features_are_those_of_the_frozen_encoder(tiny, tmp_path):
    written, chosen, encoder = features_of(tiny, tmp_path)
    assert written == 3
    data = VideoDataset(chosen.data, chosen.detector.classes, training=False)
    frames = centre_crop(data.decode(data.videos[0]), 24)
    with torch.no_grad():
        expected = encoder(frames).T
    stored = read_features(tmp_path / "validation_00000.npy", 48)
    torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-4)
    from_files = open_dataset(chosen.data, chosen.detector.classes, 48, training=False)
    assert torch.equal(from_files[0].inputs, stored)


def test_extraction_writes_views_of_training_videos_and_only_what_is_missing(tiny, tmp_path):
    views = "data.feature_views=3"
    assert features_of(tiny, tmp_path, views)[0] == 3 + 2 * 2
    names = sorted(path.name for path in tmp_path.glob("*.npy"))
    assert names == [
        *(f"training_0000{n}{view}.npy" for n in (0, 1) for view in (".1", ".2", "")),
        "validation_00000.npy",
    ]
    plain, view = (np.load(tmp_path / f"training_00000{k}.npy") for k in ("", ".1"))
    assert not np.allclose(plain, view)
    assert features_of(tiny, tmp_path, views)[0] == 0
    (tmp_path / "training_00001.2.npy").unlink()
    assert features_of(tiny, tmp_path, views)[0] == 1


def test_a_video_that_cannot_be_read_costs_no_other_its_features(tiny, tmp_path):
    shutil.copytree(tiny.data / "videos", tmp_path / "videos")
    (tmp_path / "videos" / "training_00000.mp4").write_bytes(b"no video")
    changes = (f"data.videos={tmp_path / 'videos'}", "data.cache=null")
    chosen = preset("stickfigures", [*tiny.assignments, *changes])
    out, encoder = tmp_path / "features", build_encoder(chosen.encoder)
    words = r"4 of 9 feature files cannot .*training_00000\.mp4 cannot be .*others are written"
    with pytest.raises(InputError, match=words) as error:
        extract_features(chosen, encoder, out, progress=False)
    assert error.value.everywhere
    assert {path.stem for path in out.glob("*.npy")} >= {"training_00001", "validation_00000"}
    assert not (out / "training_00000.npy").exists()


def test_features_of_other_settings_or_other_weights_are_not_mixed(tiny, tmp_path):
    _, chosen, encoder = features_of(tiny, tmp_path)
    with pytest.raises(InputError, match="holds features made with other settings"):
        features_of(tiny, tmp_path, "data.frame_step=2")
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-3)
    with pytest.raises(InputError, match="choose another folder, or delete this one"):
        extract_features(chosen, encoder, tmp_path, progress=False)


def test_the_generated_annotations_are_what_the_dataset_gives_back_in_seconds(tiny):
    data = video_data(tiny)
    truth = read_annotations(tiny.data / "annotations.json", "training")
    for sample in (data[i] for i in range(len(data))):
        wanted = [(a.start, a.end) for a in truth[sample.name].actions]
        torch.testing.assert_close(sample.grid.to_seconds(sample.actions), torch.tensor(wanted))
