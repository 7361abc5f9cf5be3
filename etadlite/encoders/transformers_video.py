"""Transformers' video networks as encoders, without their classification heads.

Attention stays inside a snippet. Their positions fit the snippets of the published weights, so
snippets of other sizes are refused.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from etadlite.base.devices import at_least_float32
from etadlite.base.errors import InputError
from etadlite.config import ENCODERS
from etadlite.encoders.staged import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pixel,
    StagedEncoder,
)
from etadlite.encoders.torchvision_video import GREY_MEAN, GREY_STD

CENTRED: Pixel = (127.5, 127.5, 127.5)  # as mean and as deviation: pixels from -1 to 1

Sizes = Mapping[str, Any]


def videomae(sizes: Sizes) -> StagedEncoder:
    """Build a fine-tuned VideoMAE (Tong et al. 2022): the norm of the mean of all tokens."""
    net = _network("VideoMAE", sizes)
    body = net.videomae
    positions = body.embeddings.__dict__.pop("position_embeddings")  # no buffer there
    body.embeddings.register_buffer("position_embeddings", positions, persistent=False)
    stem = _Patches(body.embeddings, net.config.image_size, net.config.num_frames, None)
    last = nn.Sequential(_MeanOfTokens(), net.fc_norm)
    return _encoder(net, stem, body.encoder.layer, last)


def videomae_v2(sizes: Sizes) -> StagedEncoder:
    """Build the ViT of VideoMAE v2 (Wang et al. 2023): VideoMAE's with its own epsilon."""
    encoder: Any = videomae({"layer_norm_eps": 1e-6, **sizes})
    encoder.last[1].eps = 1e-6
    return encoder


def timesformer(sizes: Sizes) -> StagedEncoder:
    """Build TimeSformer with divided attention (Bertasius et al. 2021): its class token."""
    net = _network("Timesformer", sizes)
    body = net.timesformer
    stem = _Patches(body.embeddings, net.config.image_size, net.config.num_frames)
    last = nn.Sequential(body.layernorm, _FirstToken())
    return _encoder(net, stem, body.encoder.layer, last, mean=GREY_MEAN, std=GREY_STD)


def vivit(sizes: Sizes) -> StagedEncoder:
    """Build ViViT, model 1 (Arnab et al. 2021): its class token."""
    net = _network("Vivit", sizes)
    body = net.vivit
    stem = _Patches(body.embeddings, net.config.image_size, net.config.num_frames)
    last = nn.Sequential(body.layernorm, _FirstToken())
    return _encoder(net, stem, body.layers, last, mean=CENTRED, std=CENTRED)


def vjepa2(sizes: Sizes) -> StagedEncoder:
    """Build a fine-tuned V-JEPA 2 (Assran et al. 2025): its attentive pooler.

    Its rotary positions take any even number of frames.
    """
    net = _network("VJEPA2", sizes)
    body = net.vjepa2.encoder
    stem = _Patches(body.embeddings, net.config.crop_size, step=net.config.tubelet_size)
    last = nn.Sequential(body.layernorm, net.pooler)
    return _encoder(net, stem, body.layer, last)


class Network(NamedTuple):
    """A network with published weights."""

    build: Callable[[Sizes], StagedEncoder]
    sizes: Sizes  # what differs from the defaults of its configuration in transformers
    weights: Mapping[str, str]  # name -> repository of the hub
    licence: str  # of the weights


_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_MAE, _TIMES = "MCG-NJU/videomae", "facebook/timesformer-base-finetuned"
_NO_TRADE = "CC-BY-NC-4.0"

NETWORKS = {
    "videomae_b": Network(
        videomae,
        {},
        {"kinetics400": f"{_MAE}-base-finetuned-kinetics", "ssv2": f"{_MAE}-base-finetuned-ssv2"},
        _NO_TRADE,
    ),
    "videomae_l": Network(
        videomae, _LARGE, {"kinetics400": f"{_MAE}-large-finetuned-kinetics"}, _NO_TRADE
    ),
    "videomaev2_b": Network(videomae_v2, {}, {"published": "OpenGVLab/VideoMAEv2-Base"}, _NO_TRADE),
    "timesformer_b": Network(
        timesformer,
        {},
        {
            "kinetics400": f"{_TIMES}-k400",
            "kinetics600": f"{_TIMES}-k600",
            "ssv2": f"{_TIMES}-ssv2",
        },
        _NO_TRADE,
    ),
    "vivit_b": Network(vivit, {}, {"kinetics400": "google/vivit-b-16x2-kinetics400"}, "MIT"),
    "vjepa2_l": Network(
        vjepa2, {"frames_per_clip": 16}, {"ssv2": "facebook/vjepa2-vitl-fpc16-256-ssv2"}, "MIT"
    ),
}
"""The networks by name; their sizes are those of the published weights."""


def hub_encoder(name: str) -> StagedEncoder:
    """Build the network of this name.

    Raises:
        InputError: transformers is not installed.
    """
    try:
        return NETWORKS[name].build(NETWORKS[name].sizes)
    except ImportError as error:
        raise InputError(
            f'{name} needs transformers: pip install "etadlite[hf]" ({error})'
        ) from None


def recognise(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the network whose weights have these names and this width."""
    kinds = {"videomae.": videomae, "timesformer.": timesformer, "vivit.": vivit, "vjepa2.": vjepa2}
    builds = [build for start, build in kinds.items() if any(k.startswith(start) for k in weights)]
    if any(_ORIGINAL.match(name) for name in weights):
        builds = [videomae_v2]
    if not builds:
        return None
    patches = [v for k, v in weights.items() if re.search(r"patch_embed\w*\.proj\w*\.bias$", k)]
    for name, network in NETWORKS.items():
        width = ENCODERS[name].channels
        if network.build is builds[0] and [v.shape for v in patches] == [(width,)]:
            return name
    return None


# What the shapes of the weights don't show, and yet decides what they compute.
_DECISIVE = (
    *("num_attention_heads", "hidden_act", "layer_norm_eps", "use_mean_pooling"),
    *("attention_type", "image_size", "crop_size", "num_frames"),
)


def _network(kind: str, sizes: Sizes) -> Any:
    """Return a classification network with random weights."""
    import transformers  # takes seconds

    configuration = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}ForVideoClassification")(configuration)


def _encoder(
    net: Any,
    stem: nn.Module,
    blocks: nn.ModuleList,
    last: nn.Module,
    *,
    mean: Pixel = IMAGENET_MEAN,
    std: Pixel = IMAGENET_STD,
) -> StagedEncoder:
    """Return the parts of a network as an encoder: patches, block by block, and what pools."""
    stages = {"stem": stem}
    stages |= {f"block{number}": _Block(block) for number, block in enumerate(blocks, 1)}
    stages["last"] = last
    how = {"mean": mean, "std": std, "pool": at_least_float32, "like": net}
    encoder = StagedEncoder(stages, net.config.hidden_size, **how)
    encoder.translate = partial(_with_present_names, type(net), net.config)
    said = net.config.to_dict()
    encoder.configuration = {key: said[key] for key in _DECISIVE if key in said}
    return encoder


class _Patches(nn.Module):
    """A network's embeddings: [n, 3, F, H, W] -> tokens [n, t, c].

    It refuses other snippets than of `frames` frames (None: any multiple of `step`) of side `side`.
    """

    def __init__(
        self,
        embeddings: nn.Module,
        side: int,
        frames: int | None = None,
        *more: None,
        step: int = 1,
    ) -> None:
        super().__init__()
        self.embeddings, self.more = embeddings, more
        self.side, self.frames, self.step = side, frames, step

    def forward(self, x: Tensor) -> Tensor:
        frames, *size = x.shape[2:]
        fits = frames % self.step == 0 if self.frames is None else frames == self.frames
        if not fits or size != [self.side] * 2:
            few = f"multiples of {self.step}" if self.frames is None else self.frames
            raise ValueError(f"it takes {few} frames of {self.side}x{self.side} pixels alone")
        return self.embeddings(x.transpose(1, 2), *self.more)


class _Block(nn.Module):
    """A block without what it returns besides tokens."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        return result[0] if isinstance(result, tuple) else result


class _MeanOfTokens(nn.Module):
    """[n, t, c] -> [n, c]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class _FirstToken(nn.Module):
    """[n, t, c] -> [n, c]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


_ORIGINAL = re.compile(r"(?:model\.)?(?:encoder\.)?blocks\.(\d+)\.(.+)")
_ORIGINAL_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "attn.q_bias": "attention.attention.q_bias",
    "attn.v_bias": "attention.attention.v_bias",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _with_present_names(
    kind: Any, configuration: Any, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return published weights with the names that the installed transformers gives them.

    It renames those of its older versions itself. Heads of other classes are left out.
    """
    weights = {_renamed(name): value for name, value in _split(weights)}
    how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with _quiet():
        net, found = kind.from_pretrained(None, config=configuration, state_dict=weights, **how)
    shapes = {name: shape for name, shape, _ in found["mismatched_keys"]}
    left = {name: weights[name] for name in found["unexpected_keys"] if name in weights}
    wrong = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    read = net.state_dict().keys() - set(found["missing_keys"])
    return {k: v for k, v in net.state_dict().items() if k in read} | left | wrong


def _split(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights; queries, keys and values of the original code's blocks one by one."""
    for name, value in weights.items():
        if _ORIGINAL.match(name) and name.endswith(".attn.qkv.weight"):
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                yield (
                    f"{name.removesuffix('attn.qkv.weight')}attention.attention.{part}.weight",
                    rows,
                )
        else:
            yield name, value


def _renamed(name: str) -> str:
    """Return a name of the code of VideoMAE and VideoMAE v2 as transformers' VideoMAE has it."""
    bare = name.removeprefix("model.")
    if bare.startswith("patch_embed.proj."):
        return f"videomae.embeddings.patch_embeddings.projection.{bare.rpartition('.')[2]}"
    if bare.startswith("fc_norm."):
        return bare
    block = _ORIGINAL.match(name)
    if block is None:
        return name
    number, rest = block.groups()
    for theirs, ours in _ORIGINAL_PARTS.items():
        rest = rest.replace(theirs, ours) if rest.startswith(theirs) else rest
    return f"videomae.encoder.layer.{number}.{rest}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing a report and a bar for weights that are in memory."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
