"""Published checkpoints of the detector: the names of their weights, and how they are loaded."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from etadlite.base.errors import InputError
from etadlite.base.weights import load_exactly
from etadlite.detector.stages import Layout

Detector = TypeVar("Detector", bound=nn.Module)

_LSTMS = {"lstm_forward": "mem_f", "lstm_backward": "mem_b"}
_CONVOLUTIONS = {
    "conv_forward": "layer2_f",
    "conv_backward": "layer2_b",
    "conv_direct": "layer2_d",
    "merge": "layer3",
}
_HEADS = {"iou": "iou_head", "boundary": "se_head", "offsets": "reg_head"}
_LAYERS = {0: "fcs.0.0", 2: "fcs.1.0", 4: "fcs.2.0", 6: "head"}

# Start of a name here -> start of the published name; {} is the number of a stage.
_STARTS: dict[Layout, dict[str, str]] = {
    "released": {
        "enhance.project.": "temporal_enhance.layer1.",
        **{
            f"enhance.{ours}.": f"temporal_enhance.{theirs}."
            for ours, theirs in (_LSTMS | _CONVOLUTIONS).items()
        },
        "evaluate.hidden.": "tem.0.",
        "evaluate.score.": "tem.2.",
        "stages.{}.transform.": "stage_conv.{}.0.",
        "stages.{}.reduce.": "stage_pem.{}.reduce_dim_before.0.",
        "stages.{}.shared.": "stage_pem.{}.reduce_dim_ext.0.",
        "stages.{}.iou.": "stage_pem.{}.iou_fc.",
        "stages.{}.boundary.": "stage_pem.{}.cls_se_fc.",
        "stages.{}.centre_width.": "stage_pem.{}.reg_cw_fc.",
        "stages.{}.start.": "stage_pem.{}.reg_s_fc.",
        "stages.{}.end.": "stage_pem.{}.reg_e_fc.",
    },
    "opentad": {
        "enhance.project.0.": "projection.convs.0.conv.",
        "enhance.project.1.": "projection.convs.0.norm.",
        **{f"enhance.{ours}.": f"neck.{theirs}." for ours, theirs in _LSTMS.items()},
        **{f"enhance.{ours}.0.": f"neck.{theirs}.conv." for ours, theirs in _CONVOLUTIONS.items()},
        **{f"enhance.{ours}.1.": f"neck.{theirs}.norm." for ours, theirs in _CONVOLUTIONS.items()},
        "evaluate.hidden.": "rpn_head.tem.0.conv.",
        "evaluate.score.": "rpn_head.tem.1.conv.",
        "stages.{}.shared.": "roi_head.proposal_heads.{}.shared_conv_fc.fcs.0.0.",
        **{
            f"stages.{{}}.{ours}.{number}.": f"roi_head.proposal_heads.{{}}.{theirs}.{layer}."
            for ours, theirs in _HEADS.items()
            for number, layer in _LAYERS.items()
        },
    },
}


class PublishedNames(NamedTuple):
    """A checkpoint's names: `names("evaluate.score.bias")` is for example "module.tem.2.bias"."""

    layout: Layout
    prefix: str  # precedes every name, such as `module.base_detector.`

    def __call__(self, name: str) -> str:
        """Return the published name of a weight; `name` itself if it is none of the detector's."""
        number = "".join(re.findall(r"^stages\.(\d+)\.", name))
        for ours, theirs in _STARTS[self.layout].items():
            if name.startswith(ours.format(number)):
                rest = name.removeprefix(ours.format(number))
                return self.prefix + theirs.format(number) + rest
        return name

    @classmethod
    def recognise(cls, names: Iterable[str]) -> "PublishedNames":
        """Tell from the names in a checkpoint which layout and which prefix it has.

        Raises:
            InputError: the names belong to neither layout.
        """
        names = list(names)
        known = [cls(layout, "")("enhance.project.0.weight") for layout in _STARTS]
        for layout, first in zip(_STARTS, known, strict=True):
            for name in names:
                if name.endswith(first):
                    return cls(layout, name.removesuffix(first))
        raise InputError(
            f"these weights are no published ETAD detector: expected {known[0]} (released) or "
            f"{known[1]} (OpenTAD), found {', '.join(names[:3]) or 'none'}"
        )


def load_published(kind: Callable[..., Detector], state_dict: Mapping[str, Tensor]) -> Detector:
    """Build a detector of that kind from a checkpoint; see `ETADDetector.from_published`."""
    published = PublishedNames.recognise(state_dict)

    def shape(name: str, dimensions: int) -> torch.Size:
        weight = state_dict.get(published(name))
        if weight is None or weight.dim() != dimensions:
            problem = "is missing" if weight is None else f"has the shape {tuple(weight.shape)}"
            raise InputError(f"{published(name)} {problem} in these weights")
        return weight.shape

    width, per_group, _ = shape("enhance.project.0.weight", 3)
    hidden, pooled = shape("stages.0.shared.weight", 2)
    head, _ = shape("stages.0.iou.0.weight", 2)
    detector = kind(
        4 * per_group,
        width=width,
        layout=published.layout,
        roi_size=pooled // (width // 2 if published.layout == "released" else width),
        hidden=hidden,
        head=head,
        num_stages=next(
            n
            for n in itertools.count(1)
            if published(f"stages.{n}.shared.weight") not in state_dict
        ),
    )
    ours = {published(name): name for name in detector.state_dict()}
    weights = {
        ours.get(name, name): weight
        for name, weight in state_dict.items()
        if not name.removeprefix("module.").startswith(("feature_extractor.", "backbone."))
    }
    load_exactly(detector, weights, "these weights", published)
    return detector
