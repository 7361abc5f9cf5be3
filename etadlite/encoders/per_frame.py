"""Image networks as encoders: every frame by itself, and the mean over a snippet's frames.

With temporal shift (TSM, Lin et al. 2019) the frames of a snippet see their neighbours: before the
first convolution of every residual block, an eighth of the channels comes from the frame before and
an eighth from the frame after. Snippets stay independent of each other.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import ConvNeXt, EfficientNet, MobileNetV2, MobileNetV3, ResNet

from etadlite.base.errors import InputError, did_you_mean
from etadlite.encoders.staged import IMAGENET_MEAN, IMAGENET_STD, Pixel, StagedEncoder, average


def torchvision_image(name: str, *, temporal_shift: bool) -> StagedEncoder:
    """Build an image network of torchvision, without weights and without its head.

    Raises:
        InputError: torchvision has no such network, or its stages are not known here.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f'torchvision has no image network "{name}"{did_you_mean(name, known)}')
    return per_frame(models.get_model(name, weights=None), name, temporal_shift=temporal_shift)


def timm_image(name: str, *, temporal_shift: bool) -> StagedEncoder:
    """Build an image network of timm, without weights and without its head.

    Raises:
        InputError: timm is not installed or has no such network, or its stages are not known here.
    """
    try:
        import timm
    except ImportError:
        raise InputError(f'timm:{name} needs timm: pip install "etadlite[timm]"') from None
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise InputError(f'timm has no image network "{name}"{near}')
    net = timm.create_model(name, pretrained=False)
    pixels = {key: tuple(255 * v for v in net.default_cfg[key]) for key in ("mean", "std")}
    if name.startswith("tf_efficientnet_lite"):  # as its weights were trained: (x - 127) / 128
        pixels = {"mean": (127.0,) * 3, "std": (128.0,) * 3}
    return per_frame(net, name, temporal_shift=temporal_shift, **pixels)


def per_frame(
    net: nn.Module,
    name: str,
    *,
    temporal_shift: bool = False,
    mean: Pixel = IMAGENET_MEAN,
    std: Pixel = IMAGENET_STD,
) -> StagedEncoder:
    """Return an image network as an encoder of snippets.

    Raises:
        InputError: its stages are not known here, or it has no residual blocks for the shift.
    """
    shift = None
    if temporal_shift:
        shift = TemporalShift()
        convolutions = list(_first_convolutions(net))
        if not convolutions:
            raise InputError(f"{name} has no residual blocks of convolutions to shift frames in")
        for convolution in convolutions:
            convolution.register_forward_pre_hook(shift)
    parts = _parts(net, name)
    names = ["stem", *(f"layer{number}" for number in range(1, len(parts)))]
    wrapped: list[nn.Module] = [PerFrame(part, shift) for part in parts]
    wrapped[0] = nn.Sequential(FramesFirst(), wrapped[0])
    stages = dict(zip(names, wrapped, strict=True))
    how = {"mean": mean, "std": std, "pool": _average_of_frames}
    return StagedEncoder(stages, _channels(parts), **how, like=net)


class FramesFirst(nn.Module):
    """[n, 3, F, H, W] -> [n, F, 3, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class TemporalShift:
    """Shifts an eighth of the channels to the next frame and an eighth to the one before.

    The first and the last frame keep what they have no neighbour for, where TSM puts zeros (this
    project's definition): a snippet in which nothing moves has the features of the image network.
    It is a hook that runs before a convolution [n * frames, c, h, w].
    """

    frames = 1

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        x = inputs[0].unflatten(0, (-1, self.frames))
        fold = x.shape[2] // 8
        moved = x.clone()
        moved[:, 1:, :fold] = x[:, :-1, :fold]
        moved[:, :-1, fold : 2 * fold] = x[:, 1:, fold : 2 * fold]
        return moved.flatten(0, 1)


class PerFrame(nn.Module):
    """A part of an image network for snippets: [n, F, c, h, w] -> [n, F, c', h', w']."""

    def __init__(self, part: nn.Module, shift: TemporalShift | None) -> None:
        super().__init__()
        self.part, self.shift = part, shift

    def forward(self, x: Tensor) -> Tensor:
        if self.shift is not None:
            self.shift.frames = x.shape[1]
        return self.part(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _parts(net: Any, name: str) -> list[nn.Module]:
    """Return the parts of an image network in their order, without its head."""
    if isinstance(net, EfficientNet | MobileNetV2 | MobileNetV3 | ConvNeXt):
        return list(net.features)
    if isinstance(net, ResNet):
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4]
    if all(hasattr(net, part) for part in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")):
        stem, head = nn.Sequential(net.conv_stem, net.bn1), nn.Sequential(net.conv_head, net.bn2)
        return [stem, *net.blocks, head]  # timm's EfficientNets
    if all(hasattr(net, part) for part in ("conv1", "act1", "layer4")):
        stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4]  # timm's ResNets
    raise InputError(
        f"the stages of {name} are not known: choose an EfficientNet, MobileNet, ConvNeXt or "
        "ResNet, or give it as an object, encoder.name=package.module:factory"
    )


def _first_convolutions(net: nn.Module) -> Iterator[nn.Module]:
    """Yield the first convolution of every residual block of torchvision's and timm's networks."""
    for module in net.modules():
        block: Any = module
        if type(module).__name__ in ("BasicBlock", "Bottleneck"):
            yield block.conv1
        elif getattr(module, "use_res_connect", False):
            yield (block.block if hasattr(module, "block") else block.conv)[0][0]
        elif getattr(module, "has_skip", False) and hasattr(module, "conv_pw"):
            yield block.conv_pw


@torch.no_grad()
def _channels(parts: list[nn.Module]) -> int:
    """Return the channels of the last part, found with a small frame of zeros."""
    net = nn.Sequential(*parts)
    training, _ = net.training, net.eval()
    x = net(torch.zeros(1, 3, 64, 64))
    net.train(training)
    return x.shape[1]


def _average_of_frames(x: Tensor) -> Tensor:
    return average(x.movedim(2, 1))
