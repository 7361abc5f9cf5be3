"""Small configurations of transformers' networks under the names of the published ones."""

from etadlite.config import ENCODERS, Expected
from etadlite.encoders.transformers_video import NETWORKS

_VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
_VIT |= {"intermediate_size": 32, "image_size": 32, "num_frames": 4}
_JEPA = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "crop_size": 32}
_JEPA |= {"frames_per_clip": 4, "num_pooler_layers": 1, "pred_hidden_size": 24}
_JEPA |= {"pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}

SIZES = {
    "videomae_b": _VIT,
    "videomaev2_b": _VIT,
    "timesformer_b": _VIT,
    "vivit_b": _VIT,
    "vjepa2_l": _JEPA,
}
"""For snippets of 4 frames of 32x32 pixels."""


def shrink(monkeypatch) -> None:
    """Make the networks small for a test."""
    for name, sizes in SIZES.items():
        monkeypatch.setitem(NETWORKS, name, NETWORKS[name]._replace(sizes=sizes))
        monkeypatch.setitem(ENCODERS, name, Expected(24, 4, 32, (32, 32)))
