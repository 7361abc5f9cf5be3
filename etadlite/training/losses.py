"""The losses of ETAD (paper, section 3.3; balances and weights as in the released code).

With several processes, each one's loss is its share: sums over its own videos, divided by counts
over the videos of all. Shares, and their gradients, add up to those of the joined batch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from etadlite.base.distributed import all_reduce_sum
from etadlite.base.draws import Draws
from etadlite.base.segments import tiou
from etadlite.config import LossSettings
from etadlite.detector import DetectorOutput, StageOutput
from etadlite.training.targets import Targets

_EPSILON = 1e-6


class StageTargets(NamedTuple):
    """Targets of one stage for P proposals in each of B videos.

    Offsets of start, end and centre are in units of the proposal's length; the last one is the log
    of the matched action's length in this unit.
    """

    iou: Tensor  # [B, P] tIoU of a proposal with its matched action
    offsets: Tensor  # [B, P, 4]
    boundary: Tensor  # [B, P, 2] startness at a proposal's start and endness at its end


@torch.no_grad()
def stage_targets(proposals: Tensor, targets: Targets) -> StageTargets:
    """Return the targets of one stage for its proposals [B, P, 2] in cells."""
    cells = targets.boundaries.shape[-1]
    matched = targets.matched
    shortest = _EPSILON * cells
    length = (proposals[..., 1] - proposals[..., 0]).clamp(min=shortest)
    matched_length = (matched[..., 1] - matched[..., 0]).clamp(min=shortest)
    ends = (matched - proposals) / length[..., None]
    centre = ends.mean(dim=-1)
    width = (matched_length / length + _EPSILON).log()
    offsets = torch.cat((ends, centre[..., None], width[..., None]), dim=-1)
    cell = proposals.long().clamp(0, cells - 1).transpose(1, 2)  # [B, 2, P]
    boundary = targets.boundaries.gather(2, cell).transpose(1, 2)
    return StageTargets(tiou(matched, proposals), offsets, boundary)


def balanced_bce(probability: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy; positives (target > 0.5) and negatives weigh the same.

    If one group is empty, the loss is the mean over the other.
    """
    positive = target > 0.5
    log_yes, log_no = (probability + _EPSILON).log(), (1 - probability + _EPSILON).log()
    counts = all_reduce_sum(torch.stack((positive.sum(), (~positive).sum())))
    sums = torch.stack(((log_yes * positive).sum(), (log_no * ~positive).sum()))
    return -(sums / counts.clamp(min=1)).sum() / (counts > 0).sum()


def draw_as_many(group: Tensor, positives: Tensor, draws: Draws, *, guarded: bool) -> Tensor:
    """Draw about as many members of a group as there are positives; all masks are bool [B, ...].

    The published code also draws all others if the positives outnumber the group or the group is
    empty; `guarded` draws members only.
    """
    wanted, there = all_reduce_sum(torch.stack((positives.sum(), group.sum())))
    drawn = draws.rand(*group.shape[1:]) * group > 1 - wanted / there
    return drawn & group if guarded else drawn


def sampled_bce(
    probability: Tensor, target: Tensor, threshold: float, draws: Draws, *, guarded: bool = True
) -> Tensor:
    """Return the mean cross entropy of the positives (target > threshold) and as many negatives.

    Without positives, it is the mean over all negatives.
    """
    positive = target > threshold
    log_yes, log_no = (probability + _EPSILON).log(), (1 - probability + _EPSILON).log()
    drawn = draw_as_many(~positive, positive, draws, guarded=guarded)
    negative = drawn | (all_reduce_sum(positive.sum()) == 0)
    count = all_reduce_sum(positive.sum() + negative.sum())
    return -(log_yes * positive + log_no * negative).sum() / count


def sampled_l2(iou: Tensor, target: Tensor, draws: Draws, *, guarded: bool = True) -> Tensor:
    """Return the mean squared error of high tIoUs, of as many middle and as many low ones.

    High means above 0.7, low at most 0.3. Without high tIoUs, it is the mean over all.
    """
    is_high, is_low = target > 0.7, target <= 0.3
    weight = is_high.float()
    for group in (~is_high & ~is_low, is_low):
        weight = weight + draw_as_many(group, is_high, draws, guarded=guarded)
    weight = torch.where(all_reduce_sum(is_high.sum()) > 0, weight, 1.0)
    return ((iou - target).square() * weight).sum() / all_reduce_sum(weight.sum())


def smooth_l1(offset: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """Return smooth L1, summed over offsets [B, P, 4]: its mean over the positives [B, P], or 0."""
    error = F.smooth_l1_loss(offset, target, reduction="none").sum(dim=-1)
    return (error * positive).sum() / all_reduce_sum(positive.sum()).clamp(min=1)


def stage_loss(
    stage: StageOutput,
    targets: StageTargets,
    positive_iou: float,
    settings: LossSettings,
    draws: Draws,
) -> Tensor:
    """Return the loss of one stage; its positives are the proposals of tIoU > positive_iou."""
    guarded = settings.guarded
    iou, boundary = stage.iou.float(), stage.boundary.float()
    iou_class = sampled_bce(iou[..., 0], targets.iou, settings.iou_positive, draws, guarded=guarded)
    iou_value = sampled_l2(iou[..., 1], targets.iou, draws, guarded=guarded)
    offsets = smooth_l1(stage.offsets.float(), targets.offsets, targets.iou > positive_iou)
    ends = sum(
        sampled_bce(boundary[..., side], targets.boundary[..., side], 0.5, draws, guarded=guarded)
        for side in (0, 1)
    )
    return (
        settings.iou_class_weight * iou_class
        + settings.iou_value_weight * iou_value
        + settings.offset_weight * offsets
        + settings.boundary_weight * ends
    )


def detection_loss(
    output: DetectorOutput, targets: Targets, settings: LossSettings, draws: Draws | None = None
) -> dict[str, Tensor]:
    """Return all parts of the loss; their sum is what training minimises.

    They are `boundary`, `stage1`, `stage2`, ..., and `class` if the detector classifies. Negatives
    are drawn from `draws`, the random streams of the videos; None: fresh ones.
    """
    boundaries = output.boundaries.float()
    if draws is None:
        draws = Draws.fresh(len(boundaries), boundaries.device)
    parts = {
        "boundary": balanced_bce(boundaries[:, 0], targets.boundaries[:, 0])
        + balanced_bce(boundaries[:, 1], targets.boundaries[:, 1])
    }
    thresholds = settings.stage_positive_iou
    for number, (stage, threshold) in enumerate(zip(output.stages, thresholds, strict=True), 1):
        wanted = stage_targets(stage.proposals, targets)
        parts[f"stage{number}"] = stage_loss(stage, wanted, threshold, settings, draws)
    if output.classes is not None:
        entropy = F.cross_entropy(output.classes.float(), targets.classes, reduction="sum")
        cells = all_reduce_sum(targets.classes.new_tensor(targets.classes.numel()))
        parts["class"] = settings.class_weight * entropy / cells
    return parts
