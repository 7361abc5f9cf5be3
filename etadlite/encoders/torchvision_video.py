"""Torchvision's video networks as encoders, without their heads.

They are built without weights; `etadlite.encoders.build` loads published ones by their own names.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import isqrt

import torch
from torch import Tensor, nn
from torchvision.models import video

from etadlite.base.devices import at_least_float32
from etadlite.config import ENCODERS
from etadlite.encoders.staged import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    STAGES,
    Pixel,
    StagedEncoder,
    average,
)

GREY_MEAN: Pixel = (114.75, 114.75, 114.75)  # MViT's weights expect these
GREY_STD: Pixel = (57.375, 57.375, 57.375)

NAMES = tuple(name for name in ENCODERS if hasattr(video, name))


def recognise(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of torchvision's video network that has exactly these weights."""
    shapes = {name: value.shape for name, value in weights.items() if isinstance(value, Tensor)}
    for name in NAMES:
        with torch.device("meta"):
            own = getattr(video, name)(weights=None).state_dict()
        if shapes == {key: value.shape for key, value in own.items()}:
            return name
    return None


def video_encoder(name: str) -> StagedEncoder:
    """Build the video network of this name."""
    families = {"r3d": resnet, "mc3": resnet, "s3d": s3d, "mvit": mvit, "swin3d": swin3d}
    return families[name.partition("_")[0]](name)


def resnet(name: str) -> StagedEncoder:
    """Build `r3d_18` or `mc3_18` (Tran et al. 2018): stem and four layers."""
    net = getattr(video, name)(weights=None)
    return StagedEncoder({stage: getattr(net, stage) for stage in STAGES}, 512, like=net)


def s3d(name: str = "s3d") -> StagedEncoder:
    """Build S3D (Xie et al. 2018), cut before each of its poolings."""
    net = getattr(video, name)(weights=None)
    layers = net.features
    cuts = (0, 1, 4, 7, 13, len(layers))
    parts = [layers[first:last] for first, last in pairwise(cuts)]
    return StagedEncoder(dict(zip(STAGES, parts, strict=True)), 1024, like=net)


def swin3d(name: str) -> StagedEncoder:
    """Build `swin3d_t`, `swin3d_s` or `swin3d_b` (Liu et al. 2022): patches and four stages."""
    net = getattr(video, name)(weights=None)
    stem = nn.Sequential(net.patch_embed, net.pos_drop)
    cuts = (0, 1, 3, 5, 7)  # every stage but the first one begins by merging patches
    parts = [net.features[first:last] for first, last in pairwise(cuts)]
    parts[-1].append(net.norm)
    stages = dict(zip(STAGES, (stem, *parts), strict=True))
    how = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "pool": _average_of_last_axis}
    return StagedEncoder(stages, net.num_features, **how, like=net)


def mvit(name: str) -> StagedEncoder:
    """Build `mvit_v1_b` or `mvit_v2_s` (Fan et al. 2021): patches and sixteen blocks.

    Its position encoding fits 16 frames of 224x224 pixels alone. The feature is the class token.
    """
    net = getattr(video, name)(weights=None)
    stages: dict[str, nn.Module] = {"stem": _Patches(net.conv_proj, net.pos_encoding)}
    frames = net.pos_encoding.temporal_size
    stages |= {f"block{i}": _Block(block, frames) for i, block in enumerate(net.blocks, 1)}
    stages["norm"] = net.norm
    channels = net.norm.normalized_shape[0]
    how = {"mean": GREY_MEAN, "std": GREY_STD, "pool": _class_token}
    return StagedEncoder(stages, channels, **how, like=net)


def _average_of_last_axis(x: Tensor) -> Tensor:
    return average(x.movedim(-1, 1))


def _class_token(x: Tensor) -> Tensor:
    return at_least_float32(x[:, 0])


class _Patches(nn.Module):
    """MViT's first stage: [n, 3, F, H, W] -> tokens [n, 1 + f h w, c], the class token first."""

    def __init__(self, project: nn.Module, positions: nn.Module) -> None:
        super().__init__()
        self.project, self.positions = project, positions

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != (16, 224, 224):
            raise ValueError("it takes 16 frames of 224x224 pixels alone")
        return self.positions(self.project(x).flatten(2).transpose(1, 2))


class _Block(nn.Module):
    """A block of MViT that finds the size of its square input from the number of tokens."""

    def __init__(self, block: nn.Module, frames: int) -> None:
        super().__init__()
        self.block, self.frames = block, frames

    def forward(self, x: Tensor) -> Tensor:
        side = isqrt((x.shape[1] - 1) // self.frames)
        return self.block(x, (self.frames, side, side))[0]
