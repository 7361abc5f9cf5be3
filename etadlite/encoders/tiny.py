"""A tiny R(2+1)D for laptops, and its shipped weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from etadlite.base.weights import load_exactly, load_weights
from etadlite.encoders.staged import STAGES, StagedEncoder, TemporalConv

TINY_WEIGHTS = Path(__file__).with_name("tiny_r2plus1d.safetensors")


class TinyConv(nn.Sequential):
    """A 2+1 convolution with group norm: over space to the mid planes, then over time."""

    def __init__(
        self,
        in_planes: int,
        midplanes: int,
        out_planes: int,
        stride: tuple[int, int] = (1, 1),
        kernel: int = 3,
    ) -> None:
        time, space = stride
        pad = (0, kernel // 2, kernel // 2)
        super().__init__(
            nn.Conv3d(
                in_planes, midplanes, (1, kernel, kernel), (1, space, space), pad, bias=False
            ),
            group_norm(midplanes),
            nn.ReLU(inplace=True),
            TemporalConv(midplanes, out_planes, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
            group_norm(out_planes),
        )


def group_norm(planes: int) -> nn.GroupNorm:
    """Return a norm over groups of eight planes, which needs no statistics of other snippets."""
    return nn.GroupNorm(planes // 8, planes)


class TinyBlock(nn.Module):
    """A 2+1 convolution with a shortcut; `stride` is that of time and that of space."""

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = TinyConv(in_planes, planes, planes, stride)
        time, space = stride
        self.downsample = nn.Sequential(
            nn.Conv3d(in_planes, planes, 1, (time, space, space), bias=False), group_norm(planes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reduce by the strides: [n, c, f, h, w] -> [n, planes, f / time, h / space, w / space]."""
        return torch.relu_(self.conv(x).add_(self.downsample(x)))


class TinyR2Plus1D(StagedEncoder):
    """An R(2+1)D small enough to train end to end on a laptop (this project's definition).

    It is made for snippets of 8 frames of 48x48 pixels. Group norm makes a feature independent of
    its chunk, also in training. One convolution per stage, early spatial strides and the
    channels-last layout keep a forward pass below a millisecond on one core.

    Args:
        widths: planes of the four stages, multiples of 8; the last one is C.

    Attributes:
        feature_mean: [C], and `feature_std` [C]: fixed statistics that standardise a feature. They
            were measured once after pre-training and are part of the weights.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, widths: tuple[int, int, int, int] = (16, 24, 32, 48)) -> None:
        stem = nn.Sequential(TinyConv(3, 8, widths[0], (1, 2), kernel=5), nn.ReLU(True))
        strides = ((1, 2), (2, 2), (2, 2), (2, 1))
        planes = zip((widths[0], *widths), widths, strides, strict=False)
        stages = (stem, *(TinyBlock(*sizes) for sizes in planes))
        super().__init__(dict(zip(STAGES, stages, strict=True)), widths[-1])
        self.register_buffer("feature_mean", torch.zeros(self.channels))
        self.register_buffer("feature_std", torch.ones(self.channels))
        self.to(memory_format=torch.channels_last_3d)

    def normalise(self, frames: Tensor) -> Tensor:
        """Normalise like `StagedEncoder`, in the channels-last layout."""
        return super().normalise(frames).contiguous(memory_format=torch.channels_last_3d)

    def pool(self, x: Tensor) -> Tensor:
        """Average over time, height and width, then standardise: [n, C, f, h, w] -> [n, C]."""
        return (super().pool(x) - self.feature_mean) / self.feature_std


def tiny_encoder(pretrained: bool = True) -> TinyR2Plus1D:
    """Make the laptop encoder in eval mode.

    Args:
        pretrained: load the shipped weights, which classify the actions of studio clips.
    """
    encoder = TinyR2Plus1D()
    if pretrained:
        state_dict, _ = load_weights(TINY_WEIGHTS)
        load_exactly(encoder, state_dict, str(TINY_WEIGHTS))
    return encoder.eval()
