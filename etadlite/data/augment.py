"""Augmentation of training videos: one random draw for all snippets of a video."""

from torch import Tensor
from torchvision.transforms import v2


def centre_crop(frames: Tensor, side: int) -> Tensor:
    """Cut the central square out of frames [..., H, W] -> [..., side, side]."""
    return v2.functional.center_crop(frames, [side, side])


def augment(frames: Tensor, side: int, *, flip: bool, jitter: float) -> Tensor:
    """Crop, mirror and recolour at random, the same way for all frames of a video.

    Args:
        frames: uint8 [N, 3, F, H, W]; of the result H and W are `side`.
        side: pixels of the square that is cut out.
        flip: mirror half of the videos; wrong if left and right tell classes apart.
        jitter: 0..1, strength of the changes of brightness, contrast and saturation.
    """
    steps: list = [v2.RandomCrop(side)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if jitter:
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    # The transforms take pictures as [..., 3, H, W].
    return v2.Compose(steps)(frames.transpose(1, 2)).transpose(1, 2)
