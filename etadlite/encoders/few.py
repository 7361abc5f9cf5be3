"""Training few of an encoder's parameters: its norms, its last stage, or low-rank adapters.

Few parameters need little memory: gradients and AdamW's averages are three times what is trained.
Adapters are those of LoRA (Hu et al., "LoRA: low-rank adaptation of large language models", ICLR
2022): beside a frozen layer stands a product of two small ones, which is zero at first. Each
belongs to one layer, so a snippet's feature still depends on its own frames only. Training the
norms alone is after Frankle et al. ("Training BatchNorm and only BatchNorm", ICLR 2021); the
statistics of batch norm stay as they are.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from etadlite.base.errors import InputError, did_you_mean
from etadlite.config import ENCODERS, EncoderSettings
from etadlite.encoders.staged import StagedEncoder, freeze

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
KINDS = ("image", "timm")  # of encoders that are named KIND:NAME
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def train_few(encoder: StagedEncoder, settings: EncoderSettings, *, pretrained: bool) -> None:
    """Leave what `encoder.train` names trainable, and freeze the rest, in place.

    What `encoder.frozen_stages` freezes stays frozen.

    Raises:
        InputError: nothing is left to train; a layer is not there; or `pretrained` weights are
            random, so that nothing could make the frozen ones again.
    """
    by_name = settings.name != "tiny" and settings.name.partition(":")[0] in (*ENCODERS, *KINDS)
    if pretrained and by_name and settings.weights is None:
        raise InputError(
            f"encoder.train={settings.train} keeps random weights of {settings.name}, which no "
            "checkpoint would hold; name its weights with encoder.weights, or set encoder.train=all"
        )
    if settings.train == "head":
        train_head(encoder)
    elif settings.train == "norms":
        train_norms(encoder)
    elif settings.train == "adapters":
        add_adapters(encoder, settings.adapter_rank, settings.adapter_layers)
    if not any(p.requires_grad for p in encoder.parameters()):
        raise InputError(
            f"encoder.train={settings.train} leaves nothing to train in {settings.name} with "
            f"encoder.frozen_stages={settings.frozen_stages}; lower it, or choose another"
        )


def train_head(encoder: StagedEncoder) -> None:
    """Freeze all stages before the last one that has layers with weights; norms are no such layers.

    So the prefix that is kept for the third pass is as long as it can be.
    """
    stages = [getattr(encoder, name) for name in encoder.stage_names]
    weighty = [any(p.ndim > 1 for p in stage.parameters()) for stage in stages]
    first = max((n for n, has in enumerate(weighty) if has), default=0)
    first = max(first, encoder.prefix_length())
    freeze(encoder, first - 1 if first else None)


def train_norms(encoder: StagedEncoder) -> None:
    """Freeze all parameters except the scales and shifts of norms after the frozen stages."""
    norms = [module for _, module in _trained_modules(encoder) if isinstance(module, NORMS)]
    kept = {id(p) for norm in norms for p in norm.parameters() if p.requires_grad}
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in kept)


class Adapted(nn.Module):
    """A frozen linear or convolution layer with a low-rank adapter: y = W x + B (A x).

    `weight` is their sum W + B A, so that networks which hand the weights of a layer to a function,
    as torchvision's Swin attention does, train the adapter, too.

    Args:
        layer: the layer, of whatever subclass; it is frozen.
        rank: the number of channels between A and B.
    """

    def __init__(self, layer: Layer, rank: int) -> None:
        super().__init__()
        self.base = layer.requires_grad_(False)
        wide, (outputs, *inputs) = layer.weight, layer.weight.shape
        self.down = copy.deepcopy(layer)  # the same steps, paddings and rules
        self.down.register_parameter("bias", None)
        self.down.weight = nn.Parameter(wide.new_empty(rank, *inputs))
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)  # as PyTorch begins such layers
        kind = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[wide.ndim]
        narrow = (rank, outputs) if wide.ndim == 2 else (rank, outputs, 1)
        self.up = kind(*narrow, bias=False, device=wide.device, dtype=wide.dtype)
        nn.init.zeros_(self.up.weight)

    @property
    def weight(self) -> Tensor:
        """W + B A, with gradient at the adapter."""
        return self.base.weight + torch.tensordot(self.up.weight.flatten(1), self.down.weight, 1)

    @property
    def bias(self) -> Tensor | None:
        """The layer's own bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def add_adapters(encoder: StagedEncoder, rank: int, layers: Sequence[str] = ()) -> None:
    """Add adapters to linear and convolution layers after the frozen stages; freeze all else.

    Args:
        encoder: changed in place; its features stay the same at first.
        rank: the channels of an adapter.
        layers: names of layers, or parts between the dots of names, such as layer4; none: all.
            Convolutions in groups have few weights and get no adapters.

    Raises:
        InputError: a name is no such layer.
    """
    found = {
        name: module
        for name, module in _trained_modules(encoder)
        if isinstance(module, Layer) and getattr(module, "groups", 1) == 1
    }
    for layer in layers:
        if not any(_is_part(layer, name) for name in found):
            parts = dict.fromkeys(part for name in found for part in (*name.split("."), name))
            some = ", ".join([*found][:5]) + (", ..." if len(found) > 5 else "")
            raise InputError(
                f'encoder.adapter_layers: there is no linear or convolution layer "{layer}" after '
                f"the frozen stages{did_you_mean(layer, parts) or f'; there are {some}'}"
            )
    encoder.requires_grad_(False)
    for name, module in found.items():
        if not layers or any(_is_part(layer, name) for layer in layers):
            _replace(encoder, name, Adapted(module, rank))


@torch.no_grad()
def merge_adapters(encoder: nn.Module) -> None:
    """Put adapters into the weights of their layers, in place, for inference at the usual cost."""
    for name, module in [*encoder.named_modules()]:
        if isinstance(module, Adapted):
            module.base.weight.copy_(module.weight)
            _replace(encoder, name, module.base)


def _replace(encoder: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(encoder.get_submodule(parent), leaf, module)


def _trained_modules(encoder: StagedEncoder) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and modules after the frozen stages."""
    for stage in encoder.stage_names[encoder.prefix_length() :]:
        yield from getattr(encoder, stage).named_modules(prefix=stage)


def _is_part(layer: str, name: str) -> bool:
    return f".{layer}." in f".{name}."
