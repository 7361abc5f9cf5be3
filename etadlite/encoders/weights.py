"""Encoders with weights: from TSP's published state dicts, and the shipped tiny encoder."""

import re
from collections.abc import Mapping
from pathlib import Path

from etadlite.base.weights import load_exactly, load_weights
from etadlite.encoders.r2plus1d import R2Plus1D, TinyR2Plus1D

TINY_WEIGHTS = Path(__file__).with_name("tiny_r2plus1d.safetensors")


def from_tsp(state_dict: Mapping, *, prefix: str = "") -> R2Plus1D:
    """Build the encoder that TSP published, from its state dict.

    Args:
        state_dict: name -> tensor, or the published file's outer dict that holds it under
            ``model``. The prefixes ``module.`` and ``features.`` are taken off; the ``fc`` heads
            are dropped.
        prefix: what stands before the names where the encoder is part of a larger checkpoint.

    Returns:
        The encoder in eval mode, its depth and mid planes told from the keys.

    Raises:
        InputError: the keys are of no R(2+1)D-18 or -34; the missing, left-over and wrong-shape
            ones are listed as the state dict calls them.
    """
    inner = state_dict.get("model", state_dict)
    names = {k: re.sub(rf"^{re.escape(prefix)}(module\.)?(features\.)?", "", k) for k in inner}
    names = {k: name for k, name in names.items() if not name.startswith("fc")}
    weights = {name: inner[k] for k, name in names.items()}
    depth = 34 if any(name.startswith("layer3.2.") for name in weights) else 18
    # Where planes double, torchvision's second convolution reuses the mid planes of the first.
    first, second = (weights.get(f"layer2.0.conv{i}.0.0.weight") for i in (1, 2))
    shared = first is not None and second is not None and first.shape[0] == second.shape[0]
    encoder = R2Plus1D(depth, own_planes=not shared)
    ours = {name: k for k, name in names.items()}
    # A missing key has the prefix of the stem's keys.
    start = next((k.removesuffix(n) for k, n in names.items() if n.startswith("stem.")), prefix)
    load_exactly(
        encoder, weights, "the keys of the state dict", lambda name: ours.get(name, start + name)
    )
    return encoder.eval()


def tiny_encoder(pretrained: bool = True) -> TinyR2Plus1D:
    """Make the laptop encoder.

    Args:
        pretrained: load the shipped weights (actions of the studio clips); else fresh ones.

    Returns:
        The encoder in eval mode.
    """
    encoder = TinyR2Plus1D()
    if pretrained:
        state_dict, _ = load_weights(TINY_WEIGHTS)
        load_exactly(encoder, state_dict, str(TINY_WEIGHTS))
    return encoder.eval()
