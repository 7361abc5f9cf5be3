"""Predicting videos of one's own: files and folders in, JSON, CSV, timelines and videos out."""

import csv
import json
import shutil
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from films import usable

from etadlite.base.errors import InputError
from etadlite.data.video import Video, VideoWarning, read_frames
from etadlite.data.video_folders import videos_in
from etadlite.inference.detect import predict_batches
from etadlite.inference.predict import predict
from etadlite.model.checkpoint import load_checkpoint, save_checkpoint
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.runs.predictions import _warn_of_length, longest_trained, predict_videos
from etadlite.stickfigures.dataset import write_video
from etadlite.training.loop import loader, open_split
from etadlite.viz.timeline import write_annotated


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of two seconds, not square, in which a white stripe moves from left to right."""
    path = tmp_path_factory.mktemp("clip") / "stripe.mp4"
    frames = np.zeros((30, 48, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 2 * number : 2 * number + 6] = 255
    write_video(path, frames)
    return path


def turned(source, target, degrees):
    """Copy a video, with a mark that it is to be shown rotated."""
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target


def uneven(source, target):
    """Copy a video; the frames of the second half are shown three times as long."""
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.dts is not None]
        now = 0
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, Fraction(1, 1500)
            packet.pts = packet.dts = now
            packet.duration = 100 if number < len(packets) // 2 else 300
            now += packet.duration
            container.mux(packet)
    return target


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode()]


# Files and folders


def test_a_folder_gives_its_videos_whatever_the_case_of_their_suffix(tmp_path):
    for name in ("b.MP4", "a.mov"):
        (tmp_path / name).touch()
    assert [path.name for path in videos_in(tmp_path).values()] == ["a.mov", "b.MP4"]
    (tmp_path / "a.mkv").touch()
    with pytest.raises(InputError, match=r"a\.mkv and .*a\.mov would have the same name"):
        videos_in(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no video file"):
        videos_in(tmp_path / "empty")


def test_an_error_names_a_broken_video_and_the_others_are_predicted(
    trained, tiny, clip, tmp_path, capsys
):
    videos = [tmp_path / "clip.mp4", tmp_path / "broken.mp4", tmp_path / "gone.mp4"]
    shutil.copy(clip, videos[0])
    videos[1].write_text("words")
    out, lines = tmp_path / "out", []
    with pytest.raises(InputError, match=r"2 of 3 videos could not be read: broken.mp4, gone.mp4"):
        predict_videos(
            videos, trained / "checkpoint.safetensors", out, log=lines.append, progress=False
        )
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in said] == [True, True]
    assert "broken.mp4 cannot be read" in said[0]
    assert len(lines) == 1
    assert sorted(path.name for path in out.iterdir()) == [
        *("clip.png", "clip.srt", "clip.vtt", "predictions.csv", "predictions.json"),
    ]
    results = json.loads((out / "predictions.json").read_text())["results"]
    with (out / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(results) == ["clip"]
    assert list(table[0]) == ["video", "start_s", "end_s", "label", "score"]
    assert len(table) == len(results["clip"]) > 0
    for row, item in zip(table, results["clip"], strict=True):
        assert (row["video"], row["label"]) == ("clip", item["label"])
        assert [float(row["start_s"]), float(row["end_s"])] == pytest.approx(
            item["segment"], abs=6e-4
        )
        assert float(row["score"]) == pytest.approx(item["score"], abs=6e-5)


def test_the_threshold_holds_in_every_file(trained, tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(tiny.data / "videos" / "validation_00000.mp4", tmp_path / "mine")
    (video,) = videos_in(tmp_path / "mine").values()
    options = {"progress": False, "threshold": 0.02}
    found = predict_videos([video.parent], trained / "checkpoint.safetensors", tmp_path, **options)
    assert list(found) == ["validation_00000"]
    everything = predict(video, *_system(trained, preset("e2e_stickfigures", tiny.assignments)))
    assert found["validation_00000"] == [d for d in everything if d["score"] >= 0.02]
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written == {"version": "etadlite 1", "results": found, "external_data": {}}


def test_results_never_land_among_the_videos(trained, clip, tmp_path):
    video = shutil.copy(clip, tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="is the folder of the videos"):
        predict_videos([video], trained / "checkpoint.safetensors", tmp_path, annotate=True)


def test_a_warning_names_a_video_that_is_longer_than_all_training_videos(
    trained, tiny, clip, tmp_path
):
    chosen = preset("e2e_stickfigures", tiny.assignments)
    assert 30 <= longest_trained(chosen) <= 31
    gone = [*tiny.assignments, f"data.annotations={tmp_path / 'gone.json'}"]
    assert longest_trained(preset("e2e_stickfigures", gone)) is None
    short = json.loads((tiny.data / "annotations.json").read_text())
    for entry in short["database"].values():
        entry.update(duration=1.0, annotations=[])
    (tmp_path / "short.json").write_text(json.dumps(short))
    settings = preset(
        "e2e_stickfigures", [*tiny.assignments, f"data.annotations={tmp_path / 'short.json'}"]
    )
    save_checkpoint(tmp_path / "c.safetensors", System(settings), settings)
    video = Video(clip)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_length(video, video.info.duration / 1.48, 16)
    with pytest.warns(VideoWarning, match="blur short actions"):
        _warn_of_length(video, video.info.duration / 1.52, 16)
    with pytest.warns(VideoWarning, match=r"lasts 2 s, the longest training video 1 s: its 16"):
        predict_videos([clip], tmp_path / "c.safetensors", tmp_path / "out", progress=False)


# Videos as cameras make them


def _system(trained, settings):
    return load_checkpoint(trained / "checkpoint.safetensors", settings), settings


@pytest.mark.parametrize(("degrees", "turns"), [(-90, -1), (90, 1), (180, 2)])
@pytest.mark.parametrize("decoder", ["pyav", "torchcodec"])
@pytest.mark.usefixtures("writes_rotation")
def test_a_video_stored_on_its_side_is_read_upright(clip, tmp_path, degrees, turns, decoder):
    if decoder == "torchcodec":
        usable(decoder)
    side = turned(clip, tmp_path / "side.mp4", degrees)
    size = (48, 64) if turns == 2 else (64, 48)
    upright = np.rot90(read_frames(clip, np.array([4, 20]), (48, 64)).numpy(), turns, axes=(2, 3))
    got = read_frames(side, np.array([4, 20]), size, decoder).numpy()
    assert np.abs(got.astype(int) - upright).mean() < 4


def test_detections_follow_the_clock_of_a_video_whose_rate_varies(trained, tiny, clip, tmp_path):
    system, settings = _system(trained, preset("e2e_stickfigures", tiny.assignments))
    slow = uneven(clip, tmp_path / "uneven.mkv")
    times = Video(slow).times
    np.testing.assert_allclose(
        times[:-1], [*np.arange(15) / 15, *(1 + np.arange(15) / 5)], atol=1e-3
    )
    np.testing.assert_allclose(Video(clip).times, np.arange(31) / 15, atol=1e-9)
    # The same film at a constant rate: every picture of the slow half three times.
    even = [*range(15), *np.repeat(np.arange(15, 30), 3)]
    (shown,) = Video(slow).snippets(1, 60, (48, 64), rule="ends").transpose(1, 2)
    wanted = read_frames(clip, np.array(even), (48, 64))
    mean = Video(slow).info.fps
    moments = (np.arange(30) + 0.5) / mean
    assert torch.equal(shown[:30], wanted[(moments * 15).astype(int)])
    found = predict(slow, system, settings)
    assert len(found) > 10
    assert max(item["segment"][1] for item in found) <= 4.0 + 1e-3


def test_predicting_reads_the_same_windows_as_testing(tiny, tmp_path):
    settings = preset(
        "e2e_stickfigures",
        [
            *tiny.assignments,
            *("data.cache=null", "data.window_stride=16", "data.window_offset=4"),
            *("training.batch_size=1", "data.frames=4"),
        ],
    )
    torch.manual_seed(0)
    system = System(settings)
    batches = loader(open_split(settings, training=False), settings, training=False)
    tested = predict_batches(system, batches, settings, progress=False)
    found = predict(tiny.data / "videos" / "validation_00000.mp4", system, settings)
    (expected,) = tested["results"].values()
    assert len(found) == len(expected) > 10
    for key in ("segment", "score"):
        np.testing.assert_allclose(
            [item[key] for item in found], [item[key] for item in expected], atol=0.02
        )


# Annotated videos


def test_an_annotated_video_keeps_every_frame_and_shows_what_is_detected_now(clip, tmp_path):
    detections = [
        {"segment": [0.0, 0.8], "label": "one", "score": 0.9},
        {"segment": [0.5, 1.5], "label": "two", "score": 0.4},
    ]
    path = write_annotated(Video(clip), tmp_path / "shown.mp4", detections, ["one", "two"])
    plain = decoded(write_annotated(Video(clip), tmp_path / "plain.mp4", []))
    shown, given = decoded(path), decoded(clip)
    assert [time for time, _ in shown] == pytest.approx([time for time, _ in given], abs=1e-4)
    height, width = plain[0][1].shape[:2]
    assert (width, height > 240) == (320, True)  # five times as large, and the bar
    boxes = [
        [
            np.abs(a[top : top + 12, 6:40].astype(int) - b[top : top + 12, 6:40]).mean() > 30
            for top in (8, 30)
        ]
        for (_, a), (_, b) in zip(shown, plain, strict=True)
    ]
    count = [sum(pair) for pair in boxes]
    assert count[3:6] == [1] * 3  # one alone
    assert count[9:11] == [2] * 2  # both
    assert count[14:21] == [1] * 7
    assert count[24:] == [0] * 6
    bar = shown[5][1][246:250, 60:110].astype(int)
    assert np.abs(bar - [0, 114, 178]).mean() < 25  # the first class's blue


@pytest.mark.usefixtures("writes_rotation")
def test_an_annotated_video_is_turned_upright_and_keeps_uneven_times(clip, tmp_path):
    side = turned(clip, tmp_path / "side.mp4", -90)
    (_, first), *_ = decoded(write_annotated(Video(side), tmp_path / "a.mp4", []))
    assert first.shape[0] > first.shape[1] == 240
    slow = uneven(clip, tmp_path / "uneven.mkv")
    times = [time for time, _ in decoded(write_annotated(Video(slow), tmp_path / "b.mp4", []))]
    np.testing.assert_allclose(times, Video(slow).times[:-1], atol=2e-3)
