"""Weights of the published detectors under this package's names."""

import re
from collections.abc import Mapping

from torch import Tensor

from etadlite.errors import InputError

# (published name, our name); a released checkpoint holds the first family, OpenTAD's the second.
_SHARED_LSTM = [
    (r"mem_f\.", "enhance.lstm_forward."),
    (r"mem_b\.", "enhance.lstm_backward."),
]
_BRANCHES = {
    "layer2_f": "conv_forward",
    "layer2_b": "conv_backward",
    "layer2_d": "conv_direct",
    "layer3": "merge",
}
_RELEASED = [
    *((rf"temporal_enhance\.{old}", new) for old, new in _SHARED_LSTM),
    (r"temporal_enhance\.layer1\.", "enhance.project."),
    *((rf"temporal_enhance\.{old}\.", f"enhance.{new}.") for old, new in _BRANCHES.items()),
    (r"tem\.0\.", "evaluate.hidden."),
    (r"tem\.2\.", "evaluate.score."),
    (r"stage_conv\.(\d)\.0\.", r"stages.\1.transform."),
    (r"stage_pem\.(\d)\.reduce_dim_before\.0\.", r"stages.\1.reduce."),
    (r"stage_pem\.(\d)\.reduce_dim_ext\.0\.", r"stages.\1.shared."),
    (r"stage_pem\.(\d)\.iou_fc\.", r"stages.\1.iou."),
    (r"stage_pem\.(\d)\.cls_se_fc\.", r"stages.\1.boundary."),
    (r"stage_pem\.(\d)\.reg_cw_fc\.", r"stages.\1.centre_width."),
    (r"stage_pem\.(\d)\.reg_s_fc\.", r"stages.\1.start."),
    (r"stage_pem\.(\d)\.reg_e_fc\.", r"stages.\1.end."),
]
_OPENTAD = [
    *((rf"neck\.{old}", new) for old, new in _SHARED_LSTM),
    (r"projection\.convs\.0\.conv\.", "enhance.project.0."),
    (r"projection\.convs\.0\.norm\.", "enhance.project.1."),
    *((rf"neck\.{old}\.conv\.", f"enhance.{new}.0.") for old, new in _BRANCHES.items()),
    *((rf"neck\.{old}\.norm\.", f"enhance.{new}.1.") for old, new in _BRANCHES.items()),
    (r"rpn_head\.tem\.0\.conv\.", "evaluate.hidden."),
    (r"rpn_head\.tem\.1\.conv\.", "evaluate.score."),
    (r"roi_head\.proposal_heads\.(\d)\.shared_conv_fc\.fcs\.0\.0\.", r"stages.\1.shared."),
    *(
        (rf"roi_head\.proposal_heads\.(\d)\.{old}\.{layer}\.", rf"stages.\1.{new}.{index}.")
        for old, new in (("iou_head", "iou"), ("se_head", "boundary"), ("reg_head", "offsets"))
        for layer, index in ((r"fcs\.0\.0", 0), (r"fcs\.1\.0", 2), (r"fcs\.2\.0", 4), ("head", 6))
    ),
]
_PREFIXES = ("module.", "base_detector.")
_ENCODER_PREFIXES = ("feature_extractor.", "backbone.")


def _rename(name: str, table: list[tuple[str, str]]) -> str | None:
    for old, new in table:
        renamed, count = re.subn(rf"^{old}", new, name)
        if count:
            return renamed
    return None


def published_detector(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Tell a published detector's layout and give its weights our names.

    Args:
        state_dict: published names -> weights, with or without the prefixes `module.` and
            `base_detector.`; the weights of a video encoder beside the detector are passed over.

    Returns:
        The layout (`released` or `opentad`) and the weights for `ETADDetector.load_state_dict`.

    Raises:
        InputError: the weights are of neither layout, or some names are of neither.
    """
    names = {}
    for full_name in state_dict:
        name = full_name
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if not name.startswith(_ENCODER_PREFIXES):
            names[full_name] = name
    layout, table = (
        ("released", _RELEASED)
        if any(name.startswith("temporal_enhance.") for name in names.values())
        else ("opentad", _OPENTAD)
    )
    renamed = {full_name: _rename(name, table) for full_name, name in names.items()}
    if not any(renamed.values()):
        raise InputError(
            "these weights are no published ETAD detector: expected names such as "
            "temporal_enhance.layer1.0.weight (released) or projection.convs.0.conv.weight "
            f"(OpenTAD), found {', '.join(list(state_dict)[:3]) or 'none'}"
        )
    left_over = [full_name for full_name, name in renamed.items() if name is None]
    if left_over:
        raise InputError(f"left-over keys in a detector of layout {layout}: {', '.join(left_over)}")
    return layout, {name: state_dict[full_name] for full_name, name in renamed.items()}
