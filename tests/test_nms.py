"""Non-maximum suppression against published results and a second, plain formulation."""

import math

import numpy as np
import pytest
import torch
from benchmarks import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.inference.nms import hard_nms, multiclass_nms, soft_nms, soft_nms_picks


@pytest.fixture(scope="module")
def published(shared):
    with np.load(shared / "parity" / "opentad_nms.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
@pytest.mark.parametrize("kind", ["gauss", "vote", "hard", "multiclass"])
def test_equals_opentad(published, case, kind):
    segments, scores = published[f"{case}_segment"], published[f"{case}_score"]
    labels = published[f"{case}_label"]
    result = {
        "gauss": lambda: soft_nms(segments, scores, sigma=0.35, max_segments=100, min_score=1e-4),
        "vote": lambda: soft_nms(
            segments, scores, sigma=0.3, max_segments=200, min_score=1e-4, voting=0.95
        ),
        "hard": lambda: hard_nms(segments, scores, iou=0.6, max_segments=200, min_score=1e-4),
        "multiclass": lambda: multiclass_nms(
            segments, scores, labels, sigma=0.3, max_segments=200, min_score=1e-4
        ),
    }[kind]()
    assert len(result[0]) == len(published[f"{case}_{kind}_score"])
    for found, name, tolerance in ((result[0], "segment", 1e-4), (result[1], "score", 1e-6)):
        expected = published[f"{case}_{kind}_{name}"]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=tolerance)
    if kind == "multiclass":
        assert torch.equal(result[2], published[f"{case}_multiclass_label"])


# Whole numbers make equal scores, equal segments and touching ends common.
segments_and_scores = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 8)), min_size=0, max_size=12
)


@settings(max_examples=150, deadline=None)
@given(
    segments_and_scores,
    st.sampled_from([0.2, 0.35, 1.0]),
    st.integers(1, 14),
    st.sampled_from([0.0, 0.05, 0.4]),
)
def test_equals_taking_one_by_one(items, sigma, max_segments, min_score):
    segments = [(start, start + length) for start, length, _ in items]
    scores = [value / 8 for *_, value in items]
    picks, kept = soft_nms_picks(
        torch.tensor(segments, dtype=torch.float64).reshape(-1, 2),
        torch.tensor(scores, dtype=torch.float64),
        sigma=sigma,
        max_segments=max_segments,
        min_score=min_score,
        length_margin=0.0,
    )
    expected_picks, expected = plain.soft_nms(segments, scores, sigma, max_segments, min_score)
    assert kept.tolist() == pytest.approx(expected, abs=1e-12)
    assert picks.tolist() == expected_picks


@settings(max_examples=60, deadline=None)
@given(segments_and_scores, st.sampled_from([0.3, 0.5, 0.9]))
def test_hard_leaves_no_overlap_and_drops_nothing_without_cause(items, iou):
    segments = torch.tensor([(s, s + n + 1.0) for s, n, _ in items]).reshape(-1, 2)
    scores = torch.tensor([value / 8 for *_, value in items])
    kept, kept_scores = hard_nms(segments, scores, iou=iou, max_segments=100)
    pairs = [(a, b) for i, a in enumerate(kept.tolist()) for b in kept.tolist()[:i]]
    assert all(plain.overlap(a, b) < iou + 1e-5 for a, b in pairs)
    assert kept_scores.tolist() == sorted(kept_scores.tolist(), reverse=True)
    for segment, score in zip(segments.tolist(), scores.tolist(), strict=True):
        better = [k for k, s in zip(kept.tolist(), kept_scores, strict=True) if s >= score]
        assert any(plain.overlap(segment, other) >= iou - 1e-5 for other in better)


def test_nothing_in_nothing_out():
    segments, scores = torch.zeros(0, 2), torch.zeros(0)
    assert [x.shape for x in soft_nms(segments, scores, sigma=0.5, max_segments=3, voting=0.9)] == [
        (0, 2),
        (0,),
    ]
    assert hard_nms(segments, scores, iou=0.5, max_segments=3)[0].shape == (0, 2)
    labels = torch.zeros(0, dtype=torch.int64)
    assert multiclass_nms(segments, scores, labels, sigma=0.5, max_segments=3)[2].shape == (0,)


def test_multiclass_soft_never_lowers_across_classes():
    segments = torch.tensor([[0.0, 10.0], [0.0, 10.0], [0.0, 10.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    _, lowered, labels = multiclass_nms(
        segments, scores, torch.tensor([0, 1, 0]), sigma=0.5, max_segments=3
    )
    assert labels.tolist() == [0, 1, 0]
    assert lowered.tolist() == pytest.approx([0.9, 0.8, 0.7 * math.exp(-2)], abs=1e-6)


def test_voting_is_the_weighted_mean_of_close_segments():
    segments = torch.tensor([[0.0, 10.0], [0.4, 10.0], [30.0, 40.0]])
    scores = torch.tensor([0.75, 0.25, 0.5])
    voted, _ = soft_nms(segments, scores, sigma=0.1, max_segments=2, voting=0.95)
    np.testing.assert_allclose(voted.numpy(), [[0.1, 10.0], [30.0, 40.0]], rtol=1e-6)


def test_input_is_left_unchanged():
    segments, scores = torch.tensor([[0.0, 2.0], [1.0, 3.0]]), torch.tensor([0.5, 0.4])
    soft_nms(segments, scores, sigma=0.3, max_segments=2)
    assert scores.tolist() == pytest.approx([0.5, 0.4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": torch.ones(3)}, r"segments have shape \[2, 2\]"),
        ({"scores": torch.tensor([0.5, float("nan")])}, "finite"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"max_segments": 0}, "max_segments is 0"),
    ],
)
def test_bad_input_is_named(changes, message):
    good = {
        "segments": torch.tensor([[0.0, 2.0], [1.0, 3.0]]),
        "scores": torch.ones(2),
        "sigma": 0.5,
        "max_segments": 2,
    }
    with pytest.raises(InputError, match=message):
        soft_nms(**(good | changes))


def test_multiclass_needs_exactly_one_kind():
    one = torch.ones(1)
    with pytest.raises(InputError, match="either sigma"):
        multiclass_nms(torch.ones(1, 2), one, one, max_segments=1)
