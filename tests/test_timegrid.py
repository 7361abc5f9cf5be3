"""The one place that converts between seconds, frames and cells."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.data.snippets import snippet_frames
from etadlite.data.timegrid import TimeGrid

positive = st.floats(0.01, 1e4)


def test_over_video_spreads_the_cells_over_the_duration():
    grid = TimeGrid.over_video(duration=64.0, cells=128)
    assert grid == TimeGrid(cells=128, seconds_per_cell=0.5, start=0.0)
    assert grid.to_cells(0.0) == 0
    assert grid.to_cells(64.0) == 128
    assert grid.to_seconds(1.5) == 0.75


def test_window_is_the_published_convention():
    grid = TimeGrid.window(first_frame=256, cells=128, stride=4, fps=30.0, offset=8)
    seconds = np.array([[10.0, 12.5], [9.0, 40.0]])
    assert grid.to_cells(seconds) == pytest.approx((seconds * 30 - 8 - 256) / 4)
    cells = np.array([0.0, 64.0, 127.0])
    assert grid.to_seconds(cells) == pytest.approx((cells * 4 + 256 + 8) / 30)


def test_published_windows_place_their_actions_inside(shared):
    """The frames of the published windows' actions, sent through seconds, give their cells."""
    published = json.loads((shared / "parity/thumos14_windows.json").read_text())
    setting = published["settings"]
    stride, offset = setting["feature_stride"], setting["offset_frames"]
    seen = 0
    for window in published["windows"]["train"]:
        first, fps = window["first_frame"], 29.97
        grid = TimeGrid.window(first, window["snippets"], stride, fps, offset)
        frames = np.array(window["gt_frames"])
        cells = grid.to_cells(frames / fps)
        assert cells == pytest.approx((frames - first - offset) / stride, abs=1e-6)
        assert cells.min() >= -offset / stride - 1e-6
        assert cells.max() <= window["snippets"]
        seen += len(frames)
    assert seen > 200


@given(positive, st.integers(1, 512), st.floats(-1e4, 1e4), st.floats(-100, 1e4))
def test_there_and_back(seconds_per_cell, cells, position, start):
    grid = TimeGrid(cells, seconds_per_cell, start)
    assert grid.to_seconds(grid.to_cells(position)) == pytest.approx(position, abs=1e-6)


def test_arrays_and_tensors_keep_their_kind():
    grid = TimeGrid.window(first_frame=12, cells=8, stride=4, fps=25.0)
    seconds = [0.3, 1.0, 2.25]
    array = grid.to_cells(np.array(seconds))
    tensor = grid.to_cells(torch.tensor(seconds, dtype=torch.float64))
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.tolist() == pytest.approx(array.tolist())
    assert array.tolist() == pytest.approx([grid.to_cells(x) for x in seconds])


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeGrid(0, 1.0),
        lambda: TimeGrid(4, 0.0),
        lambda: TimeGrid(4, float("nan")),
        lambda: TimeGrid.over_video(0.0, 4),
        lambda: TimeGrid.over_video(10.0, 0),
        lambda: TimeGrid.window(0, 4, 4, fps=0.0),
        lambda: TimeGrid.window(0, 4, 0, fps=25.0),
        lambda: snippet_frames(0, 4, 8),
        lambda: snippet_frames(10, 0, 8),
        lambda: snippet_frames(10, 4, 8, step=0),
    ],
)
def test_impossible_grids_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_snippets_tile_a_video_of_their_own_length():
    frames = snippet_frames(512, snippets=64, length=8)
    assert frames.dtype == np.int64
    assert frames.reshape(-1).tolist() == list(range(512))


def test_snippets_by_hand():
    # Cells of 10 frames with middles 5, 15, 25; four frames around 5 are 3, 4, 5, 6.
    assert snippet_frames(30, 3, 4).tolist() == [[3, 4, 5, 6], [13, 14, 15, 16], [23, 24, 25, 26]]
    # Every third frame: 0.5, 3.5, 6.5, 9.5 have the middle 5; they start at frame 0.
    assert snippet_frames(30, 3, 4, step=3)[0].tolist() == [0, 3, 6, 9]
    # Middle 7.5 and five frames: 5..9 exactly. Middle 5 and five frames: halves go up.
    assert snippet_frames(15, 1, 5).tolist() == [[5, 6, 7, 8, 9]]
    assert snippet_frames(10, 1, 5).tolist() == [[3, 4, 5, 6, 7]]
    # Two frames, four wanted: the edges repeat.
    assert snippet_frames(2, 1, 4).tolist() == [[0, 0, 1, 1]]


sizes = st.tuples(st.integers(1, 2000), st.integers(1, 64), st.integers(1, 32), st.integers(1, 4))


@given(sizes)
def test_snippet_middles_lie_on_cell_middles(size):
    """Second formulation: in exact seconds of a grid over the video at one frame a second."""
    num_frames, snippets, length, step = size
    frames = snippet_frames(num_frames, snippets, length, step)
    assert frames.shape == (snippets, length)
    assert frames.min() >= 0
    assert frames.max() < num_frames
    grid = TimeGrid.over_video(float(num_frames), snippets)
    inside = (frames[:, 0] > 0) & (frames[:, -1] < num_frames - 1)
    middles = (frames[:, 0] + frames[:, -1] + 1) / 2
    wanted = grid.to_seconds(np.arange(snippets) + 0.5)
    assert np.abs(middles - wanted)[inside].max(initial=0) <= 0.5 + 1e-9
    assert (np.diff(frames, axis=1)[inside] == step).all()


@given(sizes)
def test_the_published_rule_spreads_snippets_from_the_first_frame_to_the_last(size):
    """Second formulation: one snippet at a time, in Python's numbers."""
    num_frames, snippets, length, step = size
    room = max(num_frames - (length - 1) * step - 1, 0)
    starts = [round(n * room / (snippets - 1)) if n else 0 for n in range(snippets)]
    frames = snippet_frames(*size, rule="ends")
    rows = [[min(s + f * step, num_frames - 1) for f in range(length)] for s in starts]
    assert np.abs(frames - np.array(rows)).max() <= 1  # where a half is not exact in floats
    assert frames[0, 0] == 0
    if snippets > 1:
        assert frames[-1, -1] == num_frames - 1


def test_the_published_rule_by_hand():
    # 14 frames of room in 4 intervals: 0, 3.5, 7, 10.5, 14; halves go to the even frame.
    first = snippet_frames(30, 5, 16, rule="ends")[:, 0]
    assert first.tolist() == [0, 4, 7, 10, 14]
    assert snippet_frames(3, 2, 5, rule="ends").tolist() == [[0, 1, 2, 2, 2]] * 2


@given(sizes)
def test_snippets_mirror_with_the_video(size):
    """Read backwards the snippets are the same, up to the frame that halves are rounded by."""
    frames = snippet_frames(*size)
    mirrored = size[0] - 1 - frames[::-1, ::-1]
    assert np.abs(frames - mirrored).max() <= 1
