"""Checking a data root: every fault is named, counted and listed for training."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_data_scripts import film

from etadlite.base.errors import InputError
from etadlite.base.files import made_from
from etadlite.cli import main
from etadlite.data.features import write_features
from etadlite.data.loading import open_dataset
from etadlite.data.manifest import CheckedFile, broken_files, read_manifest
from etadlite.data.split import manifest_file
from etadlite.prepare import check as module
from etadlite.prepare import findings
from etadlite.prepare.check import check_data, folder_settings
from etadlite.prepare.isolated import Outcome
from etadlite.presets import preset
from etadlite.stickfigures.classes import CLASSES

VIDEOS = {f"clip_{letter}": 20.0 + 4 * number for number, letter in enumerate("abcdefgh")}
CHANNELS = 8


def annotate(path, videos=VIDEOS):
    """Annotations of videos; the last two are the test split."""
    split = dict.fromkeys(videos, "training") | dict.fromkeys(list(videos)[-2:], "validation")
    database = {
        name: {
            "subset": split[name],
            "duration": duration,
            "annotations": [{"segment": [1, 2], "label": CLASSES[0]}],
        }
        for name, duration in videos.items()
    }
    path.write_text(json.dumps({"database": database}))
    return path


def save(folder, name, shape):
    np.save(folder / f"{name}.npy", np.random.default_rng(len(name)).random(shape, np.float32))


@pytest.fixture
def root(tmp_path):
    """Features at one a second, beside their annotations."""
    folder = tmp_path / "features"
    folder.mkdir()
    annotate(tmp_path / "annotations.json")
    for name, duration in VIDEOS.items():
        save(folder, name, (int(duration), CHANNELS))
    return tmp_path


def check(root, *changes, name="stickfigures", **options):
    settings = preset(
        name,
        (
            f"data.annotations={root / 'annotations.json'}",
            f"data.features={root / 'features'}",
            f"detector.in_channels={CHANNELS}",
            *changes,
        ),
    )
    return check_data(settings, progress=False, **options)


def found(checked):
    """What was found: its name and the number of items."""
    return {finding.what: len(finding.items) for finding in checked.findings}


def test_an_archive_of_all_features_is_checked_like_a_folder(root):
    rows = {path.stem: np.load(path) for path in (root / "features").glob("*.npy")}
    del rows["clip_a"]
    rows |= {"clip_b": rows["clip_b"][:, :3], "stranger": rows["clip_c"]}
    np.savez(root / "all.npz", **rows)
    checked = check(root, f"data.features={root / 'all.npz'}")
    found = {finding.what: list(finding.items) for finding in checked.findings}
    assert found["training videos without a file"] == ["clip_a"]
    (shape,) = found["features of another shape"]
    assert "clip_b has shape [24, 3], expected [T, 8]" in shape
    assert found["files nobody annotated"] == ["stranger"]
    assert checked.splits[0].usable == 4


def test_sound_data_are_called_so(root):
    checked = check(root)
    assert checked.sound
    assert not checked.findings
    assert [(split.annotated, split.usable) for split in checked.splits] == [(6, 6), (2, 2)]
    assert "8 files of features" in checked.as_text()
    assert checked.as_text().endswith("fit for training")
    assert broken_files(root / "features", CHANNELS) == {}


def test_features_of_other_versions_of_their_videos_are_named(root):
    """As training on them is refused."""
    videos = root / "videos"
    videos.mkdir()
    for name in VIDEOS:
        video, path = videos / f"{name}.mp4", root / "features" / f"{name}.npy"
        video.write_bytes(b"first version")
        rows = torch.from_numpy(np.load(path)).T
        write_features(path, rows, made_from("features", video))
    assert check(root, f"data.videos={videos}").sound
    (videos / "clip_a.mp4").write_bytes(b"another version")
    os.utime(videos / "clip_b.mp4", (1, 1))
    (videos / "clip_c.mp4").unlink()
    checked = check(root, f"data.videos={videos}")
    assert {
        finding.what: (list(finding.items), finding.problem) for finding in checked.findings
    } == {
        "features of other versions of their videos": (["clip_a.npy"], True),
        "features extracted before their videos were copied or changed": (["clip_b.npy"], False),
    }
    assert not checked.sound
    assert check(root).sound


def cut(folder):
    path = folder / "clip_a.npy"
    path.write_bytes(path.read_bytes()[:100])


FAULTS = {
    "test videos without a file": (
        lambda f: (f / "clip_h.npy").unlink(),
        "clip_h",
        "data.allow_missing=true",
    ),
    "unusable files": (cut, "clip_a.npy is no readable NumPy file", "get or make them again"),
    "features of another shape": (
        lambda f: save(f, "clip_b", (CHANNELS, 24)),
        "[8, 24], expected [T, 8]; it looks transposed",
        "transpose",
    ),
    "unfinished files": (
        lambda f: (f / "clip_a.4242.part.npy").write_bytes(b"x"),
        "clip_a.4242.part.npy",
        "delete those that stay",
    ),
    "wrong length": (
        lambda f: save(f, "clip_c", (60, CHANNELS)),
        "clip_c.npy: 60 features, annotated 28",
        "same stride",
    ),
    "videos with two files": (
        lambda f: save(f, "v_clip_d", (32, CHANNELS)),
        "clip_d.npy and v_clip_d.npy",
        "keep one of each",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_named_counted_and_told_how_to_mend(root, what):
    fault, item, remedy = FAULTS[what]
    fault(root / "features")
    checked = check(root)
    assert found(checked) == {what: 1}
    assert not checked.sound
    text = checked.as_text()
    assert f"PROBLEM  {what}: 1" in text
    assert item in text
    assert remedy in text
    written = json.loads(manifest_file(root / "features").read_text())
    assert [finding["what"] for finding in written["findings"]] == [what]


@pytest.mark.parametrize("name", ["Clip_A", "clip-a", "v_clip_a.mp4", "clip_aa"])
def test_a_file_of_nearly_the_right_name_is_recognised(root, name):
    folder = root / "features"
    (folder / "clip_a.npy").rename(folder / f"{name}.npy")
    checked = check(root)
    assert found(checked) == {"training videos without a file": 1, "files of another name": 1}
    assert f"{name}.npy: no video has this name; clip_a has no file" in checked.as_text()


def test_remarks_do_not_fail_the_check(root):
    folder = root / "features"
    save(folder, "holiday", (30, CHANNELS))
    shutil.copyfile(folder / "clip_a.npy", folder / "clip_a.1.npy")
    checked = check(root)
    assert checked.sound
    assert found(checked) == {
        "files nobody annotated": 1,
        "equal files under several names": 1,
    }
    assert "note     files nobody annotated: 1" in checked.as_text()


def test_the_data_root_of_another_set_is_recognised(root):
    folder = root / "features"
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"video_test_{number:07}.npy")
    checked = check(root)
    assert checked.findings[0].what == "another data set?"
    assert "0 of 8 files belong to an annotated video, the files look like those of THUMOS-14" in (
        checked.as_text()
    )


def test_all_of_a_finding_is_counted_and_its_first_are_shown(root):
    for path in (root / "features").iterdir():
        path.unlink()
    text = check(root).as_text()
    assert "training videos without a file: 6" in text
    assert "... and 3 more" in text
    written = json.loads(manifest_file(root / "features").read_text())
    assert [len(finding["items"]) for finding in written["findings"]] == [6, 2]


def test_training_is_told_what_is_broken_until_it_is_replaced(root):
    folder = root / "features"
    cut(folder)
    check(root)
    assert list(broken_files(folder, CHANNELS)) == ["clip_a.npy"]
    assert "no readable NumPy file" in broken_files(folder, CHANNELS)["clip_a.npy"]
    save(folder, "clip_a", (20, CHANNELS))
    assert broken_files(folder, CHANNELS) == {}


def test_what_the_check_found_broken_counts_as_missing_in_training(root):
    (root / "features" / "clip_b.npy").write_bytes(b"no array")
    settings = preset(
        "stickfigures",
        (f"data.annotations={root / 'annotations.json'}", f"data.features={root / 'features'}"),
    ).data
    assert len(open_dataset(settings, CLASSES, CHANNELS, training=True)) == 6  # nobody knows
    check(root)
    words = r"1 of the 6 .* no usable file .*clip_b, as check-data found: .*no readable NumPy file"
    with pytest.raises(InputError, match=words):
        open_dataset(settings, CLASSES, CHANNELS, training=True)
    # The check was for another width; what does not fit this one shows when it is read.
    assert len(open_dataset(settings, CLASSES, 2 * CHANNELS, training=True)) == 6
    allowed = settings.model_copy(update={"allow_missing": True})
    with pytest.warns(match="clip_b"):
        assert len(open_dataset(allowed, CLASSES, CHANNELS, training=True)) == 5


def test_where_nothing_belongs_training_says_where_to_look(root):
    settings = preset("stickfigures", (f"data.annotations={root / 'annotations.json'}",)).data
    (root / "empty").mkdir()
    for name, words in (("empty", "6 of the 6 .*check-data"), ("no", "no such folder; get the")):
        elsewhere = settings.model_copy(update={"features": root / name, "allow_missing": True})
        with pytest.raises(InputError, match=words):
            open_dataset(elsewhere, CLASSES, CHANNELS, training=True)


def test_files_in_a_folder_below_are_found(root):
    folder = root / "features"
    (root / "all").mkdir()
    folder.rename(root / "all" / "unpacked")
    (root / "all").rename(folder)
    checked = check(root)
    assert found(checked)["files in a folder below"] == 1
    assert f"{folder / 'unpacked'}: 8 files" in checked.as_text()


def test_a_check_that_is_ended_goes_on_where_it_was(root, monkeypatch):
    real, opened = module.open_features, []

    def end_at(number):
        def open_one(path, *arguments, **options):
            opened.append(path.name)
            if len(opened) == number:
                raise KeyboardInterrupt
            return real(path, *arguments, **options)

        return open_one

    cut(root / "features")
    check(root)
    monkeypatch.setattr(module, "KEPT_EVERY", -1.0)
    monkeypatch.setattr(module, "open_features", end_at(4))
    with pytest.raises(KeyboardInterrupt):
        check(root, deep=True, workers=1)
    kept, how = read_manifest(root / "features")
    assert (how["deep"], sorted(kept)) == (True, ["clip_a.npy", "clip_b.npy", "clip_c.npy"])
    assert list(broken_files(root / "features", CHANNELS)) == ["clip_a.npy"]
    opened.clear()
    monkeypatch.setattr(module, "open_features", end_at(0))
    assert found(check(root, deep=True, workers=1)) == {"unusable files": 1}
    assert sorted(opened) == [f"clip_{letter}.npy" for letter in "defgh"]


def test_unchanged_files_are_not_opened_again(root, monkeypatch):
    cut(root / "features")
    before = check(root)
    opened = []
    real = module.open_features
    monkeypatch.setattr(
        module,
        "open_features",
        lambda path, *a, **k: opened.append(path.name) or real(path, *a, **k),
    )
    assert check(root) == before
    assert not opened
    save(root / "features", "clip_b", (24, CHANNELS))
    check(root)
    assert opened == ["clip_b.npy"]
    check(root, deep=True)
    assert len(opened) == 9
    check(root)  # a deeper check tells all that a plain one does
    assert len(opened) == 9


def test_values_that_are_not_finite_are_found_by_a_deep_check(root):
    folder = root / "features"
    np.save(folder / "clip_a.npy", np.full((20, CHANNELS), np.nan, np.float32))
    assert check(root).sound
    checked = check(root, deep=True)
    assert found(checked) == {"unusable files": 1}
    assert "not finite" in checked.as_text()


def test_a_folder_that_cannot_be_written_is_checked_all_the_same(root, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(module, "write_manifest", refuse)
    checked = check(root)
    assert checked.manifest is None
    assert "no manifest" in checked.as_text()


def test_a_broken_manifest_is_named(root):
    manifest_file(root / "features").write_text('{"version": 2, "files": [1]}')
    with pytest.raises(InputError, match=r"features\.manifest\.json is no manifest"):
        check(root)


@pytest.mark.parametrize(("stride", "rest"), [(4, 0), (None, 120)])
def test_features_may_be_a_third_off(stride, rest):
    """By the stride, or by the other videos: 120 features are expected, 80 to 160 will do."""
    lengths = {"a": 79, "b": 80, "c": 160, "d": 161} | dict.fromkeys("efghi", 120)
    video = SimpleNamespace(frames=480, duration=120.0)
    data = SimpleNamespace(
        paths={name: Path(name) for name in lengths},
        videos=dict.fromkeys(lengths, video),
        settings=SimpleNamespace(window_stride=stride),
    )
    files = {name: CheckedFile(bytes=1, modified=1, frames=n) for name, n in lengths.items()}
    _, finding = findings.compare_lengths(data, files)
    assert sorted(item[0] for item in finding.items) == ["a", "d"]


# The published protocols


@pytest.fixture
def thumos(shared, tmp_path):
    """Features of all 413 videos at the published stride."""
    source = shared / "realdata" / "thumos-14" / "thumos_14_anno.json"
    shutil.copyfile(source, tmp_path / "annotations.json")
    folder = tmp_path / "features"
    folder.mkdir()
    for name, video in json.loads(source.read_text())["database"].items():
        np.save(folder / f"{name}.npy", np.zeros((max(1, video["frame"] // 4 - 3), 4), np.float16))
    return tmp_path


def test_thumos_follows_its_protocol(thumos):
    checked = check(thumos, "detector.in_channels=4", name="thumos_i3d")
    assert [split[1:] for split in checked.splits] == [(200, 200, 200), (211, 211, 211)]
    assert checked.sound
    wrong = check(thumos, "detector.in_channels=4", "data.window_stride=16", name="thumos_i3d")
    assert not wrong.sound
    assert found(wrong)["wrong length"] > 300
    broken = broken_files(thumos / "features", 4)
    assert len(broken) == found(wrong)["wrong length"]
    assert wrong.splits[0].usable < 50
    again = check(thumos, "detector.in_channels=4", name="thumos_i3d")
    assert again.splits == checked.splits
    assert not broken_files(thumos / "features", 4)


def test_counts_are_compared_with_activitynets(shared, tmp_path):
    real = shared / "realdata" / "activitynet-1.3"
    (tmp_path / "features").mkdir()
    changes = (
        f"data.annotations={real / 'activity_net.v1-3.available.min.json'}",
        "data.blocked=[]",
    )
    checked = check(tmp_path, *changes, name="anet_tsp")
    assert [split[1:] for split in checked.splits] == [(10_024, 9_649, 0), (4_728, 4_728, 0)]
    counts = next(finding for finding in checked.findings if "counts differ" in finding.what)
    assert not counts.problem
    assert "9,649 videos" in counts.items[0]


# Videos


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in VIDEOS:
        film(folder / f"{name}.mp4", frames=30, fps=15, size=(16, 16))
    annotate(tmp_path / "annotations.json", dict.fromkeys(VIDEOS, 2.0))
    return tmp_path


@pytest.mark.slow
def test_videos_are_opened_and_listed(videos):
    checked = check_data(folder_settings(videos), progress=False)
    assert checked.sound, checked.as_text()
    files, how = read_manifest(videos / "videos")
    assert how == {"deep": False, "channels": None}
    assert files == checked.files
    file = files["clip_a.mp4"]
    assert (file.frames, file.duration, file.fps, file.short_side) == (30, 2.0, 15.0, 16)
    assert file.bytes == (videos / "videos" / "clip_a.mp4").stat().st_size


@pytest.mark.slow
def test_bad_videos_are_found(videos, monkeypatch):
    folder = videos / "videos"
    (folder / "clip_a.mp4").write_bytes(b"no video")
    film(folder / "clip_b.mp4", frames=150, fps=15, size=(16, 16))
    film(folder / "clip_c.mp4", frames=50, fps=25, size=(32, 32))
    monkeypatch.setattr(findings, "CONVERTED", (15, 16))
    monkeypatch.setattr(findings, "LENGTH_SECONDS", 1.0)
    checked = check_data(folder_settings(videos), progress=False)
    assert found(checked) == {
        "unusable files": 1,
        "videos not converted": 1,
        "wrong length": 1,
        "equal files under several names": 1,  # the other five
    }
    text = checked.as_text()
    assert "clip_a.mp4 cannot be read as a video" in text
    assert "clip_b.mp4: 10 s, annotated 2" in text
    assert "clip_c.mp4: 25 fps, short side 32" in text
    assert list(broken_files(folder)) == ["clip_a.mp4"]


@pytest.mark.slow
def test_videos_that_are_not_converted_are_counted_however_many(videos, monkeypatch):
    monkeypatch.setattr(findings, "CONVERTED", (15, 16))
    settings = folder_settings(videos)
    of_activitynet = settings.model_copy(update={"name": "e2e_anet_tsp"})
    folder = videos / "videos"
    for count, letters in ((3, "abc"), (6, "def"), (8, "gh")):
        for letter in letters:
            film(folder / f"clip_{letter}.mp4", frames=50, fps=25, size=(16, 16))
        own = {f.what: f for f in check_data(settings, progress=False).findings}
        ours = {f.what: f for f in check_data(of_activitynet, progress=False).findings}
        # Of one's own videos none need be converted, but then none may be.
        assert ("videos not converted" in own) == (count < 8)
        assert count == 8 or own["videos not converted"].problem == (count < 4)
        assert ours["videos not converted"].problem
        assert len(ours["videos not converted"].items) == count
        assert f"{8 - count} others have 15 fps" in ours["videos not converted"].remedy


@pytest.mark.slow
def test_a_file_whose_process_was_lost_is_opened_again(videos, monkeypatch):
    def late(function, items, **options):
        yield from (Outcome(item, None, "it took longer than 120 s") for item in items)

    settings = folder_settings(videos)
    with monkeypatch.context() as patch:
        patch.setattr(module, "in_processes", late)
        assert found(check_data(settings, progress=False))["unusable files"] == 8
    assert len(broken_files(videos / "videos")) == 8  # until then nobody else shall hang on them
    assert check_data(settings, progress=False).sound
    assert not broken_files(videos / "videos")


@pytest.mark.slow
def test_damage_inside_frames_is_found_by_a_deep_check(shared, tmp_path):
    (tmp_path / "videos").mkdir()
    shutil.copyfile(shared / "realdata/videos/corrupted.mp4", tmp_path / "videos/x.mp4")
    film(tmp_path / "videos/w.mp4")
    film(tmp_path / "videos/y.mp4", frames=90)
    annotate(tmp_path / "annotations.json", {"w": 2.0, "x": 5.0, "y": 3.0})
    settings = folder_settings(tmp_path)
    assert "damaged files" not in found(check_data(settings, progress=False))
    checked = check_data(settings, deep=True, progress=False)
    assert checked.sound
    assert found(checked) == {"damaged files": 1}
    assert "x.mp4: 1 of 50 frames cannot be decoded" in checked.as_text()


# The command


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["etadlite", "check-data", *map(str, arguments), "--quiet"])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, *capsys.readouterr()


def test_the_command_ends_with_1_where_something_needs_mending(root, monkeypatch, capsys):
    changes = (f"detector.in_channels={CHANNELS}",)
    code, out, _ = run(monkeypatch, capsys, root, *changes)
    assert (code, out.splitlines()[-1]) == (0, "the data are fit for training")
    (root / "features" / "clip_a.npy").unlink()
    code, out, _ = run(monkeypatch, capsys, root, *changes)
    assert (code, out.splitlines()[-1]) == (1, "the data need mending")
    of_preset = (f"data.annotations={root / 'annotations.json'}", "data.features=nowhere")
    code, _, err = run(monkeypatch, capsys, "stickfigures", *of_preset)
    assert code == 2
    assert "nowhere: there is no such folder" in err
    code, _, err = run(monkeypatch, capsys, root / "features")
    assert code == 2
    assert "no annotations.json beside" in err
    assert Path(manifest_file(root / "features")).exists()
