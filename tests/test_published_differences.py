"""Where the default departs from the published code, by a named setting.

`inference.postprocess.score_segments(keep_last, keep_outside)` is tested in test_postprocess,
`data.min_action` in test_datasets, `sampling.snippet_ratio` in test_sequential; here
`losses.guarded`.
"""

from math import log

import pytest
import torch

from etadlite.config import LossSettings
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.training.losses import detection_loss
from etadlite.training.targets import Targets


def test_published_losses_draw_positives_as_negatives_where_they_prevail():
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
