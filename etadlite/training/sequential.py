"""Sequential snippet encoding with sampled gradients: the heart of ETAD (paper, section 3.4).

A long video is encoded chunk after chunk without gradient, so memory does not grow with it. When
the loss's gradient reaches the features, a sampled part of the snippets is encoded once more, this
time with gradient, and the feature gradient is pushed through them into the encoder.
"""

from typing import Any

import torch
from torch import Tensor, nn

from etadlite.encoders.extract import encode_in_chunks
from etadlite.errors import InputError
from etadlite.sampling.snippets import (
    SnippetContext,
    SnippetStrategy,
    random_snippets,
    snippet_count,
)


class SequentialEncoder(nn.Module):
    """Encodes videos of any length in the memory of one chunk: [B, N, 3, F, H, W] -> [B, C, N].

    It is used like any module: what follows is trained by `loss.backward()`, which also gives the
    encoder its gradient, from the sampled snippets. At ratio 1 that gradient equals plain
    back-propagation. Frames may lie on another device than the encoder; they are moved chunk by
    chunk.

    Args:
        encoder: uint8 [n, 3, F, H, W] -> [n, C]; a snippet's feature must not depend on the others
            of its chunk (batch norm in eval mode).
        chunk_size: snippets encoded at once.
        sampler: picks the snippets that get a gradient.
        ratio: their share of all snippets, above 0 and at most 1; 0 keeps the encoder frozen.
    """

    def __init__(
        self,
        encoder: nn.Module,
        chunk_size: int,
        sampler: SnippetStrategy = random_snippets,
        ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1 snippet, not {chunk_size}")
        if not 0 <= ratio <= 1:
            raise InputError(f"the snippet ratio must lie between 0 and 1, not {ratio}")
        self.encoder = encoder
        self.chunk_size = chunk_size
        self.sampler = sampler
        self.ratio = ratio

    def forward(self, frames: Tensor) -> Tensor:
        """Encode every snippet of uint8 frames [B, N, 3, F, H, W] into features [B, C, N]."""
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        if self.ratio == 0 or not trained or not torch.is_grad_enabled():
            return self.encode(frames)
        return _SampledGradient.apply(self, frames, *trained)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode chunk after chunk without gradient: [B, N, 3, F, H, W] -> float32 [B, C, N]."""
        return encode_in_chunks(self.encoder, frames, self.chunk_size)

    def replay(
        self, frames: Tensor, features: Tensor, gradient: Tensor, trained: list[Tensor]
    ) -> list[Tensor]:
        """Push the feature gradient of sampled snippets through the encoder.

        Args:
            frames: uint8 [B, N, 3, F, H, W].
            features: [B, C, N] as encoded.
            gradient: [B, C, N] the loss's gradient at the features.
            trained: the encoder's parameters that get a gradient.

        Returns:
            One gradient a parameter, summed over the sampled snippets.
        """
        device = features.device
        batch, _, snippets = features.shape
        count = snippet_count(snippets, self.ratio)
        picked = self.sampler(SnippetContext(features, gradient), count)  # [B, count]
        rows = torch.arange(batch, device=device)[:, None] * snippets + picked  # of [B * N]
        rows = rows.flatten()
        pushed = gradient.transpose(1, 2).flatten(0, 1)[rows]  # [B * count, C]
        snippets_of_all = frames.flatten(0, 1)
        sums = [torch.zeros_like(parameter) for parameter in trained]
        for chunk, push in zip(
            rows.to(frames.device).split(self.chunk_size),
            pushed.split(self.chunk_size),
            strict=True,
        ):
            with torch.enable_grad():
                encoded = self.encoder(snippets_of_all[chunk].to(device))
            # A parameter that the encoder does not use has no gradient.
            gradients = torch.autograd.grad(
                encoded, trained, push.to(encoded.dtype), materialize_grads=True
            )
            torch._foreach_add_(sums, gradients)
        return sums


class _SampledGradient(torch.autograd.Function):
    """The second and third pass behind the ordinary interface of autograd."""

    @staticmethod
    def forward(ctx: Any, module: SequentialEncoder, frames: Tensor, *trained: Tensor) -> Tensor:
        features = module.encode(frames)
        ctx.module = module
        ctx.save_for_backward(frames, features, *trained)
        kind = trained[0].device.type
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        return features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, features, *trained = ctx.saved_tensors
        # The replay repeats the first pass, so it runs under the same autocast.
        with torch.autocast(**ctx.autocast):
            return None, None, *ctx.module.replay(frames, features, gradient, trained)
