"""The detector: features and proposals in, scored and refined proposals out."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly
from etadlite.detector.boundary import CellClassifier, TemporalEvaluation
from etadlite.detector.enhance import TemporalEnhancement
from etadlite.detector.proposals import refine
from etadlite.detector.published import published_detector
from etadlite.detector.stages import OpenTADStage, ReleasedStage, StageOutput

Layout = Literal["released", "opentad"]


class DetectorOutput(NamedTuple):
    """The detector's output for B videos.

    Attributes:
        boundaries: [B, 2, T] startness and endness of every cell, in 0..1.
        stages: one per refinement stage.
        classes: [B, K + 1, T] logits of every cell, background last; None without classes.
    """

    boundaries: Tensor
    stages: list[StageOutput]
    classes: Tensor | None

    def refined(self) -> tuple[Tensor, Tensor]:
        """Average over the stages: proposals [B, P, 2] in cells and tIoU scores [B, P, 2]."""
        proposals = [refine(stage.proposals, stage.offsets) for stage in self.stages]
        return (
            torch.stack(proposals).mean(0),
            torch.stack([stage.iou for stage in self.stages]).mean(0),
        )


class ETADDetector(nn.Module):
    """ETAD's detector (paper, sections 3.2 and 3.3).

    Args:
        in_channels: C of the features.
        width: inner channels, a multiple of 32.
        layout: `released` (the paper's code) or `opentad`.
        roi_size: bins of RoIAlign, a multiple of 4; published are 24 (released) and 16 (OpenTAD).
        hidden: width of a stage's shared layer.
        head: width of a stage's heads.
        num_stages: refinement stages.
        num_classes: K classes that the detector predicts; 0, as published, leaves them to an
            external classifier.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 256,
        layout: Layout = "released",
        roi_size: int = 24,
        hidden: int = 512,
        head: int = 128,
        num_stages: int = 3,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        stage = ReleasedStage if layout == "released" else OpenTADStage
        self.enhance = TemporalEnhancement(in_channels, width)
        self.evaluate = TemporalEvaluation(width)
        self.classify = CellClassifier(width, num_classes) if num_classes else None
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
        return DetectorOutput(
            self.evaluate(x), stages, self.classify(x) if self.classify is not None else None
        )

    @classmethod
    def from_published(cls, state_dict: Mapping[str, Tensor]) -> "ETADDetector":
        """Build the detector of a published checkpoint, whose weights decide layout and sizes.

        Args:
            state_dict: weights of a released ETAD or an OpenTAD checkpoint, with or without
                prefixes and video encoder.

        Raises:
            InputError: keys are missing, left over or of the wrong shape; they are named as in the
                checkpoint.
        """
        published = published_detector(state_dict)
        layout, weights = published.layout, published.weights

        def shape(name: str, dimensions: int) -> torch.Size:
            found = weights[name].shape if name in weights else None
            if found is None or len(found) != dimensions:
                problem = "is missing" if found is None else f"has the shape {tuple(found)}"
                raise InputError(f"{published.published_name(name)} {problem} in these weights")
            return found

        width, per_group, _ = shape("enhance.project.0.weight", 3)
        hidden, pooled = shape("stages.0.shared.weight", 2)
        head, _ = shape("stages.0.iou.0.weight", 2)
        detector = cls(
            4 * per_group,
            width=width,
            layout=layout,
            roi_size=pooled // (width // 2 if layout == "released" else width),
            hidden=hidden,
            head=head,
            num_stages=1 + max(int(name.split(".")[1]) for name in weights if "stages." in name),
        )
        load_exactly(detector, weights, "these weights", published.published_name)
        return detector
