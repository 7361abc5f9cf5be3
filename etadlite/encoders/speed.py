"""Which number format and memory layout an encoder is fastest in: measured, never assumed.

Half precision pays on processors that multiply in it (AMX, AVX512-bf16, GPUs of the last years)
and only for encoders large enough; elsewhere it is several times slower than single precision.
"""

import time
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16"]

WORTHWHILE = 1.2
"""How many times faster a variant must be than the plain one to be chosen."""


class Variant(NamedTuple):
    """A way to compute.

    Attributes:
        precision: of convolutions and matrix products; the weights stay fp32.
        channels_last: whether the channels of a pixel lie beside each other in memory.
    """

    precision: Precision = "fp32"
    channels_last: bool = False


VARIANTS = (Variant(), Variant("fp32", True), Variant("bf16", True))


def use_layout(encoder: nn.Module, channels_last: bool) -> nn.Module:
    """Lay out an encoder's weights in place; the activations follow them."""
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    return encoder.to(memory_format=layout)


def compile_parts(encoder: nn.Module, **options: object) -> nn.Module:
    """Compile an encoder's frozen prefix and its suffix, in place, with `torch.compile`."""
    encoder.encode_prefix = torch.compile(encoder.encode_prefix, **options)
    encoder.encode_suffix = torch.compile(encoder.encode_suffix, **options)
    return encoder


@torch.no_grad()
def seconds_a_pass(
    encoder: nn.Module, frames: Tensor, variants: tuple[Variant, ...] = VARIANTS, repeats: int = 3
) -> dict[Variant, float]:
    """The least seconds that a pass without gradient takes in each variant.

    The variants take turns, so that whatever else the machine does meets all of them; each runs
    once before, unmeasured. The encoder's layout is left as the last variant's.

    Args:
        encoder: uint8 [n, 3, F, H, W] -> [n, C].
        frames: uint8 [n, 3, F, H, W], on the encoder's device.
        variants: what is compared.
        repeats: measured passes of each.
    """
    device = frames.device
    seconds = dict.fromkeys(variants, float("inf"))
    for turn in range(repeats + 1):
        for variant in variants:
            use_layout(encoder, variant.channels_last)
            half = variant.precision == "bf16"
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                started = time.perf_counter()
                encoder(frames).sum().item()  # .item() waits for a GPU
                taken = time.perf_counter() - started
            if turn:
                seconds[variant] = min(seconds[variant], taken)
    return seconds


def fastest(seconds: dict[Variant, float]) -> Variant:
    """The fastest variant; the first one unless another is clearly faster."""
    plain = next(iter(seconds))
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[plain] >= WORTHWHILE * seconds[best] else plain


def gradient_agrees(encoder: nn.Module, frames: Tensor, variant: Variant) -> bool:
    """Whether a variant's gradient points where that of fp32 does, to a cosine of 0.98.

    Half precision is new in some kernels, and not in all of them right.
    """
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if not trained:
        return True
    use_layout(encoder, variant.channels_last)
    push = torch.randn(len(frames), encoder.channels, device=frames.device)
    gradients = []
    for precision in ("fp32", variant.precision):
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = encoder(frames)
        parts = torch.autograd.grad(features, trained, push.to(features.dtype))
        gradients.append([part.float().flatten() for part in parts])
    return all(
        torch.cosine_similarity(exact, other, dim=0) > 0.98
        for exact, other in zip(*gradients, strict=True)
        if exact.abs().max() > 1e-6 * push.abs().max()
    )
