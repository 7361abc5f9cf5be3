"""Proposal evaluation: a refinement stage, in the two published layouts.

`released` is the layout of the paper's code, `opentad` that of the OpenTAD toolbox. They differ in
the layers before RoIAlign, in RoIAlign's convention and in the heads.
"""

import itertools
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from etadlite.detector.drawn import Head
from etadlite.detector.roi import RoIs, extend

Layout = Literal["released", "opentad"]


class StageOutput(NamedTuple):
    """The output of a stage for its P proposals, in their dtype."""

    proposals: Tensor  # [B, P, 2] the stage's input, in cells
    iou: Tensor  # [B, P, 2] tIoU with the best action, as classified and as regressed, in 0..1
    offsets: Tensor  # [B, P, 4] of start, end, centre, width; see `proposals.refine`
    boundary: Tensor  # [B, P, 2] probability that the start is a start and the end is an end


def mlp(*widths: int) -> Head:
    """Return linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for channels_in, channels_out in itertools.pairwise(widths):
        layers += [nn.Linear(channels_in, channels_out), nn.ReLU(inplace=True)]
    return Head(*layers[:-1])


class ReleasedStage(nn.Module):
    """A stage as released with the paper: [B, width, T] and proposals [B, P, 2] -> StageOutput.

    The first and the last quarter of the RoI give the start and the end offset. The centre and
    width offsets come from the whole RoI and are halved.
    """

    cut_out = RoIs  # how the features of proposals are read

    def __init__(self, width: int, roi_size: int, hidden: int, head: int) -> None:
        super().__init__()
        self.roi_size = roi_size
        quarter = width // 2 * (roi_size // 4)
        self.transform = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.reduce = nn.Conv1d(width, width // 2, 3, padding=1)
        self.shared = nn.Linear(width // 2 * roi_size, hidden)
        self.iou = mlp(hidden, head, head, head, 2)
        self.boundary = mlp(hidden, head, head, head, 2)
        self.centre_width = mlp(hidden, head, head, head, 2)
        self.start = mlp(quarter, hidden, head, head, head, 1)
        self.end = mlp(quarter, hidden, head, head, head, 1)

    def forward(self, features: Tensor, proposals: Tensor) -> StageOutput:
        x = features + self.transform(features).relu()
        x = self.reduce(x).relu()
        rois = self.cut_out(x, extend(proposals), self.roi_size, aligned=False)
        quarter = self.roi_size // 4
        shared = rois.linear(self.shared).relu()
        offsets = (
            self.start[2:](rois.linear(self.start[0], 0, quarter).relu()),
            self.end[2:](rois.linear(self.end[0], self.roi_size - quarter, quarter).relu()),
            self.centre_width(shared) / 2,
        )
        return StageOutput(
            proposals,
            self.iou(shared).to(proposals.dtype).sigmoid(),
            torch.cat(offsets, dim=-1).to(proposals.dtype),
            self.boundary(shared).to(proposals.dtype).sigmoid(),
        )


class OpenTADStage(nn.Module):
    """A stage as in OpenTAD: one shared layer on the RoI, one head for all four offsets."""

    def __init__(self, width: int, roi_size: int, hidden: int, head: int) -> None:
        super().__init__()
        self.roi_size = roi_size
        self.shared = nn.Linear(width * roi_size, hidden)
        self.iou = mlp(hidden, head, head, head, 2)
        self.boundary = mlp(hidden, head, head, head, 2)
        self.offsets = mlp(hidden, head, head, head, 4)

    def forward(self, features: Tensor, proposals: Tensor) -> StageOutput:
        rois = RoIs(features, extend(proposals), self.roi_size, aligned=True)
        shared = rois.linear(self.shared).relu()
        return StageOutput(
            proposals,
            self.iou(shared).to(proposals.dtype).sigmoid(),
            self.offsets(shared).to(proposals.dtype),
            self.boundary(shared).to(proposals.dtype).sigmoid(),
        )
