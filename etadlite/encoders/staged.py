"""The contract of the encoders: uint8 snippets in, one feature per snippet out.

An encoder is a row of stages, cut into a frozen prefix and a trained suffix:
``forward(frames) = encode_suffix(encode_prefix(frames))``. It normalises its frames itself.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""The names of torchvision's residual networks, which most encoders here use."""

Pixel = tuple[float, float, float]

# Of Kinetics, in 0..255, as torchvision's video networks and TSP use them.
PIXEL_MEAN: Pixel = (110.2008, 100.63983, 95.99475)
PIXEL_STD: Pixel = (58.14765, 56.46975, 55.332195)

IMAGENET_MEAN: Pixel = (123.675, 116.28, 103.53)
IMAGENET_STD: Pixel = (58.395, 57.12, 57.375)


class StagedEncoder(nn.Module):
    """A video encoder in stages: uint8 [n, 3, F, H, W] -> [n, C].

    Args:
        stages: name -> module, in their order. The first one takes normalised frames
            [n, 3, F, H, W]; n stays the first axis of all activations.
        channels: C, the length of a feature.
        mean: of the red, green and blue pixels that the weights expect, in 0..255.
        std: their deviation.
        pool: last activations -> features [n, C], at least float32; None: the mean over all axes
            after the channels.
        like: a network with the same parameters, whose names published weights have. What it has
            besides, as a head, is left out when they are loaded.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor
    frozen_stages: int | None = None  # after the frozen first stage; None: nothing is frozen
    translate: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    """Published weights -> the same with the names of `like`, where they differ."""
    configuration: Mapping[str, Any] = MappingProxyType({})
    """What the configuration that is published with its weights must say."""

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        channels: int,
        *,
        mean: Pixel = PIXEL_MEAN,
        std: Pixel = PIXEL_STD,
        pool: Callable[[Tensor], Tensor] | None = None,
        like: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.stage_names = channels, tuple(stages)
        self._pool = pool or average
        for name, stage in stages.items():
            self.add_module(name, stage)
        shape = (1, 3, 1, 1, 1)
        scale = 1 / torch.tensor(std).view(shape)
        self.register_buffer("pixel_scale", scale, persistent=False)
        shift = -torch.tensor(mean).view(shape) / torch.tensor(std).view(shape)
        self.register_buffer("pixel_shift", shift, persistent=False)
        theirs = {} if like is None else like.state_dict(keep_vars=True)
        names = {id(value): name for name, value in theirs.items()}
        ours = self.state_dict(keep_vars=True).items()
        self.published = {names[id(value)]: name for name, value in ours if id(value) in names}
        self.published_heads = theirs.keys() - self.published.keys()
        self.train()

    def normalise(self, frames: Tensor) -> Tensor:
        """Normalise uint8 frames [n, 3, F, H, W]; the result has autocast's dtype where it is on.

        Raises:
            TypeError: the frames are not uint8; they may have been normalised before.
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
        """Return the number of frozen stages, the first one included; 0 if nothing is frozen."""
        return 0 if self.frozen_stages is None else 1 + self.frozen_stages

    def encode_prefix(self, frames: Tensor) -> Tensor:
        """Run the frozen part, whose output does not change during a training.

        Args:
            frames: uint8 [n, 3, F, H, W].

        Returns:
            Activations [n, ...]. If nothing is frozen, the uint8 frames themselves, since this is
            the smallest form in which they can be kept.
        """
        length = self.prefix_length()
        return self._run(self.normalise(frames), 0, length) if length else frames

    def encode_suffix(self, x: Tensor) -> Tensor:
        """Run the rest on the output of `encode_prefix`: features [n, C]."""
        length = self.prefix_length()
        return self.pool(self._run(x if length else self.normalise(x), length))

    def forward(self, frames: Tensor) -> Tensor:
        """Encode snippets: uint8 [n, 3, F, H, W] -> features [n, C]."""
        return self.encode_suffix(self.encode_prefix(frames))

    def pool(self, x: Tensor) -> Tensor:
        """Turn the last activations into features [n, C]."""
        return self._pool(x)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except of batch norm, which stays in eval mode.

        A snippet's feature must not depend on the other snippets of its chunk.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _run(self, x: Tensor, first: int, last: int | None = None) -> Tensor:
        for name in self.stage_names[first:last]:
            x = getattr(self, name)(x)
        return x


class TemporalConv(nn.Conv3d):
    """A convolution over time alone, without bias: [n, c, f, h, w] -> [n, planes, f', h, w].

    It is computed as one over frames and the pixels of a frame in a row, which is the same and
    faster, above all for few snippets (tests/benchmarks/convolutions.py).

    If there are fewer frames than its kernel spans, the CPU's bf16 weight gradient is wrong or NaN
    (2 frames, kernel 3). With frames of zeros instead of padding it is right.
    """

    @classmethod
    def like(cls, conv: nn.Conv3d) -> Self:
        """Make one with the sizes of another convolution over time."""
        planes = conv.in_channels, conv.out_channels
        return cls(*planes, conv.kernel_size, conv.stride, conv.padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, frames = x.flatten(3), int(self.padding[0])
        if x.shape[2] < self.kernel_size[0]:
            rows, frames = nn.functional.pad(rows, (0, 0, frames, frames)), 0
        how = None, self.stride[:2], (frames, 0)
        return nn.functional.conv2d(rows, self.weight.squeeze(-1), *how).unflatten(3, x.shape[3:])


def average(x: Tensor) -> Tensor:
    """Average over all axes after the channels: [n, C, ...] -> [n, C], at least float32."""
    return x.mean(tuple(range(2, x.ndim)), dtype=torch.promote_types(x.dtype, torch.float32))


def freeze(encoder: StagedEncoder, stages: int | None) -> StagedEncoder:
    """Freeze the first stage (the stem) and `stages` further ones in place, and unfreeze the rest.

    None freezes nothing. Frozen parameters lose their gradients.

    Raises:
        ValueError: the encoder has fewer stages.
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
