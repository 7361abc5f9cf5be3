"""Files that are damaged, hostile or odd: refused in one sentence, or read right."""

import json
import os
import re
import sys
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from test_names import film

from etadlite.base.errors import InputError, StoppedError
from etadlite.base.files import parse_json, read_json
from etadlite.config import read_settings
from etadlite.data.annotations import read_annotations
from etadlite.data.datasets import _cached
from etadlite.data.features import (
    FeatureShapeError,
    find_features,
    open_features,
    read_features,
    resize_features,
)
from etadlite.data.video import Video
from etadlite.data.video_files import is_video
from etadlite.evaluation import mean_average_precision
from etadlite.inference.classifiers import LabelScores
from etadlite.model import system as system_module
from etadlite.model.checkpoint import load_checkpoint
from etadlite.model.system import require_room
from etadlite.prepare.convert import convert
from etadlite.presets import preset
from etadlite.training.loop import prepare

VIDEO = {"subset": "validation", "duration": 30, "annotations": [{"segment": [1, 2], "label": "a"}]}
TRUTH = json.dumps({"database": {"v": VIDEO}})
FOUND = json.dumps({"results": {"v": [{"segment": [1, 2], "score": 0.5, "label": "a"}]}})


def score(truth, predictions):
    return mean_average_precision(truth, predictions, subset="validation", tiou=[0.5]).average


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_the_encoding_that_it_has(tmp_path, encoding):
    paths = [tmp_path / name for name in ("truth.json", "found.json")]
    for path, text in zip(paths, (TRUTH, FOUND), strict=True):
        path.write_bytes(text.replace('"a"', '"é"').encode(encoding))
    assert score(*paths) == 1.0
    assert read_annotations(paths[0])["v"].actions[0].label == "é"


def test_an_encoding_that_nobody_can_know_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "x.json").write_bytes('["café"]'.encode("latin1"))
    with pytest.raises(InputError, match="is not in UTF-8 or UTF-16; save it again as UTF-8"):
        read_json(tmp_path / "x.json", "list")


HOSTILE = {
    "twice": ('{"a": 1, "b": 2, "a": 3}', '"a" stands twice'),
    "twice below": ('{"x": [{"b": 1, "b": 1}]}', '"b" stands twice'),
    "large": ("1" + "0" * 400, "a number of 401 digits"),
    "very large": ("-1" + "0" * 6000, "a number of 600. digits"),
    "deep": ("[" * 100_000, "nested too deep"),
    "cut off": ('{"a": [1, ', "is not JSON: .* in line 1, column"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_json_that_would_be_read_with_a_loss_is_refused(name):
    text, words = HOSTILE[name]
    with pytest.raises(InputError, match=rf"^F.*{words}") as error:
        parse_json(text, "F", "thing", "mend it")
    assert len(str(error.value)) < 200
    assert "mend it" in str(error.value)


@pytest.mark.parametrize("text", ["9" * 20, "-3", "1e400", "0.1", "null", '{"a": {"a": 1}}', "NaN"])
def test_other_json_is_what_python_reads(text):
    assert repr(parse_json(text, "F")) == repr(json.loads(text))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("30", "1" + "0" * 400, "truth.json .*401 digits"),
        ("30", "1e999", '"duration" must be its length'),
        ("[1, 2]", '[1, "' + "x" * 9999 + '"]', "holds no two numbers"),
        ("[1, 2]", "[" * 400 + "]" * 400, r'"segment" must be'),
    ],
)
def test_annotations_beyond_sense_are_one_short_sentence(tmp_path, old, new, words):
    (tmp_path / "truth.json").write_text(TRUTH.replace(old, new))
    (tmp_path / "found.json").write_text(FOUND)
    with pytest.raises(InputError, match=words) as error:
        score(tmp_path / "truth.json", tmp_path / "found.json")
    assert len(str(error.value).replace(str(tmp_path), "")) < 300


def test_numbers_beyond_sense_in_given_values_are_refused_too():
    huge = 10**400
    with pytest.raises(InputError, match='"duration" must be'):
        read_annotations({"database": {"v": VIDEO | {"duration": huge}}})
    guess = json.loads(FOUND)
    guess["results"]["v"][0]["score"] = huge
    with pytest.raises(InputError, match="prediction 0 is malformed"):
        score(json.loads(TRUTH), guess)
    with pytest.raises(InputError, match="needs 2 finite scores"):
        LabelScores({"v": [huge, 1]}, ["a", "b"]).top("v", 1)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 5000, '{"a": 1, "a": 2}'])
def test_an_assignment_beyond_sense_is_refused_in_one_short_sentence(value):
    with pytest.raises(InputError, match=r"training\.epochs = .* does not fit") as error:
        preset("stickfigures").changed([f"training.epochs={value}"])
    assert len(str(error.value)) < 250


def test_settings_that_stand_twice_are_refused():
    with pytest.raises(InputError, match=r'c\.safetensors.*"name" stands twice'):
        read_settings('{"name": "a", "name": "b"}', "c.safetensors")


def test_a_classifier_finds_a_video_in_any_form_of_its_name():
    scores = LabelScores({"v_é": [1.0, 0.0]}, ["a", "b"])
    assert scores.top("e\N{COMBINING ACUTE ACCENT}", 1) == [("a", 1.0)]


# Videos


def test_an_intact_video_with_a_foreign_text_tag_is_read(tmp_path):
    path = film(tmp_path / "a.avi", "avi", "mpeg4")
    content = path.read_bytes()
    at = content.find(b"Lavf")  # the name of the program that wrote it
    path.write_bytes(content[:at] + b"\xe9t\xe9s" + content[at + 4 :])
    video = Video(path)
    assert video.info.frames == 8
    assert video.frames(np.arange(8), (48, 64)).shape == (8, 3, 48, 64)


@pytest.mark.parametrize(
    ("where", "read"),
    [
        ("etadlite.data.video.pyav_pictures", lambda file: Video(file("a.of")).frames([0], (8, 8))),
        ("etadlite.data.packets.open_video", lambda file: Video(file("a.of"))),
        ("etadlite.data.no_video.open_video", lambda file: is_video(file("a.of"))),
        ("numpy.load", lambda file: open_features(file("features.npy"), 2)),
        ("numpy.load", lambda file: _cached(file("cached.npy"), b"any", (1,))),
    ],
)
def test_a_signal_while_a_file_is_read_is_not_taken_for_damage(tmp_path, monkeypatch, where, read):
    film(tmp_path / "a.of", "mp4", "libx264")
    np.save(tmp_path / "features.npy", np.zeros((4, 2), np.float32))
    (tmp_path / "cached.npy").write_bytes(b"any")

    def stopped(*arguments, **options):
        raise StoppedError("stopped by SIGTERM", 143)

    monkeypatch.setattr(where, stopped)
    with pytest.raises(StoppedError):
        read(tmp_path.joinpath)


def test_a_video_of_an_unknown_codec_is_refused_by_name(tmp_path):
    path = film(tmp_path / "a.mp4", "mp4", "libx264")
    content = path.read_bytes()
    at = content.find(b"avc1", content.find(b"stsd"))
    path.write_bytes(content[:at] + b"zvc1" + content[at + 4 :])
    with pytest.raises(
        InputError, match=r"a\.mp4: nothing here can decode its pictures; convert it"
    ):
        Video(path)


# Features


def header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"PK\3\4junk",
        header("(4, 8")[:128],
        header("(10000000000, 8)"),
        header("(99999999999999999999999, 8)"),
        header("(-1, 8)"),
        header("(True, 8)") + bytes(192),
        header("(4, 8)") + bytes(127),
    ],
)
def test_a_broken_feature_file_is_refused_before_memory_is_asked_for(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy.*extract it again") as error:
        read_features(tmp_path / "a.npy", 8)
    assert "\n" not in str(error.value)


ROWS = np.arange(40, dtype="float16").reshape(5, 8)


def as_npz(path, **arrays):
    np.savez_compressed(path, **(arrays or {"feats": ROWS, "stride": np.array(4)}))


def as_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in (arrays or {"a/feats": ROWS, "stride": np.array(4)}).items():
            file[name] = array


@pytest.mark.parametrize(("suffix", "write"), [("npz", as_npz), ("h5", as_hdf5), ("hdf5", as_hdf5)])
def test_features_of_archives_are_those_of_a_plain_file(tmp_path, suffix, write):
    path = tmp_path / f"v_clip.{suffix}"
    write(path)
    assert find_features(tmp_path, "clip") == path
    np.testing.assert_array_equal(read_features(path, 8), ROWS.T)
    with pytest.raises(FeatureShapeError, match=r"has shape \[5, 8\], expected \[T, 7\]"):
        read_features(path, 7)
    write(path, one=ROWS, other=ROWS)
    with pytest.raises(InputError, match="must hold one array of numbers .* it has one, other"):
        read_features(path, 8)
    write(path, one=np.zeros(3))
    with pytest.raises(InputError, match="it has none"):
        read_features(path, 8)
    path.write_bytes(path.read_bytes()[:-30])
    kind = "NumPy" if suffix == "npz" else "HDF5"
    with pytest.raises(InputError, match=rf"{path.name} is no readable {kind} file"):
        read_features(path, 8)


@pytest.mark.parametrize(("suffix", "write"), [("npz", as_npz), ("h5", as_hdf5)])
def test_one_archive_holds_the_features_of_all_videos(tmp_path, suffix, write):
    path, own = tmp_path / f"all.{suffix}", {"v_a": ROWS, "b.c": ROWS + 1, "Zürich": ROWS + 2}
    write(path, **own)
    for name, known in (("a", "v_a"), ("b.c", "b.c"), ("Zu\u0308rich", "Zürich")):
        found = find_features(path, name)
        assert found == path / known
        np.testing.assert_array_equal(read_features(found, 8), own[known].T)
    assert find_features(path, "other") is None
    assert find_features(path, "../a") is None
    with pytest.raises(InputError, match=rf"all\.{suffix} has no array of numbers .* for other"):
        read_features(path / "other", 8)
    with pytest.raises(FeatureShapeError, match=r"v_a has shape \[5, 8\], expected \[T, 7\]"):
        read_features(path / "v_a", 7)
    path.write_bytes(b"no archive")
    kind = "NumPy" if suffix == "npz" else "HDF5"
    with pytest.raises(InputError, match=rf"all\.{suffix} is no readable {kind} file"):
        find_features(path, "a")


def test_an_archive_of_all_videos_may_have_a_group_for_each_and_follows_no_link(tmp_path):
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["v_a/c3d_features"] = ROWS
        file["v_a/fps"] = 30
        file["v_b"] = h5py.ExternalLink("other.h5", "/x")
        file["v_c"] = np.zeros(3)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = ROWS
    np.testing.assert_array_equal(read_features(tmp_path / "all.h5" / "v_a", 8), ROWS.T)
    for name in ("v_b", "v_c"):
        with pytest.raises(InputError, match=f"no array of numbers .* for {name}; extract"):
            read_features(tmp_path / "all.h5" / name, 8)


def test_another_array_is_not_taken_for_features_that_are_no_table(tmp_path):
    table = np.ones((6, 4), "float32")
    np.savez(tmp_path / "a.npz", feats=table[None], positions=table)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"], file["positions"] = table[None], table
    for suffix in ("npz", "h5"):
        with pytest.raises(InputError, match=rf"{suffix}: feats is no array of numbers"):
            read_features(tmp_path / f"a.{suffix}", 4)


def test_an_array_that_stands_twice_in_an_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, feats=np.ones((3, 2)))
    with zipfile.ZipFile(path, "a") as packed, pytest.warns(UserWarning, match="Duplicate"):
        packed.writestr("feats.npy", packed.read("feats.npy"))
    with pytest.raises(InputError, match="holds feats twice"):
        read_features(path, 2)


def test_a_file_that_is_no_archive_is_no_folder_of_features(tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(InputError, match=r"notes\.txt is no folder of features, and no archive"):
        find_features(tmp_path / "notes.txt", "a")


def test_archives_that_ask_for_more_than_there_is_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("feats.npy", header("(10000000000, 8)") + bytes(99))
    with pytest.raises(InputError, match=r"announces 320,000,000,000 bytes and holds"):
        read_features(tmp_path / "a.npz", 8)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("feats", (10**11, 8), "f4", chunks=(1024, 8))
    with pytest.raises(InputError, match=r"b\.h5 holds features of 2,980\.2 GiB, but"):
        read_features(tmp_path / "b.h5", 8)
    layout = h5py.VirtualLayout((5, 8), "f2")
    layout[:] = h5py.VirtualSource("/somewhere/else.h5", "feats", (5, 8))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_virtual_dataset("feats", layout)
    with pytest.raises(InputError, match="takes its features from another file"):
        read_features(tmp_path / "c.h5", 8)


def test_without_h5py_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    as_hdf5(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"a\.h5 needs h5py to be read: pip install h5py"):
        read_features(tmp_path / "a.h5", 8)


# Half precision


@pytest.mark.parametrize("rows", [65_504, 65_519, 65_520, 70_000, 200_000])
def test_features_of_any_length_are_resampled_right(rows):
    line = torch.arange(rows, dtype=torch.float64)[None] / rows
    cells = resize_features(line, 16)[0]
    middles = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(cells, middles.double(), rtol=0, atol=2e-3)
    assert torch.equal(resize_features(torch.ones(1, rows), 16), torch.ones(1, 16))


@pytest.mark.parametrize("value", [65_504.0, 65_519.0, 65_520.0, 1e5, -3e38, 1e-8, 0.0])
def test_features_of_any_size_keep_their_value(value):
    resized = resize_features(torch.full((2, 50), value), 8)
    torch.testing.assert_close(resized, torch.full((2, 8), value), rtol=1e-6, atol=0)


def test_features_that_fit_half_precision_pass_through_it_as_published():
    features = torch.rand(3, 8)
    assert torch.equal(resize_features(features, 8), features.half().float())


# Sizes


@pytest.mark.parametrize(
    "change",
    [
        "data.snippets=10000000",
        "detector.max_duration=1000000000",
        "detector.width=3200000",
        "data.decode_size=[900000, 900000]",
    ],
)
def test_sizes_that_memory_cannot_hold_are_refused_with_what_they_need(tiny, change):
    with pytest.raises(InputError, match=r"need memory of [\d,.]+ GiB, but [\d,.]+ GiB of memory"):
        prepare(preset("e2e_stickfigures", [*tiny.assignments, change]))


def test_the_memory_that_sizes_need_is_counted(monkeypatch, tiny):
    """Weights; of every snippet its feature, its column of the proposal map, and its frames."""
    needed = []
    monkeypatch.setattr(system_module, "require_memory", lambda size, what: needed.append(size))
    names = ("data.snippets=32", "detector.max_duration=20", "data.frames=4", "data.snippets=16")
    few = "data.snippets=16", "detector.max_duration=16", "data.frames=8"
    for change in names:
        require_room(preset("e2e_stickfigures", [*tiny.assignments, *few, change]))
    per_snippet = 4 * 48 + 24 * 16 + 3 * 8 * 26 * 26
    twice, longer, shorter, plain = needed
    assert twice - plain == 16 * per_snippet
    assert longer - plain == 16 * 24 * 4
    assert plain - shorter == 16 * 3 * 4 * 26 * 26
    require_room(preset("stickfigures", [*tiny.on_features, *few]))
    assert plain - needed[-1] == 16 * 3 * 8 * 26 * 26


def test_a_checkpoint_whose_settings_ask_for_too_much_is_refused(trained, tmp_path, tiny):
    weights = safetensors.torch.load_file(trained / "checkpoint.safetensors")
    huge = preset("e2e_stickfigures", [*tiny.assignments, "detector.hidden=2000000000"])
    metadata = {"settings": huge.model_dump_json()}
    safetensors.torch.save_file(weights, tmp_path / "c.safetensors", metadata)
    with pytest.raises(InputError, match="GiB of memory are free"):
        load_checkpoint(tmp_path / "c.safetensors", huge)


def test_a_small_checkpoint_that_asks_for_much_is_refused(tmp_path):
    weights = {f"temporal_enhance.{n}": torch.zeros(1).expand(50_000, 50_000) for n in range(4)}
    torch.save({"state_dict": weights}, tmp_path / "bomb.pth")
    assert os.path.getsize(tmp_path / "bomb.pth") < 9_000
    with pytest.raises(InputError, match=r"has [\d,]+ bytes, but its weights ask for 37\.3 GiB"):
        convert(tmp_path / "bomb.pth", tmp_path / "out.safetensors")


def test_a_compressed_checkpoint_is_measured_before_it_is_unpacked(tmp_path, monkeypatch):
    torch.save({"state_dict": {"temporal_enhance.x": torch.zeros(10**6)}}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    monkeypatch.setattr(torch, "load", None)
    memory = type("Memory", (), {"available": 10**6})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(InputError, match=re.escape("unpacks to weights of 0.0 GiB, but")):
        convert(tmp_path / "bomb.pth", tmp_path / "out.safetensors")
