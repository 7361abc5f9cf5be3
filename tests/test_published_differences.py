"""Where the default departs from the published code: a test and a named setting for each.

| published code | setting that does as it does |
|---|---|
| the filter of short actions never takes effect (released) | `data.min_action=0` |
| losses draw positives as negatives, ratios divide by zero (released) | `losses.guarded=false` |
| soft-NMS loses the last segment (released) | `inference.keep_last=false` |
| proposals outside the video are reported (released) | `inference.keep_outside=true` |
| frames are decoded at full size, then resized (both) | `data.resize=after` |
| every snippet gets a gradient at "ratio 0.3" (OpenTAD) | `sampling.snippet_ratio=1` |
"""

import json
from math import log

import numpy as np
import pytest
import torch

from etadlite.base.draws import Draws
from etadlite.config import DataSettings, LossSettings, Settings
from etadlite.data.datasets import decode_snippets
from etadlite.data.loading import open_dataset
from etadlite.data.timegrid import TimeGrid
from etadlite.data.video import Video, probe, read_frames
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.evaluation import mean_average_precision
from etadlite.inference.classifiers import LabelScores
from etadlite.inference.detect import detections_of
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.presets import preset
from etadlite.training.losses import detection_loss
from etadlite.training.targets import Targets

AS_RELEASED = ("inference.keep_last=false", "inference.keep_outside=true")


def test_the_released_filter_keeps_short_actions_in_training(tmp_path):
    actions = [{"segment": [1, 1.5], "label": "a"}, {"segment": [20, 60], "label": "a"}]
    entry = {"subset": "training", "duration": 100.0, "annotations": actions}
    (tmp_path / "annotations.json").write_text(json.dumps({"database": {"v": entry}}))
    np.save(tmp_path / "v.npy", np.ones((4, 3), "float32"))

    def trained_on(*changes):
        here = (f"data.annotations={tmp_path / 'annotations.json'}", f"data.features={tmp_path}")
        data = preset("anet_tsp", (*here, "data.blocked=[]", *changes)).data
        return open_dataset(data, (), 3, training=True)[0].actions

    assert len(trained_on()) == 1
    assert len(trained_on("data.min_action=0")) == 2


def test_released_losses_draw_positives_as_negatives_if_most_are_positive():
    # Three proposals on the action and one beside it, all said to be actions with 0.9.
    action, beside = [0.0, 8.0], [8.0, 16.0]
    stage = StageOutput(
        torch.tensor([[action, action, action, beside]]),
        torch.full((1, 4, 2), 0.9),
        torch.zeros(1, 4, 4),
        torch.full((1, 4, 2), 0.5),
    )
    output = DetectorOutput(torch.full((1, 2, 16), 0.5), [stage], None)
    targets = Targets(
        torch.zeros(1, 2, 16), torch.tensor([[action] * 4]), torch.zeros(1, 16).long()
    )
    only_class = {"iou_value_weight": 0.0, "offset_weight": 0.0, "boundary_weight": 0.0}

    def loss(**changes):
        settings = LossSettings(stage_positive_iou=(0.7,), **only_class, **changes)
        return detection_loss(output, targets, settings)["stage1"].item()

    assert loss() == pytest.approx(-(3 * log(0.9) + log(0.1)) / 4, abs=1e-4)
    assert loss(guarded=False) == pytest.approx(-(3 * log(0.9) + 4 * log(0.1)) / 7, abs=1e-4)


def detections(proposals, iou, boundaries, *changes, classes=(("run", 1.0),), duration=8.0):
    """Return the detections of one video, of a detector that does not move proposals [P, 2]."""
    cells = boundaries.shape[1]
    stage = StageOutput(
        proposals[None],
        iou[None],
        torch.zeros(1, len(proposals), 4),
        torch.zeros(1, len(proposals), 2),
    )
    settings = Settings(name="x", data=DataSettings(annotations="a.json")).changed(changes)
    output = DetectorOutput(boundaries[None], [stage], None)
    (found,) = detections_of(output, [TimeGrid.over_video(duration, cells)], settings, [classes])
    return found


def of(proposals, *changes):
    """Return detections of proposals with the scores 0.9, 0.8, ... and a boundary in every cell."""
    iou = torch.stack([torch.arange(9, 9 - len(proposals), -1) / 10, torch.ones(len(proposals))], 1)
    return detections(torch.tensor(proposals), iou, torch.ones(2, 8), *changes)


def test_the_released_soft_nms_loses_the_last_segment():
    apart = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert [d["segment"] for d in of(apart)] == apart
    assert [d["segment"] for d in of(apart, "inference.keep_last=false")] == apart[:2]


@pytest.mark.filterwarnings("ignore::etadlite.evaluation.PredictionWarning")
def test_the_released_code_reports_segments_outside_the_video():
    proposals = [[8.5, 9.0], [6.0, 9.0], [-3.0, -1.0]]
    assert [d["segment"] for d in of(proposals)] == [[6, 8]]
    found = of(proposals, "inference.keep_outside=true")
    assert [d["segment"] for d in found] == [[8, 8], [6, 8], [0, 0]]
    # It takes the ranks of what could be right.
    action = {"segment": [6, 8], "label": "run"}
    truth = {"database": {"v": {"subset": "t", "duration": 8.0, "annotations": [action]}}}
    for guess, expected in ((of(proposals), 1.0), (found, 0.5)):
        result = mean_average_precision(
            truth, {"results": {"v": guess}}, subset="t", tiou=[0.5], blocked=()
        )
        assert result.average == expected


@pytest.mark.parametrize("video", ["v0", "v1", "v2"])
def test_these_settings_give_the_detections_of_the_released_code(shared, video):
    with np.load(shared / "parity" / "etad_postprocess.npz") as file:
        given = {key[3:]: file[key] for key in file.files if key.startswith(video)}
    classes = LabelScores({video: given["cls"]}, [f"class{i:03d}" for i in range(200)])
    arrays = [torch.from_numpy(given[name]) for name in ("anchors", "iou", "start", "end")]
    proposals, iou, *boundaries = arrays
    duration = float(given["duration"])
    ours, published = (
        detections(
            128 * proposals,
            iou,
            torch.stack(boundaries),
            *changes,
            classes=classes.top(video, 2),
            duration=duration,
        )
        for changes in ((), AS_RELEASED)
    )
    order = np.argsort(-given["out_score"], kind="stable")
    assert [d["label"] for d in published] == given["out_label"][order].tolist()
    np.testing.assert_allclose(
        [d["score"] for d in published], given["out_score"][order], rtol=0, atol=1e-6
    )
    # Where the released code reports an end before the start, a detection has no length.
    np.testing.assert_allclose(
        [d["segment"] for d in published],
        given["out_segment"][order].clip(0, duration),
        rtol=0,
        atol=1e-4,
    )
    assert (np.diff([d["segment"] for d in ours]) > 0).all()
    assert (np.diff([d["segment"] for d in published]) == 0).any()


def test_decoding_at_the_target_size_changes_pixels_by_little(shared):
    """The published code decodes at full size and then interpolates between four pixels."""
    video = shared / "realdata" / "videos" / "arm_wrestling.mp4"
    picks, size = np.arange(0, 60, 10), DataSettings(annotations="a.json").decode_size
    info = probe(video)
    full = read_frames(video, picks, (info.height, info.width))
    expected = torch.nn.functional.interpolate(full.float(), size, mode="bilinear")
    published = read_frames(video, picks, size, resize="after")
    assert (published - expected).abs().max() <= 0.5
    ours = read_frames(video, picks, size)
    assert 0.5 < (ours.float() - published).abs().mean().item() < 3  # of 255


def test_the_setting_resize_changes_the_snippets(tiny):
    settings = preset("e2e_stickfigures", (*tiny.assignments, "data.cache=null"))
    video = next((tiny.data / "videos").glob("*.mp4"))
    ours = decode_snippets(Video(video), settings.data)
    after = decode_snippets(Video(video), settings.changed({"data.resize": "after"}).data)
    assert 0 < (ours.float() - after).abs().mean() < 6


def test_a_ratio_of_one_gives_every_snippet_a_gradient():
    class Pixels(torch.nn.Module):
        channels = 2

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(2))
            self.seen = []

        def forward(self, frames):
            if torch.is_grad_enabled():
                self.seen.append(len(frames))
            return frames.float().mean((2, 3, 4))[:, :2] * self.scale

    def snippets_with_gradient(*changes):
        encoder = Pixels()
        ratio = preset("e2e_anet_tsp", changes).sampling.snippet_ratio
        sequential = SequentialEncoder(encoder, 4, ratio=ratio)
        frames = torch.randint(0, 256, (1, 128, 3, 1, 2, 2), dtype=torch.uint8)
        sequential(frames, Draws([1])).sum().backward()
        return sum(encoder.seen)

    assert snippets_with_gradient() == 40  # as the released code does
    assert snippets_with_gradient("sampling.snippet_ratio=1.0") == 128
