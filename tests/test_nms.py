"""Non-maximum suppression against published results and a second, plain formulation."""

import numpy as np
import pytest
import torch
from benchmarks import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.inference.nms import soft_nms, soft_nms_picks


@pytest.fixture(scope="module")
def published(shared):
    with np.load(shared / "parity" / "opentad_nms.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
@pytest.mark.parametrize("kind", ["gauss", "vote"])
def test_soft_nms_equals_opentad(published, case, kind):
    segments, scores = published[f"{case}_segment"], published[f"{case}_score"]
    result = {
        "gauss": lambda: soft_nms(segments, scores, sigma=0.35, max_segments=100, min_score=1e-4),
        "vote": lambda: soft_nms(
            segments, scores, sigma=0.3, max_segments=200, min_score=1e-4, voting=0.95
        ),
    }[kind]()
    assert len(result[0]) == len(published[f"{case}_{kind}_score"])
    for found, name, tolerance in ((result[0], "segment", 1e-4), (result[1], "score", 1e-6)):
        expected = published[f"{case}_{kind}_{name}"]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=tolerance)


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
def test_soft_nms_equals_the_plain_loop(items, sigma, max_segments, min_score):
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


def test_no_segments_give_no_segments():
    segments, scores = torch.zeros(0, 2), torch.zeros(0)
    assert [x.shape for x in soft_nms(segments, scores, sigma=0.5, max_segments=3, voting=0.9)] == [
        (0, 2),
        (0,),
    ]


def test_voting_is_the_weighted_mean_of_close_segments():
    segments = torch.tensor([[0.0, 10.0], [0.4, 10.0], [30.0, 40.0]])
    scores = torch.tensor([0.75, 0.25, 0.5])
    voted, _ = soft_nms(segments, scores, sigma=0.1, max_segments=2, voting=0.95)
    np.testing.assert_allclose(voted.numpy(), [[0.1, 10.0], [30.0, 40.0]], rtol=1e-6)


def test_soft_nms_does_not_change_its_input():
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
