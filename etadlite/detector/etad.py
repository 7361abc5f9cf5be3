"""The detector: features and proposals in, scored and refined proposals out."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from etadlite.detector.proposals import refine
from etadlite.detector.stages import Layout, OpenTADStage, ReleasedStage, StageOutput
from etadlite.detector.temporal import CellHead, TemporalEnhancement


class DetectorOutput(NamedTuple):
    """The detector's output for B videos."""

    boundaries: Tensor  # [B, 2, T] startness and endness of every cell, in 0..1
    stages: list[StageOutput]  # one per refinement stage
    classes: Tensor | None  # [B, K + 1, T] logits of every cell, background last; if it classifies

    def refined(self) -> tuple[Tensor, Tensor]:
        """Average over the stages: proposals [B, P, 2] in cells and tIoU scores [B, P, 2]."""
        proposals = torch.stack([refine(stage.proposals, stage.offsets) for stage in self.stages])
        iou = torch.stack([stage.iou for stage in self.stages])
        return proposals.mean(0), iou.mean(0)


class ETADDetector(nn.Module):
    """ETAD's detector (paper, sections 3.2 and 3.3).

    It predicts K classes per cell (this project's definition). With 0, as published, a classifier
    of whole videos names the actions; that does not help in videos with actions of several classes.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 256,  # inner channels, a multiple of 32
        layout: Layout = "released",
        roi_size: int = 24,  # bins of RoIAlign, a multiple of 4; OpenTAD has 16
        hidden: int = 512,  # width of a stage's shared layer
        head: int = 128,  # width of a stage's heads
        num_stages: int = 3,
        num_classes: int = 0,  # K
    ) -> None:
        super().__init__()
        stage = ReleasedStage if layout == "released" else OpenTADStage
        self.enhance = TemporalEnhancement(in_channels, width)
        self.evaluate = CellHead(width, 2)
        self.classify = CellHead(width, num_classes + 1) if num_classes else None
        self.stages = nn.ModuleList(stage(width, roi_size, hidden, head) for _ in range(num_stages))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Xavier-uniform weights and set biases to zero, as released."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, proposals: Tensor) -> DetectorOutput:
        """Evaluate proposals [B, P, 2] in cells on features [B, C, T]."""
        x = self.enhance(features)
        stages = []
        for stage in self.stages:
            output = stage(x, proposals)
            stages.append(output)
            proposals = refine(proposals, output.offsets.detach())
        classes = None if self.classify is None else self.classify(x)
        return DetectorOutput(self.evaluate(x).sigmoid(), stages, classes)

    @classmethod
    def from_published(cls, state_dict: Mapping[str, Tensor]) -> "ETADDetector":
        """Build the detector of a released ETAD or an OpenTAD checkpoint.

        Its weights decide layout and sizes; prefixes and a video encoder may be among them.

        Raises:
            InputError: keys are missing, left over or of the wrong shape; the message has the
                checkpoint's own names.
        """
        from etadlite.detector.published import load_published  # only conversion needs it

        return load_published(cls, state_dict)
