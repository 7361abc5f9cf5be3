"""The released post-processing of one video, reproduced, and where the default departs from it."""

import numpy as np
import pytest
import torch

from etadlite.base.errors import InputError
from etadlite.config import InferenceSettings
from etadlite.inference.classifiers import LabelScores
from etadlite.inference.postprocess import (
    boundary_mask,
    fuse_classes,
    keep_by_boundary,
    score_segments,
)

T = 128


@pytest.mark.parametrize("video", ["v0", "v1", "v2"])
def test_equals_the_released_code(shared, video):
    with np.load(shared / "parity" / "etad_postprocess.npz") as file:
        given = {key[3:]: file[key] for key in file.files if key.startswith(video)}
    segments, scores = score_segments(
        torch.from_numpy(given["anchors"]) * T,
        torch.from_numpy(given["iou"]),
        torch.from_numpy(given["start"]),
        torch.from_numpy(given["end"]),
        InferenceSettings(keep_last=False, keep_outside=True),
    )
    names = [f"class{i:03d}" for i in range(len(given["cls"]))]
    classes = LabelScores({video: given["cls"]}, names).top(video, 2)
    segments, scores, labels = fuse_classes(segments, scores, classes)
    assert labels == given["out_label"].tolist()
    np.testing.assert_allclose(
        segments.numpy() / T * given["duration"], given["out_segment"], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(scores.numpy(), given["out_score"], rtol=0, atol=1e-9)


def test_boundary_mask_by_hand():
    start = torch.tensor([0.0, 0.3, 0.1, 0.2, 0.2, 0.1, 1.0, 0.6])
    end = torch.tensor([0.2, 0.1, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0])
    mask = boundary_mask(start, end)
    # Cell 0 by rule, 1 a peak, 3 and 4 a plateau (no peak), 6 the maximum, 7 above its half.
    assert torch.nonzero(mask[0]).flatten().tolist() == [0, 1, 6, 7]
    # Cell 0 a peak against the border, 4 the maximum, 7 by rule.
    assert torch.nonzero(mask[1]).flatten().tolist() == [0, 4, 7]


def test_a_position_outside_the_video_counts_as_the_outermost_cell():
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0, 0] = mask[1, 3] = True
    proposals = torch.tensor([[-0.7, 9.0], [0.9, 3.0], [1.0, 3.5], [0.0, 2.9]])
    assert keep_by_boundary(proposals, mask).tolist() == [True, True, False, False]


def scored(proposals, **settings):
    """Score proposals where every cell is a boundary; their scores are 0.9, 0.8, ..."""
    iou = torch.stack([torch.arange(9, 9 - len(proposals), -1) / 10, torch.ones(len(proposals))], 1)
    proposals = torch.tensor(proposals).reshape(-1, 2)
    cells = torch.ones(8)
    return score_segments(proposals, iou, cells, cells, InferenceSettings(**settings))


def test_the_released_loop_loses_the_last_proposal():
    proposals = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert scored(proposals)[1].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert scored(proposals, keep_last=False)[1].tolist() == pytest.approx([0.9, 0.8])
    # It never enters the loop for one proposal, nor needs the last of many.
    assert scored(proposals[:1], keep_last=False)[1].tolist() == pytest.approx([0.9])
    assert len(scored(proposals, keep_last=False, max_detections=2)[1]) == 2


def test_a_proposal_outside_the_video_is_left_out():
    proposals = [[8.5, 9.0], [6.0, 9.0], [-3.0, -1.0]]
    segments, _ = scored(proposals)
    assert segments.tolist() == [[6.0, 8.0]]
    segments, _ = scored(proposals, keep_outside=True)
    assert segments.tolist() == [[8.5, 8.0], [6.0, 8.0], [0.0, -1.0]]


def test_no_kept_proposal_gives_no_segment():
    zeros = torch.zeros(4)
    segments, scores = score_segments(
        torch.tensor([[1.0, 2.0]]), torch.ones(1, 2), zeros, zeros, InferenceSettings()
    )
    assert segments.shape == (0, 2)
    assert scores.shape == (0,)
    assert fuse_classes(segments, scores, [("run", 0.5)])[2] == []
    assert len(scored([], keep_last=False)[1]) == 0


def test_fusion_gives_every_segment_every_class():
    segments, scores, labels = fuse_classes(
        torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([0.5, 0.4]), [("a", 1.0), ("b", 0.5)]
    )
    assert segments[:, 0].tolist() == [0, 0, 2, 2]
    assert scores.tolist() == pytest.approx([0.5, 0.25, 0.4, 0.2])
    assert labels == ["a", "b", "a", "b"]


def test_the_error_names_shapes_that_do_not_fit():
    with pytest.raises(InputError, match=r"startness has shape \[3\]"):
        boundary_mask(torch.ones(3), torch.ones(4))
    cells = torch.ones(4)
    with pytest.raises(InputError, match=r"iou \[2\]"):
        score_segments(torch.ones(2, 2), torch.ones(2), cells, cells, InferenceSettings())


@pytest.mark.parametrize("name", ["proposals", "iou", "startness", "endness"])
def test_the_error_names_values_that_are_not_finite(name):
    given = {
        "proposals": torch.tensor([[1.0, 2.0]]),
        "iou": torch.ones(1, 2),
        "startness": torch.ones(4),
        "endness": torch.ones(4),
    }
    given[name].view(-1)[0] = float("nan")
    with pytest.raises(InputError, match=f"{name} must be finite"):
        score_segments(**given, settings=InferenceSettings())
