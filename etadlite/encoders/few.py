"""Training few of an encoder's parameters: its norms, its last stage, or adapters.

Few parameters need little memory: gradients and AdamW's averages are three times what is trained.
What is frozen may be kept in bf16, which halves it; what is trained stays in fp32.

Adapters are zero at first, so that an encoder begins with the features that it had. Each belongs to
one layer, so a snippet's feature still depends on its own frames only. There are two kinds: a
low-rank product beside a frozen layer, which is merged into it for inference (Hu et al., "LoRA:
low-rank adaptation of large language models", ICLR 2022), and a bottleneck behind it (Houlsby et
al., "Parameter-efficient transfer learning for NLP", ICML 2019). Training the norms alone is after
Frankle et al. ("Training BatchNorm and only BatchNorm", ICLR 2021); the statistics of batch norm
stay as they are.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from etadlite.base.devices import at_least_float32
from etadlite.base.errors import InputError, did_you_mean
from etadlite.config import ENCODERS, EncoderSettings, Settings
from etadlite.encoders.staged import StagedEncoder, freeze

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
KINDS = ("image", "timm")  # of encoders that are named KIND:NAME
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def train_few(encoder: StagedEncoder, settings: EncoderSettings, *, pretrained: bool) -> None:
    """Leave what `encoder.train` names trainable, and freeze the rest, in place.

    What `encoder.frozen_stages` freezes stays frozen.

    Raises:
        InputError: nothing is left to train; a layer is not there; `pretrained` weights are
            random, so that nothing could make the frozen ones again; or bf16 is asked for although
            all is trained.
    """
    if settings.train == "all":
        raise InputError(
            "encoder.frozen_dtype=bf16 rounds weights that are not trained; it needs "
            "encoder.train=adapters, head or norms"
        )
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
        kind = {"lora": LowRank, "bottleneck": Bottleneck}[settings.adapter_kind]
        add_adapters(encoder, settings.adapter_rank, settings.adapter_layers, kind)
    if not any(p.requires_grad for p in encoder.parameters()):
        raise InputError(
            f"encoder.train={settings.train} leaves nothing to train in {settings.name} with "
            f"encoder.frozen_stages={settings.frozen_stages}; lower it, or choose another"
        )
    if settings.frozen_dtype == "bf16":
        round_frozen(encoder)


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


def round_frozen(encoder: nn.Module) -> None:
    """Keep the weights of frozen linear and convolution layers in bf16, in place.

    Norms, biases and position embeddings, which are small, stay as they are. The encoder then
    computes under autocast to bf16 alone.
    """
    for module in encoder.modules():
        if isinstance(module, Layer) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.bfloat16()


def in_bf16(settings: Settings) -> Settings:
    """Return settings with frozen weights in bf16 whose steps compute in bf16.

    Raises:
        InputError: they ask for fp32.
    """
    if settings.training.precision == "fp32":
        raise InputError(
            "encoder.frozen_dtype=bf16 computes in bf16, but training.precision is fp32; set it to "
            "bf16, or encoder.frozen_dtype to fp32"
        )
    return settings.changed({"training.precision": "bf16"})


class LowRank(nn.Module):
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
        how: Any = {"device": wide.device, "dtype": wide.dtype, "bias": False}
        self.up = _across_channels(wide.ndim, rank, outputs, **how)
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


class Bottleneck(nn.Module):
    """A frozen linear or convolution layer with a bottleneck behind it: y + B relu(A y), y = W x.

    A and B mix the channels of a position, and nothing else.

    Args:
        layer: the layer, of whatever subclass; it is frozen.
        rank: the number of channels between A and B.
    """

    def __init__(self, layer: Layer, rank: int) -> None:
        super().__init__()
        self.base = layer.requires_grad_(False)
        wide, outputs = layer.weight, layer.weight.shape[0]
        how: Any = {"device": wide.device, "dtype": wide.dtype}
        self.down = _across_channels(wide.ndim, outputs, rank, **how)
        self.up = _across_channels(wide.ndim, rank, outputs, **how)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def weight(self) -> Tensor:
        """There is none that stands for both.

        Raises:
            InputError: the network hands it to a function, as torchvision's Swin attention does.
        """
        raise InputError(
            "encoder.adapter_kind=bottleneck: this network hands the weights of a layer to a "
            "function, so that nothing can stand behind the layer; name other layers with "
            "encoder.adapter_layers, or set encoder.adapter_kind=lora"
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y + self.up(self.down(y).relu())


Adapter = LowRank | Bottleneck


def _across_channels(ndim: int, inputs: int, outputs: int, **how: Any) -> Layer:
    """Return a layer across channels for activations of a layer whose weight has `ndim` axes."""
    kind = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[ndim]
    return kind(inputs, outputs, **({} if ndim == 2 else {"kernel_size": 1}), **how)


def add_adapters(
    encoder: StagedEncoder,
    rank: int,
    layers: Sequence[str] = (),
    kind: type[Adapter] = LowRank,
) -> None:
    """Add adapters to linear and convolution layers after the frozen stages; freeze all else.

    Args:
        encoder: changed in place; its features stay the same at first.
        rank: the channels of an adapter.
        layers: names of layers, or parts between the dots of names, such as layer4; none: all.
            Convolutions in groups have few weights and get no adapters.
        kind: of the adapters.

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
            _replace(encoder, name, kind(module, rank))


@torch.no_grad()
def merge_adapters(encoder: nn.Module) -> None:
    """Put low-rank adapters into the weights of their layers, in place, for the usual inference.

    Weights that were kept in bf16 are in fp32 again, so that the sums are not rounded. A bottleneck
    stays behind its layer: it is no linear map.
    """
    for name, module in [*encoder.named_modules()]:
        if isinstance(module, LowRank):
            module.base.weight.data = module.weight.data
            _replace(encoder, name, module.base)
    for parameter in encoder.parameters():
        parameter.data = at_least_float32(parameter.data)


def _replace(encoder: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(encoder.get_submodule(parent), leaf, module)


def _trained_modules(encoder: StagedEncoder) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and modules after the frozen stages."""
    for stage in encoder.stage_names[encoder.prefix_length() :]:
        yield from getattr(encoder, stage).named_modules(prefix=stage)


def _is_part(layer: str, name: str) -> bool:
    return f".{layer}." in f".{name}."
