from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import fixture, published_weights
from torchvision.ops import roi_align as torchvision_roi_align

from etadlite.base.draws import Draws
from etadlite.base.errors import InputError
from etadlite.config import LossSettings
from etadlite.detector import ETADDetector, proposal_map, refine, roi_align, valid_proposals
from etadlite.detector.roi import RoIs, interpolate
from etadlite.detector.stages import mlp
from etadlite.training.losses import detection_loss
from etadlite.training.targets import make_targets


def close(actual: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "base_detector.", "module.base_detector."])
def test_the_released_layout_computes_what_the_published_code_computes(shared, prefix):
    weights = published_weights(shared, "etad_detector_keys.json")
    expected = fixture(shared, "etad_detector_forward.npz")
    detector = ETADDetector.from_published({prefix + name: w for name, w in weights.items()}).eval()
    with torch.inference_mode():
        output = detector(
            torch.from_numpy(expected["feature"]), 128 * torch.from_numpy(expected["anchors"])
        )
    close(output.boundaries, expected["tem"])
    for number, stage in enumerate(output.stages):
        close(stage.proposals / 128, expected[f"stage{number}_anchors"])
        close(stage.iou.flatten(0, 1), expected[f"stage{number}_iou"])
        regressed = torch.cat((stage.offsets, stage.boundary), dim=-1)
        close(regressed.flatten(0, 1), expected[f"stage{number}_reg"])
    proposals, iou = output.refined()
    close(proposals / 128, expected["refined_anchors"])
    close(iou, expected["mean_iou"])


@pytest.mark.parametrize(
    ("name", "longest"), [("opentad_anet_tsp", 128), ("opentad_thumos_i3d", 64)]
)
def test_the_opentad_layout_computes_what_the_published_code_computes(shared, name, longest):
    detector = ETADDetector.from_published(published_weights(shared, f"{name}_keys.json")).eval()
    expected = fixture(shared, f"{name}_forward.npz")
    draw = np.random.RandomState(expected["seed"]).standard_normal(expected["feature_shape"])
    proposals = valid_proposals(128, longest)
    assert len(proposals) == expected["count"]
    with torch.inference_mode():
        output = detector(torch.from_numpy(draw.astype("float32")), proposals[None])
    refined, iou = output.refined()
    close(output.boundaries, expected["tem_score"])
    # The rounding error is 128 times larger in cells than in units of the video.
    close(refined[:, ::4] / 128, expected["proposals"] / 128)
    close(iou[:, ::4], expected["pred_iou"])


def test_an_error_names_foreign_or_damaged_weights(shared):
    weights = published_weights(shared, "etad_detector_keys.json")
    with pytest.raises(InputError, match="no published ETAD detector"):
        ETADDetector.from_published({"conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"missing \(tem\.2\.bias\)"):
        ETADDetector.from_published({k: v for k, v in weights.items() if k != "tem.2.bias"})
    with pytest.raises(InputError, match="left over.*surplus"):
        ETADDetector.from_published(weights | {"surplus": torch.zeros(1)})
    with pytest.raises(InputError, match=r"wrong shape \(tem\.2\.bias \(3,\)"):
        ETADDetector.from_published(weights | {"tem.2.bias": torch.zeros(3)})


@settings(max_examples=60, deadline=None)
@given(
    cells=st.integers(2, 40),
    roi_size=st.integers(1, 12),
    aligned=st.booleans(),
    spans=st.lists(st.tuples(st.floats(-30, 50), st.floats(0.01, 15)), min_size=1, max_size=8),
)
def test_roi_align_equals_torchvision(cells, roi_size, aligned, spans):
    proposals = torch.tensor([(start, start + length) for start, length in spans])[None]
    features = torch.randn(1, 3, cells, generator=torch.Generator().manual_seed(cells))
    zero, one = torch.zeros_like(proposals[0, :, 0]), torch.ones_like(proposals[0, :, 0])
    boxes = torch.stack((zero, zero, proposals[0, :, 0], one, proposals[0, :, 1]), dim=1)
    expected = torchvision_roi_align(features[..., None], boxes, (roi_size, 1), aligned=aligned)
    actual = roi_align(features, proposals, roi_size, aligned=aligned)[0]
    torch.testing.assert_close(actual, expected[..., 0], atol=1e-5, rtol=0)


def test_roi_align_is_finite_for_huge_reversed_and_empty_proposals():
    proposals = torch.tensor([[[-1e9, 1e9], [5.0, 2.0], [3.0, 3.0]]])
    assert roi_align(torch.randn(1, 3, 16), proposals, 8, aligned=True).isfinite().all()


def test_the_samples_of_a_proposal_grow_to_eight_times_the_features_length():
    proposals = torch.tensor([[0.0, 16.0], [0.0, 128.0], [0.0, 1e9]])
    samples = interpolate(proposals, 16, 8, aligned=True).samples
    assert samples.tolist() == [2, 16, 17]


def test_the_gradient_of_roi_align_equals_that_of_torchvision():
    features = torch.randn(2, 4, 16, dtype=torch.float64, requires_grad=True)
    proposals = torch.tensor([[[1.0, 7.3], [3.2, 18.0]], [[-4.0, 2.0], [0.0, 16.0]]])
    push = torch.randn(2, 2, 4, 6, dtype=torch.float64)
    roi_align(features, proposals, 6, aligned=True).backward(push)
    ours, features.grad = features.grad, None
    boxes = torch.tensor(
        [[b, 0, s, 1, e] for b in range(2) for s, e in proposals[b].tolist()], dtype=torch.float64
    )
    pooled = torchvision_roi_align(features[..., None], boxes, (6, 1), aligned=True)
    pooled.backward(push.flatten(0, 1)[..., None])
    torch.testing.assert_close(ours, features.grad, atol=1e-6, rtol=1e-5)


@given(cells=st.integers(1, 20), longest=st.integers(1, 20))
def test_the_proposal_map_holds_every_proposal_once(cells, longest):
    proposals, valid = proposal_map(cells, longest)
    wanted = {(s, s + d) for d in range(1, longest + 1) for s in range(cells) if s + d <= cells}
    assert {tuple(p) for p in proposals[valid].tolist()} == wanted
    assert int(valid.sum()) == len(wanted)


def test_the_proposal_map_equals_the_published_one(shared):
    expected = fixture(shared, "etad_targets.npz")
    proposals, valid = proposal_map(128, 128)
    np.testing.assert_array_equal(valid.numpy(), expected["valid_mask"] > 0)
    np.testing.assert_allclose(proposals.numpy() / 128, expected["all_anchors"], atol=1e-6)
    assert int(valid.sum()) == 8256


def test_exact_offsets_move_a_proposal_onto_its_action():
    proposal, action = torch.tensor([10.0, 20.0]), torch.tensor([13.0, 19.0])
    by_ends = (action - proposal) / 10
    offsets = torch.cat((by_ends, by_ends.mean()[None], torch.tensor([0.6]).log()))
    torch.testing.assert_close(refine(proposal, offsets), action)


def test_the_detector_classifies_cells():
    detector = ETADDetector(48, width=32, roi_size=8, hidden=32, head=16, num_classes=8)
    output = detector(torch.randn(2, 48, 64), valid_proposals(64, 4)[None].expand(2, -1, -1))
    assert output.classes.shape == (2, 9, 64)


class FormedRoIs:
    """The textbook's `RoIs`: forms all RoIs, then applies the layers."""

    def __init__(self, features, proposals, roi_size, *, aligned):
        self.rois = roi_align(features, proposals, roi_size, aligned=aligned)

    def linear(self, layer, first=0, bins=None):
        bins = self.rois.shape[3] if bins is None else bins
        return layer(self.rois[..., first : first + bins].flatten(2))


def gradients(out: torch.Tensor, inputs: list[torch.Tensor], push: torch.Tensor) -> list:
    return [out, *torch.autograd.grad(out, inputs, push)]


@given(
    cells=st.integers(2, 20),
    aligned=st.booleans(),
    first=st.integers(0, 3),
    spans=st.lists(st.tuples(st.floats(-5, 25), st.floats(-2, 30)), min_size=1, max_size=9),
    drawn=st.integers(0, 9),
)
def test_a_layer_gives_the_same_whether_rois_are_computed_or_not(
    cells, aligned, first, spans, drawn
):
    torch.manual_seed(cells)
    proposals = torch.tensor([[start, start + length] for start, length in spans])
    proposals = torch.stack((proposals, proposals.flip(0) + 0.3))  # [B, P, 2]
    layer = torch.nn.Linear(3 * 2, 7).double()
    x = torch.randn(2, 3, cells, dtype=torch.float64, requires_grad=True)
    push = torch.randn(2, len(spans), 7, dtype=torch.float64)
    push[0, drawn:], push[1, : drawn // 2] = 0, 0  # these proposals have no gradient
    ours, formed = (
        gradients(
            rois(x, proposals, 6, aligned=aligned).linear(layer, first, 2),
            [x, *layer.parameters()],
            push,
        )
        for rois in (RoIs, FormedRoIs)
    )
    for a, b in zip(ours, formed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@given(count=st.integers(1, 12), drawn=st.sets(st.integers(0, 11)), half=st.booleans())
def test_a_head_has_the_gradient_of_its_layers_and_keeps_only_its_input(count, drawn, half):
    torch.manual_seed(count)
    head = mlp(5, 8, 4, 2)
    x, push = torch.randn(2, count, 5, requires_grad=True), torch.zeros(2, count, 2)
    for row in drawn:
        push.flatten(0, 1)[row % (2 * count)] = torch.randn(2)
    kept: list[torch.Size] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, id_of):
            out = head(x)
        push = push.to(out.dtype)
        plain = gradients(torch.nn.Sequential(*head)(x), [x, *head.parameters()], push)
    assert kept == [x.shape, *(weight.shape for weight in head.parameters())]
    for a, b in zip(gradients(out, [x, *head.parameters()], push), plain, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.02 if half else 1e-5, atol=0.02 if half else 1e-6)


def id_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@pytest.mark.parametrize("layout", ["released", "opentad"])
@pytest.mark.parametrize("count", [20, 400])  # fewer proposals with a gradient than cells, and more
def test_a_loss_has_the_gradient_that_all_proposals_and_formed_rois_give(layout, count):
    torch.manual_seed(count)
    detector = ETADDetector(8, width=32, layout=layout, roi_size=8, hidden=16, head=8).double()
    features = torch.randn(2, 8, 16, dtype=torch.float64, requires_grad=True)
    proposals = valid_proposals(16, 16)[torch.randint(136, (2, count))].double()
    actions = [torch.tensor([[2.0, 7.0], [9.0, 15.0]])] * 2
    targets = make_targets(actions, [torch.zeros(2, dtype=torch.long)] * 2, proposals, 16, 0)
    inputs = [features, *detector.parameters()]

    def found() -> list[torch.Tensor]:
        output = detector(features, proposals)
        parts = detection_loss(output, targets, LossSettings(), Draws(range(2)))
        loss = torch.stack(list(parts.values())).sum()
        return gradients(loss, inputs, torch.ones_like(loss))

    ours = found()
    with (
        patch("etadlite.detector.stages.RoIs", FormedRoIs),
        patch("etadlite.detector.stages.ReleasedStage.cut_out", FormedRoIs),
        patch("etadlite.detector.drawn.Head.forward", torch.nn.Sequential.forward),
    ):
        plain = found()
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_proposals_with_nan_and_infinity_give_finite_outputs():
    proposals = torch.tensor([[[float("nan"), 3.0], [1.0, float("inf")], [0.0, 4.0]]])
    rois = RoIs(torch.randn(1, 3, 8), proposals, 4, aligned=True)
    assert rois.linear(torch.nn.Linear(12, 5)).isfinite().all()
