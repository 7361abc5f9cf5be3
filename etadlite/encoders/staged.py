"""The contract of the encoders here: uint8 snippets in, one feature per snippet out.

An encoder is a stem and stages in a row, cut into a frozen prefix and a trained suffix:
``forward(frames) = encode_suffix(encode_prefix(frames))``. It normalises its frames itself.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

PIXEL_MEAN = (110.2008, 100.63983, 95.99475)
PIXEL_STD = (58.14765, 56.46975, 55.332195)


class StagedEncoder(nn.Module):
    """Base of the encoders; a subclass defines ``stem`` and ``layer1`` .. ``layer4``."""

    channels: int  # C, the length of a feature
    frozen_stages: int | None = None  # frozen stages after the frozen stem; None: none is frozen
    stage_names: ClassVar[tuple[str, ...]] = ("stem", "layer1", "layer2", "layer3", "layer4")
    pixel_scale: Tensor
    pixel_shift: Tensor

    def register_pixel_statistics(self) -> None:
        """Keep the pixel mean and deviation as buffers that are not part of the weights."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        self.register_buffer("pixel_scale", 1 / std, persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

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
        """Return the number of frozen parts, with the stem; 0 if nothing is frozen."""
        return 0 if self.frozen_stages is None else 1 + self.frozen_stages

    def encode_prefix(self, frames: Tensor) -> Tensor:
        """Run the frozen part, whose output does not change during a training.

        Args:
            frames: uint8 [n, 3, F, H, W].

        Returns:
            Activations [n, c, f, h, w]. If nothing is frozen, the uint8 frames themselves, since
            this is the smallest form in which they can be kept.
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
        """Average over time, height and width: [n, C, f, h, w] -> [n, C], at least float32."""
        return x.mean((2, 3, 4), dtype=torch.promote_types(x.dtype, torch.float32))

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except of batch norm, which stays in eval mode.

        A snippet's feature must not depend on the other snippets of its chunk.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eval()
        return self

    def _run(self, x: Tensor, first: int, last: int | None = None) -> Tensor:
        for name in self.stage_names[first:last]:
            x = getattr(self, name)(x)
        return x


def freeze(encoder: StagedEncoder, stages: int | None) -> StagedEncoder:
    """Freeze the stem and the first `stages` stages in place, and unfreeze the rest.

    None freezes nothing. Frozen parameters lose their gradients.

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
