"""What makes an encoder fast or small: dtype and memory layout, compiled or checkpointed parts.

bf16 pays only on processors that multiply in it (AMX, AVX512-bf16, recent GPUs) and only for large
encoders. Elsewhere it is several times slower than fp32.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etadlite.config import Settings
from etadlite.encoders.staged import StagedEncoder

Precision = Literal["fp32", "bf16"]

WORTHWHILE = 1.2
"""How many times faster than the first variant a variant must be to be chosen."""


class Variant(NamedTuple):
    """A way to compute."""

    precision: Precision = "fp32"  # of convolutions and matrix products; the weights stay fp32
    channels_last: bool = False  # True if the channels of a pixel are neighbours in memory


VARIANTS = (Variant(), Variant("fp32", True), Variant("bf16", True))


def measured_speed(probe: StagedEncoder, settings: Settings) -> Settings:
    """Replace `auto` by the fastest dtype and layout of the settings' encoder.

    They are measured on one snippet with `probe`, such an encoder with any weights.
    """
    encoder, precision = settings.encoder, settings.training.precision
    layouts = (False, True) if encoder.channels_last is None else (encoder.channels_last,)
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if precision == "auto" else (precision,)
    variants = tuple(Variant(p, layout) for p in precisions for layout in layouts)
    size = (1, 3, settings.data.frames, settings.data.crop, settings.data.crop)
    device = next(probe.parameters()).device
    frames = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    seconds = seconds_per_snippet(probe, frames, settings.sampling.snippet_ratio, variants)
    best = fastest(seconds)
    if best.precision != variants[0].precision and not gradient_agrees(probe, frames, best):
        best = fastest({v: s for v, s in seconds.items() if v.precision == "fp32"})
    return settings.changed(
        {"training.precision": best.precision, "encoder.channels_last": best.channels_last}
    )


def seconds_per_snippet(
    encoder: StagedEncoder,
    frames: Tensor,
    ratio: float,
    variants: tuple[Variant, ...] = VARIANTS,
    repeats: int = 3,
) -> dict[Variant, float]:
    """Measure the shortest time that a training step takes per snippet in each variant.

    It is the time of the first pass plus `ratio` times that of the third: what is fast without
    gradient may be slow with it, as depthwise convolutions in bf16 are on CPUs.

    The variants take turns, so that other work on the machine slows all of them alike. Each runs
    once before it is measured. The encoder keeps the layout of the last variant. Frames are uint8
    [n, 3, F, H, W], on the encoder's device.
    """
    trained = [p for p in encoder.parameters() if p.requires_grad] if ratio else []
    seconds = dict.fromkeys(variants, float("inf"))
    for turn in range(repeats + 1):
        for variant in variants:
            use_layout(encoder, variant.channels_last)
            half = variant.precision == "bf16"
            with torch.autocast(frames.device.type, torch.bfloat16, enabled=half):
                started = time.perf_counter()
                with torch.no_grad():
                    kept = encoder.encode_prefix(frames)
                    encoder.encode_suffix(kept).sum().item()  # .item() waits for a GPU
                taken = time.perf_counter() - started
                if trained:
                    started = time.perf_counter()
                    found = torch.autograd.grad(encoder.encode_suffix(kept).sum(), trained)
                    found[0].sum().item()
                    taken += ratio * (time.perf_counter() - started)
            if turn:
                seconds[variant] = min(seconds[variant], taken / len(frames))
    return seconds


def fastest(seconds: dict[Variant, float]) -> Variant:
    """Return the fastest variant, or the first one if no other is clearly faster."""
    plain = next(iter(seconds))
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[plain] >= WORTHWHILE * seconds[best] else plain


def gradient_agrees(encoder: StagedEncoder, frames: Tensor, variant: Variant) -> bool:
    """Return True if a variant's gradient has a cosine above 0.98 with that of fp32.

    Some bf16 kernels are new, and not all of them are right.
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


def use_layout(encoder: nn.Module, channels_last: bool) -> None:
    """Change the memory layout of an encoder's weights; its activations follow them."""
    for parameter in encoder.parameters():
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
        if last is not None:
            layout = last if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=layout)


def checkpoint_blocks(encoder: StagedEncoder) -> None:
    """Let autograd keep what enters the blocks of the trained stages, in place, but nothing more.

    A block is computed once more when its gradient is due. Blocks are what stages are a sequence
    of. Gradients stay the same to the bit, and so does what is drawn, as by dropout.
    """
    for name in encoder.stage_names[encoder.prefix_length() :]:
        for block in _blocks(getattr(encoder, name)):
            block.forward = partial(_checkpointed, block.forward)


def _blocks(stage: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of a stage that have weights."""
    if type(stage) is nn.Sequential:
        for part in stage:
            yield from _blocks(part)
    elif any(True for _ in stage.parameters()):
        yield stage


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def compile_parts(encoder: StagedEncoder, backend: str = "inductor") -> None:
    """Compile an encoder's frozen prefix and its suffix in place with `torch.compile`."""
    for part in ("encode_prefix", "encode_suffix"):
        setattr(encoder, part, torch.compile(getattr(encoder, part), backend=backend))
