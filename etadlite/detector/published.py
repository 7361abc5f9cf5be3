"""The names of the published detectors' weights, here and there."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from etadlite.base.errors import InputError

Names = Sequence[tuple[str, str]]  # (start of a published name, of ours); {} is a stage's number

_LSTM = (("mem_f", "lstm_forward"), ("mem_b", "lstm_backward"))
_BRANCHES = (
    ("layer2_f", "conv_forward"),
    ("layer2_b", "conv_backward"),
    ("layer2_d", "conv_direct"),
    ("layer3", "merge"),
)
_RELEASED: Names = [
    *((f"temporal_enhance.{old}.", f"enhance.{new}.") for old, new in _LSTM),
    ("temporal_enhance.layer1.", "enhance.project."),
    *((f"temporal_enhance.{old}.", f"enhance.{new}.") for old, new in _BRANCHES),
    ("tem.0.", "evaluate.hidden."),
    ("tem.2.", "evaluate.score."),
    ("stage_conv.{}.0.", "stages.{}.transform."),
    ("stage_pem.{}.reduce_dim_before.0.", "stages.{}.reduce."),
    ("stage_pem.{}.reduce_dim_ext.0.", "stages.{}.shared."),
    ("stage_pem.{}.iou_fc.", "stages.{}.iou."),
    ("stage_pem.{}.cls_se_fc.", "stages.{}.boundary."),
    ("stage_pem.{}.reg_cw_fc.", "stages.{}.centre_width."),
    ("stage_pem.{}.reg_s_fc.", "stages.{}.start."),
    ("stage_pem.{}.reg_e_fc.", "stages.{}.end."),
]
_OPENTAD: Names = [
    *((f"neck.{old}.", f"enhance.{new}.") for old, new in _LSTM),
    ("projection.convs.0.conv.", "enhance.project.0."),
    ("projection.convs.0.norm.", "enhance.project.1."),
    *((f"neck.{old}.conv.", f"enhance.{new}.0.") for old, new in _BRANCHES),
    *((f"neck.{old}.norm.", f"enhance.{new}.1.") for old, new in _BRANCHES),
    ("rpn_head.tem.0.conv.", "evaluate.hidden."),
    ("rpn_head.tem.1.conv.", "evaluate.score."),
    ("roi_head.proposal_heads.{}.shared_conv_fc.fcs.0.0.", "stages.{}.shared."),
    *(
        (f"roi_head.proposal_heads.{{}}.{old}.{layer}.", f"stages.{{}}.{new}.{index}.")
        for old, new in (("iou_head", "iou"), ("se_head", "boundary"), ("reg_head", "offsets"))
        for layer, index in (("fcs.0.0", 0), ("fcs.1.0", 2), ("fcs.2.0", 4), ("head", 6))
    ),
]
_PREFIX = re.compile(r"(module\.)?(base_detector\.)?")
_ENCODER_PREFIXES = ("feature_extractor.", "backbone.")


class PublishedDetector(NamedTuple):
    """The weights of a published detector.

    Attributes:
        layout: `released` or `opentad`.
        weights: for `ETADDetector.load_state_dict`.
        prefix: precedes the published names, such as `module.base_detector.`.
    """

    layout: str
    weights: dict[str, Tensor]
    prefix: str

    def published_name(self, name: str) -> str:
        """Return the published name of the weight `name`."""
        back = [(ours, theirs) for theirs, ours in _TABLES[self.layout]]
        return self.prefix + (_rename(name, back) or name)


_TABLES: dict[str, Names] = {"released": _RELEASED, "opentad": _OPENTAD}


def _rename(name: str, table: Names) -> str | None:
    for old, new in table:
        pattern = "^" + re.escape(old).replace(r"\{\}", r"(\d+)")
        renamed, count = re.subn(pattern, new.replace("{}", r"\1"), name)
        if count:
            return renamed
    return None


def published_detector(state_dict: Mapping[str, Tensor]) -> PublishedDetector:
    """Recognise a published detector's layout, and rename its weights.

    Args:
        state_dict: published names -> weights, with or without the prefixes `module.` and
            `base_detector.`; the weights of a video encoder are ignored.

    Raises:
        InputError: names belong to neither layout.
    """
    names = {full_name: _PREFIX.sub("", full_name, count=1) for full_name in state_dict}
    names = {full: name for full, name in names.items() if not name.startswith(_ENCODER_PREFIXES)}
    released = any(name.startswith("temporal_enhance.") for name in names.values())
    layout = "released" if released else "opentad"
    renamed = {full: _rename(name, _TABLES[layout]) for full, name in names.items()}
    if not any(renamed.values()):
        raise InputError(
            "these weights are no published ETAD detector: expected names such as "
            "temporal_enhance.layer1.0.weight (released) or projection.convs.0.conv.weight "
            f"(OpenTAD), found {', '.join(list(state_dict)[:3]) or 'none'}"
        )
    left_over = [full for full, name in renamed.items() if name is None]
    if left_over:
        raise InputError(f"left-over keys in a detector of layout {layout}: {', '.join(left_over)}")
    known = next(iter(names))
    return PublishedDetector(
        layout,
        {name: state_dict[full] for full, name in renamed.items()},
        known.removesuffix(names[known]),
    )
