"""The encoder that the settings name, with its weights, in their memory layout."""

import torch

from etadlite.base.errors import InputError
from etadlite.config import ENCODERS, EncoderSettings, Settings
from etadlite.encoders.r2plus1d import R2Plus1D
from etadlite.encoders.staged import StagedEncoder, freeze
from etadlite.encoders.tiny import tiny_encoder


def build_encoder(settings: EncoderSettings, *, pretrained: bool = True) -> StagedEncoder:
    """Build the video encoder, by default with the weights that the settings name.

    Raises:
        InputError: there is no such encoder, or its weights cannot be read or fetched, or belong to
            another encoder.
    """
    encoder = bare_encoder(settings)
    if settings.name != "tiny":
        most = len(encoder.stage_names) - 1
        if settings.frozen_stages is not None and settings.frozen_stages > most:
            raise InputError(
                f"encoder.frozen_stages is {settings.frozen_stages}, and {settings.name} has "
                f"{most} stages after the first one"
            )
        freeze(encoder, settings.frozen_stages)
    if pretrained and settings.weights is not None:
        from etadlite.encoders.loading import load_named

        load_named(encoder, settings.name, settings.weights)
    elif pretrained and settings.name == "tiny":
        encoder.load_state_dict(tiny_encoder().state_dict())
    if settings.train != "all" or settings.frozen_dtype != "fp32":
        from etadlite.encoders.few import train_few

        train_few(encoder, settings, pretrained=pretrained)
    if settings.channels_last is not None or settings.checkpointing or settings.compile:
        from etadlite.encoders import speed

        if settings.channels_last is not None:
            speed.use_layout(encoder, settings.channels_last)
        if settings.checkpointing:
            speed.checkpoint_blocks(encoder)
        if settings.compile:
            speed.compile_parts(encoder)
    return encoder


def bare_encoder(settings: EncoderSettings) -> StagedEncoder:
    """Build the encoder that the settings name, without weights.

    Raises:
        InputError: there is no such encoder.
    """
    name, shift = settings.name, settings.temporal_shift
    kind, _, rest = name.partition(":")
    if shift and kind not in ("image", "timm"):
        raise InputError(f"encoder.temporal_shift is for image networks; {name} sees motion itself")
    if name == "tiny":
        return tiny_encoder(pretrained=False)
    if name.startswith("r2plus1d_"):
        return R2Plus1D(int(name[-2:]), own_planes=name == "r2plus1d_34")
    if name in ENCODERS:
        from etadlite.encoders import torchvision_video, transformers_video  # few runs need them

        if name in transformers_video.NETWORKS:
            return transformers_video.hub_encoder(name)
        return torchvision_video.video_encoder(name)
    if kind in ("image", "timm"):
        from etadlite.encoders.per_frame import timm_image, torchvision_image

        build = timm_image if kind == "timm" else torchvision_image
        return build(rest, temporal_shift=shift)
    from etadlite.encoders.objects import as_encoder, made

    return as_encoder(made(name), name)


def settle_speed(settings: Settings, device: torch.device) -> Settings:
    """Replace `auto` in the settings by what is fastest on this device.

    The dtype and the layout of R(2+1)D are measured. The tiny encoder is made for fp32 in its own
    layout. A value that the settings name stays.

    Raises:
        InputError: frozen weights in bf16 do not go with fp32.
    """
    encoder, precision = settings.encoder, settings.encoder_precision
    if precision != settings.training.precision:
        from etadlite.encoders.few import in_bf16

        settings = in_bf16(settings)
    if encoder.name == "tiny" or settings.data.features or device.type == "mps":
        return settings.changed({"training.precision": precision.replace("auto", "fp32")})
    if precision != "auto" and encoder.channels_last is not None:
        return settings
    from etadlite.encoders.speed import measured_speed

    return measured_speed(build_encoder(encoder, pretrained=False).to(device).eval(), settings)
