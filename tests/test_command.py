"""The `etadlite` command: every verb, and one clear sentence for everything that can go wrong."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from etadlite import __version__
from etadlite.cli import main
from etadlite.presets import preset
from etadlite.runs import demo
from etadlite.runs.run import run_training
from etadlite.stickfigures import dataset
from etadlite.stickfigures.dataset import Size, write_video


def refused(result, *words):
    """Check that a run ended with exit code 2 and one sentence that contains the words."""
    code, out, err = result
    assert code == 2, (out, err)
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    return True


def e2e(tiny, *changes):
    return ("e2e_stickfigures", *tiny.assignments, *changes, "--quiet")


def on_features(tiny, *changes):
    return ("stickfigures", *tiny.on_features, *changes, "--quiet")


# Every verb


def test_train_then_test_and_predict(tiny, tmp_path, etadlite):
    code, out, err = etadlite("train", *e2e(tiny), "--out", tmp_path)
    assert (code, err) == (0, "")
    run = tmp_path / "e2e_stickfigures" / "001"
    assert out.splitlines()[0].split()[:2] == ["system", "mAP@0.3"]
    assert out.splitlines()[-1] == f"run: {run}"
    report = json.loads((run / "report.json").read_text())

    code, out, err = etadlite("test", *e2e(tiny), "--checkpoint", run / "checkpoint.safetensors")
    assert (code, err) == (0, "")
    assert f"average   {100 * report['average_mAP']:5.1f}" in out
    again = json.loads((run / "test" / "predictions.json").read_text())
    assert again == json.loads((run / "predictions.json").read_text())

    video = tiny.data / "videos" / "validation_00000.mp4"
    checkpoint = run / "checkpoint.safetensors"
    code, out, err = etadlite(
        "predict", video, "--checkpoint", checkpoint, "--out", tmp_path / "predicted"
    )
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "predicted" / "predictions.json").read_text())
    best = found["results"]["validation_00000"][0]
    assert f"{best['segment'][0]:.2f} s - " in out.splitlines()[1]
    assert best["label"] in out.splitlines()[1]


REAL_CLIPS = {
    "arm_wrestling.mp4": "",
    "flipping_a_pancake.mkv": "",
    "test.mp4": "",
    "corrupted.mp4": "1 of 50 frames cannot be decoded",
}


@pytest.mark.parametrize("name", REAL_CLIPS)
def test_real_clips_give_detections_and_a_timeline(shared, trained, tmp_path, etadlite, name):
    video, damage = shared / "realdata" / "videos" / name, REAL_CLIPS[name]
    code, out, err = etadlite(
        "predict", video, "--checkpoint", trained / "checkpoint.safetensors", "--out", tmp_path
    )
    assert code == 0
    assert len(err.splitlines()) == bool(damage)  # it is said once
    assert not damage or (err.startswith("warning: ") and damage in err)
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert list(predictions) == ["version", "results", "external_data"]
    found = predictions["results"][video.stem]
    assert len(found) > 0
    with av.open(str(video)) as container:
        length = float(container.duration / av.time_base)
    for item in found:
        assert 0 <= item["segment"][0] < item["segment"][1] <= length + 0.2
        assert 0 <= item["score"] <= 1
    assert f"{len(found)} detections" in out
    with Image.open(tmp_path / f"{video.stem}.png") as picture:
        assert picture.width > 800
        assert np.asarray(picture.convert("RGB")).std() > 20


def test_extract_writes_the_features_that_training_reads(tiny, tmp_path, etadlite):
    folder = tmp_path / "features"
    arguments = on_features(tiny, f"data.features={folder}")
    code, out, _ = etadlite("extract", *arguments)
    assert (code, out) == (0, f"3 feature files written to {folder}\n")
    assert np.load(folder / "validation_00000.npy").shape == (16, 48)
    assert etadlite("extract", *arguments)[1].startswith("0 feature files")
    assert etadlite("train", *arguments, "--out", tmp_path / "runs")[0] == 0


def test_make_data_writes_videos_and_annotations(tmp_path, monkeypatch, etadlite):
    monkeypatch.setitem(dataset.SIZES, "smoke", Size(1, 1, longest=31, pixels=32))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    code, out, _ = etadlite("make-data", tmp_path / "data", "--size", "smoke", "--quiet")
    assert (code, out.strip()) == (0, str(tmp_path / "data" / "annotations.json"))
    database = json.loads((tmp_path / "data" / "annotations.json").read_text())["database"]
    assert sorted(database) == ["training_00000", "validation_00000"]
    assert refused(
        etadlite("make-data", tmp_path / "data", "--seed", 1, "--quiet"), "made with other settings"
    )


@pytest.mark.slow
def test_demo_compares_three_systems_and_draws_them(tiny, tmp_path, monkeypatch, etadlite):
    def copied(root, size, **options):
        shutil.copytree(tiny.data, root, dirs_exist_ok=True)

    monkeypatch.setattr(demo, "make_dataset", copied)
    own = [a for a in tiny.assignments if not a.startswith(("data.a", "data.v", "data.ca"))]
    changes = [part for a in (*own, "data.feature_views=1") for part in ("--set", a)]
    code, out, err = etadlite("demo", "--out", tmp_path, "--seeds", 2, "--quiet", *changes)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    rows = lines[lines.index("") + 3 :][:3]
    assert [row.split("  ")[0] for row in rows] == list(demo.SYSTEMS)
    assert all(row.count("±") == 6 for row in rows)
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["curves.png", "timeline_validation_00000.png"]
    configs = [json.loads(path.read_text()) for path in tmp_path.rglob("config.json")]
    assert len(configs) == 6
    ratios = {(c["name"], c["sampling"]["snippet_ratio"]) for c in configs}
    assert {("e2e_stickfigures", 0.3), ("e2e_stickfigures", 1.0)} < ratios
    assert {c["seed"] for c in configs} == {0, 1}


def test_doctor_prints_ok_or_what_to_do(etadlite, monkeypatch):
    code, out, _ = etadlite("doctor")
    lines = out.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"etadlite", "Python", "torch", "device", "memory", "PyAV", "decord", "disk"} <= set(
        names
    )
    assert __version__ in lines[0]
    assert code == (0 if all(line.endswith(" OK") for line in lines) else 1)

    full = shutil._ntuple_diskusage(100, 100, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    monkeypatch.setattr("etadlite.prepare.doctor.free_memory", lambda: 2**29)
    code, out, _ = etadlite("doctor")
    assert code == 1
    assert "0.5 GiB free" in out
    assert "a notebook needs 1 GiB" in out
    assert "0.0 GiB free" in out
    assert "free 3 GiB for generated videos" in out


def test_doctor_notices_a_broken_decoder_and_an_absent_package(etadlite, monkeypatch):
    def broken(*arguments):
        raise OSError("no codec")

    monkeypatch.setattr("etadlite.prepare.doctor.write_video", broken)
    version = importlib.metadata.version

    def without_papermill(name):
        if name == "papermill":
            raise importlib.metadata.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_papermill)
    code, out, _ = etadlite("doctor")
    assert code == 1
    assert "failed: no codec" in out
    assert "pip install --force-reinstall av" in out
    assert "pip install papermill" in out


def test_help_lists_every_verb_and_a_wrong_option_is_refused(etadlite):
    code, out, _ = etadlite("--help")
    assert code == 0
    for verb in ("demo", "make-data", "extract", "train", "test", "predict", "doctor"):
        assert verb in out
    assert etadlite("train", "e2e_stickfigures", "--epochs", 3)[0] == 2
    assert etadlite("trian", "e2e_stickfigures")[0] == 2
    assert etadlite("predict", "a.mp4")[0] == 2  # no checkpoint
    assert etadlite("make-data", "--seed", -1)[0] == 2
    assert etadlite("demo", "--seeds", 0)[0] == 2


def test_the_command_is_installed_under_its_name():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="etadlite")
    assert entry.load() is main


@pytest.mark.slow
def test_a_process_of_the_command_ends_with_code_2_and_without_a_traceback(trained, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("a film of words\n" * 100)
    checkpoint = trained / "checkpoint.safetensors"
    ended = subprocess.run(
        [sys.executable, "-m", "etadlite", "predict", text, "--checkpoint", checkpoint],
        capture_output=True,
        text=True,
        timeout=600,  # against a hang; on a busy machine the imports alone take a minute
        cwd=tmp_path,
        check=False,
    )
    assert refused((ended.returncode, ended.stdout, ended.stderr), "text.mp4 cannot be read")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.mp4"]


# Bad videos


def frames(count):
    return np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)


def only_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def cut_off(path):
    write_video(path, frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_VIDEOS = {
    "missing": (lambda path: None, "there is no such video file"),
    "folder": (lambda path: path.mkdir(), "holds no video file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("words\n" * 200), "cannot be read as a video"),
    "sound": (only_sound, "holds no pictures that move, only sound, text or a cover"),
    "one_frame": (lambda path: write_video(path, frames(1)), "a video needs at least two"),
    "cut_off": (cut_off, "cannot be read as a video"),
}


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_a_bad_video_is_refused(trained, tmp_path, etadlite, name):
    make, words = BAD_VIDEOS[name]
    video = tmp_path / f"{name}.mp4"
    make(video)
    result = etadlite(
        *("predict", video, "--checkpoint", trained / "checkpoint.safetensors"),
        *("--out", tmp_path / "out"),
    )
    assert refused(result, f"{name}.mp4", words)
    assert not (tmp_path / "out").exists()


def test_a_video_whose_pictures_are_cut_off_is_used_up_to_that_point(trained, tmp_path, etadlite):
    video = tmp_path / "cut.mkv"
    whole = tmp_path / "whole.mp4"
    write_video(whole, frames(300))
    with av.open(str(whole)) as source, av.open(str(video), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    code, out, err = etadlite(
        *("predict", video, "--checkpoint", trained / "checkpoint.safetensors"),
        *("--out", tmp_path / "out"),
    )
    assert code == 0
    assert "detections" in out
    assert len(err.splitlines()) == 1
    assert "cut.mkv: " in err
    assert "the file announces 20.0 s but ends after" in err
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())["results"]["cut"]
    assert 5 < max(item["segment"][1] for item in found) < 15


# Bad checkpoints and outputs


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no such weights file"),
        (lambda path: path.touch(), "not a complete safetensors file"),
        (lambda path: path.write_text("weights"), "not a complete safetensors file"),
        (lambda path: path.mkdir(), "there is no such weights file"),
    ],
)
def test_a_bad_checkpoint_is_refused(tiny, tmp_path, etadlite, make, words):
    path = tmp_path / "bad.safetensors"
    make(path)
    video = tiny.data / "videos" / "validation_00000.mp4"
    assert refused(etadlite("predict", video, "--checkpoint", path), "bad.safetensors", words)
    assert refused(etadlite("test", *e2e(tiny), "--checkpoint", path), "bad.safetensors", words)


def test_a_checkpoint_of_another_config_is_refused(tiny, trained, etadlite):
    checkpoint = trained / "checkpoint.safetensors"
    assert refused(
        etadlite("test", *e2e(tiny, "detector.width=64"), "--checkpoint", checkpoint),
        "is a checkpoint of another config: detector.width is 32 there and 64 here",
    )
    assert refused(
        etadlite("test", *on_features(tiny), "--checkpoint", checkpoint), "features here"
    )


def test_a_checkpoint_on_features_does_not_predict_videos(tiny, tmp_path, etadlite):
    run_training(preset("stickfigures", tiny.on_features), tmp_path, progress=False)
    video = tiny.data / "videos" / "validation_00000.mp4"
    result = etadlite("predict", video, "--checkpoint", tmp_path / "checkpoint.safetensors")
    assert refused(result, "was trained on stored features", "e2e_stickfigures")


def test_the_error_for_an_unwritable_output_is_one_sentence(tiny, trained, tmp_path, etadlite):
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "runs"
    assert refused(etadlite("train", *on_features(tiny), "--out", target), "file", "directory")
    assert refused(etadlite("make-data", target, "--quiet"), "file", "directory")


def test_each_process_reports_a_full_disk_with_the_file(tiny, tmp_path, etadlite, monkeypatch):
    out = tmp_path / "features"
    arguments = ("e2e_stickfigures", f"data.videos={tiny.data / 'videos'}", "data.workers=0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, name in (("0", "manifest.json"), ("1", "training_00001.npy")):
        monkeypatch.setenv("RANK", rank)
        out.mkdir(exist_ok=True)
        stem, _, suffix = name.partition(".")
        (out / f"{stem}.{os.getpid()}.part.{suffix}").symlink_to("/dev/full")
        result = etadlite(
            "extract", *arguments, "data.workers=0", "--stride", 64, "--out", out, "--quiet"
        )
        assert refused(result, f"{name}: No space left on device; make room and run it again")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_lack_of_memory_anywhere_is_one_sentence(etadlite, tiny, monkeypatch, error):
    def lacking(*arguments, **options):
        raise error

    monkeypatch.setattr("etadlite.prepare.check.check_data", lacking)
    code, _, err = etadlite("check-data", *on_features(tiny))
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: memory ran out")


# Bad settings and data


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "e2e_stickfigure"], 'there is no preset "e2e_stickfigure"; did you mean'),
        (["extract", "stikfigures"], 'did you mean "stickfigures"'),
        (["train", "stickfigures", "training.epochz=3"], 'did you mean "training.epochs"'),
        (["train", "stickfigures", "training.epochs=many"], "training.epochs = 'many' does not"),
        (["train", "stickfigures", "training.epochs"], "is no assignment; write section.key="),
        (["train", "stickfigures", "data.annotations=no.json"], "no such annotation file"),
        (["extract", "e2e_stickfigures"], "needs both data.videos and data.features"),
        (["demo", "--set", "epochs=3"], "no setting"),
        (["demo", "--size", "huge"], "huge"),
        (["make-data", "--size", "huge"], "smoke, laptop, large"),
    ],
)
def test_bad_settings_are_refused(tmp_path, monkeypatch, etadlite, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "make_dataset", _only_check_the_size)
    assert refused(etadlite(*arguments), words)


def _only_check_the_size(root, size, **options):
    dataset.as_size(size)


def test_a_missing_device_is_refused(tiny, tmp_path, etadlite):
    missing = "mps" if torch.cuda.is_available() else "cuda"
    words = f"there is no {missing} device here; use device=cpu or device=auto"
    change = f"device={missing}"
    features = on_features(tiny, change)
    assert refused(etadlite("train", *features, "--out", tmp_path), words)
    assert refused(etadlite("extract", *features, f"data.features={tmp_path}/f"), words)


def annotations(tiny, tmp_path, change):
    content = json.loads((tiny.data / "annotations.json").read_text())
    change(content["database"])
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    return f"data.annotations={tmp_path / 'wrong.json'}"


def first_action(database, name="training_00000"):
    return database[name]["annotations"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda data: first_action(data).update(segment=[9.0, 5.0]),
            ["training_00000, annotation 0", "ends at 5.0 s, before it starts at 9.0 s"],
        ),
        (
            lambda data: first_action(data).update(segment=[20.0, 99.0]),
            ["training_00000, annotation 0", "lies beyond the video's end"],
        ),
        (
            lambda data: first_action(data, "validation_00000").update(segment=[20.0, 99.0]),
            ["validation_00000, annotation 0", "lies beyond the video's end"],
        ),
        (
            lambda data: first_action(data).update(label="somersault"),
            ["training_00000, annotation 0", 'the label "somersault"', "8 known classes"],
        ),
        (
            lambda data: [data.pop("training_00000"), data.pop("training_00001")],
            ['no videos in the subset "training"', "choose one of validation"],
        ),
        (
            lambda data: data.pop("validation_00000"),
            ['no videos in the subset "validation"'],
        ),
        (lambda data: data.clear(), ["its database is empty"]),
    ],
)
def test_wrong_annotations_are_refused(tiny, tmp_path, etadlite, change, words):
    wrong = annotations(tiny, tmp_path, change)
    for arguments in (e2e(tiny, wrong), on_features(tiny, wrong)):
        result = etadlite("train", *arguments, "--out", tmp_path)
        assert refused(result, "wrong.json", *words)


def test_test_videos_without_any_action_are_refused_before_the_training(tiny, tmp_path, etadlite):
    wrong = annotations(
        tiny, tmp_path, lambda data: data["validation_00000"].update(annotations=[])
    )
    result = etadlite("train", *on_features(tiny, wrong), "--out", tmp_path / "runs")
    assert refused(result, "wrong.json", "no annotated action")
    assert not (tmp_path / "runs").exists()


BAD_FEATURES = {
    "width": (lambda path: np.save(path, np.zeros((16, 7))), "has shape [16, 7], expected"),
    "transposed": (lambda path: np.save(path, np.zeros((48, 16))), "it looks transposed"),
    "missing": (lambda path: path.unlink(), "1 of the 2 videos in the subset training have no"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", BAD_FEATURES)
def test_bad_features_are_refused(tiny, tmp_path, etadlite, name, workers):
    change, words = BAD_FEATURES[name]
    shutil.copytree(tiny.features, tmp_path / "features")
    change(tmp_path / "features" / "training_00001.npy")
    arguments = on_features(
        tiny, f"data.features={tmp_path / 'features'}", f"data.workers={workers}"
    )
    result = etadlite("train", *arguments, "--out", tmp_path)
    assert refused(result, "training_00001", words)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_training_video_is_refused(tiny, tmp_path, etadlite, workers):
    shutil.copytree(tiny.data / "videos", tmp_path / "videos")
    cut_off(tmp_path / "videos" / "training_00001.mp4")
    arguments = e2e(
        *(tiny, f"data.videos={tmp_path / 'videos'}"),
        *("data.cache=null", f"data.workers={workers}"),
    )
    result = etadlite("train", *arguments, "--out", tmp_path)
    assert refused(result, "training_00001.mp4 cannot be read as a video")


def test_a_missing_training_video_is_refused(tiny, tmp_path, etadlite):
    (tmp_path / "videos").mkdir()
    arguments = e2e(tiny, f"data.videos={tmp_path / 'videos'}")
    result = etadlite("train", *arguments, "--out", tmp_path)
    assert refused(result, "2 of the 2 videos in the subset training have no file in")
