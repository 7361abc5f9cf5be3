"""R(2+1)D-18 and -34, which TSP published for real videos."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from etadlite.encoders.staged import STAGES, StagedEncoder, TemporalConv


class Stem(R2Plus1dStem):
    """Torchvision's stem with our convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self[3] = TemporalConv.like(self[3])


class SharedPlanesConv(Conv2Plus1D):
    """Torchvision's 2+1 convolution: both convolutions of a block have equal mid planes."""

    def __init__(self, in_planes: int, out_planes: int, midplanes: int, *rest: int) -> None:
        super().__init__(in_planes, out_planes, midplanes, *rest)
        self[3] = TemporalConv.like(self[3])


class OwnPlanesConv(SharedPlanesConv):
    """A 2+1 convolution that computes its mid planes from its own planes.

    Their number keeps the parameters of a full 3x3x3 convolution (Tran et al. 2018, section 3.5).
    """

    def __init__(self, in_planes: int, out_planes: int, midplanes: int, *rest: int) -> None:
        midplanes = (in_planes * out_planes * 27) // (in_planes * 9 + out_planes * 3)
        super().__init__(in_planes, out_planes, midplanes, *rest)


class R2Plus1D(StagedEncoder):
    """R(2+1)D as TSP trained it (Alwassel et al. 2021), without its heads.

    Args:
        depth: 18 or 34.
        own_planes: True: mid planes per convolution, batch norm with eps 1e-3 and momentum 0.9
            (TSP's R(2+1)D-34). False: torchvision's planes, eps and momentum.

    Raises:
        ValueError: the depth is neither 18 nor 34.
    """

    blocks: ClassVar[dict[int, list[int]]] = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}

    def __init__(self, depth: int = 34, own_planes: bool = True) -> None:
        if depth not in self.blocks:
            raise ValueError(f"R(2+1)D comes with depth 18 or 34, not {depth}")
        convolution = OwnPlanesConv if own_planes else SharedPlanesConv
        net = VideoResNet(BasicBlock, [convolution] * 4, self.blocks[depth], Stem)
        super().__init__({name: getattr(net, name) for name in STAGES}, 512, like=net)
        if own_planes:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eps, module.momentum = 1e-3, 0.9


def from_tsp(state_dict: Mapping, *, prefix: str = "") -> R2Plus1D:
    """Build the encoder that TSP published from its state dict, in eval mode.

    Args:
        state_dict: name -> tensor, or the published file's outer dict, which holds it under
            ``model``. The prefixes ``module.`` and ``features.`` and the ``fc`` heads are dropped.
            The keys decide the depth and the mid planes.
        prefix: what precedes the names if the encoder is part of a larger checkpoint.

    Raises:
        InputError: the keys belong to no R(2+1)D-18 or -34; it lists the missing, left-over and
            wrong-shape ones with their names in the state dict.
    """
    from etadlite.encoders.published import load_tsp  # only conversion needs it

    return load_tsp(R2Plus1D, state_dict, prefix)
