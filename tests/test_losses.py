import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import fixture, published_weights

from etadlite.base.draws import Draws
from etadlite.base.segments import tiou
from etadlite.config import LossSettings
from etadlite.detector import DetectorOutput, ETADDetector, StageOutput
from etadlite.training.losses import (
    balanced_bce,
    detection_loss,
    draw_as_many,
    sampled_bce,
    sampled_l2,
    smooth_l1,
    stage_targets,
)
from etadlite.training.targets import (
    Targets,
    boundary_targets,
    class_targets,
    make_targets,
    matched_actions,
)


def close(actual, expected) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-4)


@pytest.mark.parametrize("video", [0, 1, 2])
def test_targets_are_the_published_ones(shared, video):
    expected = {
        name.removeprefix(f"video{video}_"): value
        for name, value in fixture(shared, "etad_targets.npz").items()
    }
    actions = torch.from_numpy(128 * expected["segments"] / expected["duration"]).clamp(0, 128)
    proposals = 128 * torch.from_numpy(expected["anchors"]).double()
    startness, endness = boundary_targets(actions, 128)
    close(startness, expected["gt_start"])
    close(endness, expected["gt_end"])
    close(matched_actions(actions, proposals) / 128, expected["gt_segment"])


@pytest.fixture(scope="module")
def published_losses(shared):
    expected = fixture(shared, "etad_losses.npz")
    weights = published_weights(shared, "etad_detector_keys.json")
    proposals = 128 * torch.from_numpy(expected["anchors"])
    boundaries = torch.stack(
        [torch.from_numpy(expected[f"gt_{side}"]) for side in ("start", "end")], dim=1
    )
    matched = 128 * torch.from_numpy(expected["gt_segment"])
    targets = Targets(boundaries, matched, torch.zeros(3, 128, dtype=torch.long))
    with torch.inference_mode():
        output = ETADDetector.from_published(weights)(
            torch.from_numpy(expected["feature"]), proposals
        )
    return expected, output, targets


def test_losses_without_a_draw_are_the_published_ones(published_losses):
    expected, output, targets = published_losses
    for side, name in enumerate(("tem_start", "tem_end")):
        loss = balanced_bce(output.boundaries[:, side], targets.boundaries[:, side])
        close(loss, expected[name])
    for number, threshold in enumerate((0.7, 0.8, 0.9)):
        stage = output.stages[number]
        wanted = stage_targets(stage.proposals, targets)
        close(wanted.iou.flatten(), expected[f"stage{number}_gt_iou"])
        delta = expected[f"stage{number}_gt_delta"]
        offsets = wanted.offsets.flatten(0, 1).numpy()
        np.testing.assert_allclose(offsets, delta, atol=1e-4, rtol=1e-3)
        for side, name in enumerate(("start", "end")):
            boundary = wanted.boundary[..., side].flatten()
            close(boundary, expected[f"stage{number}_gt_cls_{name}"])
        for kind in range(4):
            part = slice(kind, kind + 1)
            loss = smooth_l1(
                stage.offsets[..., part], wanted.offsets[..., part], wanted.iou > threshold
            )
            close(loss, expected[f"stage{number}_smooth_l1"][kind])


def test_losses_with_random_negatives_have_the_published_mean(published_losses):
    expected, output, targets = published_losses
    draws = 100
    parts = [detection_loss(output, targets, LossSettings(guarded=False)) for _ in range(draws)]
    ours = {
        "cost": np.mean([float(sum(p.values())) for p in parts]),
        "tem": np.mean([float(p["boundary"]) for p in parts]),
    } | {f"stage{n}": np.mean([float(p[f"stage{n}"]) for p in parts]) for n in (1, 2, 3)}
    for name, mean, std in zip(expected["keys"], expected["mean"], expected["std"], strict=True):
        error = 5 * std * (1 / draws + 1 / int(expected["draws"])) ** 0.5 + 1e-4
        assert abs(ours[str(name)] - mean) < error, name


def test_guarded_draws_take_no_positives_where_published_ones_do():
    positive = torch.tensor([[True, True, True, False]])
    assert draw_as_many(~positive, positive, Draws.fresh(1), guarded=False).all()
    drawn = draw_as_many(~positive, positive, Draws.fresh(1), guarded=True)
    assert drawn.tolist() == [[False, False, False, True]]


def test_a_draw_balances_the_groups():
    positive = torch.arange(10_000)[None] < 500
    drawn = draw_as_many(~positive, positive, Draws.fresh(1), guarded=True)
    assert not (drawn & positive).any()
    assert 400 < int(drawn.sum()) < 600


@settings(max_examples=500)
@given(
    iou=st.lists(
        st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0]), min_size=1, max_size=6
    ),
    videos=st.integers(1, 2),
    says=st.sampled_from([0.0, 0.5, 1.0]),
    startness=st.sampled_from([0.0, 0.4, 1.0]),
    guarded=st.booleans(),
)
def test_losses_and_gradients_are_finite_for_every_empty_group(
    iou, videos, says, startness, guarded
):
    iou = torch.tensor([iou, [iou[0]] * len(iou)][:videos])  # of the second video all are alike
    matched = torch.tensor([0.0, 8.0]).expand(*iou.shape, 2)
    proposals = matched * iou[..., None]  # tIoU with [0, 8] is the factor itself
    leaves = [
        torch.full((videos, *shape), says, requires_grad=True)
        for shape in [(2, 16), (iou.shape[1], 2), (iou.shape[1], 4), (iou.shape[1], 2)]
    ]
    boundaries, scores, offsets, ends = leaves
    output = DetectorOutput(boundaries, [StageOutput(proposals, scores, offsets, ends)], None)
    targets = Targets(
        torch.full((videos, 2, 16), startness), matched, torch.zeros(videos, 16).long()
    )
    parts = detection_loss(
        output, targets, LossSettings(stage_positive_iou=(0.7,), guarded=guarded)
    )
    total = sum(parts.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_sampled_losses_without_positives_average_everyone():
    says, target = torch.tensor([[0.2, 0.6]]), torch.tensor([[0.1, 0.5]])
    close(sampled_bce(says, target, 0.9, Draws.fresh(1)), -(1 - says + 1e-6).log().mean())
    close(sampled_l2(says, target, Draws.fresh(1)), 0.01)


@given(
    a=st.tuples(st.floats(0, 50), st.floats(0.1, 50)),
    b=st.tuples(st.floats(0, 50), st.floats(0.1, 50)),
)
def test_tiou_equals_counting_fine_slices(a, b):
    x, y = ((start, start + length) for start, length in (a, b))
    slices = np.arange(0, 101, 0.01)
    in_x, in_y = ((s[0] <= slices) & (slices < s[1]) for s in (x, y))
    counted = (in_x & in_y).sum() / (in_x | in_y).sum()
    assert abs(float(tiou(torch.tensor(x), torch.tensor(y))) - counted) < 0.2


def test_the_tiou_of_segments_does_not_depend_on_their_unit():
    segments = torch.tensor([[0.0, 3.0], [1.0, 5.0], [4.0, 4.5]], dtype=torch.float64)
    whole = tiou(segments[:, None], segments)
    torch.testing.assert_close(tiou(1e-6 * segments[:, None], 1e-6 * segments), whole)


def test_a_video_without_actions_has_targets():
    proposals = torch.tensor([[[0.0, 4.0], [2.0, 8.0]]])
    empty = torch.zeros(0, 2)
    targets = make_targets([empty], [torch.zeros(0).long()], proposals, 8, 3)
    assert targets.boundaries.sum() == 0
    assert targets.matched.tolist() == [[[0, 0], [0, 0]]]
    assert targets.classes.tolist() == [[3] * 8]


def test_shorter_actions_lie_over_longer_ones():
    actions = torch.tensor([[3.0, 5.0], [1.0, 7.0]])
    assert class_targets(actions, torch.tensor([0, 1]), 8, 2).tolist() == [2, 1, 1, 0, 0, 1, 1, 2]
