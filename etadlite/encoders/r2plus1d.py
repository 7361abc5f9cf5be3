"""R(2+1)D encoders: TSP's for real videos and a tiny one for laptops.

Both read uint8 snippets [n, 3, F, H, W], normalise them themselves and return one feature per
snippet [n, C]. Both are a stem and four stages in a row, cut into a frozen prefix and a trained
suffix: ``forward(frames) = encode_suffix(encode_prefix(frames))``.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

PIXEL_MEAN = (110.2008, 100.63983, 95.99475)
PIXEL_STD = (58.14765, 56.46975, 55.332195)


class StagedEncoder(nn.Module):
    """What both encoders share; a subclass defines ``stem``, ``layer1`` .. ``layer4`` and ``pool``.

    Attributes:
        channels: C, the length of a feature.
        frozen_stages: how many stages stand frozen behind the frozen stem; None: nothing is frozen.
    """

    channels: int
    frozen_stages: int | None = None
    stage_names: ClassVar[tuple[str, ...]] = ("stem", "layer1", "layer2", "layer3", "layer4")

    def register_pixel_statistics(self) -> None:
        """Hold the pixel mean and deviation; they move with the module but are no weights."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        self.register_buffer("pixel_scale", 1 / std, persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def normalise(self, frames: Tensor) -> Tensor:
        """Turn uint8 frames into the floats that the first convolution reads.

        Args:
            frames: uint8 [n, 3, F, H, W], 0-255 RGB.

        Returns:
            [n, 3, F, H, W] in autocast's dtype where autocast is on, else in the module's.

        Raises:
            TypeError: the frames are not uint8 (they may have been normalised before).
        """
        if frames.dtype != torch.uint8:
            raise TypeError(f"an encoder takes uint8 frames, not {frames.dtype}")
        # One pass over the pixels: uint8 is promoted while it is scaled.
        values = torch.addcmul(self.pixel_shift, frames, self.pixel_scale)
        kind = frames.device.type
        if torch.is_autocast_enabled(kind):
            values = values.to(torch.get_autocast_dtype(kind))
        return values

    def prefix_length(self) -> int:
        """Count the frozen parts, the stem included: 0 when nothing is frozen."""
        return 0 if self.frozen_stages is None else 1 + self.frozen_stages

    def encode_prefix(self, frames: Tensor) -> Tensor:
        """Run the frozen part, whose output never changes in training.

        Args:
            frames: uint8 [n, 3, F, H, W].

        Returns:
            The frozen part's activations [n, c, f, h, w]; the frames themselves, still uint8, when
            nothing is frozen (the smallest form in which they can be kept).
        """
        length = self.prefix_length()
        if not length:
            return frames
        x = self.normalise(frames)
        for name in self.stage_names[:length]:
            x = getattr(self, name)(x)
        return x

    def encode_suffix(self, x: Tensor) -> Tensor:
        """Run what follows the frozen part.

        Args:
            x: what `encode_prefix` returned.

        Returns:
            Features [n, C].
        """
        length = self.prefix_length()
        if not length:
            x = self.normalise(x)
        for name in self.stage_names[length:]:
            x = getattr(self, name)(x)
        return self.pool(x)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode snippets: uint8 [n, 3, F, H, W] -> features [n, C]."""
        return self.encode_suffix(self.encode_prefix(frames))

    def pool(self, x: Tensor) -> Tensor:
        """Average over time, height and width: [n, C, f, h, w] -> [n, C], at least float32."""
        return x.mean((2, 3, 4), dtype=torch.promote_types(x.dtype, torch.float32))

    def train(self, mode: bool = True) -> "StagedEncoder":
        """Set the training mode of everything but batch norm, which stays in eval mode.

        A snippet's feature must not depend on the chunk in which it happens to be encoded.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eval()
        return self


def freeze(encoder: StagedEncoder, stages: int | None) -> StagedEncoder:
    """Freeze the stem and the first stages, and thaw all that follows.

    Args:
        encoder: changed in place.
        stages: 0 freezes the stem alone, k the stem and k of the four stages, None nothing.

    Returns:
        The same encoder. Frozen parameters have ``requires_grad`` False and no stale gradient.

    Raises:
        ValueError: `stages` is not None or 0..4.
    """
    last = len(encoder.stage_names) - 1
    if stages is not None and not 0 <= stages <= last:
        raise ValueError(f"an encoder has 0 to {last} stages to freeze, not {stages}")
    encoder.frozen_stages = stages
    for index, name in enumerate(encoder.stage_names):
        for parameter in getattr(encoder, name).parameters():
            parameter.requires_grad_(index >= encoder.prefix_length())
            if not parameter.requires_grad:
                parameter.grad = None
    return encoder


class TemporalConv(nn.Conv3d):
    """A convolution over time that pads by itself where there are fewer frames than it spans.

    There the CPU's half-precision weight gradient is wrong, up to not being a number (torch 2.15,
    an input of 2 frames and a kernel of 3); with frames of zeros in place of padding it is right.
    """

    def forward(self, x: Tensor) -> Tensor:
        frames = self.padding[0]
        if x.shape[2] >= self.kernel_size[0]:
            return super().forward(x)
        padded = nn.functional.pad(x, (0, 0, 0, 0, frames, frames))
        return nn.functional.conv3d(padded, self.weight, None, self.stride)


class SharedPlanesConv(Conv2Plus1D):
    """Torchvision's 2+1 convolution, whose mid planes are those of the block's first one."""

    def __init__(
        self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(in_planes, out_planes, midplanes, stride, padding)
        last = self[3]
        self[3] = TemporalConv(
            midplanes, out_planes, last.kernel_size, last.stride, last.padding, bias=False
        )


class OwnPlanesConv(SharedPlanesConv):
    """A 2+1 convolution whose mid planes follow from its own planes.

    Torchvision gives both convolutions of a block the mid planes of the first one. The count keeps
    the parameters of a full 3x3x3 convolution (Tran et al. 2018, section 3.5).
    """

    def __init__(
        self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1
    ) -> None:
        del midplanes
        own = (in_planes * out_planes * 27) // (in_planes * 9 + out_planes * 3)
        super().__init__(in_planes, out_planes, own, stride, padding)


class R2Plus1D(StagedEncoder, VideoResNet):
    """R(2+1)D-18 or -34 as TSP trained it (Alwassel et al. 2021), without its heads.

    Args:
        depth: 18 or 34.
        own_planes: True: each convolution computes its own mid planes, batch norm has eps 1e-3 and
            momentum 0.9 (TSP's R(2+1)D-34); False: torchvision's planes, eps and momentum.

    Raises:
        ValueError: the depth is neither 18 nor 34.
    """

    blocks: ClassVar[dict[int, list[int]]] = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}
    channels = 512

    def __init__(self, depth: int = 34, own_planes: bool = True) -> None:
        if depth not in self.blocks:
            raise ValueError(f"R(2+1)D comes with depth 18 or 34, not {depth}")
        convolution = OwnPlanesConv if own_planes else SharedPlanesConv
        VideoResNet.__init__(self, BasicBlock, [convolution] * 4, self.blocks[depth], R2Plus1dStem)
        del self.fc, self.avgpool
        if own_planes:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eps, module.momentum = 1e-3, 0.9
        self.register_pixel_statistics()
        self.train()


class TinyConv(nn.Sequential):
    """A 2+1 convolution with group norm: space to the mid planes, then time to the out planes."""

    def __init__(
        self,
        in_planes: int,
        midplanes: int,
        out_planes: int,
        stride: tuple[int, int] = (1, 1),
        kernel: int = 3,
    ) -> None:
        time, space = stride
        super().__init__(
            nn.Conv3d(
                in_planes,
                midplanes,
                (1, kernel, kernel),
                (1, space, space),
                (0, kernel // 2, kernel // 2),
                bias=False,
            ),
            group_norm(midplanes),
            nn.ReLU(inplace=True),
            nn.Conv3d(midplanes, out_planes, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
            group_norm(out_planes),
        )


def group_norm(planes: int) -> nn.GroupNorm:
    """Norm in groups of eight planes: it needs no statistics of other snippets."""
    return nn.GroupNorm(planes // 8, planes)


class TinyBlock(nn.Module):
    """A 2+1 convolution with a shortcut around it."""

    def __init__(self, in_planes: int, planes: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = TinyConv(in_planes, planes, planes, stride)
        time, space = stride
        self.downsample = nn.Sequential(
            nn.Conv3d(in_planes, planes, 1, (time, space, space), bias=False), group_norm(planes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Strided: [n, c, f, h, w] -> [n, planes, f / time stride, h / space stride, ...]."""
        return torch.relu_(self.conv(x).add_(self.downsample(x)))


class TinyR2Plus1D(StagedEncoder):
    """An R(2+1)D small enough to be trained end to end on a laptop (this project's definition).

    Made for snippets of 8 frames of 48x48 pixels. Group norm makes a feature independent of the
    chunk it is encoded in, in training too. One convolution a stage, early spatial strides and the
    channels-last layout keep a forward pass below a millisecond on one core.

    Args:
        widths: planes of the four stages, multiples of 8; the last is C.

    Attributes:
        feature_mean: [C], and `feature_std` [C]: the fixed statistics that standardise a feature,
            measured once after pre-training; part of the weights.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 24, 32, 48)) -> None:
        super().__init__()
        self.channels = widths[-1]
        self.stem = nn.Sequential(TinyConv(3, 8, widths[0], (1, 2), kernel=5), nn.ReLU(True))
        strides = ((1, 2), (2, 2), (2, 2), (2, 1))
        in_planes = widths[0]
        for index, (planes, stride) in enumerate(zip(widths, strides, strict=True), start=1):
            setattr(self, f"layer{index}", TinyBlock(in_planes, planes, stride))
            in_planes = planes
        self.register_pixel_statistics()
        self.register_buffer("feature_mean", torch.zeros(self.channels))
        self.register_buffer("feature_std", torch.ones(self.channels))
        self.to(memory_format=torch.channels_last_3d)

    def normalise(self, frames: Tensor) -> Tensor:
        """Normalise as `StagedEncoder` does, in the channels-last layout."""
        return super().normalise(frames).contiguous(memory_format=torch.channels_last_3d)

    def pool(self, x: Tensor) -> Tensor:
        """Average over time, height and width, then standardise: [n, C, f, h, w] -> [n, C]."""
        return (super().pool(x) - self.feature_mean) / self.feature_std
