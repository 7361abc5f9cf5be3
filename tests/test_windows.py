"""Windows of long videos: the published cut, its properties, and what a data set reads of them."""

import json
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.config import DataSettings, InferenceSettings
from etadlite.data import windows
from etadlite.data.annotations import NOT_A_CLASS, read_annotations
from etadlite.data.datasets import collate
from etadlite.data.loading import open_dataset
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import Video
from etadlite.data.windows import (
    FrameAction,
    Window,
    action_frames,
    actions_inside,
    windows_of,
)
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.inference.detect import detections_of
from etadlite.inference.merge import merge_windows
from etadlite.presets import preset
from etadlite.stickfigures.dataset import write_video

# Against OpenTAD


@pytest.mark.parametrize(("part", "subset"), [("train", "training"), ("test", "validation")])
def test_windows_and_their_actions_are_those_of_opentad(shared, part, subset):
    published = json.loads((shared / "parity" / "thumos14_windows.json").read_text())
    given = published["settings"]
    cut = {
        "size": given["window_size"],
        "stride": given["feature_stride"],
        "overlap": given["window_overlap_ratio"],
    }
    path = shared / "realdata" / "thumos-14" / "thumos_14_anno.json"
    videos = read_annotations(path, subset, ignore=NOT_A_CLASS, as_published=True)
    ours = []
    for video in videos.values():
        actions = action_frames(video)
        for window in windows_of(video.frames, **cut):
            entry = {"video": video.name, **window._asdict()}
            if part == "train":
                kept = actions_inside(actions, window, given["train_ioa_thresh"])
                entry["gt_frames"] = [[action.start, action.end] for action in kept]
            if entry.get("gt_frames") != []:
                ours.append(entry)
    assert len(ours) == published["totals"][part]["windows"]
    assert len({entry["video"] for entry in ours}) == published["totals"][part]["videos"]
    names = {entry["video"] for entry in published["windows"][part]}
    assert [entry for entry in ours if entry["video"] in names] == published["windows"][part]


# Properties


@settings(deadline=None)
@given(
    frames=st.integers(1, 3000),
    size=st.integers(2, 140),
    stride=st.integers(1, 8),
    overlap=st.sampled_from([0.5, 0.6, 0.75, 0.9]),
)
def test_windows_cover_every_snippet_and_are_as_long_as_the_video_allows(
    frames, size, stride, overlap
):
    if int(size * (1 - overlap)) < 1:
        return
    starts = range(0, frames, stride)
    windows = windows_of(frames, size=size, stride=stride, overlap=overlap)
    covered = set()
    for window in windows:
        assert window.snippets == min(size, len(starts))
        inside = range(window.first_frame, window.last_frame + 1, stride)
        assert len(inside) == window.snippets
        covered.update(inside)
    assert covered == set(starts)
    firsts = [window.first_frame for window in windows]
    assert firsts == sorted(firsts)


def test_a_short_video_is_one_short_window_and_a_multiple_of_the_step_ends_twice():
    assert windows_of(9, size=8, stride=4) == [Window(0, 8, 3)]
    assert windows_of(16, size=8, stride=1) == [
        Window(0, 7, 8),
        Window(4, 11, 8),
        Window(8, 15, 8),
        Window(8, 15, 8),
    ]


def test_an_action_is_kept_above_the_share_and_cut():
    window = Window(100, 200, 26)
    actions = [
        FrameAction(90, 190, "exactly 0.9"),
        FrameAction(91, 191, "above"),
        FrameAction(150, 150, "empty"),
        FrameAction(191, 201, "0.9 at the end"),
        FrameAction(180, 201, "above at the end"),
        FrameAction(10, 90, "before"),
    ]
    assert actions_inside(actions, window, 0.9) == [
        FrameAction(100, 191, "above"),
        FrameAction(180, 200, "above at the end"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "at least one frame"),
        ({"stride": 0}, "at least one frame"),
        ({"overlap": 0.25}, "cannot overlap by 0.25"),
        ({"overlap": 0.99}, "cannot overlap by 0.99"),
    ],
)
def test_senseless_windows_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        windows_of(**{"frames": 100, "size": 8, "stride": 4} | change)


# The data set

FPS, STRIDE, OFFSET, CHANNELS = 25, 4, 8, 3
SIDE = (32, 32)


@pytest.fixture
def folder(tmp_path):
    """Two videos of 40 and 12 snippets whose features count the snippets; windows of 16."""
    database = {}
    for name, subset, snippets in (("a", "training", 40), ("b", "validation", 12)):
        database[name] = {
            "subset": subset,
            "duration": snippets * STRIDE / FPS,
            "frame": snippets * STRIDE,
            "annotations": [
                {"segment": [0.8, 1.6], "label": "jump"},
                {"segment": [0.8, 1.6], "label": "Ambiguous"},
                {"segment": [50, 51], "label": "run"},  # behind the end, as in THUMOS-14
            ],
        }
        features = np.repeat(np.arange(snippets, dtype="float32")[:, None], CHANNELS, axis=1)
        (tmp_path / "features").mkdir(exist_ok=True)
        np.save(tmp_path / "features" / f"{name}.npy", features)
    (tmp_path / "annotations.json").write_text(json.dumps({"database": database}))
    return tmp_path


def window_data(folder, *, training=True, **changes):
    given = {
        "annotations": folder / "annotations.json",
        "features": folder / "features",
        "snippets": 16,
        "window_stride": STRIDE,
        "window_offset": OFFSET,
        "as_published": True,
    }
    chosen = DataSettings(**given | changes)
    return open_dataset(chosen, ("run", "jump"), CHANNELS, training=training)


@pytest.fixture
def video_folder(folder):
    """The same two videos as files."""
    for name, frames in (("a", 160), ("b", 48)):
        numbered_video(folder / f"{name}.mp4", frames)
    return folder


def numbered_video(path, frames, rate=FPS):
    """Frame k shows k, as eight black or white stripes."""
    stripes = (np.arange(frames)[:, None] >> np.arange(8) & 1).astype("uint8") * 255
    pictures = stripes[:, None, :, None].repeat(32, 1).repeat(4, 2).repeat(3, 3)
    write_video(path, pictures, Fraction(rate))


def numbers(frames):
    """The numbers that frames [N, 3, F, H, W] show."""
    stripes = frames.float().mean((1, 3)).unflatten(-1, (8, 4))[..., 1:3].mean(-1) > 127
    return (stripes.long() << torch.arange(8)).sum(-1).numpy()


def video_windows(folder, *, training=True, cut=None, **changes):
    given = {"features": None, "videos": folder, "decode_size": SIDE, "frames": 5, "crop": 32}
    data = window_data(folder, training=training, **given | {"frame_step": 2} | changes)
    if cut:
        data.cut = cut
    return data


def test_a_window_has_its_features_and_its_actions_in_cells(folder):
    data = window_data(folder)
    # The action, frames 20 to 40, lies in the first window and partly in the second, from frame 32.
    assert [part.window.first_frame for part in data.parts] == [0]
    sample = data[0]
    assert sample.inputs.shape == (CHANNELS, 16)
    assert sample.inputs[0].tolist() == list(range(16))
    torch.testing.assert_close(sample.actions, torch.tensor([[3.0, 8.0]]))  # (20 - 8) / 4
    assert sample.labels.tolist() == [1]
    torch.testing.assert_close(sample.grid.to_seconds(sample.actions), torch.tensor([[0.8, 1.6]]))
    assert sample.duration == 6.4


def test_in_test_every_window_is_there_and_a_short_one_ends_with_zeros(folder):
    data = window_data(folder, training=False)
    assert len(data) == 1
    assert data[0].inputs[0].tolist() == [*range(12), 0, 0, 0, 0]
    every = window_data(folder, training=False, test_subset="training")
    assert [int(every[i].inputs[0, 0]) for i in range(len(every))] == [0, 8, 16, 24, 24]
    batch = collate([every[0], every[1]])
    assert batch.names == ["a", "a"]
    assert batch.durations == [6.4, 6.4]


def test_a_file_that_ends_some_features_early_is_filled_up(folder):
    np.save(folder / "features" / "b.npy", np.ones((9, CHANNELS)))
    assert window_data(folder, training=False)[0].inputs.sum() == 9 * CHANNELS


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((CHANNELS, 40), r"a\.npy has shape \[3, 40\], expected \[T, 3\]; it looks transposed"),
        ((20, CHANNELS), "a.npy has 20 features, but a video of 160 frames has about 40"),
        ((80, CHANNELS), "a.npy has 80 features"),
        ((0, CHANNELS), "a.npy"),
    ],
)
def test_features_of_another_shape_or_stride_are_refused(folder, shape, message):
    np.save(folder / "features" / "a.npy", np.zeros(shape))
    with pytest.raises(InputError, match=message):
        window_data(folder)[0]


def test_values_that_are_not_finite_are_refused(folder):
    np.save(folder / "features" / "a.npy", np.full((40, CHANNELS), np.nan))
    with pytest.raises(InputError, match="a.npy holds values that are not finite"):
        window_data(folder)[0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [(None, 'video a: windows need its "duration"'), (1.5, 'video a: "frame" must be its number')],
)
def test_windows_need_the_number_of_frames(folder, frame, message):
    tree = json.loads((folder / "annotations.json").read_text())
    tree["database"]["a"]["frame"] = frame
    (folder / "annotations.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=message):
        window_data(folder)


def test_training_without_a_window_is_refused(folder):
    with pytest.raises(InputError, match="no window of 4 snippets holds a whole action"):
        window_data(folder, snippets=4)


# Windows of videos


def test_a_window_of_a_video_holds_the_frames_of_its_snippets(video_folder):
    data = video_windows(video_folder, cut=lambda frames: frames)
    assert [part.window.first_frame for part in data.parts] == [0]
    shown = data[0].inputs
    assert shown.shape == (16, 3, 5, *SIDE)
    expected = np.arange(16)[:, None] * STRIDE + np.arange(5) * 2
    assert (numbers(shown) == expected).all()
    torch.testing.assert_close(data[0].actions, torch.tensor([[3.0, 8.0]]))


def test_what_lies_behind_the_end_repeats_the_last_frame(video_folder):
    data = video_windows(video_folder, training=False, cut=lambda frames: frames)
    assert (len(data), data[0].name) == (1, "b")
    expected = (np.arange(16)[:, None] * STRIDE + np.arange(5) * 2).clip(0, 47)
    assert (numbers(data[0].inputs) == expected).all()


def test_a_video_converted_to_half_the_rate_is_read_at_the_same_moments(video_folder):
    numbered_video(video_folder / "a.mp4", 80, rate=FPS / 2)
    shown = video_windows(video_folder, cut=lambda frames: frames)[0].inputs
    expected = np.arange(16)[:, None] * STRIDE // 2 + np.arange(5)
    assert (numbers(shown) == expected).all()


def test_frames_that_snippets_share_are_decoded_once_and_augmented_alike(video_folder, monkeypatch):
    asked, read = [], Video.frames

    def spy(video, indices, size, **how):
        asked.append(indices)
        return read(video, indices, size, **how)

    monkeypatch.setattr(Video, "frames", spy)
    data = video_windows(video_folder, crop=24, jitter=0.5)
    shown = data[0].inputs
    assert shown.shape == (16, 3, 5, 24, 24)
    (indices,) = asked
    assert len(indices) == len(set(indices.tolist())) == 35
    for later in (1, 2):  # at a stride of two steps snippets share all frames but two
        assert torch.equal(shown[0, :, 2 * later :], shown[later, :, : 5 - 2 * later])


@pytest.mark.parametrize("seconds", [4.0, 9.0])
def test_a_video_of_another_length_than_annotated_is_refused(video_folder, seconds):
    numbered_video(video_folder / "a.mp4", round(seconds * FPS))
    with pytest.raises(InputError, match=rf"a\.mp4 lasts {seconds} s, but 6.4 s by .*\.json"):
        video_windows(video_folder)[0]


@pytest.mark.parametrize(("seconds", "refused"), [(6.5, False), (6.55, True), (6.25, True)])
def test_of_a_long_video_2_percent_may_differ(video_folder, monkeypatch, seconds, refused):
    monkeypatch.setattr(windows, "TOLERANCE", 0.0)  # as it hardly counts for a long one
    numbered_video(video_folder / "a.mp4", 64, rate=Fraction(64) / Fraction(str(seconds)))
    with pytest.raises(InputError, match="lasts") if refused else nullcontext():
        video_windows(video_folder)[0]


def test_windows_of_videos_have_no_cache(video_folder):
    with pytest.raises(InputError, match=r"data\.cache keeps whole videos"):
        video_windows(video_folder, cache=video_folder / "cache")


# Detections in windows, and bringing them together


@pytest.mark.parametrize(("stride", "start"), [(4, 100), (None, 108)])
def test_a_window_is_not_cut_at_its_ends_and_every_segment_gets_the_given_classes(stride, start):
    chosen = preset("thumos_i3d", ["data.snippets=8", f"data.window_stride={json.dumps(stride)}"])
    stage = StageOutput(
        torch.tensor([[[-2.0, 4.0]]]),
        torch.full((1, 1, 2), 0.9),
        torch.zeros(1, 1, 4),
        torch.zeros(1, 1, 2),
    )
    output = DetectorOutput(torch.ones(1, 2, 8), [stage], None)
    grid = TimeGrid.window(100, 8, 4, FPS, OFFSET)
    classes = [("Diving", 0.5), ("HighJump", 0.2)]
    (found,) = detections_of(output, [grid], chosen, [classes])
    for item, (label, score) in zip(found, classes, strict=True):
        assert item["label"] == label
        assert item["score"] == pytest.approx(0.81 * score)
        assert item["segment"] == pytest.approx([start / FPS, (100 + 8 + 16) / FPS])


def merged(found, **changes):
    chosen = InferenceSettings(**{"nms_sigma": 0.3, "max_detections": 200} | changes)
    return merge_windows(found, 100.0, chosen)


def detection(start, end, score, label="run"):
    return {"segment": [start, end], "label": label, "score": score}


def test_the_same_detection_of_two_windows_is_suppressed_whatever_its_label():
    found = merged([detection(10, 20, 0.8), detection(10, 20, 0.9, "jump"), detection(50, 60, 0.5)])
    assert [(d["segment"], d["label"]) for d in found] == [
        ([10, 20], "jump"),
        ([50, 60], "run"),
        ([10, 20], "run"),
    ]
    expected = [0.9, 0.5, 0.8 * np.exp(-1 / 0.3)]
    assert [d["score"] for d in found] == pytest.approx(expected, rel=1e-5)


def test_detections_are_cut_to_the_video_and_lost_outside_it():
    found = merged([detection(-5, 10, 0.9), detection(90, 120, 0.8), detection(101, 130, 0.7)])
    assert [d["segment"] for d in found] == [[0, 10], [90, 100]]
    assert merged([detection(101, 130, 0.7)]) == []
    assert merged([]) == []


def test_close_detections_vote_and_low_or_many_ones_go():
    pair = [detection(10, 20, 0.6), detection(10.2, 20, 0.3)]
    assert merged(pair, nms_voting=0.95)[0]["segment"][0] == pytest.approx(10 + 0.2 / 3)
    assert len(merged(pair, min_score=0.1)) == 1
    assert len(merged(pair, max_detections=1)) == 1
