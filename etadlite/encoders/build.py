"""The encoder that the settings name, in their memory layout."""

import torch
from torch import nn

from etadlite.base.weights import load_exactly, load_weights
from etadlite.config import EncoderSettings, Settings
from etadlite.encoders.r2plus1d import R2Plus1D
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.encoders.tiny import tiny_encoder


def build_encoder(settings: EncoderSettings, *, pretrained: bool = True) -> StagedEncoder:
    """Build the video encoder, by default with the weights that the settings name.

    Raises:
        InputError: the weights cannot be read, or belong to another encoder.
    """
    if settings.name == "tiny":
        encoder = tiny_encoder(pretrained=pretrained and settings.weights is None)
    else:
        encoder = freeze(R2Plus1D(int(settings.name[-2:])), settings.frozen_stages)
    if pretrained and settings.weights is not None:
        weights, _ = load_weights(settings.weights)
        load_exactly(encoder, weights, str(settings.weights))
    if settings.channels_last is not None:
        use_layout(encoder, settings.channels_last)
    if settings.compile:
        compile_parts(encoder)
    return encoder


def settle_speed(settings: Settings, device: torch.device) -> Settings:
    """Replace `auto` in the settings by what is fastest on this device.

    The dtype and the layout of R(2+1)D are measured. The tiny encoder is made for fp32 in its own
    layout. A value that the settings name stays.
    """
    if settings.encoder.name == "tiny" or settings.data.features or device.type == "mps":
        precision = settings.training.precision
        return settings.changed({"training.precision": precision.replace("auto", "fp32")})
    from etadlite.encoders.speed import measured_speed

    return measured_speed(settings, device)


def use_layout(encoder: nn.Module, channels_last: bool) -> None:
    """Change the memory layout of an encoder's weights; its activations follow them."""
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    encoder.to(memory_format=layout)  # pyright: ignore[reportCallIssue]


def compile_parts(encoder: StagedEncoder, backend: str = "inductor") -> None:
    """Compile an encoder's frozen prefix and its suffix in place with `torch.compile`."""
    for part in ("encode_prefix", "encode_suffix"):
        setattr(encoder, part, torch.compile(getattr(encoder, part), backend=backend))
