"""From the detector's output to detections in seconds."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etadlite.base.errors import InputError
from etadlite.data.timegrid import TimeGrid
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.inference.detect import class_scores, detections_of, predict_batches
from etadlite.inference.predict import predict
from etadlite.model.checkpoint import load_checkpoint
from etadlite.model.system import System
from etadlite.presets import preset
from etadlite.training.loop import loader, open_split


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(1, 4),
    cells=st.integers(1, 12),
    ends=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_class_scores_are_the_mean_probability_over_the_segment(classes, cells, ends, seed):
    chance = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(classes, cells, generator=chance, dtype=torch.float64)
    segments = torch.tensor(ends, dtype=torch.float64).sort(dim=1).values * cells
    segments[:, 1] = torch.maximum(segments[:, 1], segments[:, 0] + 0.01).clamp(max=cells)
    segments[:, 0] = torch.minimum(segments[:, 0], segments[:, 1] - 0.01)
    got = class_scores(probabilities, segments).numpy()
    points = 4000  # numerical integration: the mean of the probability at many points
    for row, (start, end) in zip(got, segments.tolist(), strict=True):
        middles = start + (np.arange(points) + 0.5) / points * (end - start)
        cell = np.clip(np.floor(middles).astype(int), 0, cells - 1)
        np.testing.assert_allclose(row, probabilities.numpy()[:, cell].mean(1), atol=5e-3)


def test_class_scores_of_whole_cells_and_of_no_segment():
    probabilities = torch.tensor([[0.2, 0.6, 1.0, 0.0]])
    segments = torch.tensor([[0.0, 4.0], [1.0, 3.0], [1.5, 2.5], [3.0, 4.0], [2.0, 2.0]])
    expected = torch.tensor([[0.45], [0.8], [0.8], [0.0], [0.0]])
    torch.testing.assert_close(class_scores(probabilities, segments), expected)
    assert class_scores(probabilities, torch.zeros(0, 2)).shape == (0, 1)


def output(proposals, iou, boundaries, logits):
    """Return a detector output of one stage that does not move the proposals."""
    proposals = torch.tensor([proposals], dtype=torch.float32)
    batch, count, _ = proposals.shape
    stage = StageOutput(
        proposals,
        torch.tensor([iou], dtype=torch.float32)[..., None].expand(batch, count, 2),
        torch.zeros(batch, count, 4),
        torch.zeros(batch, count, 2),
    )
    classes = None if logits is None else torch.tensor([logits], dtype=torch.float32)
    return DetectorOutput(torch.tensor([boundaries], dtype=torch.float32), [stage], classes)


def small(*changes):
    base = ['detector.classes=["run", "jump"]', "data.snippets=8", *changes]
    return preset("e2e_stickfigures", base)


GRID = TimeGrid.over_video(24.0, 8)  # 3 s a cell
ANYWHERE = [[1.0] * 8, [1.0] * 8]


def test_a_detection_is_a_segment_in_seconds_with_a_class_and_the_product_of_scores():
    jump = [[-20.0] * 8, [20.0] * 8, [-20.0] * 8]
    (found,) = detections_of(
        output([[2, 4]], [0.9], ANYWHERE, jump), [GRID], small("inference.classes_per_segment=1")
    )
    assert found == [
        {"segment": [6.0, 12.0], "label": "jump", "score": pytest.approx(0.81, abs=1e-5)}
    ]


def test_every_segment_gets_its_best_classes_and_the_best_detection_comes_first():
    logits = torch.full((3, 8), -20.0)
    logits[0, :4] = logits[1, 4:] = 20.0  # running, then jumping
    (found,) = detections_of(
        output([[0, 4], [4, 8], [3, 5]], [0.6, 0.9, 0.3], ANYWHERE, logits.tolist()),
        [GRID],
        small("inference.classes_per_segment=2"),
    )
    assert len(found) == 6
    scores = [item["score"] for item in found]
    assert scores == sorted(scores, reverse=True)
    assert [(d["segment"], d["label"]) for d in found[:2]] == [
        ([12.0, 24.0], "jump"),
        ([0.0, 12.0], "run"),
    ]
    # The third lies over both halves, with half of the probability for each.
    straddling = [d for d in found if d["segment"] == [9.0, 15.0]]
    assert {d["label"] for d in straddling} == {"run", "jump"}
    assert straddling[0]["score"] == pytest.approx(straddling[1]["score"], rel=1e-4)


def test_background_takes_its_share_of_the_score():
    even = [[0.0] * 8] * 3
    (found,) = detections_of(output([[2, 4]], [0.9], ANYWHERE, even), [GRID], small())
    assert [d["score"] for d in found] == pytest.approx([0.81 / 3] * 2, rel=1e-4)


def test_a_detector_without_classes_labels_every_segment_action():
    (found,) = detections_of(
        output([[2, 4]], [0.9], ANYWHERE, None), [GRID], small("detector.classes=[]")
    )
    assert found == [{"segment": [6.0, 12.0], "label": "action", "score": pytest.approx(0.81)}]


def test_a_proposal_away_from_the_boundaries_is_left_out():
    only_start = [[0.0, 0.0, 1.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 1.0, 0, 0]]
    logits = [[0.0] * 8] * 3
    both = output([[2, 5], [4, 6]], [0.5, 0.9], only_start, logits)
    (found,) = detections_of(both, [GRID], small())
    assert {tuple(d["segment"]) for d in found} == {(6.0, 15.0)}
    (found,) = detections_of(output([[4, 6]], [0.9], only_start, logits), [GRID], small())
    assert found == []


def test_the_boundary_mask_can_be_switched_off():
    only_start = [[0.0, 0.0, 1.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 1.0, 0, 0]]
    both = output([[2, 5], [4, 6]], [0.5, 0.9], only_start, [[0.0] * 8] * 3)
    (found,) = detections_of(both, [GRID], small("inference.boundary_mask=false"))
    assert {tuple(d["segment"]) for d in found} == {(6.0, 15.0), (12.0, 18.0)}


def test_the_number_of_segments_is_limited_before_they_get_classes():
    proposals = [[s, s + 1] for s in range(8)]
    logits = torch.zeros(3, 8).tolist()
    many = output(proposals, [0.5] * 8, ANYWHERE, logits)
    (found,) = detections_of(many, [GRID], small("inference.max_detections=3"))
    assert len(found) == 6


def test_each_video_of_a_batch_gets_its_own_detections(tiny):
    chosen = preset("stickfigures", [*tiny.on_features, "training.batch_size=2"])
    torch.manual_seed(0)
    system = System(chosen)
    train_videos = open_split(chosen, training=True)
    together = predict_batches(
        system, loader(train_videos, chosen, training=False), chosen, progress=False
    )
    one = preset("stickfigures", [*tiny.on_features, "training.batch_size=1"])
    apart = predict_batches(system, loader(train_videos, one, training=False), one, progress=False)
    assert list(together["results"]) == ["training_00000", "training_00001"]
    for name, found in together["results"].items():
        alone = apart["results"][name]
        assert len(found) == len(alone) > 10
        np.testing.assert_allclose(
            [d["score"] for d in found], [d["score"] for d in alone], rtol=1e-3
        )
    first, second = together["results"].values()
    assert first[0]["segment"] != second[0]["segment"]


def test_predicting_a_file_gives_the_detections_of_the_test(trained, tiny):
    chosen = preset("e2e_stickfigures", tiny.assignments)
    system = load_checkpoint(trained / "checkpoint.safetensors", chosen)
    batches = loader(open_split(chosen, training=False), chosen, training=False)
    tested = predict_batches(system, batches, chosen, progress=False)["results"]
    video = tiny.data / "videos" / "validation_00000.mp4"
    found = predict(video, system, chosen)
    assert [d["label"] for d in found] == [d["label"] for d in tested["validation_00000"]]
    np.testing.assert_allclose(
        [d["segment"] for d in found],
        [d["segment"] for d in tested["validation_00000"]],
        atol=0.02,  # the annotation's duration and the file's
    )


def test_a_system_on_features_cannot_predict_a_file(tiny):
    chosen = preset("stickfigures", tiny.on_features)
    with pytest.raises(InputError, match="trained on stored features and has no encoder"):
        predict(tiny.data / "videos" / "validation_00000.mp4", System(chosen), chosen)


def test_predicting_changes_no_weight_and_computes_no_gradient(trained, tiny, tmp_path):
    chosen = preset("e2e_stickfigures", tiny.assignments)
    system = load_checkpoint(trained / "checkpoint.safetensors", chosen)
    before = {k: v.clone() for k, v in system.state_dict().items()}
    video = shutil.copy(tiny.data / "videos" / "training_00000.mp4", tmp_path / "a clip.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = predict(video, system, chosen), predict(video, system, chosen)
    assert first == second
    assert all(torch.equal(before[k], v) for k, v in system.state_dict().items())
    assert all(p.grad is None for p in system.parameters())
